//! From the present ring to one with the wanted quotas, moving as little as may be.
//!
//! First every node gets what it lacks from those that own too much or are gone, each partition where it hurts least. Then swaps
//! of two owners undo what still hurts.

use std::cmp::Reverse;

use super::spacing::{Assignment, Badness, NOBODY, Spacing};

/// How much work a search may do, counted in looks at a partition and its surroundings.
#[derive(Debug)]
pub(super) struct Budget(pub(super) usize);

impl Budget {
    fn spend(&mut self, looks: usize) -> bool {
        let left = self.0.checked_sub(looks);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

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
    let nodes = (0..needs.quotas.len()).filter(|&node| needs.lacks(node) > 0);
    nodes.min_by_key(|&node| {
        let hurts = budget
            .spend(1)
            .then(|| change(ring, spacing, partition, node));
        (hurts, Reverse(needs.lacks(node)), node)
    })
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
    let mut places: Vec<(usize, Reverse<usize>, usize)> = distances
        .into_iter()
        .enumerate()
        .map(|(partition, distance)| {
            let spares = needs.spares(ring.owner(partition));
            (distance.abs_diff(gap), Reverse(spares), partition)
        })
        .filter(|(_, spares, _)| spares.0 > 0)
        .collect();
    let first = places.iter().min().copied()?;
    if change(ring, spacing, first.2, node) <= Badness::default() || !budget.spend(places.len()) {
        return Some(first.2);
    }
    places.sort_unstable();
    let hurts = |place: &(usize, Reverse<usize>, usize)| change(ring, spacing, place.2, node);
    places
        .into_iter()
        .min_by_key(hurts)
        .map(|(_, _, partition)| partition)
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

/// Swaps owners while that makes lists better, or leaves them as they are and brings partitions back to whom they belonged.
///
/// For the sake of lists that are bad now, any number of partitions may move; for those bad after a loss, `moves_most`.
pub(super) fn improve(
    ring: &mut Assignment,
    before: &Assignment,
    spacing: &Spacing<'_>,
    moves_most: usize,
    budget: &mut Budget,
) {
    let mut moves = ring.moves_from(before);
    loop {
        let mut improved = false;
        for partition in 0..ring.len() {
            if spacing.badness_at(ring, partition) == Badness::default() {
                continue;
            }
            if !budget.spend(ring.len()) {
                return;
            }
            let room = i64::try_from(moves_most).unwrap_or(i64::MAX)
                - i64::try_from(moves).unwrap_or(i64::MAX);
            if let Some(other) = best_swap(ring, before, spacing, partition, room) {
                ring.swap(partition, other);
                moves = ring.moves_from(before);
                improved = true;
            }
        }
        if !improved {
            return;
        }
    }
}

/// The partition whose owner `partition` should have instead, and the other way round.
fn best_swap(
    ring: &mut Assignment,
    before: &Assignment,
    spacing: &Spacing<'_>,
    partition: usize,
    room: i64,
) -> Option<usize> {
    let here = spacing.badness_at(ring, partition);
    let moved = |ring: &Assignment, at: usize| i64::from(ring.owner(at) != before.owner(at));
    let mut best = ((Badness::default(), 0), None);
    for other in 0..ring.len() {
        if ring.owner(other) == ring.owner(partition) {
            continue;
        }
        let start = here.plus(spacing.badness_at(ring, other));
        let moves = moved(ring, partition) + moved(ring, other);
        ring.swap(partition, other);
        let end = spacing
            .badness_at(ring, partition)
            .plus(spacing.badness_at(ring, other));
        let moves = moved(ring, partition) + moved(ring, other) - moves;
        ring.swap(partition, other);
        let change = end.minus(start);
        if change.now() == (0, 0) && moves > 0 && moves > room {
            continue;
        }
        if (change, moves) < best.0 {
            best = ((change, moves), Some(other));
        }
    }
    best.1
}
