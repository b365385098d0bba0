//! The ring: which node owns which partition, at one epoch.
//!
//! Owns node names and the one invariant of every ring value: as many owners as partitions, exactly one each. It never decides
//! who should own what, nor who is up. Next: `preflist.rs` and `coverage.rs` for what is read off a ring.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hash::HashId;

use crate::index::{PartitionId, RingSize};

/// Why a node name or a ring was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A node name is empty or too long.
    #[error(
        "node name has {found} characters, 1 to {} are allowed",
        NodeName::CHARS_MAX
    )]
    NameLength {
        /// How many it has.
        found: usize,
    },
    /// A node name has a character that would be confusing in a path, a table or a log.
    #[error(
        "node name has {found:?} at position {at}; use visible ASCII without slashes, backslashes and quotes"
    )]
    NameCharacter {
        /// The first such character.
        found: char,
        /// Its byte offset.
        at: usize,
    },
    /// A ring has not one owner for each partition.
    #[error(
        "ring of {size} partitions names {owners} owners; it is damaged, fetch it from another node"
    )]
    OwnerCount {
        /// The ring size.
        size: RingSize,
        /// How many owners there are.
        owners: usize,
    },
}

/// A node's identity, such as `a@10.0.0.1:7100`; not its address, even when it looks like one.
///
/// 1 to 128 characters of visible ASCII, without slashes, backslashes and quotes. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The longest name, in characters.
    pub const CHARS_MAX: usize = 128;

    /// Checks a name.
    ///
    /// # Errors
    /// Says which character, or the length, is not allowed.
    pub fn new(name: &str) -> Result<NodeName, RingError> {
        let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '\\' | '"' | '\'' | '`');
        if let Some((at, found)) = name.char_indices().find(|&(_, c)| !allowed(c)) {
            return Err(RingError::NameCharacter { found, at });
        }
        if name.is_empty() || name.len() > Self::CHARS_MAX {
            return Err(RingError::NameLength { found: name.len() });
        }
        Ok(NodeName(name.into()))
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = RingError;

    fn from_str(name: &str) -> Result<NodeName, RingError> {
        NodeName::new(name)
    }
}

impl TryFrom<String> for NodeName {
    type Error = RingError;

    fn try_from(name: String) -> Result<NodeName, RingError> {
        NodeName::new(&name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.as_str().to_owned()
    }
}

/// Who owns each partition, and how keys are placed on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Ring {
    size: RingSize,
    hash: HashId,
    /// One for each partition, in ring order.
    owners: Vec<NodeName>,
    epoch: u64,
}

impl Ring {
    /// The first ring of a cluster: one node owns everything, at epoch 1.
    #[must_use]
    pub fn single(node: NodeName, size: RingSize, hash: HashId) -> Ring {
        let owners = vec![node; size.get().into()];
        Ring {
            size,
            hash,
            owners,
            epoch: 1,
        }
    }

    /// A ring with the given owners, one for each partition in ring order.
    ///
    /// # Errors
    /// Refuses any other number of owners than the ring size.
    pub fn new(
        size: RingSize,
        hash: HashId,
        owners: Vec<NodeName>,
        epoch: u64,
    ) -> Result<Ring, RingError> {
        if owners.len() != usize::from(size.get()) {
            let owners = owners.len();
            return Err(RingError::OwnerCount { size, owners });
        }
        Ok(Ring {
            size,
            hash,
            owners,
            epoch,
        })
    }

    /// The number of partitions.
    #[must_use]
    pub fn size(&self) -> RingSize {
        self.size
    }

    /// How keys are hashed.
    #[must_use]
    pub fn hash(&self) -> HashId {
        self.hash
    }

    /// The version of this ring; grows with every change of ownership.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All owners, in ring order.
    #[must_use]
    pub fn owners(&self) -> &[NodeName] {
        &self.owners
    }

    /// The owner of a partition.
    ///
    /// # Panics
    /// When the partition is not on this ring. Check ids from outside with [`RingSize::partition`].
    #[must_use]
    pub fn owner(&self, partition: PartitionId) -> &NodeName {
        let owner = self.owners.get(usize::from(partition.number()));
        match owner.filter(|_| self.size.contains(partition)) {
            Some(owner) => owner,
            None => unreachable!("partition {partition} on a ring of {}", self.size),
        }
    }

    /// Whether a node owns a partition; nobody owns those of another ring.
    #[must_use]
    pub fn is_owner(&self, node: &NodeName, partition: PartitionId) -> bool {
        self.size.contains(partition) && self.owner(partition) == node
    }

    /// The same ring with another owner of one partition.
    pub(crate) fn with_owner(&self, partition: PartitionId, owner: NodeName) -> Ring {
        let mut ring = self.clone();
        if let Some(place) = ring.owners.get_mut(usize::from(partition.number())) {
            *place = owner;
        }
        ring
    }

    /// The same ring at another epoch.
    pub(crate) fn at_epoch(&self, epoch: u64) -> Ring {
        let mut ring = self.clone();
        ring.epoch = epoch;
        ring
    }

