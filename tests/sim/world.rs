//! The simulated network with its nodes and clients, and what the test does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tests::checkers::{Convergence, Judgement, Recorder, Verdict};
use tests::nemesis::Fault;
use tests::workload::commands::plans;
use turmoil::{Builder, Sim};
use vnode_cluster::raft::runtime;
use vnode_host::wasm::Guest;
use vnode_ring::ClusterMap;

use crate::board::{self, Board};
use crate::book;
use crate::client::{self, Run};
use crate::deaths::{Deaths, Trap};
use crate::disk::{self, Disk};
use crate::judge;
use crate::links::{Links, State};
use crate::node::{self, NODES, Setup, Wish};

/// Time for a cluster to form.
const FORM_WITHIN: Duration = Duration::from_secs(60);
/// How long a message takes at most while all is well.
const LATENCY_MAX: Duration = Duration::from_millis(8);
/// Time for a client to end a turn, which may take two commands and a connection.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Turns after which clients go on to other keys.
const TURNS_PER_ROUND: u64 = 60;
/// How many clients there are of each workload.
const CLIENTS: u32 = 2;
/// The names of the clients, and of whoever reads in the end.
const CLIENT_NAMES: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
pub(crate) const READER: &str = "reader";

/// A simulation.
pub(crate) struct World {
    pub(crate) sim: Sim<'static>,
    pub(crate) seed: u64,
    pub(crate) board: board::Shared,
    pub(crate) run: Arc<Run>,
    pub(crate) book: book::Shared,
    wish: Arc<Mutex<Wish>>,
    pub(crate) deaths: Rc<Deaths>,
    disks: BTreeMap<&'static str, disk::Shared>,
    clocks: BTreeMap<&'static str, Arc<AtomicI64>>,
    links: Links,
    machines: Vec<&'static str>,
    /// Machines that are off, of which nobody hears anything.
    off: BTreeSet<&'static str>,
    paused: BTreeSet<&'static str>,
    cuts: BTreeMap<(&'static str, &'static str), State>,
    /// Nodes that have died at a place in their code and were not started again.
    pub(crate) died: Vec<&'static str>,
    /// Keeps what nodes know of their cluster.
    _directory: TempDir,
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

/// The node of that number, from 1 on.
fn name(number: u32) -> &'static str {
    NODES[number as usize - 1]
}

impl Drop for World {
    fn drop(&mut self) {
        runtime::seed_this_thread(None);
        Deaths::end();
        let mut board = match self.board.lock() {
            Ok(board) => board,
            Err(poisoned) => poisoned.into_inner(),
        };
        if std::thread::panicking() {
            println!("{}\nseed {}", board.trace.join("\n"), self.seed);
        }
        board.live.clear();
    }
}

