//! What the test sees of all nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vnode_host::node::Shared as Live;
use vnode_ring::ClusterMap;

pub(crate) type Shared = Arc<Mutex<Board>>;

/// What the test sees.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) at: u128,
    pub(crate) trace: Vec<String>,
    /// Nodes that run.
    pub(crate) live: BTreeMap<&'static str, Arc<Live>>,
    starts: BTreeMap<&'static str, u64>,
    epochs: BTreeMap<&'static str, u64>,
    /// How often what happened: to see that a run means something.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Board {
    pub(crate) fn note(&mut self, who: &str, what: &str) {
        self.trace.push(format!("{} {who} {what}", self.at));
    }

    pub(crate) fn add(&mut self, what: &str, count: u64) {
        *self.counts.entry(what.to_owned()).or_default() += count;
    }

    /// Counts the runs of a node.
    pub(crate) fn starts(&mut self, node: &'static str) -> u64 {
        self.note(node, "starts");
        let starts = self.starts.entry(node).or_default();
        *starts += 1;
        *starts
    }

    pub(crate) fn lives(&mut self, node: &'static str, live: &Arc<Live>) {
        self.note(node, "lives");
        self.live.insert(node, Arc::clone(live));
    }

    /// The map as a node knows it.
    pub(crate) fn map(&self, node: &str) -> Option<Arc<ClusterMap>> {
        self.live.get(node)?.cluster.map()
    }

    /// Notes maps that are new to a node.
    pub(crate) fn look(&mut self) {
        let nodes: Vec<&'static str> = self.live.keys().copied().collect();
        for node in nodes {
            let epoch = self.map(node).map_or(0, |map| map.epoch());
            if self.epochs.insert(node, epoch) != Some(epoch) {
                self.note(node, &format!("map {epoch}"));
            }
        }
    }
}