    /// The partitions a node owns, in ring order.
    pub fn partitions_of(&self, node: &NodeName) -> impl Iterator<Item = PartitionId> {
        let owned = self.size.partitions().zip(&self.owners);
        owned
            .filter(move |(_, owner)| *owner == node)
            .map(|(partition, _)| partition)
    }

    /// The nodes that own at least one partition.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<&NodeName> {
        self.owners.iter().collect()
    }

    /// A short name for each owning node, for drawing the ring: a to z, then aa, ab and on, in the order of the names.
    #[must_use]
    pub fn letters(&self) -> BTreeMap<NodeName, String> {
        let nodes = self.nodes().into_iter().cloned();
        nodes.zip((0..).map(letters_of)).collect()
    }
}

/// Counts in letters: 0 is a, 25 is z, 26 is aa.
fn letters_of(mut number: u32) -> String {
    let mut letters = Vec::new();
    loop {
        letters.extend(char::from_digit(number % 26 + 10, 36));
        match (number / 26).checked_sub(1) {
            Some(rest) => number = rest,
            None => return letters.into_iter().rev().collect(),
        }
    }
}

/// A ring as it is written down, before its invariant has been checked.
#[derive(Serialize, Deserialize)]
struct Parts {
    size: RingSize,
    hash: HashId,
    owners: Vec<NodeName>,
    epoch: u64,
}

impl TryFrom<Parts> for Ring {
    type Error = RingError;

    fn try_from(parts: Parts) -> Result<Ring, RingError> {
        Ring::new(parts.size, parts.hash, parts.owners, parts.epoch)
    }
}

impl From<Ring> for Parts {
    fn from(ring: Ring) -> Parts {
        Parts {
            size: ring.size,
            hash: ring.hash,
            owners: ring.owners,
            epoch: ring.epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn size(partitions: u32) -> RingSize {
        RingSize::new(partitions).unwrap()
    }

    #[test]
    fn node_names_are_visible_ascii() {
        let longest = "n".repeat(128);
        for allowed in ["a", "a@10.0.0.1:7100", "[::1]:7100", longest.as_str()] {
            assert_eq!(name(allowed).to_string(), allowed);
        }
        for refused in [
            "a b", "a\n", "a/b", "a\\b", "a\"", "a'", "a`", "\u{e9}", "\u{7f}",
        ] {
            let error = NodeName::new(refused).unwrap_err();
            assert!(
                matches!(error, RingError::NameCharacter { .. }),
                "{refused:?}"
            );
        }
        let too_long = "n".repeat(129);
        for (refused, found) in [("", 0), (too_long.as_str(), 129)] {
            assert_eq!(NodeName::new(refused), Err(RingError::NameLength { found }));
        }
        assert_eq!(
            NodeName::new("a/b").unwrap_err().to_string(),
            "node name has '/' at position 1; use visible ASCII without slashes, backslashes and quotes"
        );
    }

    #[test]
    fn a_single_node_owns_everything() {
        let ring = Ring::single(name("a"), size(8), HashId::V1);
        assert_eq!(ring.epoch(), 1);
        assert!(
            ring.size()
                .partitions()
                .all(|p| ring.owner(p) == &name("a"))
        );
        assert_eq!(ring.partitions_of(&name("a")).count(), 8);
        assert_eq!(ring.partitions_of(&name("b")).count(), 0);
    }

    #[test]
    fn a_ring_has_one_owner_for_each_partition() {
        let error = Ring::new(size(8), HashId::V1, vec![name("a"); 7], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ring of 8 partitions names 7 owners; it is damaged, fetch it from another node"
        );
    }

    #[test]
    #[should_panic(expected = "partition 8 on a ring of 8")]
    fn a_partition_of_another_ring_is_a_programming_error() {
        let ring = Ring::single(name("a"), size(8), HashId::V1);
        let _ = ring.owner(PartitionId::from_id(8));
    }

    #[test]
    fn letters_follow_the_order_of_names_and_go_on_after_z() {
        let owners: Vec<NodeName> = (0..1024)
            .map(|i| name(&format!("n{:04}", i % 800)))
            .collect();
        let ring = Ring::new(size(1024), HashId::V1, owners, 1).unwrap();
        let letters = ring.letters();
        let table = [
            (0, "a"),
            (25, "z"),
            (26, "aa"),
            (27, "ab"),
            (701, "zz"),
            (702, "aaa"),
        ];
        for (node, expected) in table {
            assert_eq!(letters[&name(&format!("n{node:04}"))], expected);
        }
        assert_eq!(letters.len(), 800);
    }

    #[test]
    fn rings_are_checked_when_they_are_read() {
        let config = bincode::config::standard();
        let ring = Ring::single(name("a"), size(8), HashId::EtfSha1);
        let bytes = bincode::serde::encode_to_vec(&ring, config).unwrap();
        let (read, _): (Ring, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(read, ring);
        let table = [
            (8_u32, vec!["a"; 7]),
            (9, vec!["a"; 9]),
            (8, vec!["a/b"; 8]),
        ];
        for (size, owners) in table {
            let parts = (size, 0_u32, owners, 1_u64);
            let bytes = bincode::serde::encode_to_vec(&parts, config).unwrap();
            let read: Result<(Ring, usize), _> = bincode::serde::decode_from_slice(&bytes, config);
            assert!(read.is_err());
        }
    }
}
