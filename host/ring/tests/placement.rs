//! Laws of preference lists and coverage plans, on random rings with random nodes down.
#![allow(
    clippy::unwrap_used,
    reason = "a failed set-up fails the test, as it should"
)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use vnode_ring::{
    CoverageError, HashId, KeyHash, NodeName, PartitionId, Replica, ReplicaKind, Ring, RingSize,
    coverage_plan, partial_coverage_plan, preflist, primaries,
};

type UpSet = BTreeSet<NodeName>;

fn node(number: u8) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

/// A ring of any generation with any owners, well placed or not, and some of its nodes up.
fn ring_and_up(sizes: &'static [u32]) -> impl Strategy<Value = (Ring, UpSet)> {
    let of = (proptest::sample::select(sizes), 0..16_u8, 1..8u8);
    of.prop_flat_map(|(partitions, generation, nodes)| {
        let owners = proptest::collection::vec(0..nodes, partitions as usize);
        let up = proptest::collection::vec(proptest::bool::weighted(0.7), usize::from(nodes));
        (owners, up).prop_map(move |(owners, up)| {
            let size = RingSize::of_generation(partitions, generation).unwrap();
            let owners = owners.into_iter().map(node).collect();
            let ring = Ring::new(size, HashId::V1, owners, 1).unwrap();
            let up = (0..).map(node).zip(up).filter(|(_, up)| *up);
            (ring, up.map(|(node, _)| node).collect())
        })
    })
}

fn hash() -> impl Strategy<Value = KeyHash> {
    any::<[u8; 20]>().prop_map(KeyHash)
}

/// The partitions that hold keys whose first replica is `first`.
fn holders(ring: &Ring, first: PartitionId, n: u16) -> Vec<PartitionId> {
    let width = n.min(ring.size().get());
    (0..width)
        .map(|step| ring.size().after(first, step))
        .collect()
}

/// The fewest vnodes that cover every range, found by trying all sets (small rings only); `None` if there is no cover.
fn smallest_cover(ring: &Ring, up: &UpSet, n: u16) -> Option<u32> {
    let partitions = u32::from(ring.size().get());
    let holds: Vec<(PartitionId, u32)> = ring
        .size()
        .partitions()
        .map(|first| {
            let mask = holders(ring, first, n)
                .iter()
                .map(|p| 1_u32 << p.number())
                .sum::<u32>();
            (first, mask)
        })
        .collect();
    let usable: u32 = ring
        .size()
        .partitions()
        .filter(|&p| up.contains(ring.owner(p)))
        .map(|p| 1_u32 << p.number())
        .sum();
    (0..1_u32 << partitions)
        .filter(|set| set & !usable == 0)
        .filter(|set| holds.iter().all(|(_, mask)| set & mask != 0))
        .map(u32::count_ones)
        .min()
}

