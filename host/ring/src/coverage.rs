//! Coverage plans: which vnodes to ask so that every key is answered for exactly once.
//!
//! Owns the choice of vnodes and of each one's keyspace filter. Only primaries are asked; a fallback may hold next to nothing.
//! It never judges who is up, and it sends nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::index::{PartitionId, RingSize};
use crate::ring::{NodeName, Ring};

/// Error messages name at most this many partitions.
const NAMED_MAX: usize = 16;

/// One vnode to ask, and what it is to answer for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageVnode {
    /// The vnode's partition.
    pub partition: PartitionId,
    /// Its owner.
    pub node: NodeName,
    /// The keyspace filter: it answers for the keys whose *first replica* is on one of these partitions, and for no others.
    /// In ring order, never empty. [`RingSize::hash_range`] gives the hashes.
    pub ranges: Vec<PartitionId>,
}

/// A plan that may leave ranges out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoveragePlan {
    /// The vnodes to ask; no vnode twice, no range twice.
    pub vnodes: Vec<CoverageVnode>,
    /// The ranges none of whose replicas is up, ascending.
    pub missing: Vec<PartitionId>,
}

/// Why there is no full plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoverageError {
    /// Some ranges have no primary that is up.
    #[error(
        "none of the {n} replicas is up for keys of {}; bring a node back or ask for partial results",
        Named(partitions)
    )]
    Missing {
        /// How many replicas each key has.
        n: u16,
        /// The first-replica partitions of those keys, ascending.
        partitions: Vec<PartitionId>,
    },
}

/// A plan over the whole key space with as few vnodes as possible.
///
/// The vnode of partition p holds the keys whose first replica is on p or on one of the `n - 1` partitions before it. Plans for
/// different `offset`s start at different places on the ring, which spreads the work; equal arguments give equal plans. `n` is
/// brought between 1 and the ring size.
///
/// # Errors
/// Names the ranges that no primary which is up holds.
pub fn coverage_plan(
    ring: &Ring,
    up: &impl Fn(&NodeName) -> bool,
    n: u16,
    offset: u64,
) -> Result<Vec<CoverageVnode>, CoverageError> {
    let plan = partial_coverage_plan(ring, up, n, offset);
    if plan.missing.is_empty() {
        return Ok(plan.vnodes);
    }
    Err(CoverageError::Missing {
        n: n.clamp(1, ring.size().get()),
        partitions: plan.missing,
    })
}

/// As [`coverage_plan`], but leaves out what cannot be covered and says so.
///
/// Going round the ring, the best vnode for the next range is the furthest one that still holds it. That gives a smallest
/// cover when the round begins right after the last range of one of its vnodes. A vnode holds only `n` ranges, so a smallest
/// cover has such a place among any `n + 1` neighbours; trying those is enough (Lee and Lee, "On a circle-cover minimization
/// problem", 1984). The candidates are riak's: primaries only, never fallbacks.
#[must_use]
pub fn partial_coverage_plan(
    ring: &Ring,
    up: &impl Fn(&NodeName) -> bool,
    n: u16,
    offset: u64,
) -> CoveragePlan {
    let size = ring.size();
    let n = n.clamp(1, size.get());
    let available: Vec<bool> = ring.owners().iter().map(up).collect();
    let offset = u16::try_from(offset % u64::from(size.get())).unwrap_or_default();
    let first = size.at(offset);
    // Of equally small covers the first is taken, so that the offset decides.
    let best = (0..=n)
        .map(|steps| Cover::from(size, &available, n, size.after(first, steps)))
        .min_by_key(|cover| cover.arcs.len())
        .unwrap_or_default();
    let vnodes = best.arcs.into_iter().map(|arc| CoverageVnode {
        partition: arc.vnode,
        node: ring.owner(arc.vnode).clone(),
        ranges: (0..arc.width)
            .map(|steps| size.after(arc.start, steps))
            .collect(),
    });
    let mut missing = best.missing;
    missing.sort_unstable();
    CoveragePlan {
        vnodes: vnodes.collect(),
        missing,
    }
}

/// Neighbouring ranges, from `start` on, that one vnode answers for.
struct Arc {
    vnode: PartitionId,
    start: PartitionId,
    width: u16,
}

/// What one round along the ring found.
#[derive(Default)]
struct Cover {
    arcs: Vec<Arc>,
    missing: Vec<PartitionId>,
}

