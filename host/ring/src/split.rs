//! Doubling and halving a ring without moving a key from one node to another.
//!
//! The vnode of a partition holds `n` ranges in a row. On a ring twice as large the same rows are `2n` ranges, the windows of two
//! partitions: 2p has the upper half of them, 2p - n the lower. If both go to the owner of p, every key keeps its nodes, and the
//! ring has doubled by each node dividing its own rows. For an odd `n` the two are an even and an odd number, so every partition of
//! the larger ring is a part of exactly one of the smaller; for an even `n` they are both even, and nobody would have the odd ones.
//! Halving is the same the other way round, and needs that 2p and 2p - n have one owner.
//!
//! Between two rings of one size, of different generations, every partition is its own heir.
//!
//! Owns these numbers and nothing else: when a ring is divided is decided in `map/resize.rs`.

use std::cmp::Ordering;

use crate::index::{PartitionId, RingSize};
use crate::ring::NodeName;

/// From one ring to another, which is twice or half as large, or as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    from: RingSize,
    to: RingSize,
    n: u16,
}

impl Split {
    /// The way between two rings for services with `n` replicas. None if one ring is neither as large as the other nor twice as large;
    /// and between two sizes none if `n` is even, or if the smaller ring has not at least `n` partitions.
    #[must_use]
    pub fn new(from: RingSize, to: RingSize, n: u16) -> Option<Split> {
        let (small, large) = (from.get().min(to.get()), from.get().max(to.get()));
        let divides = large == small * 2 && n % 2 == 1 && n <= small;
        let fits = divides || large == small;
        fits.then_some(Split { from, to, n })
    }

    /// Whether the ring becomes larger.
    #[must_use]
    pub fn doubles(&self) -> bool {
        self.to.get() > self.from.get()
    }

    /// Whose rows a partition of the new ring takes over: those of two partitions when the ring halves, else of one.
    #[must_use]
    pub fn sources(&self, heir: PartitionId) -> Vec<PartitionId> {
        let number = heir.number();
        match self.to.get().cmp(&self.from.get()) {
            Ordering::Greater => vec![self.from.at(self.whole(number))],
            Ordering::Equal => vec![self.from.at(number)],
            Ordering::Less => self.parts(number).map(|part| self.from.at(part)).to_vec(),
        }
    }

    /// The partitions that take over the rows of a partition of the old ring: two when the ring doubles, else one.
    #[must_use]
    pub fn heirs(&self, source: PartitionId) -> Vec<PartitionId> {
        let number = source.number();
        match self.to.get().cmp(&self.from.get()) {
            Ordering::Greater => self.parts(number).map(|part| self.to.at(part)).to_vec(),
            Ordering::Equal => vec![self.to.at(number)],
            Ordering::Less => vec![self.to.at(self.whole(number))],
        }
    }

    /// The partition of the new ring to which a row belongs that lay with a partition of the old one. A row that is not of the
    /// ranges of its partition, as of a write that wished for more replicas, belongs to the first replica of its new range.
    #[must_use]
    pub fn heir(&self, source: PartitionId, hash: u64) -> PartitionId {
        self.heir_of_range(source, self.to.range_of(hash))
    }

    /// The same for all rows of a range of the new ring.
    #[must_use]
    pub fn heir_of_range(&self, source: PartitionId, range: PartitionId) -> PartitionId {
        let behind = |heir: PartitionId| {
            let steps = heir.number().wrapping_sub(range.number());
            steps & (self.to.get() - 1)
        };
        let mut heirs = self.heirs(source).into_iter();
        heirs.find(|heir| behind(*heir) < self.n).unwrap_or(range)
    }

    /// Who owns what on the new ring, in ring order, if these own the old one. None if parts of one partition have several owners.
    #[must_use]
    pub fn owners_after(&self, owners: &[NodeName]) -> Option<Vec<NodeName>> {
        let owner = |source: PartitionId| owners.get(usize::from(source.number()));
        let heirs = self.to.partitions().map(|heir| {
            let mut owners = self.sources(heir).into_iter().map(owner);
            let first = owners.next()??;
            owners
                .all(|other| other == Some(first))
                .then(|| first.clone())
        });
        heirs.collect()
    }

