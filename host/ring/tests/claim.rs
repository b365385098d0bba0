//! Laws of claims: the rings of the tutorials, riak's hard cases, all small rings against brute force, and random histories.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vnode_ring::{ClaimError, Claimer, Cure, NodeName, Safety, claim, safety};

fn node(number: usize) -> NodeName {
    NodeName::new(&format!("n{number:03}")).unwrap()
}

fn claimer(number: usize, location: Option<usize>) -> Claimer {
    Claimer {
        node: node(number),
        location: location.map(|location| format!("l{location}")),
        weight: 100,
    }
}

fn nodes(count: usize) -> Vec<Claimer> {
    (0..count).map(|number| claimer(number, None)).collect()
}

/// As many nodes in each location as `sizes` says.
fn located(sizes: &[usize]) -> Vec<Claimer> {
    let locations = (0..sizes.len()).flat_map(|location| vec![location; sizes[location]]);
    (0..)
        .zip(locations)
        .map(|(number, location)| claimer(number, Some(location)))
        .collect()
}

/// The ring of a cluster whose nodes all join at once.
fn fresh(partitions: usize, claimers: &[Claimer], n: u16) -> Vec<NodeName> {
    claim(&vec![node(0); partitions], claimers, n).unwrap()
}

/// How many partitions each claimer owns; nobody else may own any.
fn counts(owners: &[NodeName], claimers: &[Claimer]) -> Vec<usize> {
    let mut counts: BTreeMap<&NodeName, usize> = claimers.iter().map(|c| (&c.node, 0)).collect();
    for owner in owners {
        *counts.get_mut(owner).unwrap() += 1;
    }
    counts.into_values().collect()
}

fn imbalance(owners: &[NodeName], claimers: &[Claimer]) -> usize {
    let counts = counts(owners, claimers);
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

fn moves(before: &[NodeName], after: &[NodeName]) -> usize {
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| before != after)
        .count()
}

/// The fewest moves that lead from `before` to a ring with the counts of `after`.
fn moves_least(before: &[NodeName], after: &[NodeName]) -> usize {
    let nodes: BTreeSet<&NodeName> = after.iter().collect();
    let count = |ring: &[NodeName], node| ring.iter().filter(|&owner| owner == node).count();
    nodes
        .into_iter()
        .map(|node| count(after, node).saturating_sub(count(before, node)))
        .sum()
}

/// Bad lists by node and by location.
fn bad(safety: &Safety) -> (usize, usize) {
    (safety.nodes.bad.len(), safety.locations.bad.len())
}

fn unavoidable(safety: &Safety) -> (usize, usize) {
    (safety.nodes.unavoidable, safety.locations.unavoidable)
}

#[test]
fn the_rings_of_the_tutorials_have_two_bad_lists_and_no_ring_has_fewer() {
    for partitions in [64, 16] {
        let at_once = fresh(partitions, &nodes(3), 3);
        let one_by_one = (1..=3).fold(vec![node(0); partitions], |ring, count| {
            claim(&ring, &nodes(count), 3).unwrap()
        });
        for ring in [at_once, one_by_one] {
            let safety = safety(&ring, &nodes(3), 3).unwrap();
            assert_eq!(safety.nodes.bad.len(), 2, "{ring:?}");
            assert_eq!(safety.nodes.unavoidable, 2);
            assert_eq!(imbalance(&ring, &nodes(3)), 1);
            let one_node = Cure::AddNodes {
                count: 1,
                location: None,
            };
            assert_eq!(safety.cures, [one_node, Cure::SmallerN { n: 2 }]);
        }
    }
}

#[test]
fn five_nodes_on_sixteen_partitions_keep_lists_of_four_distinct() {
    let ring = fresh(16, &nodes(5), 4);
    let safety = safety(&ring, &nodes(5), 4).unwrap();
    assert_eq!((bad(&safety), unavoidable(&safety)), ((0, 0), (0, 0)));
    assert_eq!(imbalance(&ring, &nodes(5)), 1);
}

#[test]
fn riaks_hard_cases_have_no_bad_list() {
    // The first four are known_hard_tests of riak_core_claim_swapping, where bad lists are left. The others cannot be both safe
    // and balanced; the last number says by how much a node then owns more than another.
    let table: [(usize, &[usize], u16, usize); 8] = [
        (32, &[2, 2, 2, 2, 2], 4, 1),
        (16, &[1, 3, 2, 1, 1, 1], 4, 1),
        (64, &[3, 3, 3, 2, 1], 4, 1),
        (512, &[4, 4, 4, 4, 1], 4, 1),
        (64, &[3, 3, 3, 4], 4, 2),
        (512, &[3, 3, 3, 4], 4, 11),
        (32, &[3, 2, 2, 2], 4, 2),
        (32, &[3, 3, 3, 1, 1], 4, 2),
    ];
    for (partitions, sizes, n, difference) in table {
        let claimers = located(sizes);
        let ring = fresh(partitions, &claimers, n);
        let safety = safety(&ring, &claimers, n).unwrap();
        assert_eq!(bad(&safety), (0, 0), "{partitions} {sizes:?}");
        assert_eq!(unavoidable(&safety), (0, 0), "{partitions} {sizes:?}");
        assert_eq!(safety.cures, []);
        assert_eq!(
            imbalance(&ring, &claimers),
            difference,
            "{partitions} {sizes:?}"
        );
    }
}

