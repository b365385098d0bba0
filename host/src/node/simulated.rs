//! A node in the simulator: the parts of every node on one thread, with its network, clocks, chance and stores handed in.
//!
//! What is left out is what a simulated machine does not have: threads, signals, HTTP, and a directory for rows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vnode_ring::{HashId, NodeName, RingSize};

use super::membership::{self, Seat};
use super::{Addresses, GuestError, NodeError, Parts, Shared, accept, services, system, threads};
use crate::config::Config;
use crate::coordinator::Stamps;
use crate::executor::Executor;
use crate::executor::slow::Pool;
use crate::library::Library;
use crate::net::TcpListener;
use crate::store::{Engine, Simulated};
use crate::wasm::Guest;

/// What a node is given in place of what it takes from its machine.
pub struct Setup {
    /// Its settings. One executor is run, however many they ask for.
    pub config: Config,
    /// Its guests. Several nodes may share them.
    pub guests: Vec<Arc<Guest>>,
    /// Where it keeps what it knows of its cluster.
    pub path: PathBuf,
    /// Where it listens; nobody does at the HTTP address.
    pub addresses: Addresses,
    /// All chance.
    pub rng: SmallRng,
    /// Its wall clock, milliseconds since 1970.
    pub clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Its disk.
    pub storage: Simulated,
}

/// Runs a node until it is no member of its cluster any more. `ready` is shown it before it takes part.
///
/// # Errors
/// As for [`Node::start`](super::Node::start).
pub async fn run(setup: Setup, ready: impl FnOnce(&Arc<Shared>)) -> Result<(), NodeError> {
    let Setup {
        mut config,
        guests,
        path,
        addresses,
        mut rng,
        clock,
        storage,
    } = setup;
    config.executors = 1;
    let node = NodeName::new(&config.node_name(addresses.peer))?;
    let ring = (RingSize::new(config.ring_size)?, HashId::V1);
    let library = guests.first().map(|guest| {
        let folder = path.join("guests");
        Library::new(guest.engine().clone(), folder, None, Default::default())
    });
    let library = library.ok_or(GuestError::None)?;
    let services = services(&config, guests, ring.1);
    let first_id = rng.random();
    let seat = Seat {
        path,
        node,
        addresses,
        ring,
        tls: None,
    };
    let opening = SmallRng::from_rng(&mut rng);
    let membership = membership::open(&config, seat, &services, opening).await?;
    let engine = Arc::new(Engine::simulated(storage));
    let acknowledge = engine.acknowledge();
    let parts = Parts {
        config,
        services,
        library: Arc::new(library),
        engine: Arc::clone(&engine),
        keep_ring: Box::new(|_| Ok(())),
        acknowledge: acknowledge.clone(),
        addresses,
        started: Instant::now(),
    };
    let (shared, about) = parts.assemble(&membership, Stamps { first_id, clock });
    let coordinator = &shared.coordinator;
    for (service, partition) in threads::places(coordinator) {
        let seat = coordinator.seat(usize::from(service.index), partition);
        let store = engine.open(service.name(), partition.id())?;
        let vnode = coordinator.vnode(&service, (coordinator.ring_size(), partition), store)?;
        coordinator.seats().place(seat, vnode);
    }
    ready(&shared);
    let peer = listen(addresses.peer)
        .await
        .map_err(system("listen for other nodes"))?;
    let resp = listen(addresses.resp).await.map_err(system("listen"))?;
    let greeter = Arc::new(membership.greeter());
    membership.take_part(peer, &shared)?;
    tokio::spawn(accept(resp, Arc::clone(&shared)));
    let pool = Pool::start(0).map_err(system("start the slow threads"))?;
    tokio::task::spawn_local(Executor::run(
        0,
        Arc::clone(coordinator),
        about,
        acknowledge,
        pool,
        greeter,
    ));
    shared.drain.notified().await;
    Ok(())
}

/// The simulator lets nobody name the machine that he is.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
}
