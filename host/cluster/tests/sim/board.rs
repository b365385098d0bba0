//! What the test sees of all nodes, and what must hold of it after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use vnode_cluster::damping::Sight;
use vnode_cluster::{Cluster, ClusterError};
use vnode_ring::{ClusterId, ClusterMap, PartitionId, Plan};

use crate::node::{Action, name};
use crate::vnodes::Model;

pub(crate) type Shared = Arc<Mutex<Board>>;

/// A node that runs.
pub(crate) struct Live {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) vnodes: Arc<Model>,
    pub(crate) sight: watch::Receiver<Sight>,
    /// The map that was looked at last.
    seen: Option<Arc<ClusterMap>>,
}

impl Live {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        vnodes: Arc<Model>,
        sight: watch::Receiver<Sight>,
    ) -> Live {
        Live {
            cluster,
            vnodes,
            sight,
            seen: None,
        }
    }
}

/// What the test sees.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) at: u128,
    pub(crate) trace: Vec<String>,
    pub(crate) live: BTreeMap<&'static str, Live>,
    /// Every map that any node has had.
    pub(crate) maps: BTreeMap<(ClusterId, u64), Agreed>,
    /// The epoch that each node knew last, over restarts.
    epochs: BTreeMap<(&'static str, ClusterId, u64), u64>,
    /// Nodes that an operator removed against their will: they may serve until they know.
    pub(crate) forced: BTreeSet<&'static str>,
    /// Nodes that have left their cluster, or are stranded, and are stopped.
    pub(crate) gone: BTreeSet<&'static str>,
    plans: Vec<(ClusterId, u64, Plan)>,
    starts: BTreeMap<&'static str, u64>,
    /// The sum of the versions of what is served, when that was looked at last.
    served_at: u64,
    /// How often what happened: to see that a run means something.
    pub(crate) counts: BTreeMap<String, u64>,
}

/// A map, and its bytes, which have to be the same everywhere.
pub(crate) struct Agreed {
    pub(crate) map: Arc<ClusterMap>,
    bytes: Vec<u8>,
}

impl Board {
    pub(crate) fn note(&mut self, node: &str, what: &str) {
        self.trace.push(format!("{} {node} {what}", self.at));
    }

    pub(crate) fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Counts the runs of a node.
    pub(crate) fn starts(&mut self, node: &'static str) -> u64 {
        self.note(node, "starts");
        self.gone.remove(node);
        let starts = self.starts.entry(node).or_default();
        *starts += 1;
        *starts
    }

    pub(crate) fn lives(&mut self, node: &'static str, live: Live) {
        self.note(node, "lives");
        self.live.insert(node, live);
    }

    /// Somebody gives the node an old directory.
    pub(crate) fn may_go_back(&mut self, node: &str) {
        self.epochs.retain(|(other, ..), _| *other != node);
    }

    /// It has left its cluster, and its process ends.
    pub(crate) fn is_gone(&mut self, node: &'static str) {
        self.note(node, "is gone");
        self.count("gone");
        self.gone.insert(node);
        self.live.remove(node);
        self.forced.remove(node);
    }

    /// Those by whom it was joining have left the cluster themselves.
    pub(crate) fn is_stranded(&mut self, node: &'static str, error: &ClusterError) {
        self.note(node, &error.to_string());
        self.count("stranded");
        self.gone.insert(node);
    }

    /// What came of an action.
    pub(crate) fn done(&mut self, node: &str, action: &Action, outcome: Result<(), String>) {
        let word = format!("{action:?}");
        let word = word.split('(').next().unwrap_or_default();
        self.count(&format!(
            "{word} {}",
            if outcome.is_ok() { "done" } else { "not done" }
        ));
        self.note(node, &format!("{action:?}: {outcome:?}"));
    }

    /// A plan was committed, and led to that epoch.
    pub(crate) fn planned(&mut self, cluster: ClusterId, epoch: u64, plan: Plan) {
        self.plans.push((cluster, epoch, plan));
    }

