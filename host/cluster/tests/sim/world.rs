//! The simulated network with its nodes, and what the test does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use turmoil::{Builder, Sim};
use vnode_cluster::raft::runtime;
use vnode_ring::{Change, ClusterId, ClusterMap, MemberStatus, NodeName, PartitionId};

use crate::board::{Board, Live, Shared};
use crate::node::{self, Action, Inbox, Setup, name};

pub(crate) const NODES: [&str; 6] = ["n1", "n2", "n3", "n4", "n5", "n6"];
/// Time after the last fault for everything to be well.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// How often the operator tidies up meanwhile.
const TIDY_EVERY: Duration = Duration::from_secs(4);
/// How long a message takes at most while all is well.
const LATENCY_MAX: Duration = Duration::from_millis(8);
/// How long all has to stay well.
const CALM: Duration = Duration::from_secs(1);

/// A simulation. Its nodes each begin with a cluster of their own.
pub(crate) struct World {
    sim: Sim<'static>,
    pub(crate) seed: u64,
    pub(crate) board: Shared,
    pub(crate) nodes: Vec<&'static str>,
    inboxes: BTreeMap<&'static str, Inbox>,
    directory: TempDir,
    /// The cluster of the first node, which all join.
    main: Option<ClusterId>,
}

/// In memory if there is such a place: a run waits for nothing but the disk.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    directory.unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        runtime::seed_this_thread(None);
        let mut board = match self.board.lock() {
            Ok(board) => board,
            Err(poisoned) => poisoned.into_inner(),
        };
        if std::thread::panicking() {
            let told = board.trace.iter().filter(|line| !line.contains("Command("));
            let told: Vec<&str> = told.map(String::as_str).collect();
            let from = told.len().saturating_sub(400);
            println!("{}\nseed {}", told[from..].join("\n"), self.seed);
        }
        board.live.clear();
    }
}

impl World {
    /// Nodes that are all alone.
    pub(crate) fn new(seed: u64, count: usize) -> World {
        let mut world = World::asleep(seed, count);
        world.awake();
        world
    }

    /// Waits until each node leads a cluster of its own.
    pub(crate) fn awake(&mut self) {
        for node in self.nodes.clone() {
            if !self.runs(node) {
                self.start(node);
            }
        }
        self.until("all live", SETTLE_WITHIN, |world| {
            world.board().live.len() == world.nodes.len()
        });
        self.main = self.map("n1").map(|map| map.cluster());
    }