#[test]
fn what_no_ring_can_avoid_is_reported_and_reached() {
    let table: [(usize, &[usize], u16, usize); 7] = [
        (512, &[3, 3, 3], 3, 2),
        (64, &[2, 2, 2], 3, 2),
        (64, &[2, 1, 1], 3, 2),
        (64, &[5, 1], 3, 1),
        (64, &[10, 10, 1], 3, 43),
        (64, &[4, 2, 1], 3, 7),
        (64, &[2, 2, 2, 2, 2], 5, 4),
    ];
    for (partitions, sizes, n, least) in table {
        let claimers = located(sizes);
        let safety = safety(&fresh(partitions, &claimers, n), &claimers, n).unwrap();
        assert_eq!(bad(&safety), (0, least), "{partitions} {sizes:?}");
        assert_eq!(unavoidable(&safety), (0, least), "{partitions} {sizes:?}");
    }
}

#[test]
fn cures_cure() {
    let table: [(&[usize], u16); 5] = [
        (&[3, 3, 3], 3),
        (&[10, 10, 1], 3),
        (&[5, 1], 3),
        (&[1, 1], 4),
        (&[4, 2, 1], 3),
    ];
    for (sizes, n) in table {
        let claimers = located(sizes);
        let report = safety(&fresh(64, &claimers, n), &claimers, n).unwrap();
        assert!(report.cures.len() >= 2, "{sizes:?}");
        for cure in report.cures {
            let (mut cured, mut n) = (claimers.clone(), n);
            match &cure {
                Cure::AddNodes { count, location } => {
                    cured.extend((100..100 + count).map(|number| Claimer {
                        node: node(number),
                        location: location.clone(),
                        weight: 100,
                    }))
                }
                Cure::SmallerN { n: smaller } => n = u16::try_from(*smaller).unwrap(),
            }
            let safety = safety(&fresh(64, &cured, n), &cured, n).unwrap();
            assert_eq!(bad(&safety), (0, 0), "{sizes:?} {cure:?}");
        }
    }
}

#[test]
fn a_lonely_location_does_not_get_a_replica_of_everything() {
    let claimers = located(&[10, 10, 1]);
    let ring = fresh(64, &claimers, 3);
    // Its share is 64 / 21.
    assert_eq!(counts(&ring, &claimers)[20], 7);
}

#[test]
fn impossible_claims_are_refused() {
    let ring = vec![node(0); 8];
    let nobody = Claimer {
        weight: 0,
        ..claimer(0, None)
    };
    let twice = vec![claimer(1, None), claimer(0, None), claimer(1, Some(0))];
    let table = [
        (nodes(2), 0, ClaimError::NoReplicas),
        (Vec::new(), 3, ClaimError::Nobody),
        (vec![nobody], 3, ClaimError::Nobody),
        (twice, 3, ClaimError::Duplicate { node: node(1) }),
    ];
    for (claimers, n, expected) in table {
        assert_eq!(claim(&ring, &claimers, n), Err(expected.clone()));
        assert_eq!(safety(&ring, &claimers, n), Err(expected));
    }
}

#[test]
fn owners_that_may_not_own_are_reported_as_they_are() {
    let ring: Vec<NodeName> = (0..8).map(|partition| node(partition % 4)).collect();
    let leaving = Claimer {
        weight: 0,
        ..claimer(0, Some(0))
    };
    let claimers = [leaving, claimer(1, Some(0)), claimer(2, Some(1))];
    let safety = safety(&ring, &claimers, 2).unwrap();
    // Node 3 is a stranger; nodes 0 and 1 share a location.
    assert_eq!(safety.nodes.bad, []);
    assert_eq!(safety.locations.bad, [0, 4]);
}

mod small_rings {
    //! Every ring of 8 partitions, up to names that are of no consequence.

    use super::*;

    const PARTITIONS: usize = 8;
    const N_MAX: usize = 4;

    /// Bad lists by node, by location, and the imbalance: the least there is, for every n.
    struct Search {
        location_of: Vec<usize>,
        sizes: Vec<usize>,
        load_max: usize,
        best: [(usize, usize, usize); N_MAX + 1],
    }

