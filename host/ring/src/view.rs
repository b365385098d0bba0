//! What a node knows of its cluster at one moment, and where that sends a command.
//!
//! A snapshot: whoever has one may be late. That is mended where the command arrives, which knows better or waits until it does.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::index::PartitionId;
use crate::map::ClusterMap;
use crate::preflist::{Replica, preflist_from};
use crate::ring::{NodeName, Ring};

/// As what a vnode serves a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its node owns the partition.
    Primary,
    /// The owner is not up; what is written is a hint for it.
    Fallback,
}

/// Where the commands for a partition go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To a vnode of this node.
    Here(Role),
    /// To the node at this position of [`View::nodes`].
    There(usize, Role),
    /// No node that could serve it is up.
    Nowhere,
}

/// The cluster map, and who is up as seen here.
#[derive(Clone, Debug)]
pub struct View {
    me: NodeName,
    map: Arc<ClusterMap>,
    up: BTreeSet<NodeName>,
    claimant: Option<NodeName>,
    nodes: Vec<NodeName>,
    places: Vec<Place>,
}

impl View {
    /// The view of node `me`, which is up in its own eyes.
    #[must_use]
    pub fn new(
        me: NodeName,
        map: Arc<ClusterMap>,
        up: &BTreeSet<NodeName>,
        claimant: Option<NodeName>,
    ) -> View {
        let nodes: Vec<NodeName> = map.members().keys().cloned().collect();
        let up: BTreeSet<NodeName> = nodes
            .iter()
            .filter(|node| **node == me || up.contains(node))
            .cloned()
            .collect();
        let place = |partition| place(&me, &nodes, map.ring(), &up, partition);
        let places = map.ring().size().partitions().map(place).collect();
        View {
            me,
            up,
            claimant,
            nodes,
            places,
            map,
        }
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> &NodeName {
        &self.me
    }

    /// What all nodes agree on.
    #[must_use]
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// Who owns what.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        self.map.ring()
    }

    /// Whether a member is up as seen here.
    #[must_use]
    pub fn is_up(&self, node: &NodeName) -> bool {
        self.up.contains(node)
    }

    /// The member that decides on changes, if it is known.
    #[must_use]
    pub fn claimant(&self) -> Option<&NodeName> {
        self.claimant.as_ref()
    }

    /// The members, in the order of their names.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// Where the commands go whose first replica is that partition.
    #[must_use]
    pub fn place(&self, partition: PartitionId) -> Place {
        let place = self.places.get(usize::from(partition.0));
        place.copied().unwrap_or(Place::Nowhere)
    }

    /// The node behind a place.
    #[must_use]
    pub fn node_at(&self, place: Place) -> Option<&NodeName> {
        match place {
            Place::Here(_) => Some(&self.me),
            Place::There(node, _) => self.nodes.get(node),
            Place::Nowhere => None,
        }
    }
}

/// Every key has one replica, that of its first partition, until keys are replicated.
fn place(
    me: &NodeName,
    nodes: &[NodeName],
    ring: &Ring,
    up: &BTreeSet<NodeName>,
    partition: PartitionId,
) -> Place {
    let list = preflist_from(ring, &|node| up.contains(node), partition, 1);
    let Some(Replica { node, kind, .. }) = list.first() else {
        return Place::Nowhere;
    };
    let role = match kind.is_primary() {
        true => Role::Primary,
        false => Role::Fallback,
    };
    match nodes.binary_search(node) {
        _ if node == me => Place::Here(role),
        Ok(at) => Place::There(at, role),
        Err(_) => Place::Nowhere,
    }
}