    /// Nodes that are about to start.
    pub(crate) fn asleep(seed: u64, count: usize) -> World {
        runtime::seed_this_thread(Some(seed));
        let mut sim = Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(100_000))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY_MAX)
            .tick_duration(Duration::from_millis(1))
            .tcp_capacity(1 << 16)
            .enable_random_order()
            .build();
        let (board, directory) = (Shared::default(), directory());
        let nodes: Vec<&'static str> = NODES[..count].to_vec();
        let mut inboxes = BTreeMap::new();
        for (number, &node) in (1..).zip(&nodes) {
            let inbox = Inbox::default();
            inboxes.insert(node, Arc::clone(&inbox));
            let setup = Setup {
                name: node,
                number,
                seed,
                directory: directory.path().join(node),
                disk: Arc::default(),
                inbox,
                board: Arc::clone(&board),
            };
            sim.host(node, move || node::run(setup.clone()));
        }
        World {
            sim,
            seed,
            board,
            nodes,
            inboxes,
            directory,
            main: None,
        }
    }

    /// A cluster of all nodes.
    pub(crate) fn formed(seed: u64, count: usize) -> World {
        let mut world = World::new(seed, count);
        for node in world.nodes.clone().into_iter().skip(1) {
            world.act(node, Action::Join("n1"));
        }
        world.until("all have joined", SETTLE_WITHIN, |world| {
            world.members().len() == count
        });
        world.act("n1", Action::Commit);
        world.settle();
        world
    }

    pub(crate) fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap()
    }

    pub(crate) fn note(&self, what: &str) {
        self.board().note("test", what);
    }

    /// Has the operator do something at a node.
    pub(crate) fn act(&self, node: &str, action: Action) {
        if let Action::Stage(victim, Change::ForceRemove | Change::ForceReplace { .. }) = action {
            self.board().forced.insert(victim);
        }
        self.inboxes[node].lock().unwrap().push_back(action);
    }

    pub(crate) fn step(&mut self) {
        self.sim.step().unwrap();
        let mut board = self.board();
        board.at = self.sim.elapsed().as_millis();
        board.check();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    pub(crate) fn until(&mut self, what: &str, within: Duration, holds: impl Fn(&World) -> bool) {
        let end = self.sim.elapsed() + within;
        while !holds(self) {
            assert!(
                self.sim.elapsed() < end,
                "in vain until {what}: {}",
                self.figure()
            );
            self.step();
        }
    }

    /// The map as a node knows it.
    pub(crate) fn map(&self, node: &str) -> Option<Arc<ClusterMap>> {
        self.board().live.get(node)?.cluster.map()
    }

    /// The newest map of the cluster that all join.
    pub(crate) fn newest(&self) -> Option<Arc<ClusterMap>> {
        let main = self.main?;
        let maps = self.nodes.iter().filter_map(|node| self.map(node));
        let maps = maps.filter(|map| map.cluster() == main);
        maps.max_by_key(|map| map.epoch())
    }

    /// The nodes that run and take themselves for members of the cluster that all join.
    pub(crate) fn members(&self) -> Vec<&'static str> {
        let is_in = |node: &&&'static str| {
            self.map(node)
                .is_some_and(|map| Some(map.cluster()) == self.main)
        };
        self.nodes.iter().filter(is_in).copied().collect()
    }

    /// Cuts the links first: a crash says goodbye over each, in an order that is not a function of the seed.
    pub(crate) fn crash(&mut self, node: &'static str) {
        self.note(&format!("crash {node}"));
        self.between(&[node], &self.nodes, |sim, one, other| {
            sim.partition(one, other)
        });
        let live = self.board().live.remove(node);
        drop(live);
        self.inboxes[node].lock().unwrap().clear();
        self.sim.crash(node);
    }

    pub(crate) fn start(&mut self, node: &'static str) {
        self.note(&format!("start {node}"));
        self.between(&[node], &self.nodes, |sim, one, other| {
            sim.repair(one, other)
        });
        self.sim.bounce(node);
    }

    /// Where a node keeps what it knows of its cluster.
    pub(crate) fn directory(&self, node: &str) -> PathBuf {
        self.directory.path().join(node)
    }

    pub(crate) fn runs(&mut self, node: &str) -> bool {
        self.sim.is_host_running(node)
    }

    pub(crate) fn between(&self, some: &[&str], others: &[&str], act: impl Fn(&Sim, &str, &str)) {
        for one in some {
            for other in others.iter().filter(|other| *other != one) {
                act(&self.sim, one, other);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.note("heal");
        self.between(&self.nodes, &self.nodes, |sim, one, other| {
            sim.repair(one, other);
            sim.release(one, other);
            sim.set_link_max_message_latency(one, other, LATENCY_MAX);
        });
    }

    /// Ends all faults, and waits until all is well and stays so.
    pub(crate) fn settle(&mut self) {
        self.heal();
        for node in self.nodes.clone() {
            if !self.runs(node) {
                self.start(node);
            }
        }
        let end = self.sim.elapsed() + SETTLE_WITHIN;
        let mut tidy_at = self.sim.elapsed();
        let mut well_since = None;
        loop {
            self.run_for(Duration::from_millis(20));
            let now = self.sim.elapsed();
            match self.trouble() {
                None if now >= *well_since.get_or_insert(now) + CALM => return,
                None => {}
                Some(trouble) => {
                    well_since = None;
                    assert!(now < end, "{trouble}: {}", self.figure());
                }
            }
            if now >= tidy_at {
                self.tidy();
                tidy_at = now + TIDY_EVERY;
            }
        }
    }

    /// Nodes that join a cluster in which nobody else is any more.
    fn stranded(&self) -> Vec<&'static str> {
        let board = self.board();
        let of = |live: &Live| live.cluster.me().cluster();
        let alone = |(node, live): &(&&'static str, &Live)| {
            let others = board.live.iter().filter(|(other, _)| other != node);
            let mut others = others.map(|(_, other)| of(other));
            live.cluster.is_joining() && others.all(|other| other != of(live))
        };
        let stranded = board.live.iter().filter(alone);
        stranded.map(|(node, _)| *node).collect()
    }

    /// Empties all partitions, and removes members whose node is another by now. Whoever joins what is gone gives that up.
    fn tidy(&mut self) {
        for node in self.stranded() {
            self.act(node, Action::GiveUp);
        }
        for node in self.nodes.clone() {
            for partition in 0..u16::try_from(node::RING).unwrap() {
                self.act(
                    node,
                    Action::Command(PartitionId::from_id(partition), false),
                );
            }
        }
        let (Some(map), members) = (self.newest(), self.members()) else {
            return;
        };
        let ghosts: Vec<&'static str> = self
            .nodes
            .iter()
            .filter(|node| map.members().contains_key(&name(node)) && !members.contains(*node))
            .copied()
            .collect();
        let Some(operator) = members
            .into_iter()
            .find(|node| map.members().contains_key(&name(node)))
        else {
            return;
        };
        if !ghosts.is_empty() {
            self.act(operator, Action::Clear);
            self.run_for(Duration::from_millis(300));
        }
        for ghost in ghosts {
            self.act(operator, Action::Stage(ghost, Change::ForceRemove));
        }
        self.run_for(Duration::from_millis(300));
        self.act(operator, Action::Commit);
    }

    /// What is not yet as it should be.
    fn trouble(&mut self) -> Option<String> {
        let Some(map) = self.newest() else {
            // Its joins were taken back, and whoever was left joined another.
            self.board().count("dead ends");
            return None;
        };
        let members: BTreeSet<&str> = map.members().keys().map(|node| node.as_str()).collect();
        if self.is_dead_end(&map) {
            self.board().count("dead ends");
            return None;
        }
        let lost = self.lost(&map);
        let present = self.members().into_iter();
        let present: BTreeSet<&str> = present.filter(|node| !lost.contains(node)).collect();
        if present != members {
            return Some(format!(
                "{present:?} take themselves for members, {members:?} are"
            ));
        }
        let board = self.board();
        let runs = |node: &&&str| board.live.contains_key(*node) || board.gone.contains(*node);
        if let Some(node) = self.nodes.iter().find(|node| !runs(node)) {
            return Some(format!("{node} does not run"));
        }
        let stray =
            |node: &str, live: &Live| live.cluster.claimant().is_none() && !lost.contains(node);
        if let Some((node, _)) = board.live.iter().find(|(node, live)| stray(node, live)) {
            return Some(format!("{node} knows no claimant"));
        }
        let trouble = present.iter().find_map(|node| {
            let trouble = member_trouble(node, &board.live[node], &map)?;
            Some(format!("{node} {trouble}"))
        });
        if trouble.is_some() {
            return trouble;
        }
        let transfers = map.transfers().len();
        (transfers > 0).then(|| format!("{transfers} transfers"))
    }

    /// Nodes that were away until all members that they know had left: they have nobody to ask.
    fn lost(&self, newest: &ClusterMap) -> BTreeSet<&'static str> {
        let is_lost = |node: &&'static str| {
            let known = self.map(node).unwrap();
            let both = |other: &&NodeName| newest.members().contains_key(*other);
            known.members().keys().find(both).is_none()
        };
        self.members().into_iter().filter(is_lost).collect()
    }

    /// All who may own partitions have gone by themselves or were removed, and a new node is needed.
    fn is_dead_end(&self, newest: &ClusterMap) -> bool {
        let serves = |node: &&str| {
            let member = newest.members().get(&name(node));
            member.is_some_and(|member| member.status != MemberStatus::Leaving)
        };
        !self.members().iter().any(serves)
    }

    fn figure(&self) -> String {
        let map = self.newest();
        let board = self.board();
        let nodes = board.live.iter().map(|(node, live)| {
            let map = live.cluster.map();
            let (cluster, epoch) = map.map_or((None, 0), |map| (Some(map.cluster()), map.epoch()));
            let up = live.sight.borrow().up.len();
            format!(
                "{node} of {cluster:?} at {epoch} led by {:?} sees {up}",
                live.cluster.claimant()
            )
        });
        let nodes: Vec<String> = nodes.collect();
        let status =
            |(node, member): (&NodeName, &vnode_ring::Member)| format!("{node} {}", member.status);
        let members: Vec<String> = map
            .iter()
            .flat_map(|map| map.members().iter().map(status))
            .collect();
        format!(
            "seed {}\n{}\nmembers {members:?}",
            self.seed,
            nodes.join("\n")
        )
    }
}

/// What is not yet as it should be with a member.
fn member_trouble(node: &str, live: &Live, newest: &ClusterMap) -> Option<String> {
    if live.cluster.map().map(|map| map.epoch()) != Some(newest.epoch()) {
        return Some("has an old map".into());
    }
    let up = live.sight.borrow().up.clone();
    if !newest.members().keys().all(|member| up.contains(member)) {
        return Some(format!("sees only {up:?} up"));
    }
    let status = newest.members()[&name(node)].status;
    let well = matches!(status, MemberStatus::Valid | MemberStatus::Joining);
    (!well).then(|| format!("is {status}"))
}
