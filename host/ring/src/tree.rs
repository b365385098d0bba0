//! Hash trees: where two replicas of a range differ, without sending the range.
//!
//! Owns the tree of one range of one vnode: its leaves, keeping them up to date with every write, and filling them by a scan
//! while writes go on. It reads no rows and talks to nobody. Replicas compare roots, then leaves, then list the rows of the
//! leaves that differ, as in Dynamo (DeCandia and others 2007, §4.7) and riak's `hashtree`. Unlike riak's, a leaf is the XOR
//! of one hash for each row (the incremental hash of Bellare and Micciancio, 1997), so a write changes it in constant time and
//! nothing is ever dirty. That finds losses and damage; it is no defence against somebody who picks hashes that cancel out.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::index::{PartitionId, RingSize};
use crate::object::ObjectRef;

/// How many leaves a tree has. Part of the wire format.
pub const LEAVES: u16 = 1 << LEAF_BITS;

const LEAF_BITS: u32 = 10;
const LEAF_BYTES: usize = size_of::<u64>();
const FORMAT: u8 = 1;
const ENCODED_BYTES: usize = 1 + LEAVES as usize * LEAF_BYTES;

/// Why the bytes of leaves were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Too few bytes or too many.
    #[error(
        "cannot read the leaves of a hash tree: found {found} bytes instead of {ENCODED_BYTES}; ask for them again"
    )]
    Length {
        /// How many were found.
        found: usize,
    },
    /// The leading format number is not one this build reads.
    #[error(
        "cannot read the leaves of a hash tree: their format is {found}, this build reads {FORMAT}; use a build that knows format {found}"
    )]
    UnknownFormat {
        /// The number found.
        found: u8,
    },
}

/// What a tree knows of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeRow {
    /// See [`ObjectRef::digest`].
    pub digest: u64,
    /// Whether the object has a live value.
    pub live: bool,
}

impl From<&ObjectRef<'_>> for TreeRow {
    fn from(object: &ObjectRef<'_>) -> TreeRow {
        TreeRow {
            digest: object.digest(),
            live: object.is_live(),
        }
    }
}

/// The leaves of a tree, as replicas send them to each other: [`LEAVES`] numbers, each covering an equal part of the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves(Box<[u64]>);

impl Leaves {
    /// Those of a range without rows.
    fn empty() -> Leaves {
        Leaves(vec![0; LEAVES.into()].into())
    }

    /// One number for all of them: their XOR. A row's own hash decides its leaf, so nothing is lost by not hashing them.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.0.iter().fold(0, |root, leaf| root ^ leaf)
    }

    /// The leaves in which two replicas of a range differ, ascending. [`Tree::leaf_range`] gives their rows.
    #[must_use]
    pub fn differing(&self, other: &Leaves) -> Vec<u16> {
        let pairs = (0..).zip(self.0.iter().zip(&other.0));
        let differing = pairs.filter(|(_, (ours, theirs))| ours != theirs);
        differing.map(|(leaf, _)| leaf).collect()
    }

    /// Appends the format number and the leaves, each as 8 bytes little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(ENCODED_BYTES);
        out.push(FORMAT);
        out.extend(self.0.iter().flat_map(|leaf| leaf.to_le_bytes()));
    }

    /// Reads bytes made by [`Leaves::encode`].
    ///
    /// # Errors
    /// Refuses other formats and lengths, before anything is allocated.
    pub fn decode(bytes: &[u8]) -> Result<Leaves, TreeError> {
        let found = bytes.len();
        let (&format, leaves) = bytes.split_first().ok_or(TreeError::Length { found })?;
        if format != FORMAT {
            return Err(TreeError::UnknownFormat { found: format });
        }
        if found != ENCODED_BYTES {
            return Err(TreeError::Length { found });
        }
        let (leaves, _) = leaves.as_chunks();
        Ok(Leaves(
            leaves
                .iter()
                .map(|leaf| u64::from_le_bytes(*leaf))
                .collect(),
        ))
    }
}

/// The hash tree of one range of one vnode: all rows of which the vnode's range is the first replica's.
///
/// It is complete, or it is being built. While it is built it takes in rows from a scan in ascending order of hash and key, and
/// updates only where the scan has been; what lies beyond, the scan will see. So a scan may take its time while writes go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The first hash of the range.
    first: u64,
    /// How many bits of a hash lie below the number of its leaf.
    leaf_shift: u32,
    leaves: Leaves,
    /// Live rows. Less than none only if an update was told of a row that never was.
    live: i64,
    progress: Progress,
}

/// How much of its range a tree covers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// Up to and with these rows of this hash; nothing at first.
    Building {
        upto: Option<(u64, Through)>,
    },
    Complete,
}

/// The last row of a hash that has been scanned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Through {
    Key(Vec<u8>),
    /// All rows of the hash.
    All,
}

