//! What the test sees of all nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::runtime::Id;
use vnode_host::node::Shared as Live;
use vnode_ring::{ClusterId, ClusterMap, PartitionId};

pub(crate) type Shared = Arc<Mutex<Board>>;

/// What the test sees.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) at: u128,
    pub(crate) trace: Vec<String>,
    /// Nodes that run.
    pub(crate) live: BTreeMap<&'static str, Arc<Live>>,
    /// What each node that was started runs on.
    runtimes: BTreeMap<&'static str, Id>,
    /// Nodes that have left the cluster and ended.
    pub(crate) gone: Vec<&'static str>,
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
    pub(crate) fn starts(&mut self, node: &'static str, runtime: Id) -> u64 {
        self.note(node, "starts");
        self.runtimes.insert(node, runtime);
        let starts = self.starts.entry(node).or_default();
        *starts += 1;
        *starts
    }

    pub(crate) fn lives(&mut self, node: &'static str, live: &Arc<Live>) {
        self.note(node, "lives");
        self.live.insert(node, Arc::clone(live));
    }

    /// The node is crashed: it is seen no more, and another one may get its runtime's number.
    pub(crate) fn dies(&mut self, node: &str) -> Option<Arc<Live>> {
        self.runtimes.remove(node);
        self.live.remove(node)
    }

    /// It is no member any more, and its process ends.
    pub(crate) fn leaves(&mut self, node: &'static str) {
        self.note(node, "is gone");
        self.live.remove(node);
        self.gone.push(node);
    }

    /// The node that runs on a runtime.
    pub(crate) fn on(&self, runtime: Id) -> Option<&'static str> {
        let mut nodes = self.runtimes.iter();
        nodes
            .find(|(_, other)| **other == runtime)
            .map(|(node, _)| *node)
    }

    /// The node that decides.
    pub(crate) fn claimant(&self) -> Option<&'static str> {
        let decides = |node: &str, live: &Live| {
            let claimant = live.cluster.claimant();
            let alone = live
                .cluster
                .map()
                .is_none_or(|map| map.members().len() == 1);
            claimant.is_some_and(|claimant| claimant.as_str() == node) && !alone
        };
        let mut nodes = self.live.iter();
        nodes
            .find(|(node, live)| decides(node, live))
            .map(|(node, _)| *node)
    }

    /// No partition is served by two nodes of a cluster, whatever maps they have.
    pub(crate) fn one_serves(&self) {
        let mut served: BTreeMap<(ClusterId, PartitionId), &str> = BTreeMap::new();
        for (node, live) in &self.live {
            let view = live.coordinator.view();
            let serves = |partition: &PartitionId| live.coordinator.serves(*partition);
            for partition in view.ring().size().partitions().filter(serves) {
                if let Some(other) = served.insert((view.map().cluster(), partition), node) {
                    panic!("{node} and {other} both serve {partition}");
                }
            }
        }
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
