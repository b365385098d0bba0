//! Faults and operators at random, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vnode_cluster::raft::log::LOG_FILE;
use vnode_ring::{Change, PartitionId};

use crate::node::{Action, RING, name};
use crate::number;
use crate::world::World;

/// Faults and actions in one run.
const ROUNDS: usize = 60;
/// Runs without a number in the environment.
const SEEDS: u64 = 6;

/// A storm over one world.
struct Storm {
    world: World,
    rng: SmallRng,
    crashed: BTreeSet<&'static str>,
}

/// One run. Returns its trace and how often what happened.
pub(crate) fn run(seed: u64, rounds: usize) -> (Vec<String>, BTreeMap<String, u64>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = rng.random_range(3..=6);
    let mut storm = Storm {
        world: World::new(seed, count),
        rng,
        crashed: BTreeSet::new(),
    };
    storm.begin();
    for _ in 0..rounds {
        match storm.rng.random_range(0..10) {
            0..3 => storm.fault(),
            3..7 => storm.operate(),
            _ => storm.write(),
        }
        let pause = storm.rng.random_range(1..600);
        storm.world.run_for(Duration::from_millis(pause));
    }
    storm.world.settle();
    storm.a_change_is_agreed_on();
    let mut board = storm.world.board();
    let told = (
        std::mem::take(&mut board.trace),
        std::mem::take(&mut board.counts),
    );
    drop(board);
    told
}

impl Storm {
    /// All ask to join at once, or one after the other; one of them twice.
    fn begin(&mut self) {
        let at_once = self.rng.random::<bool>();
        for node in self.world.nodes.clone().into_iter().skip(1) {
            self.world.act(node, Action::Join("n1"));
            if !at_once {
                let pause = self.rng.random_range(1..800);
                self.world.run_for(Duration::from_millis(pause));
            }
        }
        self.world.act("n2", Action::Join("n1"));
        let pause = self.rng.random_range(1..3000);
        self.world.run_for(Duration::from_millis(pause));
        self.world.act("n1", Action::Commit);
    }

