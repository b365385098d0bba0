//! Preference lists: which vnodes hold the replicas of a key.
//!
//! Owns the choice of primaries and of the fallbacks that stand in for them. It never judges who is up, and it sends nothing:
//! the caller passes its view of the nodes and acts on the list.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::hash::KeyHash;

use crate::index::PartitionId;
use crate::ring::{NodeName, Ring};

/// One entry of a preference list: the vnode of `partition` on `node`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The partition served. A fallback serves the partition of the primary it stands in for.
    pub partition: PartitionId,
    /// The node that serves it.
    pub node: NodeName,
    /// Owner or stand-in.
    pub kind: ReplicaKind,
}

/// Why a node is in a preference list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaKind {
    /// It owns the partition.
    Primary,
    /// The owner is not up; what is written here is a hint for it.
    Fallback {
        /// The owner.
        instead_of: NodeName,
    },
}

impl ReplicaKind {
    /// Whether this is a primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self, ReplicaKind::Primary)
    }
}

/// The owners of the `n` partitions from the key's first replica on, up or not, in ring order.
///
/// `n` is brought between 1 and the ring size.
#[must_use]
pub fn primaries(ring: &Ring, hash: &KeyHash, n: u16) -> Vec<Replica> {
    primaries_from(ring, ring.size().first_replica(hash), n)
}

fn primaries_from(ring: &Ring, first: PartitionId, n: u16) -> Vec<Replica> {
    walk(ring, first)
        .take(width(ring, n))
        .map(|(partition, node)| Replica {
            partition,
            node: node.clone(),
            kind: ReplicaKind::Primary,
        })
        .collect()
}

/// The active preference list: the primaries that are up, in ring order, then fallbacks for the others.
///
/// Fallbacks are found as in riak (`riak_core_apl:get_apl`), by walking the ring from the partition after the last primary; each
/// owner met that is up takes the next empty place. Unlike riak's, the walk first passes over nodes that are in the list
/// already, and takes one of them again only when no other is left. The list is shorter than `n` when the walk ends before
/// all places are filled, and empty only when no owner is up. Equal arguments give equal lists. `n` is brought between 1 and
/// the ring size.
#[must_use]
pub fn preflist(
    ring: &Ring,
    up: &impl Fn(&NodeName) -> bool,
    hash: &KeyHash,
    n: u16,
) -> Vec<Replica> {
    preflist_from(ring, up, ring.size().first_replica(hash), n)
}

/// The active preference list of all keys whose first replica is that of partition `first`. See [`preflist`].
#[must_use]
pub fn preflist_from(
    ring: &Ring,
    up: &impl Fn(&NodeName) -> bool,
    first: PartitionId,
    n: u16,
) -> Vec<Replica> {
    let primaries = primaries_from(ring, first, n);
    let width = primaries.len();
    let (mut list, absent): (Vec<Replica>, Vec<Replica>) =
        primaries.into_iter().partition(|replica| up(&replica.node));
    if absent.is_empty() {
        return list;
    }
    let listed: BTreeSet<&NodeName> = list.iter().map(|replica| &replica.node).collect();
    let others = walk(ring, first)
        .skip(width)
        .map(|(_, node)| node)
        .filter(|node| up(node));
    // Counting the owners that are up would cost as much as it saves.
    let stand_ins = stand_ins(others, listed, absent.len(), usize::MAX);
    let fallbacks = absent
        .into_iter()
        .zip(stand_ins)
        .map(|(absent, node)| Replica {
            partition: absent.partition,
            node: node.clone(),
            kind: ReplicaKind::Fallback {
                instead_of: absent.node,
            },
        });
    list.extend(fallbacks.collect::<Vec<_>>());
    list
}

/// The nodes that take `places` empty places of a list, in that order; fewer when there are no more.
///
/// `others` are the owners that are up on the rest of the ring, `listed` the nodes of the list so far. `owners_up`, how many
/// nodes own a partition and are up, only ends the walk early: once all of them have been met there is nobody new to find.
pub(crate) fn stand_ins<N: Copy + Ord>(
    others: impl Iterator<Item = N>,
    mut listed: BTreeSet<N>,
    places: usize,
    owners_up: usize,
) -> impl Iterator<Item = N> {
    let mut distinct = Vec::with_capacity(places);
    let mut repeated = Vec::new();
    for node in others {
        if listed.insert(node) {
            distinct.push(node);
        } else {
            repeated.push(node);
        }
        let all_met = listed.len() >= owners_up && distinct.len() + repeated.len() >= places;
        if distinct.len() == places || all_met {
            break;
        }
    }
    distinct.into_iter().chain(repeated).take(places)
}

