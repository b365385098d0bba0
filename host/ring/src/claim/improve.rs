//! Making a ring better step by step.
//!
//! A step swaps two owners, or hands a partition to a node that is worth as much and owns one less. Steps are tried where a list
//! is bad, or where a partition moved that more moves than needed were spent on. The search ends where no step helps.

use super::members::Members;
use super::spacing::{Assignment, Badness, Spacing};

/// How much work a search may do, counted in looks at a partition and its surroundings.
#[derive(Debug)]
pub(super) struct Budget(pub(super) usize);

impl Budget {
    pub(super) fn spend(&mut self, looks: usize) -> bool {
        let left = self.0.checked_sub(looks);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// What a search is after, the smaller the better: bad lists, moves beyond what they are worth, bad lists after a loss, moves.
pub(super) type Rating = ((i64, i64), usize, i64, usize);

/// Rates rings by what is bad on them and by how much of the present ring they move.
#[derive(Debug)]
pub(super) struct Judge<'r> {
    pub(super) members: &'r Members,
    pub(super) spacing: &'r Spacing<'r>,
    /// The present ring.
    pub(super) before: &'r Assignment,
    /// How many partitions may move for the sake of what is bad only after a loss.
    pub(super) moves_worth: usize,
}

impl Judge<'_> {
    pub(super) fn rate(&self, ring: &Assignment) -> Rating {
        self.rating(self.spacing.badness(ring), ring.moves_from(self.before))
    }

    fn rating(&self, badness: Badness, moves: usize) -> Rating {
        let excess = moves.saturating_sub(self.moves_worth);
        (badness.now(), excess, badness.after_loss, moves)
    }

    fn moved(&self, ring: &Assignment, partition: usize) -> usize {
        usize::from(ring.owner(partition) != self.before.owner(partition))
    }

    /// The lists that are bad around a partition, and around the one it is swapped with, and how many of the two have moved.
    fn around(&self, ring: &Assignment, partition: usize, step: Step) -> (Badness, usize) {
        let badness = self.spacing.badness_at(ring, partition);
        let moved = self.moved(ring, partition);
        match step {
            Step::Swap(other) => {
                // Lists that contain both count twice, before and after alike.
                let there = self.spacing.badness_at(ring, other);
                (badness.plus(there), moved + self.moved(ring, other))
            }
            Step::Give(_) => (badness, moved),
        }
    }
}

/// What to do with a partition.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Let it and another have each other's owner.
    Swap(usize),
    /// Let a node own it.
    Give(usize),
}

impl Step {
    fn take(self, ring: &mut Assignment, partition: usize) {
        match self {
            Step::Swap(other) => ring.swap(partition, other),
            Step::Give(node) => ring.give(partition, node),
        }
    }
}

/// Takes steps as long as they make a better ring.
pub(super) fn improve(ring: &mut Assignment, judge: &Judge<'_>, budget: &mut Budget) {
    let mut moves = ring.moves_from(judge.before);
    let mut owned = judge.members.owned(ring);
    loop {
        let mut improved = false;
        for partition in 0..ring.len() {
            let badness = judge.spacing.badness_at(ring, partition);
            let astray = moves > judge.moves_worth && judge.moved(ring, partition) > 0;
            if badness == Badness::default() && !astray {
                continue;
            }
            let heirs = heirs(judge.members, &owned, ring.owner(partition));
            if !budget.spend(ring.len() + heirs.len()) {
                return;
            }
            if let Some((step, moves_then)) = best_step(ring, judge, partition, &heirs, moves) {
                step.take(ring, partition);
                moves = moves_then;
                owned = judge.members.owned(ring);
                improved = true;
            }
        }
        if !improved {
            return;
        }
    }
}

/// The nodes that may own one partition instead of `owner`: of the same weight, with one less, and in the same location if nodes
/// share any, as it has its own quota.
fn heirs(members: &Members, owned: &[usize], owner: usize) -> Vec<usize> {
    let owns = |node: usize| owned.get(node).copied().unwrap_or(0);
    let nodes = (0..members.len()).filter(|&node| {
        owns(node) + 1 == owns(owner)
            && members.weight(node) == members.weight(owner)
            && (!members.share_locations() || members.location(node) == members.location(owner))
    });
    nodes.collect()
}

/// The best step for a partition, if one is better than none, with the number of moves there are then.
fn best_step(
    ring: &mut Assignment,
    judge: &Judge<'_>,
    partition: usize,
    heirs: &[usize],
    moves: usize,
) -> Option<(Step, usize)> {
    let owner = ring.owner(partition);
    let mut best = (judge.rating(Badness::default(), moves), None);
    let swaps = (0..ring.len()).map(Step::Swap);
    for step in swaps.chain(heirs.iter().copied().map(Step::Give)) {
        let undo = match step {
            Step::Swap(other) if ring.owner(other) == owner => continue,
            Step::Swap(_) => step,
            Step::Give(_) => Step::Give(owner),
        };
        let (bad, moved) = judge.around(ring, partition, step);
        step.take(ring, partition);
        let (bad_then, moved_then) = judge.around(ring, partition, step);
        undo.take(ring, partition);
        let moves_then = moves + moved_then - moved;
        let rating = judge.rating(bad_then.minus(bad), moves_then);
        if rating < best.0 {
            best = (rating, Some((step, moves_then)));
        }
    }
    best.1
}
