//! Claim: which node should own which partition.
//!
//! Owns the choice of owners and the report on how safe a choice is. It never changes a ring and never moves data: a plan is made
//! of what it answers, and somebody commits it. Equal arguments give equal answers on every node.
//!
//! What is wanted, the first things first:
//!
//! 1. as few preference lists as possible with two replicas on one node,
//! 2. as few as possible with replicas in fewer locations than there could be,
//! 3. as few as possible that would be bad after the loss of a node or a location,
//! 4. shares by weight, rounded, unless the first two force others,
//! 5. few partitions that move.
//!
//! What is bad after a loss is worth moving a fifth more partitions than must move, and no more. Next: `claim/quotas.rs` for how
//! many partitions each node gets, `claim/keep.rs` for a ring that stays close to the present one, `claim/layout.rs` for one
//! from scratch, `claim/safety.rs` for the report.

mod improve;
mod keep;
mod layout;
mod members;
mod quotas;
mod safety;
mod spacing;

use self::improve::{Budget, Judge};
use self::layout::Pattern;
use self::members::Members;
pub use self::safety::{Cure, Safety, Spread, safety};
use self::spacing::{Assignment, Spacing};
use crate::ring::NodeName;

/// How many partitions and their surroundings a claim may look at; a second of work, and far more than a good ring needs.
const LOOKS_MAX: usize = 300_000;

/// How often a ring is claimed again; two or three times settle it.
const STEPS_MAX: usize = 16;

/// The most partitions a claim tries to turn a ring from scratch by, times the ring size.
const TURNS_MAX: usize = 1 << 24;

/// A node that may own partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimer {
    /// The node.
    pub node: NodeName,
    /// What it shares with other nodes that may fail together with it, such as a rack; a node without one shares nothing.
    pub location: Option<String>,
    /// Its share of the ring, in relation to the weights of the others. 100 is usual; with 0 it owns nothing.
    pub weight: u16,
}

/// Why nothing can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// There is no claimer with a weight above 0.
    #[error("no node may own partitions; let a node join, or give one a weight above 0")]
    Nobody,
    /// A node is named twice.
    #[error("node {node} is named twice among those that may own partitions")]
    Duplicate {
        /// The node.
        node: NodeName,
    },
    /// Preference lists of no replicas.
    #[error("n is 0; a key needs at least one replica")]
    NoReplicas,
}

/// Who should own each partition, in ring order, so that preference lists of `n` are safe.
///
/// `owners` has the present owners. Those that are not among the claimers, or have the weight 0, lose all they own. The order of
/// the claimers is of no consequence.
///
/// # Errors
/// Refuses `n` = 0, claimers that name a node twice, and claimers of which none may own anything.
pub fn claim(
    owners: &[NodeName],
    claimers: &[Claimer],
    n: u16,
) -> Result<Vec<NodeName>, ClaimError> {
    if n == 0 {
        return Err(ClaimError::NoReplicas);
    }
    let members = Members::new(claimers)?;
    let before = members.assignment(owners);
    let after = assign(&members, &before, width(n, owners.len()));
    Ok(after
        .0
        .iter()
        .filter_map(|&node| members.name(node))
        .cloned()
        .collect())
}

/// How many partitions hold the replicas of a key.
fn width(n: u16, partitions: usize) -> usize {
    usize::from(n).min(partitions).max(1)
}

fn assign(members: &Members, before: &Assignment, n: usize) -> Assignment {
    let mut budget = Budget(LOOKS_MAX);
    let spacing = Spacing::new(members, before.len(), n);
    let mut ring = step(members, &spacing, before, &mut budget);
    // It is claimed again until it stays as it is: otherwise the next plan would move partitions for no reason to be seen.
    for _ in 1..STEPS_MAX {
        let next = step(members, &spacing, &ring, &mut budget);
        if next == ring {
            break;
        }
        ring = next;
    }
    ring
}

/// The better of a ring close to `before` and the best one from scratch.
fn step(
    members: &Members,
    spacing: &Spacing<'_>,
    before: &Assignment,
    budget: &mut Budget,
) -> Assignment {
    let owned = members.owned(before);
    let quotas = quotas::quotas(members, before.len(), spacing.list, &owned);
    let moves_least = keep::moves_least(&owned, &quotas);
    let judge = Judge {
        members,
        spacing,
        before,
        moves_worth: moves_least + moves_least / 5,
    };
    let Some(mut fresh) = best_layout(members, &quotas, &judge) else {
        return before.clone();
    };
    if judge.rate(&fresh) <= ((0, 0), 0, 0, moves_least) {
        return fresh;
    }
    let mut kept = before.clone();
    keep::hand_out(&mut kept, spacing, &owned, &quotas, budget);
    improve::improve(&mut kept, &judge, budget);
    if judge.rate(&kept).0 != (0, 0) {
        improve::improve(&mut fresh, &judge, budget);
    }
    if judge.rate(&fresh) < judge.rate(&kept) {
        fresh
    } else {
        kept
    }
}

fn best_layout(members: &Members, quotas: &[usize], judge: &Judge<'_>) -> Option<Assignment> {
    let by_location = members.by_location(judge.before);
    let by_node: Vec<Vec<usize>> = layout::interleaved(&by_location)
        .map(|node| vec![node])
        .collect();
    let layouts = [&by_location, &by_node].into_iter().flat_map(|groups| {
        let patterns = [Pattern::Blocks, Pattern::Diagonal, Pattern::Even];
        patterns.map(|pattern| layout::layout(groups, quotas, pattern, judge.spacing.extended))
    });
    let turned = layouts.map(|layout| turned(&layout, judge.before));
    turned.min_by_key(|layout| judge.rate(layout))
}

/// The ring turned so that the fewest partitions change their owner.
fn turned(ring: &Assignment, before: &Assignment) -> Assignment {
    let turn = |by: usize| {
        Assignment(
            ring.0
                .iter()
                .cycle()
                .skip(by)
                .take(ring.len())
                .copied()
                .collect(),
        )
    };
    let turns = (TURNS_MAX / ring.len().max(1)).min(ring.len());
    let moves = |by: &usize| turn(*by).moves_from(before);
    (0..turns)
        .min_by_key(moves)
        .map_or_else(|| ring.clone(), turn)
}
