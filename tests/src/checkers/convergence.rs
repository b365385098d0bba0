//! C6: once faults are over, replicas are equal, every node knows the same map, and nobody holds data for another.
//!
//! It judges one look at the cluster. Convergence takes time, so a test looks until it holds or patience ends, and says which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::{Judgement, Lines, Verdict};

/// What one node tells about itself. Digests are only compared, so any text will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// The node's name.
    pub node: String,
    /// Digest of the map that it knows.
    pub ring: String,
    /// Bytes that it holds as a fallback for other nodes.
    pub fallback_bytes: u64,
    /// The replicas that it holds as a primary.
    pub replicas: Vec<Replica>,
}

/// One primary's copy of one range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The range: the number of the first partition that owns its keys.
    pub range: u32,
    /// The partition whose vnode holds the copy.
    pub partition: u32,
    /// Digest of the contents.
    pub digest: String,
}

/// How much there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Nodes that must have told.
    pub nodes: usize,
    /// Ranges, numbered from 0: the ring's size.
    pub ranges: u32,
    /// Copies of each range.
    pub copies: usize,
}

/// Whether replicas, maps and fallbacks are as they must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Convergence {
    /// Nodes that told.
    pub nodes: usize,
    /// Ranges that were told of.
    pub ranges: usize,
    /// Copies that were told of.
    pub copies: usize,
    /// Nodes that did not tell, so that nothing can be concluded.
    pub nodes_missing: usize,
    /// Ranges whose copies differ: which node's partition holds what.
    pub unequal: BTreeMap<u32, Vec<String>>,
    /// Ranges with another number of copies than they must have, and who holds one.
    pub miscounted: BTreeMap<u32, Vec<String>>,
    /// Bytes on fallbacks, by node; only nodes that hold some.
    pub fallback_bytes: BTreeMap<String, u64>,
    /// The maps that are known, with who knows which; empty when all know the same.
    pub rings: BTreeMap<String, Vec<String>>,
}

impl Convergence {
    /// Judges what the nodes tell at one time.
    pub fn check(expected: Expected, nodes: &[NodeState]) -> Convergence {
        let names: BTreeSet<&str> = nodes.iter().map(|state| state.node.as_str()).collect();
        let mut verdict = Convergence {
            nodes: names.len(),
            nodes_missing: expected.nodes.saturating_sub(names.len()),
            ..Convergence::default()
        };
        let mut copies: BTreeMap<u32, Vec<(&str, &Replica)>> = BTreeMap::new();
        for state in nodes {
            let name = state.node.as_str();
            let knowing = verdict.rings.entry(state.ring.clone()).or_default();
            knowing.push(name.to_owned());
            if state.fallback_bytes > 0 {
                let held = state.fallback_bytes;
                verdict.fallback_bytes.insert(name.to_owned(), held);
            }
            for replica in &state.replicas {
                copies
                    .entry(replica.range)
                    .or_default()
                    .push((name, replica));
            }
        }
        if verdict.rings.len() <= 1 {
            verdict.rings.clear();
        }
        verdict.ranges = copies.len();
        verdict.copies = copies.values().map(Vec::len).sum();
        let told = copies.keys().copied();
        let all: BTreeSet<u32> = told.chain(0..expected.ranges).collect();
        for range in all {
            let copies = copies.get(&range).map_or(&[][..], Vec::as_slice);
            verdict.judge(expected, range, copies);
        }
        verdict
    }

    fn judge(&mut self, expected: Expected, range: u32, copies: &[(&str, &Replica)]) {
        let digests: BTreeSet<&str> = copies.iter().map(|(_, copy)| &*copy.digest).collect();
        if digests.len() > 1 {
            let held = copies.iter().map(|(node, copy)| {
                format!("{node} partition {} has {}", copy.partition, copy.digest)
            });
            self.unequal.insert(range, held.collect());
        }
        let stray = range >= expected.ranges;
        let holders: BTreeSet<u32> = copies.iter().map(|(_, copy)| copy.partition).collect();
        // Two nodes that both take themselves for a partition's owner hold two copies and one too few.
        let doubled = holders.len() != copies.len();
        if stray || doubled || copies.len() != expected.copies {
            let held = copies.iter();
            let held = held.map(|(node, copy)| format!("{node} partition {}", copy.partition));
            self.miscounted.insert(range, held.collect());
        }
    }
}

impl Verdict for Convergence {
    fn judgement(&self) -> Judgement {
        let fallbacks = self.fallback_bytes.len() + self.rings.len();
        match self.unequal.len() + self.miscounted.len() + fallbacks {
            _ if self.nodes_missing > 0 || self.nodes == 0 => Judgement::Undecided,
            0 => Judgement::Holds,
            1.. => Judgement::Violated,
        }
    }

