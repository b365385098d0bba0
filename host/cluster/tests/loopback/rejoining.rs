//! Nodes that come back under a name of which the others remember a later run, as one does that lost its data or its clock.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use vnode_cluster::liveness::Liveness;
use vnode_cluster::peers::{Doors, Peers};
use vnode_cluster::{Cluster, Founding};
use vnode_ring::{Addresses, HashId, RingSize};

use crate::nodes::{name, peers_in, until};

/// A run of a node that looks who is up. Dropping it ends it.
struct Run {
    peers: Arc<Peers>,
    liveness: Arc<Liveness>,
    address: String,
    door: AbortHandle,
    /// Packets that it got.
    heard: Arc<Mutex<usize>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.door.abort();
    }
}

impl Run {
    async fn start(node: &str, incarnation: u64) -> Run {
        let (peers, gone) = peers_in(Some(crate::nodes::CLUSTER), node);
        let rng = SmallRng::seed_from_u64(incarnation);
        let liveness = Arc::new(Liveness::start(Arc::clone(&peers), gone, incarnation, rng));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(Mutex::new(0));
        let (hears, counts) = (Arc::clone(&liveness), Arc::clone(&heard));
        let doors = Doors {
            request: Arc::new(|_, body| Box::pin(async move { body })),
            message: Arc::new(move |_, packet| {
                *counts.lock().unwrap() += 1;
                hears.hear(packet);
            }),
            connection: Arc::new(|_, _| {}),
        };
        let door = tokio::spawn(Arc::clone(&peers).serve(listener, doors)).abort_handle();
        Run {
            peers,
            liveness,
            address,
            door,
            heard,
        }
    }

    fn sees(&self, node: &str) -> bool {
        self.liveness.sight().borrow().up.contains(&name(node))
    }
}

/// Has all of them know each other's addresses.
fn introduce(runs: &BTreeMap<&str, Run>) {
    for run in runs.values() {
        for (node, other) in runs {
            run.peers.set_address(&name(node), &other.address);
        }
    }
}

async fn until_all_see_all(runs: &BTreeMap<&str, Run>) {
    until("all see all", async || {
        runs.values()
            .all(|run| runs.keys().all(|node| run.sees(node)))
    })
    .await;
}

/// Nodes a and b, which remember that run of c.
async fn that_remember(incarnation: u64) -> BTreeMap<&'static str, Run> {
    let mut runs = BTreeMap::new();
    for (node, incarnation) in [("a", 7), ("b", 7), ("c", incarnation)] {
        runs.insert(node, Run::start(node, incarnation).await);
    }
    introduce(&runs);
    until_all_see_all(&runs).await;
    runs["c"].liveness.leave().await;
    runs.remove("c");
    until("c is gone", async || {
        runs.values().all(|run| !run.sees("c"))
    })
    .await;
    runs
}

/// Everybody sees c again soon, and without a flood of packets.
async fn comes_back(mut runs: BTreeMap<&'static str, Run>, incarnation: u64) {
    runs.insert("c", Run::start("c", incarnation).await);
    introduce(&runs);
    until_all_see_all(&runs).await;
    let heard = *runs["c"].heard.lock().unwrap();
    assert!(heard < 2000, "{heard} packets");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_comes_back_as_an_earlier_run_of_itself() {
    comes_back(that_remember(1 << 30).await, (1 << 30) - (1 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_was_set_back_a_day_comes_back() {
    let day = (24 * 60 * 60 * 1000) << 20;
    comes_back(that_remember(40 * day).await, 39 * day).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_back_also_to_the_few_who_remember_it() {
    let mut runs = that_remember(1 << 30).await;
    for node in ["d", "e", "f", "g", "h", "i"] {
        runs.insert(node, Run::start(node, 7).await);
    }
    introduce(&runs);
    until_all_see_all(&runs).await;
    comes_back(runs, (1 << 30) - (1 << 20)).await;
}

#[tokio::test]
async fn a_node_that_begins_anew_wins_over_its_last_run_however_often_that_had_started() {
    let (disk, lost) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now_ms = 1_700_000_000_000;
    let before = open(disk.path()).await;
    let mut last = 0;
    for start in 0..4 {
        let next = before.next_incarnation(now_ms + start).unwrap();
        assert!(next > last, "start {start}");
        last = next;
    }
    let anew = open(lost.path()).await;
    assert!(anew.next_incarnation(now_ms + 5000).unwrap() > last);
    // Where the clock was set back the disk knows better.
    assert!(before.next_incarnation(now_ms - 5000).unwrap() > last);
}

async fn open(directory: &Path) -> Arc<Cluster> {
    let founding = Founding {
        name: name("c"),
        addresses: Addresses::default(),
        guests: BTreeMap::new(),
        location: None,
        n: 3,
        ring: (RingSize::new(8).unwrap(), HashId::V1),
        tls: None,
    };
    let rng = SmallRng::seed_from_u64(1);
    let opened = Cluster::open(directory.to_path_buf(), founding, rng).await;
    opened.unwrap().0
}
