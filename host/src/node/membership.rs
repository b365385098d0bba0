//! The node's place in its cluster, as it starts: which ring, which map, and the door for other nodes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use vnode_ring::{
    Addresses as Reached, ClusterMap, GuestCard, HashId, MapEvent, MemberStatus, NodeName,
    RingSize, View,
};

use super::{Addresses, NodeError, Shared, system};
use crate::config::{Config, Origin};
use crate::coordinator::resize::KeepRing;
use crate::coordinator::{carry, entropy, hints, reaping, resize, rollouts, schemas, versions};
use crate::data_dir::{DataDir, DataDirError};
use crate::executor::Message;
use crate::net::{self, TcpListener};
use crate::vnode::service::Service;
use vnode_cluster::join::{self, JoinError};
use vnode_cluster::liveness::Liveness;
use vnode_cluster::peers::Doors;
use vnode_cluster::tls::Tls;
use vnode_cluster::wire::Purpose;
use vnode_cluster::{Cluster, ClusterError, Founding, Greeter, driver};

/// How often a node tries to have its own join committed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// A node's place in its cluster, before it takes part.
pub(super) struct Membership {
    cluster: Arc<Cluster>,
    gone: mpsc::Receiver<NodeName>,
    first_view: View,
    rng: SmallRng,
}

/// What a node brings along when it opens its cluster.
pub(super) struct Seat {
    /// Where it keeps what it knows of the cluster.
    pub(super) path: PathBuf,
    pub(super) node: NodeName,
    pub(super) addresses: Addresses,
    pub(super) ring: (RingSize, HashId),
    pub(super) tls: Option<Arc<Tls>>,
}

/// Opens the cluster of the data directory, or begins one.
pub(super) async fn open(
    config: &Config,
    seat: Seat,
    services: &[Arc<Service>],
    mut rng: SmallRng,
) -> Result<Membership, NodeError> {
    let guest = |service: &Arc<Service>| {
        let card = GuestCard {
            version: service.first().guest.descriptor().version.clone(),
            digest: service.first().guest.digest().to_owned(),
        };
        (service.name().to_owned(), card)
    };
    let Seat {
        path,
        node,
        addresses,
        ring,
        tls,
    } = seat;
    let founding = Founding {
        name: node,
        addresses: Reached {
            resp: addresses.resp.to_string(),
            http: addresses.http.to_string(),
            peer: config.advertised(addresses.peer),
        },
        guests: services.iter().map(guest).collect(),
        location: config.location.clone(),
        n: u16::try_from(config.replication.n).unwrap_or(u16::MAX),
        ring,
        tls,
    };
    let opening = SmallRng::from_rng(&mut rng);
    let (cluster, gone) = Cluster::open(path, founding, opening).await?;
    let Some(first_view) = cluster.first_view() else {
        // An open cluster knows its map.
        let contacts = Vec::new();
        return Err(ClusterError::NobodyAnswers { contacts }.into());
    };
    Ok(Membership {
        cluster,
        gone,
        first_view,
        rng,
    })
}

impl Membership {
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The view of a node that has heard of nobody yet.
    pub(super) fn first_view(&self) -> View {
        self.first_view.clone()
    }

    pub(super) fn greeter(&self) -> Greeter {
        Greeter::new(&self.cluster)
    }