impl World {
    /// Nodes that are about to start, and which of them are to be a cluster.
    pub(crate) fn new(seed: u64, guests: &[Arc<Guest>], members: &[&'static str]) -> World {
        crate::log();
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
        let (board, directory) = (board::Shared::default(), directory());
        let book = book::Shared::default();
        let wish = Arc::new(Mutex::new(Wish {
            members: members.iter().copied().collect(),
            ring: node::RING,
        }));
        let (mut disks, mut clocks) = (BTreeMap::new(), BTreeMap::new());
        for (number, name) in (1..).zip(NODES) {
            let disk = Disk::new(seed * 10 + number, Arc::clone(&book));
            let clock = Arc::new(AtomicI64::new(0));
            disks.insert(name, Arc::clone(&disk));
            clocks.insert(name, Arc::clone(&clock));
            let setup = Setup {
                name,
                number,
                seed,
                path: directory.path().join(name),
                disk,
                clock,
                guests: guests.to_vec(),
                board: Arc::clone(&board),
                wish: Arc::clone(&wish),
            };
            sim.host(name, move || node::run(setup.clone()));
        }
        let deaths = Deaths::watch(&board, &disks, directory.path());
        let run = Run {
            seed,
            doors: Mutex::new(members.to_vec()),
            recorder: Recorder::new(),
            stop: AtomicBool::new(false),
            ended: AtomicUsize::new(0),
        };
        World {
            sim,
            seed,
            board,
            run: Arc::new(run),
            book,
            wish,
            deaths,
            disks,
            clocks,
            links: Links::default(),
            machines: NODES.to_vec(),
            off: BTreeSet::new(),
            paused: BTreeSet::new(),
            cuts: BTreeMap::new(),
            died: Vec::new(),
            _directory: directory,
        }
    }

    /// A cluster of all nodes in which nothing is left to be done.
    pub(crate) fn formed(seed: u64, guests: &[Arc<Guest>], members: &[&'static str]) -> World {
        let mut world = World::new(seed, guests, members);
        world.until("a cluster of all", FORM_WITHIN, World::is_whole);
        world
    }

    /// Has the operator bring the cluster to that.
    pub(crate) fn wish(&self, members: &[&'static str]) {
        self.note(&format!("the members are to be {members:?}"));
        self.wish.lock().unwrap().members = members.iter().copied().collect();
    }

    /// The same of the number of partitions.
    pub(crate) fn wish_ring(&self, ring: u16) {
        self.note(&format!("the ring is to have {ring} partitions"));
        self.wish.lock().unwrap().ring = ring;
    }

    /// Whether a node is a member of the cluster that is wished for, as the newest map says.
    pub(crate) fn is_member(&self, node: &str) -> bool {
        let board = self.board();
        let maps = self
            .members()
            .into_iter()
            .filter_map(|node| board.map(node));
        let newest = maps.max_by_key(|map| (map.members().len() > 1, map.epoch()));
        newest.is_some_and(|map| map.members().keys().any(|member| member.as_str() == node))
    }

    /// A node that clients ask.
    pub(crate) fn door(&self) -> &'static str {
        let members = self.members();
        let doors = self.run.doors.lock().unwrap();
        let mut doors = doors.iter().filter(|door| members.contains(door));
        doors.next_back().unwrap()
    }

    fn members(&self) -> Vec<&'static str> {
        self.wish.lock().unwrap().members.iter().copied().collect()
    }

    /// Whether every member has the ring that is wished for, and nothing of another one.
    pub(crate) fn has_its_ring(&self) -> bool {
        let (board, wish) = (self.board(), self.wish.lock().unwrap().clone());
        let has =
            |map: Arc<ClusterMap>| map.resize().is_none() && map.ring().size().get() == wish.ring;
        wish.members
            .iter()
            .all(|node| board.map(node).is_some_and(has))
    }

    /// Whether the members that are to be are up in the eyes of each, know the same map, and own their partitions.
    pub(crate) fn is_whole(&self) -> bool {
        if !self.has_its_ring() {
            return false;
        }
        let board = self.board();
        let wish = self.wish.lock().unwrap().clone();
        let members = &wish.members;
        let whole = |node: &&'static str| {
            let view = board.live.get(node).map(|live| live.coordinator.view());
            view.is_some_and(|view| {
                let (map, ring) = (view.map(), view.ring());
                let owns = |node: &&str| ring.owners().iter().any(|owner| owner.as_str() == *node);
                let all_up = view.nodes().iter().all(|other| view.is_up(other));
                let settled = map.transfers().is_empty() && members.iter().all(owns);
                view.nodes().len() == members.len() && all_up && settled
            })
        };
        let epoch = |node: &&'static str| board.map(node).map(|map| map.epoch());
        let first = members.first().and_then(epoch);
        members
            .iter()
            .all(|node| whole(node) && epoch(node) == first)
    }

    /// Has the clients end their turns.
    pub(crate) fn stop_clients(&mut self) {
        self.run.stop.store(true, Ordering::Relaxed);
        self.until("the clients' ends", TURN_WITHIN, |world| {
            world.run.ended.load(Ordering::Relaxed) == CLIENT_NAMES.len()
        });
    }

    /// Starts the clients.
    pub(crate) fn start_clients(&mut self) {
        let plans = plans(TURNS_PER_ROUND);
        for (number, name) in (0..).zip(CLIENT_NAMES) {
            let plan = plans[(number / CLIENTS) as usize].clone();
            let run = Arc::clone(&self.run);
            self.sim.client(name, client::run(run, plan, number));
            self.machines.push(name);
        }
    }

    /// Lets somebody read in the end.
    pub(crate) fn start_reader(&mut self, reader: impl Future<Output = turmoil::Result> + 'static) {
        self.sim.client(READER, reader);
        self.machines.push(READER);
    }

