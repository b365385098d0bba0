//! A node: builds every part, holds them together, and takes them down in order.
//!
//! Nothing is global, so several nodes can live in one process. What may refuse a start (ports, components, data
//! directory) is asked in an order that leaves nothing written when the answer is no.

mod banner;
mod guests;
mod membership;
#[cfg(feature = "sim")]
pub mod simulated;
mod threads;
mod turns;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use vnode_ring::rollout::gate::Thresholds;
use vnode_ring::{HashId, IndexError, NodeName, PlanId, RingError};

use self::membership::Membership;
use crate::config::{Config, StorageKind, SyncMode};
use crate::coordinator::resize::KeepRing;
use crate::coordinator::{Coordinator, Limits, Stamps, now_ms, transfers};
use crate::data_dir::{DataDir, DataDirError};
use crate::executor::Message;
use crate::executor::about::About;
use crate::executor::load::first_with_time;
use crate::library::Library;
use crate::metrics::Metrics;
use crate::net;
use crate::stats::{self, Stats};
use crate::store::{Acknowledge, DiskSettings, Durability, Engine, StoreError};
use crate::vnode::service::Service;
use crate::wasm::Placement;
use vnode_cluster::join::JoinError;
use vnode_cluster::tls::{Tls, TlsError};
use vnode_cluster::{Cluster, ClusterError};

pub use guests::{BUILT_IN, GuestError, inspect};

/// Time for the last HTTP answers of a node that ends.
const HTTP_END_WITHIN: Duration = Duration::from_secs(1);
/// How often a node that drains looks whether its vnodes are done.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// Why a node did not start. Says what, where and what next.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A guest cannot be served.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {purpose}\n  next: stop what listens there, or choose another port with --port or --{purpose}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `resp`, `http` or `peer`.
        purpose: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The data directory refuses.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The data directory belongs to another ring.
    #[error(
        "{setting} is {found} in the data directory {path}, and {wanted} is asked for\n  next: leave the setting out, or start a new cluster in another directory"
    )]
    OtherRing {
        /// The setting.
        setting: &'static str,
        /// What the directory says.
        found: String,
        /// What the settings say.
        wanted: String,
        /// The directory.
        path: String,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node cannot take part in its cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node that this one was to join does not let it.
    #[error(
        "cannot join through {address}: {source}\n  next: check the address, and that a member listens there; or leave --join out"
    )]
    Join {
        /// The address.
        address: String,
        /// Why not.
        source: Box<JoinError>,
    },
    /// The ring size is not one.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] RingError),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refuses something that every node needs.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> NodeError {
    move |source| NodeError::System { what, source }
}

/// What every part of a running node may look at.
pub struct Shared {
    /// Name of the node.
    pub name: NodeName,
    /// Random name of this start of the node, hexadecimal.
    pub run_id: String,
    /// Its settings.
    pub config: Config,
    /// Services, routing and executors.
    pub coordinator: Arc<Coordinator>,
    /// What the node knows of its cluster, and can ask of it.
    pub cluster: Arc<Cluster>,
    /// The plan that this node has shown last.
    pub shown_plan: Mutex<Option<PlanId>>,
    /// The last minutes, second by second.
    pub stats: Arc<Stats>,
    /// The store.
    pub engine: Arc<Engine>,
    /// Prometheus.
    pub metrics: Metrics,
    /// Addresses that clients use.
    pub addresses: Addresses,
    /// When it started.
    pub started: Instant,
    /// Where a front door asks for the end of the node.
    pub drain: tokio::sync::Notify,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Redis clients.
    pub resp: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// Other nodes.
    pub peer: SocketAddr,
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    control: Runtime,
    executors: Vec<JoinHandle<()>>,
    acceptor: tokio::task::JoinHandle<()>,
    end_http: oneshot::Sender<()>,
    http: tokio::task::JoinHandle<()>,
    started_in: Duration,
    new_directory: bool,
    /// Listened for from the start: whoever reads that the node is ready may end it at once.
    terminate: Signal,
    _data_dir: Arc<Mutex<DataDir>>,
}

