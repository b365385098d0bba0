//! How safe an assignment is: which preference lists are bad, how many must be, and what would help.

use std::collections::BTreeSet;

use super::members::Members;
use super::quotas;
use super::spacing::{Assignment, distinct};
use super::{ClaimError, Claimer};
use crate::ring::NodeName;

/// How safe the preference lists of a ring are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safety {
    /// Replicas that share a node.
    pub nodes: Spread,
    /// Replicas that share a location although there are enough. A node without a location is one of its own.
    pub locations: Spread,
    /// What would let a claim avoid all bad lists, each by itself; empty if none need be bad.
    pub cures: Vec<Cure>,
}

/// How replicas are spread over nodes or over locations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// On how many different ones each list should be: of nodes on `n`, of locations on no more than there are.
    pub wanted: usize,
    /// The lists that are on fewer, each by the position of its first partition, in ring order.
    pub bad: Vec<u16>,
    /// At least so many are bad on every ring of these claimers, given that no node owns more than twice its share for the sake
    /// of locations.
    pub unavoidable: usize,
    /// How many lists would be on fewer than wanted, or than are left, after the loss of that one node or location which is the
    /// worst for them, with the owner of the next partition standing in.
    pub after_loss: usize,
}

/// A change that would let a claim avoid all lists that are bad now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cure {
    /// More nodes of average weight.
    AddNodes {
        /// How many.
        count: usize,
        /// Where. `None` if each is to be in a location of its own.
        location: Option<String>,
    },
    /// Fewer replicas of each key.
    SmallerN {
        /// The largest that works.
        n: usize,
    },
}

/// Reports how safe preference lists of `n` are when the partitions have the owners given.
///
/// Owners that are not among the claimers count as nodes without a location.
///
/// # Errors
/// As for [`claim()`](super::claim()).
pub fn safety(owners: &[NodeName], claimers: &[Claimer], n: u16) -> Result<Safety, ClaimError> {
    if n == 0 {
        return Err(ClaimError::NoReplicas);
    }
    let members = Members::new(claimers)?;
    let everyone = Members::new(&with_strangers(claimers, owners))?;
    let ring = everyone.assignment(owners);
    let width = super::width(n, ring.len());
    let extended = (width + 1).min(ring.len());
    let locations = members.location_count();
    let node = |node| node;
    let location = |node| everyone.location(node);
    Ok(Safety {
        nodes: Spread {
            wanted: width,
            bad: lists_on_fewer(&ring, width, width, node),
            unavoidable: unavoidable_by_node(&members, ring.len(), width),
            after_loss: lists_on_fewer(&ring, extended, extended, node).len(),
        },
        locations: Spread {
            wanted: width.min(locations),
            bad: lists_on_fewer(&ring, width, width.min(locations), location),
            unavoidable: unavoidable_by_location(&members, ring.len(), width),
            after_loss: lists_on_fewer(&ring, extended, extended.min(locations), location).len(),
        },
        cures: cures(&members, ring.len(), width),
    })
}

/// The claimers, those with the weight 0 too, and the owners that are not among them.
fn with_strangers(claimers: &[Claimer], owners: &[NodeName]) -> Vec<Claimer> {
    let known: BTreeSet<&NodeName> = claimers.iter().map(|claimer| &claimer.node).collect();
    let strangers: BTreeSet<&NodeName> =
        owners.iter().filter(|node| !known.contains(node)).collect();
    let strangers = strangers.into_iter().map(|node| Claimer {
        node: node.clone(),
        location: None,
        weight: 1,
    });
    let claimers = claimers.iter().cloned().map(|claimer| Claimer {
        weight: claimer.weight.max(1),
        ..claimer
    });
    claimers.chain(strangers).collect()
}

/// The windows of `width` partitions with fewer than `wanted` groups among their owners.
fn lists_on_fewer(
    ring: &Assignment,
    width: usize,
    wanted: usize,
    group: impl Fn(usize) -> usize,
) -> Vec<u16> {
    let found = |first: usize| distinct(width, |step| group(ring.owner(first + step)));
    let positions = 0..u16::try_from(ring.len()).unwrap_or(u16::MAX);
    positions
        .filter(|first| found(usize::from(*first)) < wanted)
        .collect()
}

fn unavoidable_by_node(members: &Members, partitions: usize, n: usize) -> usize {
    if members.len() < n {
        partitions
    } else {
        unavoidable(partitions, n, &vec![partitions; members.len()])
    }
}

fn unavoidable_by_location(members: &Members, partitions: usize, n: usize) -> usize {
    unavoidable(
        partitions,
        n,
        &quotas::location_limits(members, partitions, n),
    )
}

/// A lower bound on the lists of `n` that are on fewer different groups than they could be, when no group can own more than its
/// limit. It is the least possible number wherever the limits are no narrower than `partitions / n`.
fn unavoidable(partitions: usize, n: usize, limits: &[usize]) -> usize {
    let groups = limits.len();
    if groups <= n {
        // Every list needs every group, and a partition is in n lists.
        let missing = limits
            .iter()
            .map(|limit| partitions.saturating_sub(n * limit))
            .max()
            .unwrap_or(0);
        // With as many groups as replicas each good list is a permutation, and the next one shifts it by one place. Unless n
        // divides the ring size the last one must meet the first shifted; to shift n places against each other takes
        // rearrangements that together reach over all of them, and one over k places makes k - 1 lists bad.
        let shift = if groups == n && !partitions.is_multiple_of(n) {
            n - 1
        } else {
            0
        };
        return missing.max(shift);
    }
    let even = partitions / n;
    if limits.iter().map(|&limit| even.min(limit)).sum::<usize>() >= partitions {
        return 0;
    }
    // What the narrow groups cannot take makes the others own more than one partition in n, and a list can hide at most n - 1
    // surplus replicas.
    let (narrow, wide): (Vec<usize>, Vec<usize>) =
        limits.iter().partition(|&&limit| n * limit < partitions);
    let left = partitions.saturating_sub(narrow.iter().sum());
    let surplus = (n * left).saturating_sub(wide.len() * partitions);
    surplus.div_ceil(n - 1).max(1)
}

fn cures(members: &Members, partitions: usize, n: usize) -> Vec<Cure> {
    let safe = |members: &Members, n: usize| {
        unavoidable_by_node(members, partitions, n) == 0
            && unavoidable_by_location(members, partitions, n) == 0
    };
    if safe(members, n) {
        return Vec::new();
    }
    // Adding to a location more nodes than there are now is another cluster.
    let nodes_max = members.len() + n;
    let enough = |location: Option<usize>| {
        (1..=nodes_max).find(|&count| safe(&members.with_more(count, location), n))
    };
    let new_locations = enough(None).map(|count| Cure::AddNodes {
        count,
        location: None,
    });
    let named = (0..members.location_count()).filter_map(|location| {
        let name = members.location_name(location)?;
        Some((enough(Some(location))?, name))
    });
    let named = named.min().map(|(count, location)| Cure::AddNodes {
        count,
        location: Some(location.to_owned()),
    });
    let smaller = (1..n).rev().find(|&n| safe(members, n));
    let smaller = smaller.map(|n| Cure::SmallerN { n });
    new_locations
        .into_iter()
        .chain(named)
        .chain(smaller)
        .collect()
}