proptest! {
    #[test]
    fn preference_lists_keep_their_promises(
        (ring, up) in ring_and_up(&[8, 16, 64]),
        hash in hash(),
        n in 1..6u16,
    ) {
        let is_up = |node: &NodeName| up.contains(node);
        let all = primaries(&ring, &hash, n);
        let list = preflist(&ring, &is_up, &hash, n);
        prop_assert_eq!(all.len(), usize::from(n));
        prop_assert_eq!(&list, &preflist(&ring, &is_up, &hash, n), "deterministic");
        prop_assert!(list.iter().all(|replica| up.contains(&replica.node)), "only nodes that are up");

        // Primaries that are up come first, in ring order; the others' partitions follow, each once.
        let present: Vec<&Replica> = all.iter().filter(|r| up.contains(&r.node)).collect();
        let head: Vec<&Replica> = list.iter().take_while(|r| r.kind.is_primary()).collect();
        prop_assert_eq!(&head, &present);
        let absent: Vec<&Replica> = all.iter().filter(|r| !up.contains(&r.node)).collect();
        for (fallback, absent) in list.iter().skip(head.len()).zip(&absent) {
            prop_assert_eq!(fallback.partition, absent.partition);
            let kind = ReplicaKind::Fallback { instead_of: absent.node.clone() };
            prop_assert_eq!(&fallback.kind, &kind);
        }

        // A node is repeated as a fallback only when every owner that is up is in the list.
        let owners_up = ring.nodes().into_iter().filter(|node| up.contains(*node)).count();
        let mut listed: BTreeSet<&NodeName> = head.iter().map(|r| &r.node).collect();
        let fresh = list.iter().skip(head.len()).filter(|r| listed.insert(&r.node)).count();
        let repeats = list.len() - head.len() - fresh;
        prop_assert!(repeats == 0 || listed.len() == owners_up);
        prop_assert!(list.len() == all.len() || listed.len() == owners_up);
        prop_assert_eq!(list.is_empty(), owners_up == 0);
    }

    #[test]
    fn the_first_replica_owns_the_hash_range_of_the_key(hash in hash(), bits in 3..13u32) {
        let size = RingSize::new(1 << bits).unwrap();
        let first = size.first_replica(&hash);
        let (from, to) = size.hash_range(first);
        prop_assert!((from..=to).contains(&hash.prefix()));
    }

    #[test]
    fn coverage_asks_for_each_range_exactly_once(
        (ring, up) in ring_and_up(&[8, 16, 64]),
        n in 1..6u16,
        offset in any::<u64>(),
    ) {
        let is_up = |node: &NodeName| up.contains(node);
        let plan = partial_coverage_plan(&ring, &is_up, n, offset);
        let mut asked = plan.missing.clone();
        for vnode in &plan.vnodes {
            prop_assert!(!vnode.ranges.is_empty());
            prop_assert_eq!(ring.owner(vnode.partition), &vnode.node);
            prop_assert!(up.contains(&vnode.node), "only nodes that are up");
            for &range in &vnode.ranges {
                prop_assert!(holders(&ring, range, n).contains(&vnode.partition));
                asked.push(range);
            }
        }
        asked.sort();
        prop_assert_eq!(asked, ring.size().partitions().collect::<Vec<_>>());
        let vnodes: BTreeSet<PartitionId> = plan.vnodes.iter().map(|v| v.partition).collect();
        prop_assert_eq!(vnodes.len(), plan.vnodes.len(), "no vnode twice");

        // A full plan fails exactly when some range has no replica that is up, for every offset alike.
        let uncovered: Vec<PartitionId> = ring.size().partitions()
            .filter(|&first| !holders(&ring, first, n).iter().any(|&p| up.contains(ring.owner(p))))
            .collect();
        prop_assert_eq!(&plan.missing, &uncovered);
        match coverage_plan(&ring, &is_up, n, offset) {
            Ok(vnodes) => {
                prop_assert!(uncovered.is_empty());
                prop_assert_eq!(vnodes, plan.vnodes);
            }
            Err(CoverageError::Missing { partitions, .. }) => prop_assert_eq!(partitions, uncovered),
        }
    }

    #[test]
    fn a_healthy_ring_is_covered_by_one_vnode_for_n_ranges(
        bits in 3..13u32,
        n in 1..8u16,
        offset in any::<u64>(),
    ) {
        let size = RingSize::new(1 << bits).unwrap();
        let ring = Ring::single(node(0), size, HashId::V1);
        let plan = coverage_plan(&ring, &|_| true, n, offset).unwrap();
        prop_assert_eq!(plan.len(), usize::from(size.get().div_ceil(n)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_smaller_plan_exists(
        (ring, up) in ring_and_up(&[8]),
        n in 1..10u16,
        offset in any::<u64>(),
    ) {
        let plan = coverage_plan(&ring, &|node| up.contains(node), n, offset);
        let found = plan.ok().map(|vnodes| u32::try_from(vnodes.len()).unwrap());
        prop_assert_eq!(found, smallest_cover(&ring, &up, n));
    }
}
