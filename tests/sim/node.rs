//! One node of the simulation, and how it comes into the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;
use vnode_cluster::join::JoinError;
use vnode_host::config::{Config, GuestSource};
use vnode_host::node::{Addresses, Shared, inspect, simulated};
use vnode_host::store::Acknowledge;
use vnode_host::wasm::Guest;
use vnode_ring::MapEvent;

use crate::board;
use crate::disk::{self, DiskStore};

/// The nodes of every simulation.
pub(crate) const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// Partitions of the ring.
pub(crate) const RING: u32 = 16;
/// Where nodes listen for each other.
const PEER: u16 = 7100;
/// Where nodes listen for clients.
pub(crate) const RESP: u16 = 7300;
/// The date of the beginning, milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;
/// How often a node tries to join.
const JOIN_EVERY: Duration = Duration::from_millis(300);
/// How long a sync takes at most, milliseconds.
const SYNC_MS_MAX: u64 = 8;

/// What a node is whenever it starts.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) path: PathBuf,
    pub(crate) disk: disk::Shared,
    /// How far its clock is off, milliseconds.
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) guests: Vec<Arc<Guest>>,
    pub(crate) board: board::Shared,
}

fn config(name: &str) -> Config {
    let mut config = Config::default();
    config.name = Some(name.to_owned());
    config.advertise = Some(format!("{name}:{PEER}"));
    config.ring_size = RING;
    config
}

/// The guests, compiled once for all nodes and seeds of a process.
pub(crate) fn guests() -> Vec<Arc<Guest>> {
    let load = |name| inspect(&config("n1"), &GuestSource::parse(name)).unwrap();
    ["kv", "counter"].map(load).into()
}

/// A run of the node, which ends when it is no member of its cluster any more.
pub(crate) async fn run(setup: Setup) -> turmoil::Result {
    let count = setup.board.lock().unwrap().starts(setup.name);
    let mut rng = SmallRng::seed_from_u64(setup.seed * 10_000 + setup.number * 100 + count);
    let syncs = SmallRng::from_rng(&mut rng);
    tokio::task::spawn_local(sync(Arc::clone(&setup.disk), syncs));
    let address = turmoil::lookup(setup.name);
    let (clock, disk) = (Arc::clone(&setup.clock), Arc::clone(&setup.disk));
    let acknowledge = Acknowledge::following(disk.lock().unwrap().progress());
    let parts = simulated::Setup {
        config: config(setup.name),
        guests: setup.guests.clone(),
        path: setup.path.clone(),
        addresses: Addresses {
            resp: (address, RESP).into(),
            http: (address, 0).into(),
            peer: (address, PEER).into(),
        },
        rng,
        clock: Box::new(move || {
            let passed = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
            (BEGINNING + passed).saturating_add_signed(clock.load(Ordering::Relaxed))
        }),
        stores: Box::new(move |service, partition| {
            Box::new(DiskStore::open(&disk, service, partition.id()))
        }),
        acknowledge,
    };
    let ready = |shared: &Arc<Shared>| {
        setup.board.lock().unwrap().lives(setup.name, shared);
        tokio::task::spawn_local(join(setup.name, Arc::clone(shared)));
    };
    simulated::run(parts, ready).await?;
    setup.board.lock().unwrap().live.remove(setup.name);
    Ok(())
}

/// Brings what was written to disk, again and again.
async fn sync(disk: disk::Shared, mut rng: SmallRng) {
    loop {
        sleep(Duration::from_millis(rng.random_range(1..=SYNC_MS_MAX))).await;
        disk.lock().unwrap().sync();
    }
}

/// Joins the first node, unless it has; the first one commits the plan when all have.
async fn join(name: &str, shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let members = || cluster.map().map_or(0, |map| map.members().len());
    if name != NODES[0] {
        while members() == 1 {
            match cluster.join(&format!("{}:{PEER}", NODES[0])).await {
                Ok(()) | Err(JoinError::AlreadyMember) => return,
                Err(_) => sleep(JOIN_EVERY).await,
            }
        }
        return;
    }
    while members() < NODES.len() {
        sleep(JOIN_EVERY).await;
    }
    let plan = cluster.map().and_then(|map| map.plan().ok());
    if let Some(plan) = plan {
        // A node that starts again finds nothing staged, or that another plan was committed.
        drop(cluster.propose(MapEvent::PlanCommitted(plan.id)).await);
    }
}
