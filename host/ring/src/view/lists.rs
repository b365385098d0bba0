//! The preference lists of all ranges at once.
//!
//! Owns nothing but the layout: who holds a range is the rule of [`preflist_from`](crate::preflist_from), here for a whole ring
//! and by numbers instead of names.

use std::collections::BTreeSet;

use super::{Holder, Role};
use crate::index::{PartitionId, RingSize};
use crate::preflist::stand_ins;
use crate::ring::{NodeName, Ring};

/// The holders of every range, for one number of replicas.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    size: RingSize,
    /// Those of partition 0, then those of partition 1, and so on.
    holders: Vec<Holder>,
    /// For each partition, where its holders end.
    ends: Vec<usize>,
}

impl Lists {
    /// Lists `n` holders for each range. `up` gives the position of a node that is up, and `None` for the others.
    pub(super) fn new(ring: &Ring, up: &impl Fn(&NodeName) -> Option<u16>, n: usize) -> Lists {
        let owners: Vec<Option<u16>> = ring.owners().iter().map(up).collect();
        let owners_up = owners.iter().flatten().collect::<BTreeSet<_>>().len();
        let mut lists = Lists {
            size: ring.size(),
            holders: Vec::with_capacity(owners.len() * n),
            ends: Vec::with_capacity(owners.len()),
        };
        for range in ring.size().partitions() {
            lists.add(ring.size(), &owners, owners_up, range, n);
        }
        lists
    }

    /// Adds the list of the next range. `owners` are those that are up.
    fn add(
        &mut self,
        size: RingSize,
        owners: &[Option<u16>],
        owners_up: usize,
        range: PartitionId,
        n: usize,
    ) {
        let (before, from) = owners.split_at(usize::from(range.number()));
        let walk = from.iter().chain(before).copied();
        let primaries = walk.clone().take(n);
        let absent = primaries.clone().filter(Option::is_none).count();
        let mut fallbacks = Vec::new();
        if absent > 0 {
            let listed = primaries.clone().flatten().collect();
            fallbacks.extend(stand_ins(walk.skip(n).flatten(), listed, absent, owners_up));
        }
        let mut fallbacks = fallbacks.into_iter();
        for (steps, owner) in (0..).zip(primaries) {
            let primary = owner.map(|node| (node, Role::Primary));
            let found = primary.or_else(|| Some((fallbacks.next()?, Role::Fallback)));
            self.holders.extend(found.map(|(node, role)| Holder {
                partition: size.after(range, steps),
                node,
                role,
            }));
        }
        self.ends.push(self.holders.len());
    }

    /// The holders of one range; none for a partition of another ring.
    pub(super) fn of(&self, range: PartitionId) -> &[Holder] {
        if !self.size.contains(range) {
            return &[];
        }
        let at = usize::from(range.number());
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before));
        let end = self.ends.get(at);
        end.and_then(|&end| self.holders.get(start.copied().unwrap_or_default()..end))
            .unwrap_or_default()
    }
}