impl Cover {
    /// Goes round once from `first`, always taking the furthest vnode that holds the next range.
    fn from(size: RingSize, available: &[bool], n: u16, first: PartitionId) -> Cover {
        let is_up = |partition: PartitionId| {
            let up = available.get(usize::from(partition.number()));
            up.copied().unwrap_or_default()
        };
        let mut cover = Cover::default();
        let mut done = 0;
        while done < size.get() {
            let start = size.after(first, done);
            let furthest = (0..n).rev().find(|&ahead| is_up(size.after(start, ahead)));
            done += match furthest {
                Some(ahead) => {
                    // The last vnode of the round also holds ranges the first ones have answered for.
                    let width = (ahead + 1).min(size.get() - done);
                    let vnode = size.after(start, ahead);
                    cover.arcs.push(Arc {
                        vnode,
                        start,
                        width,
                    });
                    width
                }
                None => {
                    cover.missing.push(start);
                    1
                }
            };
        }
        cover
    }
}

/// Partitions in words: `partitions 3, 4 and 20 more`.
struct Named<'a>(&'a [PartitionId]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.len() == 1 {
            "partition "
        } else {
            "partitions "
        })?;
        for (at, partition) in self.0.iter().take(NAMED_MAX).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{partition}")?;
        }
        match self.0.len().checked_sub(NAMED_MAX) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashId;

    fn ring(partitions: u32, names: &str) -> Ring {
        let size = RingSize::new(partitions).unwrap();
        let nodes: Vec<NodeName> = names
            .chars()
            .map(|c| NodeName::new(&c.to_string()).unwrap())
            .collect();
        let owners = nodes.iter().cycle().take(partitions as usize).cloned();
        Ring::new(size, HashId::V1, owners.collect(), 1).unwrap()
    }

    /// The plan as text, such as `2c:0,1,2`.
    fn planned(ring: &Ring, up: &str, n: u16, offset: u64) -> Result<String, CoverageError> {
        let plan = coverage_plan(ring, &|node| up.contains(node.as_str()), n, offset)?;
        let vnodes = plan.iter().map(|vnode| {
            let ranges: Vec<String> = vnode.ranges.iter().map(PartitionId::to_string).collect();
            format!("{}{}:{}", vnode.partition, vnode.node, ranges.join(","))
        });
        Ok(vnodes.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn plans_ask_the_fewest_vnodes_and_move_with_the_offset() {
        let ring = ring(8, "abcd");
        let table = [
            (0, "2c:0,1,2 5b:3,4,5 0a:6,7"),
            (1, "3d:1,2,3 6c:4,5,6 1b:7,0"),
            (8, "2c:0,1,2 5b:3,4,5 0a:6,7"),
            (u64::MAX, "1b:7,0,1 4a:2,3,4 7d:5,6"),
        ];
        for (offset, expected) in table {
            assert_eq!(planned(&ring, "abcd", 3, offset).unwrap(), expected);
        }
    }

    #[test]
    fn other_primaries_answer_for_a_node_that_is_down() {
        let ring = ring(8, "abcd");
        assert_eq!(
            planned(&ring, "bd", 3, 0).unwrap(),
            "1b:0,1 3d:2,3 5b:4,5 7d:6,7"
        );
    }

    #[test]
    fn what_nobody_holds_is_named() {
        let ring = ring(8, "abcd");
        let error = planned(&ring, "d", 3, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of the 3 replicas is up for keys of partitions 0, 4; bring a node back or ask for partial results"
        );
        let plan = partial_coverage_plan(&ring, &|node| node.as_str() == "d", 3, 5);
        assert_eq!(
            plan.missing,
            [PartitionId::from_id(0), PartitionId::from_id(4)]
        );
        assert_eq!(plan.vnodes.len(), 2);
    }

    #[test]
    fn messages_stay_short() {
        let partitions: Vec<PartitionId> = (0..64).map(PartitionId::from_id).collect();
        assert!(Named(&partitions).to_string().ends_with(", 15 and 48 more"));
        assert_eq!(Named(&partitions[..1]).to_string(), "partition 0");
        assert!(Named(&partitions[..16]).to_string().ends_with("14, 15"));
    }

    #[test]
    fn one_vnode_is_enough_when_everyone_holds_everything() {
        assert_eq!(
            planned(&ring(8, "ab"), "ab", 300, 3).unwrap(),
            "2a:3,4,5,6,7,0,1,2"
        );
        assert_eq!(
            planned(&ring(8, "abcdefgh"), "d", 8, 0).unwrap(),
            "3d:4,5,6,7,0,1,2,3"
        );
    }
}