    /// Lets other nodes in and begins to follow the cluster. Needs a tokio runtime.
    pub(super) fn take_part(
        self,
        listener: TcpListener,
        shared: &Arc<Shared>,
    ) -> Result<(), NodeError> {
        let cluster = self.cluster;
        let incarnation = cluster.next_incarnation(shared.coordinator.now_ms())?;
        let liveness = Arc::new(Liveness::start(
            Arc::clone(cluster.peers()),
            self.gone,
            incarnation,
            self.rng,
        ));
        let sight = liveness.sight();
        let doors = doors(&cluster, &liveness, shared);
        let coordinator = Arc::clone(&shared.coordinator);
        // First of all: it holds back what was offered before this node ended.
        let tended = driver::tend(
            Arc::clone(&cluster),
            Arc::clone(&coordinator),
            sight.clone(),
        );
        tokio::spawn(Arc::clone(cluster.peers()).serve(listener, doors));
        tokio::spawn(driver::publish(
            Arc::clone(&cluster),
            Arc::clone(&coordinator),
            sight.clone(),
        ));
        tokio::spawn(driver::tend_voters(cluster, sight));
        tokio::spawn(hints::hand_back(Arc::clone(&shared.coordinator)));
        tokio::spawn(carry::carry(Arc::clone(&shared.coordinator)));
        tokio::spawn(entropy::exchange(Arc::clone(&shared.coordinator)));
        tokio::spawn(reaping::reap(Arc::clone(&shared.coordinator)));
        tokio::spawn(resize::tend(Arc::clone(&shared.coordinator)));
        tokio::spawn(versions::follow(Arc::clone(&shared.coordinator)));
        tokio::spawn(schemas::keep_up(Arc::clone(&shared.coordinator)));
        tokio::spawn(rollouts::drive(Arc::clone(&shared.coordinator)));
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            tended.await;
            shared.drain.notify_one();
        });
        Ok(())
    }
}

fn doors(cluster: &Arc<Cluster>, liveness: &Arc<Liveness>, shared: &Arc<Shared>) -> Doors {
    let (answers, hears) = (Arc::clone(cluster), Arc::clone(liveness));
    let coordinator = Arc::clone(&shared.coordinator);
    let asked = Arc::clone(&coordinator);
    let next = AtomicUsize::new(0);
    Doors {
        request: Arc::new(move |hello, request| {
            let (cluster, coordinator) = (Arc::clone(&answers), Arc::clone(&asked));
            Box::pin(async move { cluster.answer(&hello.node, &request, &*coordinator).await })
        }),
        message: Arc::new(move |_, packet| hears.hear(packet)),
        connection: Arc::new(move |hello, stream| {
            if hello.purpose != Purpose::Requests {
                return;
            }
            let inboxes = coordinator.inboxes();
            let turn = next.fetch_add(1, Ordering::Relaxed) % inboxes.len().max(1);
            match (stream.map(net::detach), inboxes.get(turn)) {
                (Ok(stream), Some(inbox)) => {
                    inbox.send(Message::Peer(hello.node.to_string(), stream));
                }
                (Err(error), _) => tracing::warn!(%error, "a link of a node could not be taken"),
                (_, None) => {}
            }
        }),
    }
}

