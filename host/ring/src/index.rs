//! Positions on the ring: ring sizes, partition ids, and the range of hashes that each partition has.
//!
//! How a key gets its hash is the business of `hash.rs`, who owns a partition that of `ring.rs`.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{HASH_BYTES, KeyHash};

/// Generations that partition ids tell apart. No more than two are ever in use.
pub const GENERATIONS: u8 = 16;
/// Bits of a partition id below its generation.
const NUMBER_BITS: u32 = 12;

/// Why a ring size, a partition id or a hash id was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The number of partitions is not allowed.
    #[error(
        "ring size {found} is not a power of two from {} to {}; choose 64 if unsure",
        RingSize::MIN,
        RingSize::MAX
    )]
    RingSize {
        /// The number found.
        found: u32,
    },
    /// The partition does not exist.
    #[error("partition {found} is not on a ring of {ring_size}; the last one is {}", ring_size.get() - 1)]
    Partition {
        /// The number found.
        found: u32,
        /// The ring it was looked for on.
        ring_size: RingSize,
    },
    /// The hash id is not known to this build.
    #[error("hash id {found:?} is unknown; this build knows v1 and etf-sha1")]
    HashId {
        /// The text found.
        found: String,
    },
}

/// The number of partitions of a ring: a power of two.
///
/// With it goes the *generation* of the ring, which each resize counts up. The partitions of two generations have different
/// ids, even where the rings have the same size, so nothing that was meant for one is ever taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingSize {
    partitions: u16,
    generation: u8,
}

impl RingSize {
    /// The smallest ring size.
    pub const MIN: u32 = 8;
    /// The largest ring size.
    pub const MAX: u32 = 4096;

    /// Checks a number of partitions.
    ///
    /// # Errors
    /// Refuses all but the powers of two from [`RingSize::MIN`] to [`RingSize::MAX`].
    pub fn new(partitions: u32) -> Result<RingSize, IndexError> {
        let refused = IndexError::RingSize { found: partitions };
        if !partitions.is_power_of_two() || !(Self::MIN..=Self::MAX).contains(&partitions) {
            return Err(refused);
        }
        let partitions = u16::try_from(partitions).map_err(|_| refused)?;
        Ok(RingSize {
            partitions,
            generation: 0,
        })
    }

    /// The size of the ring of the next generation. After the sixteenth the first comes again, whose rows are long gone.
    ///
    /// # Errors
    /// See [`RingSize::new`].
    pub fn next_generation(self, partitions: u32) -> Result<RingSize, IndexError> {
        RingSize::of_generation(partitions, self.generation + 1)
    }

    /// The size of a ring that was resized so often, modulo 16.
    ///
    /// # Errors
    /// See [`RingSize::new`].
    pub fn of_generation(partitions: u32, generation: u8) -> Result<RingSize, IndexError> {
        let generation = generation % GENERATIONS;
        Ok(RingSize {
            generation,
            ..RingSize::new(partitions)?
        })
    }

    /// How often the ring was resized, modulo 16.
    #[must_use]
    pub fn generation(self) -> u8 {
        self.generation
    }

    /// The number of partitions.
    #[must_use]
    pub fn get(self) -> u16 {
        self.partitions
    }

    /// All partitions, in ring order.
    pub fn partitions(self) -> impl ExactSizeIterator<Item = PartitionId> {
        (0..self.partitions).map(move |number| self.at(number))
    }

    /// The partition at a position, counted on from the ring's beginning as often as need be.
    #[must_use]
    pub fn at(self, number: u16) -> PartitionId {
        // The size is a power of two: the mask is the remainder.
        let number = number & (self.partitions - 1);
        PartitionId(u16::from(self.generation) << NUMBER_BITS | number)
    }

    /// Whether `partition` exists on this ring.
    #[must_use]
    pub fn contains(self, partition: PartitionId) -> bool {
        self.at(partition.number()) == partition
    }