impl Node {
    /// Starts a node and returns when all its vnodes are there.
    pub fn start(config: Config) -> Result<Node, NodeError> {
        let started = Instant::now();
        let (resp, http, peer) = (
            listen(config.resp, "resp")?,
            listen(config.http, "http")?,
            listen(config.peer, "peer")?,
        );
        let addresses = addresses(&resp, &http, &peer)?;
        let name = config.node_name(addresses.peer);
        let node = NodeName::new(&name)?;
        let tls = config.tls_dir.as_deref();
        let tls = tls.map(|directory| Tls::load(directory, &node));
        let tls = tls.transpose()?.map(Arc::new);
        let path = config.data_dir(&name);
        let new_directory = !path.join("node.toml").exists();
        let control = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(system("start the control threads"))?;
        let to_join = || membership::ring_to_join(&config, (&node, tls.as_deref()), &control);
        // Who cannot join leaves no directory behind.
        let known = new_directory.then(to_join).transpose()?;
        let (mut data_dir, library, guests) = guests::load(&config, &path, &name)?;
        let (size, hash) =
            membership::ring_of(&config, &mut data_dir, || known.map_or_else(to_join, Ok))?;
        let engine = Arc::new(open_store(&config, &data_dir)?);
        let services = services(&config, guests, hash);
        let seat = membership::Seat {
            path: data_dir.cluster_path(),
            node: node.clone(),
            addresses,
            ring: (size, hash),
            tls,
        };
        let opened = membership::open(&config, seat, &services, membership::rng()?);
        let membership = control.block_on(opened)?;
        membership::keep_ring(&mut data_dir, membership.first_view().ring().size())?;
        let data_dir = Arc::new(Mutex::new(data_dir));
        let acknowledge = engine.acknowledge();
        let stamps = Stamps {
            first_id: crate::vnode::seed(now_ms() ^ u64::from(std::process::id()) << 40),
            clock: Box::new(now_ms),
        };
        let parts = Parts {
            config,
            services,
            library: Arc::new(library),
            engine: Arc::clone(&engine),
            keep_ring: membership::ring_keeper(&data_dir),
            acknowledge,
            addresses,
            started,
        };
        let (shared, about) = parts.assemble(&membership, stamps);
        let greeter = Arc::new(membership.greeter());
        let executors = threads::start(&shared.coordinator, &about, &engine, &greeter)?;
        let (terminate, acceptor, end_http, http) = {
            let _context = control.enter();
            let terminate =
                signal(SignalKind::terminate()).map_err(system("listen for SIGTERM"))?;
            let peer = net::listen(peer).map_err(system("listen for other nodes"))?;
            membership.take_part(peer, &shared)?;
            let resp = net::listen(resp).map_err(system("listen"))?;
            let http = tokio::net::TcpListener::from_std(http).map_err(system("listen"))?;
            let (end_http, end) = oneshot::channel();
            control.spawn(stats::keep(
                Arc::clone(&shared.stats),
                Arc::clone(&shared.coordinator),
            ));
            let http = control.spawn(crate::http::serve(http, Arc::clone(&shared), end));
            let acceptor = control.spawn(accept(resp, Arc::clone(&shared)));
            (terminate, acceptor, end_http, http)
        };
        control.block_on(membership::join(&shared))?;
        Ok(Node {
            shared,
            control,
            executors,
            acceptor,
            end_http,
            http,
            started_in: started.elapsed(),
            new_directory,
            terminate,
            _data_dir: data_dir,
        })
    }

    /// What its parts share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How long the start took.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Whether this start made the data directory.
    pub fn is_new_directory(&self) -> bool {
        self.new_directory
    }

