//! From the present ring to one with the wanted quotas, by the fewest moves.
//!
//! Every node gets what it lacks from those that own too much or are gone, each partition where it hurts least. What still hurts
//! then is left to `improve.rs`.

use std::cmp::Reverse;

use super::improve::Budget;
use super::spacing::{Assignment, Badness, NOBODY, Spacing};

/// The number of moves that no plan can do without.
pub(super) fn moves_least(owned: &[usize], quotas: &[usize]) -> usize {
    let pairs = owned.iter().zip(quotas);
    pairs
        .map(|(owned, quota)| quota.saturating_sub(*owned))
        .sum()
}

/// Hands partitions from nodes that own too much, and from nobody, to nodes that own too little.
pub(super) fn hand_out(
    ring: &mut Assignment,
    spacing: &Spacing<'_>,
    owned: &[usize],
    quotas: &[usize],
    budget: &mut Budget,
) {
    let mut needs = Needs::new(owned, quotas);
    for partition in 0..ring.len() {
        if ring.owner(partition) == NOBODY
            && let Some(node) = neediest(ring, spacing, &needs, partition, budget)
        {
            ring.give(partition, node);
            needs.got(node);
        }
    }
    let mut takers: Vec<usize> = (0..quotas.len())
        .filter(|&node| needs.lacks(node) > 0)
        .collect();
    takers.sort_by_key(|&node| (Reverse(needs.lacks(node)), node));
    for node in takers {
        let wanted = quotas.get(node).copied().unwrap_or(0).max(1);
        while needs.lacks(node) > 0 {
            let gap = ring.len() / wanted;
            let Some(partition) = best_place(ring, spacing, &needs, node, gap, budget) else {
                break;
            };
            needs.lost(ring.owner(partition));
            ring.give(partition, node);
            needs.got(node);
        }
    }
}

/// How far each node is from its quota.
struct Needs {
    owned: Vec<usize>,
    quotas: Vec<usize>,
}

impl Needs {
    fn new(owned: &[usize], quotas: &[usize]) -> Needs {
        Needs {
            owned: owned.to_vec(),
            quotas: quotas.to_vec(),
        }
    }

    fn lacks(&self, node: usize) -> usize {
        self.quotas
            .get(node)
            .zip(self.owned.get(node))
            .map_or(0, |(quota, owned)| quota.saturating_sub(*owned))
    }

    fn spares(&self, node: usize) -> usize {
        self.quotas
            .get(node)
            .zip(self.owned.get(node))
            .map_or(0, |(quota, owned)| owned.saturating_sub(*quota))
    }

    fn got(&mut self, node: usize) {
        self.owned
            .get_mut(node)
            .into_iter()
            .for_each(|owned| *owned += 1);
    }

    fn lost(&mut self, node: usize) {
        self.owned
            .get_mut(node)
            .into_iter()
            .for_each(|owned| *owned -= 1);
    }
}

/// What changes when a partition gets another owner.
fn change(ring: &mut Assignment, spacing: &Spacing<'_>, partition: usize, node: usize) -> Badness {
    let owner = ring.owner(partition);
    let before = spacing.badness_at(ring, partition);
    ring.give(partition, node);
    let after = spacing.badness_at(ring, partition);
    ring.give(partition, owner);
    after.minus(before)
}

/// The node that should get a partition of nobody: the one that hurts least, then the one that lacks most.
fn neediest(
    ring: &mut Assignment,
    spacing: &Spacing<'_>,
    needs: &Needs,
    partition: usize,
    budget: &mut Budget,
) -> Option<usize> {
    let nodes = || (0..needs.quotas.len()).filter(|&node| needs.lacks(node) > 0);
    let preference = |node: usize| (Reverse(needs.lacks(node)), node);
    let first = nodes().min_by_key(|&node| preference(node))?;
    let harmless = change(ring, spacing, partition, first) <= Badness::default();
    if harmless || !budget.spend(needs.quotas.len()) {
        return Some(first);
    }
    nodes().min_by_key(|&node| (change(ring, spacing, partition, node), preference(node)))
}

/// The partition to give to `node`, from those whose owner has too much: the one that hurts least, then the one at the distance
/// `gap` from those the node has, then that of the owner with the most to spare.
fn best_place(
    ring: &mut Assignment,
    spacing: &Spacing<'_>,
    needs: &Needs,
    node: usize,
    gap: usize,
    budget: &mut Budget,
) -> Option<usize> {
    let distances = distances(ring, node);
    let preference = |ring: &Assignment, (partition, distance): (usize, usize)| {
        let spares = needs.spares(ring.owner(partition));
        (spares > 0).then_some((distance.abs_diff(gap), Reverse(spares), partition))
    };
    let places = || distances.iter().copied().enumerate();
    let (_, _, first) = places().filter_map(|place| preference(ring, place)).min()?;
    let harmless = change(ring, spacing, first, node) <= Badness::default();
    if harmless || !budget.spend(ring.len()) {
        return Some(first);
    }
    let places = places().filter_map(|place| {
        let preference = preference(ring, place)?;
        Some((change(ring, spacing, place.0, node), preference))
    });
    places.min().map(|(_, (_, _, partition))| partition)
}

/// How far each partition is from the nearest one of `node`, either way; the length of the ring if there is none.
fn distances(ring: &Assignment, node: usize) -> Vec<usize> {
    let turns = || (0..ring.len()).chain(0..ring.len());
    let mut distances = vec![ring.len(); ring.len()];
    let mut walk = |partition: usize, since: &mut usize| {
        *since = if ring.owner(partition) == node {
            0
        } else {
            (*since + 1).min(ring.len())
        };
        if let Some(distance) = distances.get_mut(partition) {
            *distance = (*distance).min(*since);
        }
    };
    let mut since = ring.len();
    turns().for_each(|partition| walk(partition, &mut since));
    since = ring.len();
    turns()
        .rev()
        .for_each(|partition| walk(partition, &mut since));
    distances
}