/// Every partition once with its owner, from the first replica on.
fn walk<'r>(
    ring: &'r Ring,
    first: PartitionId,
) -> impl Iterator<Item = (PartitionId, &'r NodeName)> + use<'r> {
    let size = ring.size();
    (0..size.get()).map(move |steps| {
        let partition = size.after(first, steps);
        (partition, ring.owner(partition))
    })
}

fn width(ring: &Ring, n: u16) -> usize {
    n.clamp(1, ring.size().get()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashId;
    use crate::index::RingSize;

    /// A ring whose owners repeat `names`, one letter each.
    fn ring(partitions: u32, names: &str) -> Ring {
        let size = RingSize::new(partitions).unwrap();
        let nodes: Vec<NodeName> = names
            .chars()
            .map(|c| NodeName::new(&c.to_string()).unwrap())
            .collect();
        let owners = nodes.iter().cycle().take(partitions as usize).cloned();
        Ring::new(size, HashId::V1, owners.collect(), 1).unwrap()
    }

    /// The list as text, such as `2c 0d(a)`: node d stands in for a on partition 0.
    fn listed(ring: &Ring, up: &str, hash: &KeyHash, n: u16) -> String {
        let list = preflist(ring, &|node| up.contains(node.as_str()), hash, n);
        let entries = list.iter().map(|replica| match &replica.kind {
            ReplicaKind::Primary => format!("{}{}", replica.partition, replica.node),
            ReplicaKind::Fallback { instead_of } => {
                format!("{}{}({instead_of})", replica.partition, replica.node)
            }
        });
        entries.collect::<Vec<_>>().join(" ")
    }

    const LAST_IN_RING: KeyHash = KeyHash([0xff; 20]);

    #[test]
    fn four_nodes_on_eight_partitions_as_in_riak_core_apl() {
        let ring = ring(8, "abcd");
        let table = [
            ("abcd", "0a 1b 2c"),
            ("bcd", "1b 2c 0d(a)"),
            ("cd", "2c 0d(a) 1c(b)"),
            ("ab", "0a 1b 2a(c)"),
        ];
        for (up, expected) in table {
            assert_eq!(listed(&ring, up, &LAST_IN_RING, 3), expected, "up: {up}");
        }
    }

    #[test]
    fn six_nodes_as_in_riak_core_apl() {
        // The owners there repeat dev2 .. dev6, dev1 from partition 19 on; here letters a to f stand for dev1 to dev6.
        let ring = ring(64, "fabcde");
        let hash = KeyHash([
            73, 212, 27, 234, 104, 13, 150, 207, 0, 82, 86, 183, 125, 225, 172, 154, 135, 46, 6,
            112,
        ]);
        assert_eq!(ring.size().first_replica(&hash), PartitionId::from_id(19));
        let table = [
            ("abcdef", "19a 20b 21c"),
            ("acdef", "19a 21c 20d(b)"),
            ("f", "19f(a) 20f(b) 21f(c)"),
            ("abdef", "19a 20b 21d(c)"),
            ("adef", "19a 20d(b) 21e(c)"),
            ("ad", "19a 20d(b) 21a(c)"),
            ("def", "19d(a) 20e(b) 21f(c)"),
            ("de", "19d(a) 20e(b) 21d(c)"),
            ("a", "19a 20a(b) 21a(c)"),
            ("", ""),
        ];
        for (up, expected) in table {
            assert_eq!(listed(&ring, up, &hash, 3), expected, "up: {up}");
        }
    }

    #[test]
    fn a_listed_node_is_passed_over_while_another_is_left() {
        // Riak would give both places to c, the next owner on the ring.
        assert_eq!(
            listed(&ring(8, "abccabdd"), "cd", &LAST_IN_RING, 3),
            "2c 0d(a) 1c(b)"
        );
    }

    #[test]
    fn a_list_is_never_wider_than_the_ring() {
        let ring = ring(8, "ab");
        assert_eq!(primaries(&ring, &LAST_IN_RING, 300).len(), 8);
        assert_eq!(listed(&ring, "a", &LAST_IN_RING, 8), "0a 2a 4a 6a");
        assert_eq!(listed(&ring, "ab", &LAST_IN_RING, 0), "0a");
    }
}