    /// Checks a partition number that came from outside.
    ///
    /// # Errors
    /// Refuses numbers from the ring size up.
    pub fn partition(self, number: u32) -> Result<PartitionId, IndexError> {
        u16::try_from(number)
            .ok()
            .filter(|&number| number < self.partitions)
            .map(|number| self.at(number))
            .ok_or(IndexError::Partition {
                found: number,
                ring_size: self,
            })
    }

    /// The partition `steps` further along the ring, wrapping at its end.
    #[must_use]
    pub fn after(self, partition: PartitionId, steps: u16) -> PartitionId {
        // The size is a power of two, so it divides 2^16 and wrapping additions stay right.
        self.at(partition.number().wrapping_add(steps))
    }

    /// The partition that holds the first replica of a key: the one at the next boundary after the key's hash.
    ///
    /// This is riak's rule (`chash:successors`): with `inc = 2^160 / N` it is `(hash / inc + 1) mod N`.
    #[must_use]
    pub fn first_replica(self, hash: &KeyHash) -> PartitionId {
        self.range_of(hash.prefix())
    }

    /// The partition that holds the first replica of the keys with a hash prefix.
    #[must_use]
    pub fn range_of(self, prefix: u64) -> PartitionId {
        let segment = prefix >> self.segment_bits();
        // At most 12 bits are left; the mask only says so to the conversion.
        let segment = u16::try_from(segment & 0xffff).unwrap_or_default();
        self.at(segment.wrapping_add(1))
    }

    /// The first and the last hash prefix (both included) of the keys whose first replica is on `partition`.
    ///
    /// The range never wraps: partition 0, being the boundary after the top of the hash space, takes the last segment.
    #[must_use]
    pub fn hash_range(self, partition: PartitionId) -> (u64, u64) {
        let segment = u64::from(self.after(partition, self.partitions - 1).number());
        let first = segment << self.segment_bits();
        let width_less_one = (1 << self.segment_bits()) - 1;
        (first, first | width_less_one)
    }

    /// The partition's 160-bit index, `partition * 2^160 / N`, as riak_core prints it.
    #[must_use]
    pub fn index_decimal(self, partition: PartitionId) -> String {
        let mut digits = Vec::new();
        let mut number = self.index(partition);
        // Long division by ten, from the top byte down, until nothing is left.
        while digits.is_empty() || number.iter().any(|&byte| byte != 0) {
            let mut rest = 0_u16;
            for byte in &mut number {
                let part = (rest << 8) | u16::from(*byte);
                *byte = u8::try_from(part / 10).unwrap_or_default();
                rest = part % 10;
            }
            digits.push(u32::from(rest));
        }
        let digits = digits.into_iter().rev();
        digits
            .filter_map(|digit| char::from_digit(digit, 10))
            .collect()
    }

    /// The partition's 160-bit index as 40 hexadecimal digits.
    #[must_use]
    pub fn index_hex(self, partition: PartitionId) -> String {
        KeyHash(self.index(partition)).to_string()
    }

    /// The index, big-endian.
    fn index(self, partition: PartitionId) -> [u8; HASH_BYTES] {
        // N is 2^k with k at most 12, so partition * 2^(160-k) touches only the top 16 bits.
        let top = self.after(partition, 0).number() << (u16::BITS - self.partitions.ilog2());
        let [high, low] = top.to_be_bytes();
        let mut index = [0; HASH_BYTES];
        for (byte, value) in index.iter_mut().zip([high, low]) {
            *byte = value;
        }
        index
    }

    /// How many bits of a 64-bit prefix lie below the segment number.
    fn segment_bits(self) -> u32 {
        u64::BITS - self.partitions.ilog2()
    }
}

impl TryFrom<u32> for RingSize {
    type Error = IndexError;

    fn try_from(partitions: u32) -> Result<RingSize, IndexError> {
        RingSize::new(partitions)
    }
}

impl From<RingSize> for u32 {
    fn from(size: RingSize) -> u32 {
        size.partitions.into()
    }
}

impl fmt::Display for RingSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.partitions.fmt(f)
    }
}

