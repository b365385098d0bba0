//! What a node knows of its cluster at one moment, and where that sends a command.
//!
//! A snapshot: whoever has one may be late. That is mended where the command arrives, which knows better or waits until it does.

mod lists;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use self::lists::Lists;
use crate::index::PartitionId;
use crate::map::ClusterMap;
use crate::ring::{NodeName, Ring};

/// The most replicas of a key that a view keeps preference lists for.
pub const REPLICAS_MAX: u16 = 64;

/// As what a vnode serves a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its node owns the partition.
    Primary,
    /// The owner is not up; what is written is a hint for it.
    Fallback,
}

impl Role {
    /// In one word, for people: `primary` or `fallback`.
    pub fn word(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Fallback => "fallback",
        }
    }
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

/// One vnode of a preference list, as a view sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The partition served. A fallback serves the partition of the primary it stands in for.
    pub partition: PartitionId,
    /// Its node, as a position of [`View::nodes`].
    pub node: u16,
    /// Owner or stand-in.
    pub role: Role,
}

impl Holder {
    /// Whether its node owns the partition.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }
}

/// The cluster map, and who is up as seen here.
#[derive(Clone, Debug)]
pub struct View {
    me: NodeName,
    /// The position of `me` in `nodes`; a node that is no member has none.
    my_position: Option<u16>,
    map: Arc<ClusterMap>,
    up: BTreeSet<NodeName>,
    unheard: BTreeSet<NodeName>,
    claimant: Option<NodeName>,
    nodes: Vec<NodeName>,
    /// By the number of replicas, from one on. Few of the numbers are ever asked for.
    lists: Vec<OnceLock<Lists>>,
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
        let my_position = position(&nodes, &me);
        let widths = REPLICAS_MAX.min(map.ring().size().get());
        View {
            me,
            my_position,
            up,
            unheard: BTreeSet::new(),
            claimant,
            nodes,
            lists: (0..widths).map(|_| OnceLock::new()).collect(),
            map,
        }
    }

    /// The same, in which these members count as up although nothing was heard of them yet.
    #[must_use]
    pub fn presuming(self, unheard: BTreeSet<NodeName>) -> View {
        let up = self.up.union(&unheard).cloned().collect();
        let view = View::new(self.me, self.map, &up, self.claimant);
        View { unheard, ..view }
    }

    /// The members that count as up although nothing was heard of them yet.
    #[must_use]
    pub fn unheard(&self) -> &BTreeSet<NodeName> {
        &self.unheard
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

    /// Whether commands go to a member: it is up as seen here, or nothing is known to the contrary yet.
    #[must_use]
    pub fn is_up(&self, node: &NodeName) -> bool {
        self.up.contains(node)
    }

    /// Whether a member is up and was heard of.
    #[must_use]
    pub fn is_seen(&self, node: &NodeName) -> bool {
        self.is_up(node) && !self.unheard.contains(node)
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

    /// The position of this node in [`View::nodes`]; `None` if it is no member.
    #[must_use]
    pub fn my_position(&self) -> Option<u16> {
        self.my_position
    }

    /// Whether a vnode is one of this node's.
    #[must_use]
    pub fn is_here(&self, holder: &Holder) -> bool {
        self.my_position == Some(holder.node)
    }

    /// The vnodes that hold the keys whose first replica is on partition `range`, one for each of the `n` partitions from
    /// `range` on, in ring order: the owner if it is up, else the fallback that stands in for it.
    ///
    /// These are the vnodes of [`preflist_from`](crate::preflist_from), which lists all primaries first. Partitions for which
    /// nobody is left are missing. `n` is brought between 1 and the ring size, and to at most [`REPLICAS_MAX`]. The first
    /// call with an `n` computes the lists of all ranges; all others are two look-ups.
    #[must_use]
    pub fn holders(&self, range: PartitionId, n: u16) -> &[Holder] {
        let widest = self.lists.len();
        let n = usize::from(n).clamp(1, widest);
        let lists = self.lists.get(n - 1).map(|lists| {
            lists.get_or_init(|| {
                let position = |node: &NodeName| position(&self.nodes, node);
                let up = |node: &NodeName| position(node).filter(|_| self.up.contains(node));
                Lists::new(self.ring(), &up, n)
            })
        });
        lists.map_or(&[], |lists| lists.of(range))
    }

    /// The same vnodes in the order of preference, which is that of [`preflist_from`](crate::preflist_from): all primaries first.
    #[must_use]
    pub fn preferred(&self, range: PartitionId, n: u16) -> Vec<Holder> {
        let mut holders = self.holders(range, n).to_vec();
        holders.sort_by_key(|holder| !holder.is_primary());
        holders
    }

    /// The vnode that runs the commands of `range`: the first primary that is up, else the first fallback. See
    /// [`View::holders`].
    #[must_use]
    pub fn coordinator(&self, range: PartitionId, n: u16) -> Option<Holder> {
        let holders = self.holders(range, n);
        let primary = holders.iter().find(|holder| holder.is_primary());
        primary.or_else(|| holders.first()).copied()
    }

    /// Where the commands go whose first replica is that partition, if each key has one replica only.
    #[must_use]
    pub fn place(&self, partition: PartitionId) -> Place {
        match self.holders(partition, 1).first() {
            Some(holder) if self.is_here(holder) => Place::Here(holder.role),
            Some(holder) => Place::There(holder.node.into(), holder.role),
            None => Place::Nowhere,
        }
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

/// Where a node stands among the members.
fn position(nodes: &[NodeName], node: &NodeName) -> Option<u16> {
    let at = nodes.binary_search(node).ok()?;
    u16::try_from(at).ok()
}