/// Joins the cluster that the settings name, unless the node is in one already.
pub(super) async fn join(shared: &Arc<Shared>) -> Result<(), NodeError> {
    let Some(address) = &shared.config.join else {
        return Ok(());
    };
    let alone = |map: &Arc<ClusterMap>| map.members().len() == 1;
    if shared.cluster.map().as_ref().is_some_and(alone) {
        let refused = |source: JoinError| NodeError::Join {
            address: address.clone(),
            source: Box::new(source),
        };
        let peer = crate::http::join::peer_address(address).await;
        match shared.cluster.join(&peer).await {
            Ok(()) | Err(JoinError::AlreadyMember) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    if shared.config.auto_commit {
        let (cluster, node) = (Arc::clone(&shared.cluster), shared.name.clone());
        tokio::spawn(commit(cluster, node));
    }
    Ok(())
}

/// Commits the plan that lets this node in, once it knows the cluster that it joins, and tries until it is in or nobody wants it
/// any more.
async fn commit(cluster: Arc<Cluster>, node: NodeName) {
    let mut maps = cluster.maps();
    loop {
        let map = maps.borrow_and_update().clone();
        let map = map.filter(|map| map.members().len() > 1);
        if let Some(map) = &map {
            let me = map.members().get(&node);
            if me.is_none_or(|me| me.status != MemberStatus::Joining) {
                return;
            }
        }
        // Another node may have committed it by now, which is as well.
        if let Some(Ok(plan)) = map.map(|map| map.plan())
            && let Err(error) = cluster.propose(MapEvent::PlanCommitted(plan.id)).await
        {
            tracing::warn!(%error, "the plan with this node's join is not committed yet; see `host cluster plan`");
        }
        tokio::select! {
            changed = maps.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(COMMIT_EVERY) => {}
        }
    }
}

/// The ring of the cluster that is to be joined, if there is one.
pub(super) fn ring_to_join(
    config: &Config,
    (node, tls): (&NodeName, Option<&Tls>),
    control: &Runtime,
) -> Result<Option<(RingSize, HashId)>, NodeError> {
    let Some(address) = &config.join else {
        return Ok(None);
    };
    let asked = async {
        let peer = crate::http::join::peer_address(address).await;
        join::ring_at(&peer, node, tls).await
    };
    let found = control.block_on(asked).map_err(|source| NodeError::Join {
        address: address.clone(),
        source: Box::new(source),
    });
    found.map(Some)
}

/// Size and hash of the ring: what the data directory says, else the cluster that is to be joined, else the settings. The data
/// directory then keeps them.
pub(super) fn ring_of(
    config: &Config,
    data_dir: &mut DataDir,
    to_join: impl FnOnce() -> Result<Option<(RingSize, HashId)>, NodeError>,
) -> Result<(RingSize, HashId), NodeError> {
    let wanted_hash = match config.hash {
        crate::config::HashId::V1 => HashId::V1,
        crate::config::HashId::EtfSha1 => HashId::EtfSha1,
    };
    let identity = data_dir.identity().clone();
    let (mut size, mut hash) = (RingSize::new(config.ring_size)?, wanted_hash);
    if let (Some(known), Some(known_hash)) = (identity.ring_size, &identity.hash) {
        size = RingSize::of_generation(known.into(), identity.ring_generation)?;
        hash = known_hash.parse()?;
    } else if let Some(found) = to_join()? {
        (size, hash) = found;
    }
    let other = |setting, found: String, wanted: String| NodeError::OtherRing {
        setting,
        found,
        wanted,
        path: data_dir.path().display().to_string(),
    };
    let asked = |key| config.origin(key) != Origin::Default;
    // Once it was resized, the setting is that of the beginning.
    let resized = size.generation() > 0;
    if asked("ring_size") && !resized && u32::from(size.get()) != config.ring_size {
        let wanted = config.ring_size.to_string();
        return Err(other("ring_size", size.to_string(), wanted));
    }
    if asked("hash") && hash != wanted_hash {
        return Err(other("hash", hash.to_string(), wanted_hash.to_string()));
    }
    data_dir.update(|identity| {
        identity.ring_size = Some(size.get());
        identity.ring_generation = size.generation();
        identity.hash = Some(hash.to_string());
    })?;
    Ok((size, hash))
}

/// Has the data directory know the ring of the map, by whose numbers rows lie: should the node begin a cluster of its own, its ring is
/// that.
pub(super) fn keep_ring(data_dir: &mut DataDir, size: RingSize) -> Result<(), DataDirError> {
    data_dir.update(|identity| {
        identity.ring_size = Some(size.get());
        identity.ring_generation = size.generation();
    })
}

/// The same, while the node runs.
pub(super) fn ring_keeper(data_dir: &Arc<Mutex<DataDir>>) -> KeepRing {
    let data_dir = Arc::downgrade(data_dir);
    Box::new(move |size| match data_dir.upgrade() {
        Some(data_dir) => {
            let data_dir = data_dir.lock();
            keep_ring(&mut data_dir.unwrap_or_else(PoisonError::into_inner), size)
        }
        // The node has ended, and another process may have the directory.
        None => Ok(()),
    })
}

/// Random numbers that nobody else has.
pub(super) fn rng() -> Result<SmallRng, NodeError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| system("draw random numbers")(std::io::Error::other(error.to_string())))?;
    Ok(SmallRng::from_seed(seed))
}