    impl Search {
        fn run(sizes: &[usize]) -> Search {
            let location_of: Vec<usize> = (0..sizes.len())
                .flat_map(|location| vec![location; sizes[location]])
                .collect();
            let mut search = Search {
                // For the sake of locations a node owns at most twice its share.
                load_max: (2 * PARTITIONS).div_ceil(location_of.len()),
                location_of,
                sizes: sizes.to_vec(),
                best: [(usize::MAX, 0, 0); N_MAX + 1],
            };
            search.extend(&mut Vec::new(), &mut vec![0; sizes.len()]);
            search
        }

        /// Nodes of a location, and locations of one size, can be named in the order in which they come.
        fn extend(&mut self, ring: &mut Vec<usize>, used: &mut Vec<usize>) {
            if ring.len() == PARTITIONS {
                return self.rate(ring);
            }
            let mut first = 0;
            for location in 0..used.len() {
                let size = self.sizes[location];
                let skips =
                    location > 0 && self.sizes[location - 1] == size && used[location - 1] == 0;
                for node in 0..=used[location].min(size - 1) {
                    let new = node == used[location];
                    if new && node == 0 && skips {
                        continue;
                    }
                    ring.push(first + node);
                    used[location] += usize::from(new);
                    self.extend(ring, used);
                    used[location] -= usize::from(new);
                    ring.pop();
                }
                first += size;
            }
        }

        fn rate(&mut self, ring: &[usize]) {
            let mut counts = vec![0; self.location_of.len()];
            ring.iter().for_each(|&node| counts[node] += 1);
            let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
            if most <= self.load_max {
                for n in 1..=N_MAX {
                    let (nodes, locations) = self.bad(ring, n);
                    self.best[n] = self.best[n].min((nodes, locations, most - least));
                }
            }
        }

        fn bad(&self, ring: &[usize], n: usize) -> (usize, usize) {
            let few = |groups: usize, group: &dyn Fn(usize) -> usize| {
                let distinct = |first: usize| {
                    let window = (first..first + n).map(|at| group(ring[at % PARTITIONS]));
                    window.collect::<BTreeSet<usize>>().len()
                };
                (0..PARTITIONS)
                    .filter(|&first| distinct(first) < n.min(groups))
                    .count()
            };
            let nodes = few(self.location_of.len(), &|node| node);
            (nodes, few(self.sizes.len(), &|node| self.location_of[node]))
        }
    }

    /// All ways to put `count` nodes into locations, the largest location first.
    fn partitions_of(count: usize, largest: usize) -> Vec<Vec<usize>> {
        if count == 0 {
            return vec![Vec::new()];
        }
        let first = (1..=largest.min(count)).rev();
        first
            .flat_map(|first| {
                let rest = partitions_of(count - first, first);
                rest.into_iter()
                    .map(move |rest| [vec![first], rest].concat())
            })
            .collect()
    }

    #[test]
    fn no_ring_of_eight_partitions_is_better() {
        for sizes in (1..=5).flat_map(|count| partitions_of(count, count)) {
            let search = Search::run(&sizes);
            let claimers = located(&sizes);
            let numbers: BTreeMap<NodeName, usize> =
                (0..5).map(|number| (node(number), number)).collect();
            for n in 1..=N_MAX {
                let width = u16::try_from(n).unwrap();
                let owners = fresh(PARTITIONS, &claimers, width);
                let ring: Vec<usize> = owners.iter().map(|owner| numbers[owner]).collect();
                let (nodes, locations) = search.bad(&ring, n);
                let found = (nodes, locations, imbalance(&owners, &claimers));
                assert_eq!(found, search.best[n], "{sizes:?} n={n}: {ring:?}");

                let safety = safety(&owners, &claimers, width).unwrap();
                let nodes = if claimers.len() < n {
                    PARTITIONS
                } else {
                    nodes
                };
                assert_eq!(bad(&safety), (nodes, locations), "{sizes:?} n={n}");
                assert_eq!(safety.nodes.unavoidable, nodes, "{sizes:?} n={n}");
                assert!(safety.locations.unavoidable <= locations, "{sizes:?} n={n}");
            }
        }
    }
}