    /// Everything that must hold at every moment.
    pub(crate) fn check(&mut self) {
        let nodes: Vec<&'static str> = self.live.keys().copied().collect();
        for node in nodes {
            let live = self.live.get_mut(node).unwrap();
            let map = live.cluster.map().unwrap();
            if live
                .seen
                .as_ref()
                .is_none_or(|seen| !Arc::ptr_eq(seen, &map))
            {
                live.seen = Some(Arc::clone(&map));
                let number = map
                    .members()
                    .get(&name(node))
                    .map_or(0, |me| me.card.number);
                self.epoch_grows(node, number, &map);
                self.is_agreed(node, map);
            }
        }
        self.plans_came_true();
        self.one_serves();
    }

    fn epoch_grows(&mut self, node: &'static str, number: u64, map: &ClusterMap) {
        let epoch = map.epoch();
        let before = self.epochs.insert((node, map.cluster(), number), epoch);
        let before = before.unwrap_or_default();
        self.note(node, &format!("map {epoch} of {}", map.cluster()));
        assert!(
            before <= epoch,
            "{node} goes back from epoch {before} to {epoch}"
        );
    }

    fn is_agreed(&mut self, node: &str, map: Arc<ClusterMap>) {
        let config = bincode::config::standard();
        let bytes = bincode::serde::encode_to_vec(&*map, config).unwrap();
        let key = (map.cluster(), map.epoch());
        if let Some(agreed) = self.maps.get(&key) {
            assert_eq!(*agreed.map, *map, "{node} has another map");
            assert_eq!(agreed.bytes, bytes, "{node} has other bytes");
            return;
        }
        for owner in map.ring().owners() {
            assert!(map.members().contains_key(owner), "{owner} is no member");
        }
        // Reading a map checks the rest.
        let read: (ClusterMap, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(read.0, *map);
        if let Some(before) = self.maps.get(&(key.0, key.1.wrapping_sub(1))) {
            self.owners_change_rightly(&before.map, &map);
        }
        self.count("maps");
        self.maps.insert(key, Agreed { map, bytes });
    }

    /// From one epoch to the next: nobody loses a partition who is up and holds rows of it.
    fn owners_change_rightly(&self, old: &ClusterMap, new: &ClusterMap) {
        for partition in new.ring().size().partitions() {
            let (from, to) = (old.ring().owner(partition), new.ring().owner(partition));
            if from == to || self.forced.contains(from.as_str()) {
                continue;
            }
            let transfer = old.transfers().get(&partition).map(|transfer| &transfer.to);
            assert_eq!(
                transfer,
                Some(to),
                "{partition} went from {from} without a transfer"
            );
            if let Some(live) = self.live.get(from.as_str()) {
                let disk = live.vnodes.disk.lock().unwrap();
                assert!(
                    !disk.contains(&partition),
                    "{from} lost {partition} with its rows"
                );
            }
        }
    }

    /// What was committed is what was planned.
    fn plans_came_true(&mut self) {
        for (cluster, epoch, plan) in std::mem::take(&mut self.plans) {
            let Some(agreed) = self.maps.get(&(cluster, epoch)) else {
                self.count("plans unseen");
                continue;
            };
            let (map, after) = (&agreed.map, &plan.after);
            assert_eq!(
                map.future_owners(),
                after.future_owners(),
                "plan {}",
                plan.id
            );
            assert_eq!(
                map.ring().owners(),
                after.ring().owners(),
                "plan {}",
                plan.id
            );
            assert_eq!(map.members(), after.members(), "plan {}", plan.id);
            self.count("plans");
        }
    }

    /// No partition is served by two nodes of a cluster, whatever maps they have.
    fn one_serves(&mut self) {
        let version = self.live.values().map(|live| live.vnodes.version()).sum();
        if version == self.served_at {
            return;
        }
        self.served_at = version;
        let mut served: BTreeMap<(ClusterId, PartitionId), &str> = BTreeMap::new();
        for (node, live) in &self.live {
            if self.forced.contains(node) {
                continue;
            }
            let cluster = vnode_cluster::Vnodes::view(&*live.vnodes).map().cluster();
            for partition in live.vnodes.served() {
                if let Some(other) = served.insert((cluster, partition), node) {
                    panic!("{node} and {other} both serve {partition}");
                }
            }
        }
    }
}