    fn explanation(&self) -> String {
        let mut lines = Lines::default();
        if self.nodes_missing > 0 || self.nodes == 0 {
            lines.line(&format!("nodes that did not tell: {}", self.nodes_missing));
        }
        let rings = self.rings.iter();
        let rings = rings.map(|(ring, nodes)| format!("{ring} at {}", nodes.join(", ")));
        lines.cases("maps", rings);
        let unequal = self.unequal.iter();
        let unequal = unequal.map(|(range, held)| format!("range {range}: {}", held.join(", ")));
        lines.cases("ranges whose copies differ", unequal);
        let miscounted = self
            .miscounted
            .iter()
            .map(|(range, held)| match held.len() {
                0 => format!("range {range}: none"),
                count => format!("range {range}: {count}, by {}", held.join(", ")),
            });
        lines.cases("ranges with a wrong number of copies", miscounted);
        let fallbacks = self.fallback_bytes.iter();
        let fallbacks = fallbacks.map(|(node, bytes)| format!("{node}: {bytes} bytes"));
        lines.cases("nodes that hold data for others", fallbacks);
        lines.text()
    }
}

impl Display for Convergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "C6 convergence   {:<9}  {} nodes, {} ranges, {} copies: ranges unequal {}, miscounted {}, \
             fallback bytes {}, maps {}, nodes missing {}",
            self.judgement(),
            self.nodes,
            self.ranges,
            self.copies,
            self.unequal.len(),
            self.miscounted.len(),
            self.fallback_bytes.values().sum::<u64>(),
            self.rings.len().max(self.nodes.min(1)),
            self.nodes_missing,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREE: Expected = Expected {
        nodes: 3,
        ranges: 8,
        copies: 3,
    };

    /// Three nodes and eight partitions, each range on its partition and the next two.
    fn converged() -> Vec<NodeState> {
        let mut nodes: Vec<NodeState> = (1..=3)
            .map(|number| NodeState {
                node: format!("node{number}"),
                ring: "m7".into(),
                fallback_bytes: 0,
                replicas: Vec::new(),
            })
            .collect();
        for range in 0..8 {
            for step in 0..3 {
                let partition = (range + step) % 8;
                nodes[partition as usize % 3].replicas.push(Replica {
                    range,
                    partition,
                    digest: format!("d{range}"),
                });
            }
        }
        nodes
    }

    #[test]
    fn equal_copies_one_map_and_no_hints_hold() {
        let verdict = Convergence::check(THREE, &converged());
        assert_eq!(verdict.explanation(), "");
        assert_eq!(
            verdict.to_string(),
            "C6 convergence   ok         3 nodes, 8 ranges, 24 copies: ranges unequal 0, miscounted 0, \
             fallback bytes 0, maps 1, nodes missing 0"
        );
    }

    #[test]
    fn each_difference_is_named() {
        let mut nodes = converged();
        nodes[1].replicas[0].digest = "other".into();
        nodes[2].fallback_bytes = 17;
        nodes[0].ring = "m6".into();
        let gone = nodes[0].replicas.pop().unwrap();
        assert_eq!((gone.range, gone.partition), (7, 0));
        let verdict = Convergence::check(THREE, &nodes);
        assert_eq!(verdict.judgement(), Judgement::Violated);
        assert_eq!(
            verdict.explanation(),
            "maps: 2\n  m6 at node1\n  m7 at node2, node3\n\
             ranges whose copies differ: 1\n  range 0: node1 partition 0 has d0, node2 partition 1 has other, node3 partition 2 has d0\n\
             ranges with a wrong number of copies: 1\n  range 7: 2, by node2 partition 7, node2 partition 1\n\
             nodes that hold data for others: 1\n  node3: 17 bytes\n"
        );
    }

    #[test]
    fn a_range_that_nobody_or_one_too_many_holds_is_found() {
        let mut nodes = converged();
        for state in &mut nodes {
            state.replicas.retain(|replica| replica.range != 5);
        }
        let double = nodes[0].replicas[0].clone();
        nodes[1].replicas.push(double);
        let verdict = Convergence::check(THREE, &nodes);
        assert_eq!(verdict.miscounted.keys().collect::<Vec<_>>(), [&0, &5]);
    }

    #[test]
    fn two_owners_of_one_partition_do_not_make_up_for_a_missing_copy() {
        let mut nodes = converged();
        let replica = nodes[0].replicas[0].clone();
        let of_another = |each: &Replica| each.range != replica.range || each.partition == 1;
        nodes[2].replicas.retain(of_another);
        nodes[2].replicas.push(replica.clone());
        let verdict = Convergence::check(THREE, &nodes);
        assert!(verdict.miscounted.contains_key(&replica.range));
    }

    #[test]
    fn a_silent_node_leaves_it_undecided() {
        let verdict = Convergence::check(THREE, &converged()[..2]);
        assert_eq!(verdict.judgement(), Judgement::Undecided);
        assert!(
            verdict
                .explanation()
                .starts_with("nodes that did not tell: 1\n")
        );
        let nobody = Convergence::check(Expected { nodes: 0, ..THREE }, &[]);
        assert_eq!(nobody.judgement(), Judgement::Undecided);
    }

    proptest! {
        #[test]
        fn any_one_digest_that_differs_is_found(
            node in 0..3_usize,
            at in any::<prop::sample::Index>(),
        ) {
            let mut nodes = converged();
            let replicas = &mut nodes[node].replicas;
            let at = at.index(replicas.len());
            let replica = &mut replicas[at];
            replica.digest.push('x');
            let range = replica.range;
            let verdict = Convergence::check(THREE, &nodes);
            prop_assert_eq!(verdict.judgement(), Judgement::Violated);
            prop_assert_eq!(verdict.unequal.keys().copied().collect::<Vec<_>>(), [range]);
        }
    }
}