/// For people the number of partitions; for programs the generation as well, in the upper half.
impl Serialize for RingSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let generation = match serializer.is_human_readable() {
            true => 0,
            false => u32::from(self.generation) << u16::BITS,
        };
        serializer.serialize_u32(generation | u32::from(self.partitions))
    }
}

impl<'de> Deserialize<'de> for RingSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RingSize, D::Error> {
        let both = u32::deserialize(deserializer)?;
        let size = RingSize::new(both & u32::from(u16::MAX)).map_err(D::Error::custom)?;
        match u8::try_from(both >> u16::BITS) {
            Ok(generation) if generation < GENERATIONS => Ok(RingSize { generation, ..size }),
            _ => Err(D::Error::custom(format!("{both} is no size of a ring"))),
        }
    }
}

/// A partition of a ring: its position, from 0 to the ring size less one, and above that the ring's generation.
///
/// People call it by its position alone, which says nothing without a ring: what they say goes through [`RingSize::partition`]. What
/// programs have written down goes through [`RingSize::contains`] before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u16);

impl PartitionId {
    /// The partition with that [`id`](PartitionId::id). It need not exist on any ring.
    #[must_use]
    pub const fn from_id(id: u16) -> PartitionId {
        PartitionId(id)
    }

    /// What programs call it by: no other partition has that id, on this ring or those before and after it.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.0
    }

    /// The generation of its ring, modulo 16.
    #[must_use]
    pub fn generation(self) -> u8 {
        let [upper, _] = self.0.to_be_bytes();
        upper >> (NUMBER_BITS - u8::BITS)
    }

    /// The position on the ring, which is what people call it by.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// For people the position; for programs all of it.
impl Serialize for PartitionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let id = match serializer.is_human_readable() {
            true => self.number(),
            false => self.0,
        };
        serializer.serialize_u16(id)
    }
}

/// For programs only.
impl<'de> Deserialize<'de> for PartitionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PartitionId, D::Error> {
        match deserializer.is_human_readable() {
            true => Err(D::Error::custom(
                "the position of a partition says nothing without its ring",
            )),
            false => u16::deserialize(deserializer).map(PartitionId),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(partitions: u32) -> RingSize {
        RingSize::new(partitions).unwrap()
    }

    #[test]
    fn ring_sizes_are_powers_of_two_in_bounds() {
        for allowed in [8, 16, 64, 1024, 4096] {
            assert_eq!(u32::from(size(allowed)), allowed);
        }
        for refused in [0, 1, 4, 12, 63, 8192, 65_536, u32::MAX] {
            assert_eq!(
                RingSize::new(refused),
                Err(IndexError::RingSize { found: refused })
            );
        }
        assert_eq!(
            RingSize::new(12).unwrap_err().to_string(),
            "ring size 12 is not a power of two from 8 to 4096; choose 64 if unsure"
        );
    }

    #[test]
    fn partitions_of_two_generations_are_never_taken_for_each_other() {
        let first = size(16);
        let second = first.next_generation(32).unwrap();
        let third = second.next_generation(16).unwrap();
        assert_ne!(first, third);
        for (a, b) in [(first, second), (second, third), (first, third)] {
            assert!(a.partitions().all(|partition| !b.contains(partition)));
            assert!(b.partitions().all(|partition| !a.contains(partition)));
        }
        let partition = third.partition(15).unwrap();
        assert_eq!(
            (partition.number(), partition.to_string()),
            (15, "15".into())
        );
        assert_eq!(third.after(partition, 1), third.at(0));
        assert_eq!(
            third.hash_range(partition),
            first.hash_range(PartitionId(15))
        );
        assert_eq!(third.index_hex(partition), first.index_hex(PartitionId(15)));
        let round = (0..GENERATIONS).try_fold(first, |size, _| size.next_generation(16));
        assert_eq!(round, Ok(first));
    }

    #[test]
    fn a_generation_is_written_for_programs_and_not_for_people() {
        let config = bincode::config::standard();
        let second = size(16).next_generation(32).unwrap();
        let both = (second, second.at(31));
        let bytes = bincode::serde::encode_to_vec(both, config).unwrap();
        let (read, _): ((RingSize, PartitionId), usize) =
            bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(read, both);
        let first = bincode::serde::encode_to_vec(size(16), config).unwrap();
        let number = bincode::serde::encode_to_vec(16_u32, config).unwrap();
        assert_eq!(first, number, "as it was before there were generations");
        let bad = bincode::serde::encode_to_vec(16 << 16 | 32_u32, config).unwrap();
        let read: Result<(RingSize, usize), _> = bincode::serde::decode_from_slice(&bad, config);
        assert!(read.is_err());
    }

    #[test]
    fn a_partition_is_not_read_from_a_position_without_its_ring() {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, U16Deserializer};
        let position: U16Deserializer<Error> = 31_u16.into_deserializer();
        let error = PartitionId::deserialize(position).unwrap_err();
        assert!(error.to_string().contains("without its ring"), "{error}");
        let partition = size(16).next_generation(32).unwrap().at(31);
        assert_eq!(PartitionId::from_id(partition.id()), partition);
    }