    /// Who has to own what on the old ring, in ring order, so that these own the new one after it has halved.
    #[must_use]
    pub fn owners_before(&self, after: &[NodeName]) -> Vec<NodeName> {
        let sources = self.from.partitions();
        let heir = |source| self.heirs(source).first().map(|heir| heir.number());
        let owners = sources.filter_map(|source| after.get(usize::from(heir(source)?)).cloned());
        owners.collect()
    }

    /// The two partitions of the larger ring that make up one of the smaller.
    fn parts(&self, whole: u16) -> [u16; 2] {
        // Larger rings have at most 2^12 partitions, and who takes the number brings it back onto the ring.
        let upper = whole * 2;
        [upper.wrapping_sub(self.n), upper]
    }

    /// The partition of the smaller ring of which one of the larger is a part.
    fn whole(&self, part: u16) -> u16 {
        match part % 2 {
            0 => part / 2,
            _ => (part + self.n) / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{HashId, KeyHash};

    fn size(partitions: u32) -> RingSize {
        RingSize::new(partitions).unwrap()
    }

    /// Every way between two rings that are small enough to be gone through.
    fn splits() -> impl Iterator<Item = Split> {
        let pairs = [8, 16, 32, 64].into_iter().flat_map(|small| {
            let (a, b) = (size(small), size(small).next_generation(small * 2).unwrap());
            [(a, b), (b, a)]
        });
        pairs.flat_map(|(from, to)| [1, 3, 5, 7].map(|n| Split::new(from, to, n).unwrap()))
    }

    /// Each partition of the old ring as an owner of its own.
    fn apart(size: RingSize) -> Vec<NodeName> {
        let name = |number: u16| NodeName::new(&format!("n{number}")).unwrap();
        (0..size.get()).map(name).collect()
    }

    /// Names of the nodes of a range, sorted.
    fn nodes(size: RingSize, owners: &[NodeName], range: PartitionId, n: u16) -> Vec<NodeName> {
        let list = (0..n).map(|steps| size.after(range, steps));
        let mut nodes: Vec<_> = list
            .map(|partition| owners[usize::from(partition.number())].clone())
            .collect();
        nodes.sort();
        nodes
    }

    /// Hashes of which every range of either ring has several.
    fn hashes() -> impl Iterator<Item = u64> {
        (0..512).map(|part| part << 55 | 0x1234_5678)
    }

    #[test]
    fn every_key_keeps_its_nodes_when_a_ring_doubles_and_when_it_halves_again() {
        for split in splits().filter(Split::doubles) {
            let owners = apart(split.from);
            let after = split.owners_after(&owners).unwrap();
            let back = Split::new(split.to, split.from, split.n).unwrap();
            assert_eq!(back.owners_after(&after).unwrap(), owners);
            assert_eq!(back.owners_before(&owners), after);
            for hash in hashes() {
                let (old, new) = (split.from.range_of(hash), split.to.range_of(hash));
                assert_eq!(
                    nodes(split.from, &owners, old, split.n),
                    nodes(split.to, &after, new, split.n),
                    "{split:?}"
                );
            }
        }
    }

    #[test]
    fn every_row_goes_to_the_partition_of_the_same_owner_that_is_to_hold_it() {
        for split in splits() {
            for hash in hashes() {
                let (old, new) = (split.from.range_of(hash), split.to.range_of(hash));
                let holders = (0..split.n).map(|steps| split.from.after(old, steps));
                let mut heirs: Vec<_> = holders
                    .map(|source| {
                        let heir = split.heir(source, hash);
                        assert!(split.sources(heir).contains(&source), "{split:?}");
                        heir
                    })
                    .collect();
                heirs.sort();
                let mut list: Vec<_> = (0..split.n).map(|s| split.to.after(new, s)).collect();
                list.sort();
                assert_eq!(heirs, list, "each replica has one heir, {split:?}");
            }
        }
    }

    /// riak's `future_index` (`riak_core_ring`): the partition at the same place of the preference list on the other ring.
    fn future_index(split: &Split, hash: u64, source: PartitionId) -> Option<PartitionId> {
        let index = |size: RingSize, partition: PartitionId| {
            u128::from(partition.number()) * (1 << 64) / u128::from(size.get())
        };
        let segment = |size: RingSize| (1_u128 << 64) / u128::from(size.get());
        let first = u128::from(hash) / segment(split.from) + 1;
        let at = match index(split.from, source) / segment(split.from) {
            0 => u128::from(split.from.get()),
            at => at,
        };
        let round = u128::from(split.from.get());
        let place = (at + round - first) % round;
        let new = u128::from(split.to.get());
        let target = (u128::from(hash) / segment(split.to) + 1 + place) % new;
        (place < u128::from(split.n)).then(|| split.to.at(u16::try_from(target).unwrap()))
    }

    #[test]
    fn the_heirs_of_a_key_are_those_of_riaks_future_index_in_another_order() {
        for split in splits() {
            for hash in hashes() {
                let mut theirs: Vec<_> = split
                    .from
                    .partitions()
                    .filter_map(|source| future_index(&split, hash, source))
                    .collect();
                let range = split.from.range_of(hash);
                let mut ours: Vec<_> = (0..split.n)
                    .map(|steps| split.heir(split.from.after(range, steps), hash))
                    .collect();
                theirs.sort();
                ours.sort();
                assert_eq!(ours, theirs, "{split:?}");
            }
        }
    }

    #[test]
    fn a_row_that_is_not_of_its_partitions_ranges_goes_to_the_first_replica() {
        let split = Split::new(size(16), size(32), 3).unwrap();
        let (hash, far) = (0, PartitionId::from_id(9));
        assert_eq!(split.heir(far, hash), size(32).range_of(hash));
    }

    #[test]
    fn between_two_rings_of_one_size_every_partition_is_its_own_heir() {
        let (from, to) = (size(16), size(16).next_generation(16).unwrap());
        for n in [1, 2, 3] {
            let split = Split::new(from, to, n).unwrap();
            for (source, heir) in from.partitions().zip(to.partitions()) {
                assert_eq!(
                    (split.heirs(source), split.sources(heir)),
                    (vec![heir], vec![source])
                );
            }
            for hash in hashes() {
                let range = from.range_of(hash);
                for source in (0..n).map(|steps| from.after(range, steps)) {
                    assert_eq!(split.heir(source, hash), to.at(source.number()));
                }
                let far = from.after(range, n);
                assert_eq!(split.heir(far, hash), to.range_of(hash), "no replica of it");
            }
        }
    }

    #[test]
    fn what_does_not_divide_is_refused() {
        let of = |from, to, n| Split::new(size(from), size(to), n);
        for (from, to, n) in [(16, 64, 3), (16, 32, 2), (8, 16, 9), (16, 8, 9)] {
            assert_eq!(of(from, to, n), None, "{from} {to} {n}");
        }
        let split = of(16, 8, 3).unwrap();
        assert_eq!(
            split.owners_after(&apart(size(16))),
            None,
            "two owners of one"
        );
    }

    #[test]
    fn a_ring_has_the_hashes_of_real_keys() {
        let hash: KeyHash = HashId::V1.hash(b"kv", b"k1");
        let split = Split::new(size(16), size(32), 3).unwrap();
        // 0xe6 of 0x100: segment 14 of 16 and 28 of 32.
        let sources = [15, 0, 1].map(PartitionId::from_id);
        let heirs = sources.map(|source| split.heir(source, hash.prefix()).number());
        assert_eq!(heirs, [30, 29, 31]);
    }
}