    /// Waits until a signal or a front door asks the node to end.
    pub fn wait(&mut self) {
        let (terminate, shared) = (&mut self.terminate, &self.shared);
        self.control.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
                () = shared.drain.notified() => {}
            }
        });
    }

    /// Ends the node: refuses new work, finishes what is under way, flushes. Whatever is not done after the drain
    /// timeout is left to a crash-safe store.
    pub fn drain(self) -> Result<(), NodeError> {
        let coordinator = Arc::clone(&self.shared.coordinator);
        coordinator.drain();
        self.acceptor.abort();
        let timeout = self.shared.config.limits.drain_timeout;
        let drained = self.control.block_on(async {
            let mut waiting = Vec::new();
            for inbox in coordinator.inboxes() {
                let (done, drained) = oneshot::channel();
                inbox.send(Message::Drain(done));
                waiting.push(drained);
            }
            tokio::time::timeout(timeout, async {
                for drained in waiting {
                    drop(drained.await);
                }
                // No Redis client waits for anything now; requests by HTTP may.
                while !coordinator.is_idle() || !coordinator.seats().idle() {
                    tokio::time::sleep(DRAIN_POLL).await;
                }
            })
            .await
        });
        match drained {
            Ok(()) => {
                // Nobody may be there any more to hear it.
                let _ = self.end_http.send(());
                let http = self.http;
                let answered = async { tokio::time::timeout(HTTP_END_WITHIN, http).await };
                drop(self.control.block_on(answered));
                for inbox in coordinator.inboxes() {
                    inbox.send(Message::End);
                }
                for executor in self.executors {
                    drop(executor.join());
                }
            }
            Err(_) => tracing::warn!(
                ?timeout,
                "commands were still under way when the drain timeout passed"
            ),
        }
        self.shared.engine.close()?;
        self.control.shutdown_timeout(Duration::from_millis(200));
        Ok(())
    }
}

/// Runs a node until a signal or a front door ends it. Prints the banner to stdout.
pub fn run(config: Config) -> Result<(), NodeError> {
    use std::io::Write;
    if config.storage == StorageKind::Disk {
        use_small_pages();
    }
    let mut node = Node::start(config)?;
    // Nobody may be reading; that is no reason not to serve.
    drop(std::io::stdout().write_all(banner::banner(&node).as_bytes()));
    drop(std::io::stdout().flush());
    node.wait();
    tracing::info!("draining");
    node.drain()
}

/// Has the system hand out memory in its smallest pages from now on, where it knows of others. What is written waits in memory for its
/// table and is freed then, so memory is new again and again, and a data thread stands still while two megabytes are zeroed.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "memory is still handed out in huge pages");
    }
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, NodeError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| NodeError::Listen {
        address,
        purpose,
        source,
    })
}

fn addresses(
    resp: &TcpListener,
    http: &TcpListener,
    peer: &TcpListener,
) -> Result<Addresses, NodeError> {
    let of = |listener: &TcpListener| listener.local_addr().map_err(system("read an address"));
    Ok(Addresses {
        resp: of(resp)?,
        http: of(http)?,
        peer: of(peer)?,
    })
}

fn open_store(config: &Config, data_dir: &DataDir) -> Result<Engine, StoreError> {
    match config.storage {
        StorageKind::Memory => Ok(Engine::memory()),
        StorageKind::Disk => Engine::disk(
            &data_dir.store_path(),
            DiskSettings {
                durability: match config.sync {
                    SyncMode::Always => Durability::Always,
                    SyncMode::Interval => Durability::Interval(config.sync_interval),
                    SyncMode::Never => Durability::Never,
                },
                object_cache_bytes: config.cache_bytes as u64,
                ..DiskSettings::default()
            },
        ),
    }
}

/// What a node is made of before anything of it runs.
struct Parts {
    config: Config,
    services: Vec<Arc<Service>>,
    library: Arc<Library>,
    engine: Arc<Engine>,
    keep_ring: KeepRing,
    acknowledge: Acknowledge,
    addresses: Addresses,
    started: Instant,
}