    #[test]
    fn partitions_from_outside_are_checked() {
        assert_eq!(size(64).partition(63), Ok(PartitionId(63)));
        for refused in [64, 65_536, u32::MAX] {
            assert!(size(64).partition(refused).is_err(), "{refused}");
        }
        assert_eq!(
            size(64).partition(64).unwrap_err().to_string(),
            "partition 64 is not on a ring of 64; the last one is 63"
        );
    }

    #[test]
    fn the_first_replica_is_at_the_next_boundary() {
        let hash = |prefix: u64| {
            let mut bytes = [0xff; HASH_BYTES];
            bytes[..8].copy_from_slice(&prefix.to_be_bytes());
            KeyHash(bytes)
        };
        let table = [
            // prefix, ring size, partition
            (0, 8, 1),
            (u64::MAX >> 3, 8, 1),
            ((u64::MAX >> 3) + 1, 8, 2),
            (u64::MAX, 8, 0),
            (u64::MAX, 4096, 0),
            (0, 4096, 1),
        ];
        for (prefix, partitions, expected) in table {
            let found = size(partitions).first_replica(&hash(prefix));
            assert_eq!(found, PartitionId(expected), "{prefix:x} of {partitions}");
        }
    }

    #[test]
    fn hash_ranges_tile_the_space_and_agree_with_first_replica() {
        for partitions in [8, 64, 4096] {
            let size = size(partitions);
            let mut ranges: Vec<_> = size.partitions().map(|p| (size.hash_range(p), p)).collect();
            ranges.sort();
            let mut next = Some(0);
            for ((first, last), partition) in ranges {
                assert_eq!(Some(first), next);
                next = last.checked_add(1);
                for prefix in [first, last] {
                    let mut bytes = [0; HASH_BYTES];
                    bytes[..8].copy_from_slice(&prefix.to_be_bytes());
                    assert_eq!(size.first_replica(&KeyHash(bytes)), partition);
                }
            }
            assert_eq!(next, None, "the last range ends at the top");
        }
    }

    #[test]
    fn steps_wrap_at_the_end_of_the_ring() {
        let size = size(16);
        let table = [(15, 1, 0), (0, 15, 15), (3, 16, 3), (3, u16::MAX, 2)];
        for (from, steps, to) in table {
            assert_eq!(size.after(PartitionId(from), steps), PartitionId(to));
        }
    }

    #[test]
    fn indices_print_as_riak_core_does() {
        let table = [
            (64, 0, "0"),
            (64, 1, "22835963083295358096932575511191922182123945984"),
            (64, 28, "639406966332270026714112114313373821099470487552"),
            (64, 50, "1141798154164767904846628775559596109106197299200"),
            (8, 1, "182687704666362864775460604089535377456991567872"),
            (8, 2, "365375409332725729550921208179070754913983135744"),
        ];
        for (partitions, partition, index) in table {
            assert_eq!(
                size(partitions).index_decimal(PartitionId(partition)),
                index
            );
        }
        assert_eq!(
            size(4096).index_hex(PartitionId(4095)),
            "fff0000000000000000000000000000000000000"
        );
    }
}