impl Tree {
    /// The complete tree of a range without rows. `range` is where the first replica of its keys is, on a ring of `size`.
    #[must_use]
    pub fn new(size: RingSize, range: PartitionId) -> Tree {
        Tree::with(size, range, Progress::Complete)
    }

    /// A tree that is to be filled by a scan: [`Tree::advance`] and [`Tree::scanned`] for each page, then [`Tree::finish`].
    #[must_use]
    pub fn building(size: RingSize, range: PartitionId) -> Tree {
        Tree::with(size, range, Progress::Building { upto: None })
    }

    fn with(size: RingSize, range: PartitionId, progress: Progress) -> Tree {
        let (first, last) = size.hash_range(range);
        // A range is 2^52 hashes or more, and begins at a multiple of its width.
        let range_bits = (last - first).count_ones();
        Tree {
            first,
            leaf_shift: range_bits.saturating_sub(LEAF_BITS),
            leaves: Leaves::empty(),
            live: 0,
            progress,
        }
    }

    /// Whether all rows of the range are in it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.progress == Progress::Complete
    }

    /// The leaves; `None` while the tree is being built.
    #[must_use]
    pub fn leaves(&self) -> Option<&Leaves> {
        self.is_complete().then_some(&self.leaves)
    }

    /// One number for the whole range, equal on replicas with equal rows; `None` while the tree is being built.
    #[must_use]
    pub fn root(&self) -> Option<u64> {
        self.leaves().map(Leaves::root)
    }

    /// How many rows have a live value; `None` while the tree is being built.
    #[must_use]
    pub fn live(&self) -> Option<u64> {
        let live = u64::try_from(self.live).unwrap_or_default();
        self.is_complete().then_some(live)
    }

    /// The first and the last hash prefix (both included) of the rows of a leaf; `None` if there is no such leaf.
    #[must_use]
    pub fn leaf_range(&self, leaf: u16) -> Option<(u64, u64)> {
        if leaf >= LEAVES {
            return None;
        }
        let first = self.first + (u64::from(leaf) << self.leaf_shift);
        let width_less_one = (1 << self.leaf_shift) - 1;
        Some((first, first | width_less_one))
    }

    /// Takes in a write: the row of `key`, whose hash prefix is `hash`, was `old` and is `new`; `None` for no row.
    ///
    /// Takes constant time. Rows outside the range change nothing, nor do those that a scan has yet to reach.
    pub fn update(&mut self, hash: u64, key: &[u8], old: Option<TreeRow>, new: Option<TreeRow>) {
        if self.counts(hash, key) {
            for row in [old, new].into_iter().flatten() {
                self.toggle(hash, key, row.digest);
            }
            let live = |row: Option<TreeRow>| i64::from(row.is_some_and(|row| row.live));
            self.live += live(new) - live(old);
        }
    }

    /// Moves the scan on, through the row of `key`, or through all rows with that hash prefix for `None`. Never moves back.
    ///
    /// From now on updates up to there count. The rows that are there now must be handed to [`Tree::scanned`], each once, as
    /// they are now: sooner or later does not matter, nor what has become of them by then. So either read a page and then
    /// advance to its last row, with no write in between, or advance to a place chosen beforehand ([`Tree::leaf_range`]), take
    /// a snapshot, and read that in the background.
    pub fn advance(&mut self, hash: u64, key: Option<&[u8]>) {
        if let Progress::Building { upto } = &mut self.progress {
            let through = key.map_or(Through::All, |key| Through::Key(key.to_vec()));
            let reached = Some((hash, through));
            if *upto < reached {
                *upto = reached;
            }
        }
    }

    /// Takes in a row found by the scan. See [`Tree::advance`]. Rows outside the range change nothing.
    pub fn scanned(&mut self, hash: u64, key: &[u8], row: TreeRow) {
        if self.leaf_of(hash).is_some() {
            self.toggle(hash, key, row.digest);
            self.live += i64::from(row.live);
        }
    }

    /// Ends the scan: it has reached the end of the range, and all its rows have been handed over.
    pub fn finish(&mut self) {
        self.progress = Progress::Complete;
    }

    /// The leaf of a hash prefix; `None` outside the range.
    fn leaf_of(&self, hash: u64) -> Option<usize> {
        let leaf = hash.checked_sub(self.first)? >> self.leaf_shift;
        let leaf = usize::try_from(leaf).ok()?;
        (leaf < LEAVES.into()).then_some(leaf)
    }

    /// Whether updates of a row matter by now.
    fn counts(&self, hash: u64, key: &[u8]) -> bool {
        let scanned = match &self.progress {
            Progress::Complete => true,
            Progress::Building { upto: None } => false,
            Progress::Building {
                upto: Some((last, through)),
            } => match through {
                Through::Key(last_key) => (hash, key) <= (*last, last_key),
                Through::All => hash <= *last,
            },
        };
        scanned && self.leaf_of(hash).is_some()
    }

    /// Adds a row to its leaf, or removes it if it is there.
    fn toggle(&mut self, hash: u64, key: &[u8], digest: u64) {
        let leaf = self
            .leaf_of(hash)
            .and_then(|leaf| self.leaves.0.get_mut(leaf));
        if let Some(leaf) = leaf {
            let seed = xxh3_64_with_seed(&hash.to_le_bytes(), digest);
            *leaf ^= xxh3_64_with_seed(key, seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(partitions: u32) -> RingSize {
        RingSize::new(partitions).unwrap()
    }

    fn row(digest: u64) -> TreeRow {
        TreeRow { digest, live: true }
    }

    #[test]
    fn leaves_tile_the_range_and_hold_its_rows() {
        for (partitions, range) in [(8, 0), (8, 1), (64, 28), (4096, 0), (4096, 4095)] {
            let (size, range) = (size(partitions), PartitionId::from_id(range));
            let mut tree = Tree::new(size, range);
            let (first, last) = size.hash_range(range);
            let mut next = Some(first);
            for leaf in 0..LEAVES {
                let (from, to) = tree.leaf_range(leaf).unwrap();
                assert_eq!(Some(from), next);
                next = to.checked_add(1);
                for hash in [from, to] {
                    let before = tree.leaves.clone();
                    tree.update(hash, b"k", None, Some(row(7)));
                    assert_eq!(tree.leaves.differing(&before), [leaf]);
                }
            }
            assert_eq!(next, last.checked_add(1), "the last leaf ends the range");
            assert_eq!(tree.leaf_range(LEAVES), None);

            let before = tree.clone();
            for outside in [first.wrapping_sub(1), last.wrapping_add(1)] {
                tree.update(outside, b"k", None, Some(row(7)));
                tree.scanned(outside, b"k", row(7));
            }
            assert_eq!(tree, before);
        }
    }

    #[test]
    fn a_write_taken_back_leaves_no_trace() {
        let mut tree = Tree::new(size(8), PartitionId::from_id(1));
        let empty = tree.clone();
        let dead = TreeRow {
            digest: 2,
            live: false,
        };
        tree.update(5, b"k", None, Some(row(1)));
        assert_eq!(tree.live(), Some(1));
        tree.update(5, b"k", Some(row(1)), Some(dead));
        assert_eq!(tree.live(), Some(0));
        assert_ne!(tree.root(), empty.root(), "a tombstone is a row");
        tree.update(5, b"k", Some(dead), None);
        assert_eq!(tree, empty);
    }

    #[test]
    fn hash_key_and_digest_all_count() {
        let root = |hash, key: &str, digest| {
            let mut tree = Tree::new(size(8), PartitionId::from_id(1));
            tree.update(hash, key.as_bytes(), None, Some(row(digest)));
            tree.root()
        };
        let roots = [
            root(1, "k", 1),
            root(2, "k", 1),
            root(1, "l", 1),
            root(1, "", 1),
            root(1, "k", 2),
        ];
        for (at, one) in roots.iter().enumerate() {
            assert!(roots[at + 1..].iter().all(|other| other != one));
        }
        // Nodes of different builds compare them. Computed apart from this code.
        assert_eq!(root(1, "k", 1), Some(0xbcba_5643_54a1_f811));
    }

    #[test]
    fn leaves_of_another_format_or_length_are_refused() {
        let mut tree = Tree::new(size(8), PartitionId::from_id(1));
        tree.update(5, b"k", None, Some(row(1)));
        let leaves = tree.leaves().unwrap();
        let mut bytes = Vec::new();
        leaves.encode(&mut bytes);
        assert_eq!(bytes.len(), 8193);
        assert_eq!(Leaves::decode(&bytes).as_ref(), Ok(leaves));

        let refusal = |bytes: &[u8]| Leaves::decode(bytes).unwrap_err();
        for length in [0, 1, 8192] {
            assert_eq!(
                refusal(&bytes[..length]),
                TreeError::Length { found: length }
            );
        }
        bytes.push(0);
        assert_eq!(
            refusal(&bytes).to_string(),
            "cannot read the leaves of a hash tree: found 8194 bytes instead of 8193; ask for them again"
        );
        bytes[0] = 2;
        assert_eq!(refusal(&bytes), TreeError::UnknownFormat { found: 2 });
    }

    #[test]
    fn a_tree_that_is_being_built_tells_nothing() {
        let mut tree = Tree::building(size(8), PartitionId::from_id(1));
        tree.advance(u64::MAX, None);
        assert_eq!(
            (tree.root(), tree.live(), tree.leaves()),
            (None, None, None)
        );
        tree.finish();
        assert_eq!(tree, Tree::new(size(8), PartitionId::from_id(1)));
    }
}