    pub(crate) fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap()
    }

    pub(crate) fn note(&self, what: &str) {
        self.board().note("test", what);
    }

    pub(crate) fn step(&mut self) {
        self.sim.step().unwrap();
        if let Some(node) = self.deaths.take_dead() {
            let machine_too = self.sim.elapsed().as_millis() % 2 == 0;
            self.crash(node, machine_too);
            self.deaths.bury(node);
            self.died.push(node);
        }
        let mut board = self.board();
        board.at = self.sim.elapsed().as_millis();
        board.look();
        board.one_serves();
        let gone = std::mem::take(&mut board.gone);
        drop(board);
        for node in gone {
            self.crash(node, false);
        }
    }

    /// Has a node die at a place in its code.
    pub(crate) fn lay(&self, trap: Trap) {
        self.deaths.lay(trap, &self.machines);
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
            assert!(self.sim.elapsed() < end, "in vain until {what}");
            self.step();
        }
    }

    /// Does what a schedule says.
    pub(crate) fn suffer(&mut self, fault: Fault, held: bool) {
        self.note(&fault.to_string());
        let cut = if held { State::Held } else { State::Lost };
        match fault {
            Fault::Kill { node } => return self.crash(name(node), held),
            Fault::Restart { node } => return self.start(name(node)),
            Fault::Pause { node } => drop(self.paused.insert(name(node))),
            Fault::Resume { node } => drop(self.paused.remove(name(node))),
            Fault::Cut { one, other } => {
                let (one, other) = (name(one), name(other));
                self.cuts.insert((one, other), cut);
                self.cuts.insert((other, one), cut);
            }
            Fault::CutOneWay { from, to } => {
                self.cuts.insert((name(from), name(to)), State::Lost);
            }
            Fault::Heal { one, other } => {
                let (one, other) = (name(one), name(other));
                self.cuts.remove(&(one, other));
                self.cuts.remove(&(other, one));
            }
            Fault::ClockStep { node, by_ms } => {
                self.clocks[name(node)].fetch_add(by_ms, Ordering::Relaxed);
            }
        }
        self.set_links();
    }

    fn set_links(&mut self) {
        let (off, paused, cuts) = (&self.off, &self.paused, &self.cuts);
        self.links.set(&self.sim, &self.machines, |from, to| {
            let is = |set: &BTreeSet<&'static str>| set.contains(from) || set.contains(to);
            match () {
                () if is(off) => State::Lost,
                () if is(paused) => State::Held,
                () => cuts.get(&(from, to)).copied().unwrap_or_default(),
            }
        });
    }

    /// Ends a node at once. Its machine answers that nobody listens, or nothing at all.
    ///
    /// The links are cut first: a crash says goodbye over each, in an order that is not a function of the seed.
    fn crash(&mut self, node: &'static str, machine_too: bool) {
        self.off.insert(node);
        self.set_links();
        let live = self.board().dies(node);
        drop(live);
        self.sim.crash(node);
        self.disks[node].lock().unwrap().crash();
        if !machine_too {
            self.off.remove(node);
            self.set_links();
        }
    }

    pub(crate) fn start(&mut self, node: &'static str) {
        self.off.remove(node);
        self.set_links();
        self.sim.bounce(node);
    }

    /// Whether all nodes hold what they must when all is well.
    pub(crate) fn convergence(&self) -> Convergence {
        let board = self.board();
        let members = self.members();
        let maps = members
            .iter()
            .filter_map(|node| Some((*node, board.map(node)?)));
        let maps: BTreeMap<_, _> = maps.collect();
        let disks: BTreeMap<_, _> = NODES
            .map(|node| (node, self.disks[node].lock().unwrap()))
            .into();
        let looked = maps
            .iter()
            .map(|(node, map)| (*node, (&**map, &*disks[node])));
        let wish = self.wish.lock().unwrap();
        judge::converged(&wish, &looked.collect())
    }

    /// Waits until all nodes hold the same, for so long from `healed` on. Returns how long that took.
    pub(crate) fn converge(&mut self, healed: Duration, within: Duration) -> Duration {
        loop {
            let verdict = self.convergence();
            let took = self.sim.elapsed() - healed;
            if verdict.judgement() == Judgement::Holds {
                return took;
            }
            assert!(took < within, "{verdict}\n{}", verdict.explanation());
            self.run_for(Duration::from_millis(50));
        }
    }

    /// Rows that crashes took away.
    pub(crate) fn rows_lost(&self) -> usize {
        self.disks
            .values()
            .map(|disk| disk.lock().unwrap().lost)
            .sum()
    }
}