    fn pick(&mut self, of: &[&'static str]) -> Option<&'static str> {
        (!of.is_empty()).then(|| of[self.rng.random_range(0..of.len())])
    }

    fn fault(&mut self) {
        let nodes = self.world.nodes.clone();
        let (Some(one), Some(other)) = (self.pick(&nodes), self.pick(&nodes)) else {
            return;
        };
        let minority: Vec<&str> = nodes
            .iter()
            .filter(|_| self.rng.random_range(0..3) == 0)
            .copied()
            .take((nodes.len() - 1) / 2)
            .collect();
        let majority: Vec<&str> = nodes
            .iter()
            .filter(|node| !minority.contains(node))
            .copied()
            .collect();
        let fault = self.rng.random_range(0..12);
        self.world.board().count(&format!("fault {fault}"));
        self.world
            .note(&format!("fault {fault} {one} {other} {minority:?}"));
        match fault {
            0 | 1 if self.crashed.len() * 2 + 1 < nodes.len() && self.world.runs(one) => {
                self.world.crash(one);
                self.tear(one);
                self.crashed.insert(one);
            }
            0..3 => {
                if let Some(node) = self.crashed.pop_first() {
                    self.world.start(node);
                }
            }
            3 if one != other => self
                .world
                .between(&[one], &[other], |sim, a, b| sim.hold(a, b)),
            4 if one != other => {
                self.world
                    .between(&[one], &[other], |sim, a, b| sim.partition(a, b));
            }
            5 => self
                .world
                .between(&minority, &majority, |sim, a, b| sim.partition(a, b)),
            6 => self
                .world
                .between(&minority, &majority, |sim, a, b| sim.hold(a, b)),
            7 => self.world.between(&[one], &[other], |sim, a, b| {
                if a != b {
                    sim.partition_oneway(a, b);
                }
            }),
            8 => self.world.between(&[one], &nodes, |sim, a, b| {
                sim.set_link_max_message_latency(a, b, Duration::from_millis(150));
            }),
            _ => self.calm(),
        }
    }

    /// What a crash in the middle of an append leaves at the end of the log.
    fn tear(&mut self, node: &str) {
        let mut torn: Vec<u8> = b"\xf5FRM\x40\0\0\0".to_vec();
        torn.extend((0..self.rng.random_range(0..60)).map(|_| self.rng.random::<u8>()));
        torn.truncate(self.rng.random_range(0..=torn.len()));
        let Ok(entries) = std::fs::read_dir(self.world.directory(node)) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path().join(LOG_FILE)) {
            if let Ok(mut file) = OpenOptions::new().append(true).open(path) {
                file.write_all(&torn).unwrap();
            }
        }
    }

    /// Heals the links of all nodes that run, and starts those that ended by themselves.
    fn calm(&mut self) {
        self.world.heal();
        for node in self.world.nodes.clone() {
            if !self.crashed.contains(node) && !self.world.runs(node) {
                self.world.start(node);
            }
        }
    }

    fn operate(&mut self) {
        let (nodes, members) = (self.world.nodes.clone(), self.world.members());
        let alone: Vec<&'static str> = nodes
            .iter()
            .filter(|node| !members.contains(*node))
            .copied()
            .collect();
        let (Some(at), Some(node)) = (self.pick(&members), self.pick(&nodes)) else {
            return;
        };
        let by = self.pick(&nodes).unwrap_or(node);
        match self.rng.random_range(0..20) {
            0..6 => {
                if let Some(node) = self.pick(&alone) {
                    self.world.act(node, Action::Join(at));
                }
            }
            6..11 => self.world.act(at, Action::Commit),
            11 => self.world.act(at, Action::Clear),
            12 => self.world.act(at, Action::Down(node)),
            13 => {
                let by = name(by);
                self.world
                    .act(at, Action::Stage(node, Change::Replace { by }));
            }
            14 => {
                // The dead, mostly.
                let dead = self.crashed.first().copied();
                if let Some(node) = dead.or(self.rng.random_bool(0.3).then_some(node)) {
                    self.world.act(at, Action::Stage(node, Change::ForceRemove));
                }
            }
            15 => {
                if let Some(node) = self.crashed.first().copied() {
                    let by = name(by);
                    self.world
                        .act(at, Action::Stage(node, Change::ForceReplace { by }));
                }
            }
            16 => {
                let place = Some(format!("rack {}", self.rng.random_range(0..3)));
                self.world
                    .act(at, Action::Stage(node, Change::Location(place)));
            }
            _ => self.world.act(at, Action::Stage(node, Change::Leave)),
        }
        // Sometimes in the middle of it.
        if self.rng.random_range(0..8) == 0 && self.crashed.is_empty() {
            let soon = self.rng.random_range(0..40);
            self.world.run_for(Duration::from_millis(soon));
            if self.world.runs(at) {
                self.world.crash(at);
                self.crashed.insert(at);
            }
        }
    }

    fn write(&mut self) {
        let members = self.world.members();
        for _ in 0..4 {
            let partition = PartitionId::from_id(self.rng.random_range(0..RING as u16));
            let rows = self.rng.random_range(0..3) == 0;
            for node in &members {
                self.world.act(node, Action::Command(partition, rows));
            }
        }
    }

    /// After the storm the map can be changed at every node.
    fn a_change_is_agreed_on(&mut self) {
        let Some(map) = self.world.newest() else {
            return;
        };
        let is_member = |node: &&str| map.members().contains_key(&name(node));
        for node in self.world.members().into_iter().filter(is_member) {
            let before = self.world.newest().unwrap().epoch();
            let place = Some(format!("the end, at {node}"));
            let change = Action::Stage(node, Change::Location(place));
            self.world.act(node, change.clone());
            // A link that a fault has left silent may cost the first one its answer.
            self.world.run_for(Duration::from_secs(2));
            self.world.act(node, change);
            self.world
                .until("a change is agreed on", Duration::from_secs(2), |world| {
                    world.newest().unwrap().epoch() > before
                });
        }
    }
}

/// Seeds that failed once, unless the environment asks for others.
fn known() -> Vec<u64> {
    if std::env::var("SIM_FROM").is_ok() {
        return Vec::new();
    }
    let first = |line: &str| line.split_whitespace().next()?.parse().ok();
    include_str!("seeds.txt")
        .lines()
        .filter_map(first)
        .collect()
}

#[test]
fn after_any_storm_all_is_well() {
    let from = number("SIM_FROM", 1);
    let mut seeds = known();
    seeds.extend(from..from + number("SIM_SEEDS", SEEDS));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in &seeds {
        println!("seed {seed}");
        for (what, count) in run(*seed, ROUNDS).1 {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{} seeds: {counts:#?}", seeds.len());
}