/// Claimers in no, in few and in many locations.
fn claimers(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Claimer>> {
    let weight = proptest::sample::select(vec![0, 50, 100, 100, 100, 250]);
    let location = proptest::option::of(0..4usize);
    let some = proptest::collection::vec((location, weight), count).prop_map(|some| {
        let numbered = (0..).zip(some);
        numbered
            .map(|(number, (location, weight))| Claimer {
                weight,
                ..claimer(number, location)
            })
            .collect::<Vec<_>>()
    });
    some.prop_filter("somebody must own", |some| {
        some.iter().any(|claimer| claimer.weight > 0)
    })
}

fn ring_sizes() -> impl Strategy<Value = usize> {
    proptest::sample::select(vec![8, 16, 32, 64])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_partition_has_an_owner_that_may_own_it(
        (mut claimers, shuffled) in claimers(1..10).prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
        owners in proptest::sample::select(vec![8, 16, 32])
            .prop_flat_map(|size: usize| proptest::collection::vec((0..12usize).prop_map(node), size)),
        n in 1..5u16,
    ) {
        let ring = claim(&owners, &claimers, n).unwrap();
        prop_assert_eq!(ring.len(), owners.len());
        prop_assert_eq!(&ring, &claim(&owners, &shuffled, n).unwrap(), "in any order");
        prop_assert_eq!(&ring, &claim(&ring, &claimers, n).unwrap(), "once and for all");
        claimers.retain(|claimer| claimer.weight > 0);
        prop_assert_eq!(counts(&ring, &claimers).iter().sum::<usize>(), owners.len());
    }

    #[test]
    fn shares_follow_weights_unless_that_is_unsafe(
        weights in proptest::collection::vec(1..300u16, 1..20),
        size in ring_sizes(),
        n in 1..4u16,
    ) {
        let weighted = nodes(weights.len()).into_iter().zip(&weights);
        let claimers: Vec<Claimer> = weighted.map(|(node, &weight)| Claimer { weight, ..node }).collect();
        let all: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        #[expect(clippy::cast_precision_loss, reason = "rings are small")]
        let shares: Vec<f64> = weights.iter().map(|&weight| size as f64 * f64::from(weight) / all).collect();
        let most = f64::from(u16::try_from(size).unwrap() / n);
        prop_assume!(weights.len() >= usize::from(n) && shares.iter().all(|&share| share <= most));
        let ring = fresh(size, &claimers, n);
        for (count, share) in counts(&ring, &claimers).into_iter().zip(shares) {
            #[expect(clippy::cast_precision_loss, reason = "rings are small")]
            let difference = (count as f64 - share).abs();
            prop_assert!(difference < 1.0, "{count} for {share}");
        }
    }

    #[test]
    fn joins_on_a_safe_ring_move_little(
        count in 2..12usize,
        joining in 1..3usize,
        size in ring_sizes(),
        n in 1..5u16,
    ) {
        let before = fresh(size, &nodes(count), n);
        prop_assume!(bad(&safety(&before, &nodes(count), n).unwrap()) == (0, 0));
        let joined = nodes(count + joining);
        let after = claim(&before, &joined, n).unwrap();
        prop_assert_eq!(bad(&safety(&after, &joined, n).unwrap()), (0, 0));
        let least = moves_least(&before, &after);
        prop_assert!(moves(&before, &after) <= least + least / 5, "{} of {least}", moves(&before, &after));
    }

    #[test]
    fn leaves_move_little_if_enough_nodes_stay(
        count in 4..16usize,
        leaves in any::<proptest::sample::Index>(),
        size in ring_sizes(),
        n in 1..4u16,
    ) {
        prop_assume!(count > 2 * usize::from(n) + 1);
        let before = fresh(size, &nodes(count), n);
        let mut staying = nodes(count);
        staying.remove(leaves.index(count));
        let after = claim(&before, &staying, n).unwrap();
        prop_assert_eq!(bad(&safety(&after, &staying, n).unwrap()), (0, 0));
        let least = moves_least(&before, &after);
        // A swap that mends a bad list moves two.
        let most = least + least / 5 + 2;
        prop_assert!(moves(&before, &after) <= most, "{} of {least}", moves(&before, &after));
    }

    #[test]
    fn histories_leave_no_list_bad_that_need_not_be(
        steps in proptest::collection::vec((any::<proptest::sample::Index>(), 0..6u8), 1..10),
        locations in 1..6usize,
        size in ring_sizes(),
        n in 1..4u16,
    ) {
        let mut members = vec![claimer(0, Some(0))];
        let mut ring = vec![node(0); size];
        for (number, (at, step)) in (1..).zip(steps) {
            let at = at.index(members.len());
            match step {
                0 if members.len() > 1 => drop(members.remove(at)),
                1 => members[at].weight = 300 - members[at].weight,
                2 => members[at].location = None,
                _ => members.push(claimer(number, Some(number % locations))),
            }
            ring = claim(&ring, &members, n).unwrap();
            prop_assert_eq!(counts(&ring, &members).iter().sum::<usize>(), size);
            prop_assert_eq!(&ring, &claim(&ring, &members, n).unwrap(), "once and for all");
            let safety = safety(&ring, &members, n).unwrap();
            prop_assert_eq!(safety.nodes.bad.len(), safety.nodes.unavoidable);
            prop_assert!(safety.locations.bad.len() >= safety.locations.unavoidable);
            prop_assert_eq!(safety.cures.is_empty(), unavoidable(&safety) == (0, 0));
        }
    }
}
