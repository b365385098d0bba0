//! In which order the partitions of a service go over to another version.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Stage;
use crate::index::PartitionId;
use crate::ring::Ring;

/// In which order partitions move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Every partition once.
    pub partitions: Vec<PartitionId>,
    /// How many of the first are canaries.
    pub canaries: u16,
    /// With how many of the first every preference list still has a quorum that has not moved.
    pub spared: u16,
}

impl Order {
    /// The order for the owners of this ring. A preference list is `n` partitions in a row, `w` of which are spared as long as
    /// possible; where that is all of them, one may move.
    #[must_use]
    pub fn new(ring: &Ring, n: u16, w: u16, canaries_max: u16) -> Order {
        let owners = ring.owners();
        let size = owners.len();
        let n = usize::from(n).clamp(1, size.max(1));
        let movable = n.saturating_sub(usize::from(w)).max(1);
        // Of the list that begins at each partition, how many have moved.
        let mut moved_of = vec![0_usize; size];
        let mut chosen = vec![false; size];
        let mut partitions = Vec::with_capacity(size);
        let mut choose = |at: usize, most: usize, chosen: &mut Vec<bool>| {
            let lists = || (0..n).map(|back| (at + size - back) % size);
            let full = lists().any(|list| moved_of.get(list).is_none_or(|moved| *moved >= most));
            if full || chosen.get(at).copied().unwrap_or(true) {
                return false;
            }
            for list in lists() {
                if let Some(moved) = moved_of.get_mut(list) {
                    *moved += 1;
                }
            }
            if let Some(one) = chosen.get_mut(at) {
                *one = true;
            }
            partitions.extend(u16::try_from(at).map(|at| ring.size().at(at)));
            true
        };
        let mut nodes = BTreeSet::new();
        for (at, owner) in owners.iter().enumerate() {
            if nodes.len() < usize::from(canaries_max)
                && !nodes.contains(owner)
                && choose(at, 1, &mut chosen)
            {
                nodes.insert(owner);
            }
        }
        let spared = (0..size)
            .filter(|at| choose(*at, movable, &mut chosen))
            .count();
        for at in 0..size {
            choose(at, usize::MAX, &mut chosen);
        }
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        Order {
            partitions,
            canaries: count(nodes.len()),
            spared: count(nodes.len() + spared),
        }
    }

    /// How many partitions have moved in a stage.
    pub(super) fn moved(&self, stage: Stage) -> u16 {
        let all = u16::try_from(self.partitions.len()).unwrap_or(u16::MAX);
        match stage {
            Stage::Distributing | Stage::RolledBack => 0,
            Stage::Canary => self.canaries,
            Stage::Wave(100) | Stage::Done | Stage::Finalized => all,
            Stage::Wave(percent) => percent_of(all, percent).clamp(self.canaries, self.spared),
        }
    }
}

/// So much of a ring, rounded up.
fn percent_of(partitions: u16, percent: u8) -> u16 {
    let part = (u32::from(partitions) * u32::from(percent)).div_ceil(100);
    u16::try_from(part).unwrap_or(partitions)
}