impl Parts {
    /// Puts the parts together that every node has, on threads or not.
    fn assemble(self, membership: &Membership, stamps: Stamps) -> (Arc<Shared>, Arc<About>) {
        let first_view = membership.first_view();
        let (name, size) = (first_view.me().clone(), first_view.ring().size());
        let config = self.config;
        let coordinator = Coordinator::new(
            self.services,
            first_view,
            config.executor_count(),
            limits(&config),
            self.acknowledge,
            stamps,
            (
                Arc::clone(membership.cluster()),
                self.library,
                Arc::clone(&self.engine),
                self.keep_ring,
            ),
        );
        coordinator.open_versions(coordinator.view().map());
        let run_id = format!(
            "{:016x}{:016x}",
            coordinator.next_id(),
            coordinator.now_ms()
        );
        let about = Arc::new(About {
            node: name.to_string(),
            run_id: run_id.clone(),
            process_id: std::process::id(),
            tcp_port: self.addresses.resp.port(),
            started: self.started,
            settings: crate::config::SETTINGS
                .iter()
                .map(|setting| (setting.key.to_owned(), (setting.show)(&config)))
                .collect(),
            clients_max: config.limits.connections_max,
            ring_size: u32::from(size.get()),
            services: coordinator.services().to_vec(),
            clients: std::sync::atomic::AtomicU64::new(0),
            inboxes: coordinator.inboxes().to_vec(),
        });
        let shared = Arc::new(Shared {
            name,
            run_id,
            metrics: Metrics::new(
                Arc::clone(&coordinator),
                Arc::clone(&self.engine),
                self.started,
            ),
            coordinator,
            cluster: Arc::clone(membership.cluster()),
            shown_plan: Mutex::default(),
            stats: Arc::default(),
            engine: self.engine,
            addresses: self.addresses,
            started: self.started,
            drain: tokio::sync::Notify::new(),
            config,
        });
        (shared, about)
    }
}

fn services(
    config: &Config,
    guests: Vec<Arc<crate::wasm::Guest>>,
    hash: HashId,
) -> Vec<Arc<Service>> {
    let service = |(index, guest): (usize, Arc<crate::wasm::Guest>)| {
        let descriptor = guest.descriptor();
        let replication = config.service_replication(&descriptor.name, descriptor.quorum);
        let placement = Placement {
            service: descriptor.name.as_str().into(),
            hash,
            n: u16::try_from(replication.n).unwrap_or(u16::MAX),
        };
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        let within = config.service_timeout(&descriptor.name);
        let executors = config.executor_count();
        Arc::new(Service::new(
            index,
            guest,
            placement,
            replication,
            within,
            executors,
        ))
    };
    guests.into_iter().enumerate().map(service).collect()
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        mailbox_commands_max: limits.mailbox_commands_max,
        pipeline_commands_max: limits.pipeline_commands_max,
        output_buffer_bytes_max: limits.output_buffer_bytes_max,
        request_read_timeout: limits.request_read_timeout,
        request_timeout: limits.request_timeout,
        coverage_timeout: limits.coverage_timeout,
        coverage_items_max: limits.coverage_items_max,
        coverage_bytes_max: limits.coverage_bytes_max,
        transfers: transfers::Limits {
            out_max: u16::try_from(limits.transfers_out_max).unwrap_or(u16::MAX),
            in_max: u16::try_from(limits.transfers_in_max).unwrap_or(u16::MAX),
            bytes_per_second: limits.transfers_bytes_per_second as u64,
        },
        retention: limits.transfers_retention,
        tombstone_grace: config.tombstone_grace,
        gate: Thresholds {
            commands_min: limits.rollout_commands_min as u64,
            traps_per_mille: limits.rollout_traps_per_mille as u64,
            errors_per_mille: limits.rollout_errors_per_mille as u64,
            p99_percent: limits.rollout_p99_percent as u64,
            memory_percent: limits.rollout_memory_percent as u64,
        },
        divergence_per_mille: limits.rollout_divergence_per_mille as u64,
        time_percent: limits.rollout_time_percent as u64,
        requests: crate::resp::codec::Limits {
            arg_bytes_max: limits.value_bytes_max,
            args_max: limits.args_max,
            ..crate::resp::codec::Limits::default()
        },
    }
}

/// Takes clients in and gives each to an executor.
async fn accept(listener: net::TcpListener, shared: Arc<Shared>) {
    let inboxes = shared.coordinator.inboxes();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: it passes when clients leave.
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let total: usize = inboxes.iter().map(|inbox| inbox.connected()).sum();
        if total >= shared.config.limits.connections_max {
            // The client gets the reason if it can be said at once.
            drop(stream.try_write(b"-ERR max number of clients reached\r\n"));
            continue;
        }
        drop(stream.set_nodelay(true));
        if let (Some(inbox), Ok(stream)) = (first_with_time(inboxes), net::detach(stream)) {
            inbox.connect(stream);
        }
    }
}
