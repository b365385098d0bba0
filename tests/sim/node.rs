//! One node of the simulation, and the operator who works at it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Handle;
use tokio::time::sleep;
use vnode_cluster::join::JoinError;
use vnode_host::config::{Config, GuestSource};
use vnode_host::node::{Addresses, Shared, inspect, simulated};
use vnode_host::store::Simulated;
use vnode_host::wasm::Guest;
use vnode_ring::{Change, ClusterMap, MapEvent, MemberStatus, NodeName, Staged};

use crate::board;
use crate::disk::{self, DiskStore};

/// The nodes of every simulation.
pub(crate) const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// Partitions of the ring in the beginning.
pub(crate) const RING: u16 = 16;
/// Copies of each range.
pub(crate) const COPIES: u16 = 3;
/// Where nodes listen for each other.
const PEER: u16 = 7100;
/// Where nodes listen for clients.
pub(crate) const RESP: u16 = 7300;
/// The date of the beginning, milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;
/// How often the operator looks whether the cluster is what it is to be.
const OPERATE_EVERY: Duration = Duration::from_millis(300);
/// For how long rows are kept where they were handed over.
const RETENTION: Duration = Duration::from_millis(300);
/// How long a sync takes at most, milliseconds.
const SYNC_MS_MAX: u64 = 8;

/// What the cluster is to be. The operator works at whatever node is up, and goes on until it is.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) members: BTreeSet<&'static str>,
    /// Partitions of the ring.
    pub(crate) ring: u16,
}

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
    pub(crate) wish: Arc<Mutex<Wish>>,
}

fn config(name: &str) -> Config {
    let mut config = Config::default();
    config.name = Some(name.to_owned());
    config.advertise = Some(format!("{name}:{PEER}"));
    config.ring_size = RING.into();
    config.limits.transfers_retention = RETENTION;
    config
}

/// The guests, compiled once for all nodes and seeds of a process.
pub(crate) fn guests() -> Vec<Arc<Guest>> {
    let load = |name| inspect(&config("n1"), &GuestSource::parse(name)).unwrap();
    ["kv", "counter"].map(load).into()
}

/// A run of the node, which ends when it is no member of its cluster any more.
pub(crate) async fn run(setup: Setup) -> turmoil::Result {
    let runtime = Handle::current().id();
    let count = setup.board.lock().unwrap().starts(setup.name, runtime);
    let mut rng = SmallRng::seed_from_u64(setup.seed * 10_000 + setup.number * 100 + count);
    let syncs = SmallRng::from_rng(&mut rng);
    tokio::task::spawn_local(sync(Arc::clone(&setup.disk), syncs));
    let address = turmoil::lookup(setup.name);
    let clock = Arc::clone(&setup.clock);
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
        storage: storage(&setup.disk),
    };
    let ready = |shared: &Arc<Shared>| {
        setup.board.lock().unwrap().lives(setup.name, shared);
        let wish = Arc::clone(&setup.wish);
        tokio::task::spawn_local(operate(setup.name, Arc::clone(shared), wish));
    };
    simulated::run(parts, ready).await?;
    setup.board.lock().unwrap().leaves(setup.name);
    Ok(())
}

/// A disk as its node knows it.
fn storage(disk: &disk::Shared) -> Simulated {
    let (opens, knows, forgets) = (Arc::clone(disk), Arc::clone(disk), Arc::clone(disk));
    Simulated {
        open: Box::new(move |service, partition| {
            Box::new(DiskStore::open(&opens, service, partition))
        }),
        partitions: Box::new(move || knows.lock().unwrap().places.keys().cloned().collect()),
        forget: Box::new(move |service, partition| {
            forgets.lock().unwrap().forget(service, partition);
        }),
        durable: disk.lock().unwrap().progress(),
    }
}

/// Brings what was written to disk, again and again.
async fn sync(disk: disk::Shared, mut rng: SmallRng) {
    loop {
        sleep(Duration::from_millis(rng.random_range(1..=SYNC_MS_MAX))).await;
        disk.lock().unwrap().sync();
    }
}

/// Brings the cluster to what it is to be, as far as that can be done at this node.
async fn operate(name: &'static str, shared: Arc<Shared>, wish: Arc<Mutex<Wish>>) {
    loop {
        let wish = wish.lock().unwrap().clone();
        if let Some(map) = shared.cluster.map() {
            let decides = shared.cluster.claimant().as_ref() == Some(&shared.name);
            match map.members().len() {
                1 => join(name, &shared, &wish).await,
                _ if decides => change(&shared, &map, &wish).await,
                _ => {}
            }
        }
        sleep(OPERATE_EVERY).await;
    }
}

/// Joins the first node of the others, if this one is to be a member.
async fn join(name: &str, shared: &Shared, wish: &Wish) {
    let first = wish.members.first().filter(|first| **first != name);
    let Some(first) = first.filter(|_| wish.members.contains(name)) else {
        return;
    };
    match shared.cluster.join(&format!("{first}:{PEER}")).await {
        // The map comes in a moment.
        Ok(()) | Err(JoinError::AlreadyMember) => {
            let mut maps = shared.cluster.maps();
            let joined = |map: &Option<Arc<ClusterMap>>| {
                map.as_ref().is_some_and(|map| map.members().len() > 1)
            };
            drop(maps.wait_for(joined).await);
        }
        Err(_) => {}
    }
}

/// Stages what is missing, and commits it when all is staged. What does not come about now is tried again.
async fn change(shared: &Shared, map: &ClusterMap, wish: &Wish) {
    let staged = map.staged();
    for (node, member) in map.members() {
        let stays = wish.members.contains(node.as_str());
        let goes = staged.iter().any(|staged| staged.node == *node);
        if !stays && !goes && member.status == MemberStatus::Valid {
            stage(shared, node, Change::Leave).await;
        }
    }
    if staged.is_empty() && size_to_be(map) != wish.ring {
        let (partitions, n) = (wish.ring, COPIES);
        stage(shared, &shared.name, Change::Resize { partitions, n }).await;
    }
    let joined = |node: &&str| map.members().keys().any(|member| member.as_str() == *node);
    let plan = shared.cluster.map().and_then(|map| map.plan().ok());
    if let Some(plan) = plan.filter(|_| wish.members.iter().all(|node| joined(node))) {
        drop(
            shared
                .cluster
                .propose(MapEvent::PlanCommitted(plan.id))
                .await,
        );
    }
}

/// The size of the ring, or the one after the resize under way.
fn size_to_be(map: &ClusterMap) -> u16 {
    let resize = map.resize().filter(|resize| resize.is_filling());
    resize.map_or(map.ring().size(), |resize| resize.to).get()
}

async fn stage(shared: &Shared, node: &NodeName, change: Change) {
    let node = node.clone();
    let staged = MapEvent::ChangeStaged(Staged { node, change });
    drop(shared.cluster.propose(staged).await);
}
