//! Rows of vnodes: where they are kept, in which order, and when they are safe.
//!
//! A [`Store`] holds the rows of one partition of one service and belongs to one vnode. An [`Engine`] opens stores and is
//! the node's: it owns the journal, the tables and the threads that sync and flush. Objects are opaque bytes here; what is a
//! tombstone or how versions merge is decided elsewhere, and callers say what counts as live.
//!
//! How the `disk` backend works stands in `disk.rs`; it never loses what it reported as durable, and never serves bytes
//! other than those written.

mod ack;
mod batch;
mod cache;
mod catalog;
mod disk;
mod engine;
mod error;
mod flush;
mod journal;
mod manifest;
mod memory;
mod overlay;
mod prefetch;
mod recovery;
mod rows;
pub(crate) mod sealed;
#[cfg(feature = "sim")]
mod simulated;
mod sync;
mod tables;
#[cfg(test)]
mod tests;

pub use ack::{Acknowledge, Verdict};
pub use batch::{Batch, Change, Changes, Liveness, Mark};
pub use engine::{DiskSettings, Durability, Durable, Engine, Health};
pub use error::StoreError;
#[cfg(feature = "sim")]
pub use simulated::Simulated;

use std::ops::{Bound, ControlFlow};

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 32 * 1024 - 1;
/// Longest encoded object in bytes.
pub const OBJECT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest batch in bytes, keys and objects and 15 bytes for each row.
pub const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where a row lives: the first 64 bits of the hash, which order rows around the ring, then the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey<'a> {
    /// First 64 bits of the ring hash.
    pub hash: u64,
    /// The key itself.
    pub key: &'a [u8],
}

/// A place in the node's journal. Of two commits the larger is the later, and it is durable only when both are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(pub u64);

impl Commit {
    /// Nothing to wait for.
    pub const NONE: Self = Self(0);
}

/// A name for one write that no other write anywhere ever gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// This incarnation of this partition on this node; random.
    pub actor: u64,
    /// Rises with each write. There are gaps after a restart.
    pub seq: u64,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live rows, as told by the batches.
    pub live: u64,
    /// Bytes of keys and objects, tombstones included. On disk a close estimate, since overwriting a row that is not
    /// in memory does not read the old one.
    pub bytes: u64,
}

/// Which rows to visit, and how many at most.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Where to start. The next page starts at `Excluded` of the last row seen.
    pub from: Bound<RowKey<'a>>,
    /// Last hash that belongs to the range.
    pub to_hash: u64,
    /// Most rows of one page.
    pub max_rows: usize,
    /// A page ends before the row that takes it past so many bytes of keys and objects; one row it has always.
    pub max_bytes: usize,
}

impl Scan<'_> {
    fn limits(&self) -> Limits {
        Limits {
            rows: self.max_rows,
            bytes: self.max_bytes,
            first: true,
        }
    }
}

/// What is left of a page.
struct Limits {
    rows: usize,
    bytes: usize,
    first: bool,
}

impl Limits {
    /// Whether the row still belongs to this page.
    fn take(&mut self, row: RowKey<'_>, object: &[u8]) -> bool {
        let size = row.key.len() + object.len();
        if self.rows == 0 || (size > self.bytes && !self.first) {
            return false;
        }
        self.rows -= 1;
        self.bytes = self.bytes.saturating_sub(size);
        self.first = false;
        true
    }
}

/// Whether a range was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// A limit was met or the visitor said stop; there may be more rows.
    More,
    /// The range has no more rows.
    Last,
}

/// How near it is that a row is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Time enough to find out where it lies.
    Far,
    /// Time enough to fetch it from there.
    Near,
}

/// Sees the rows of a scan in order. The object is encoded and may be a tombstone.
pub type Visit<'v> = dyn FnMut(RowKey<'_>, &[u8]) -> ControlFlow<()> + 'v;

/// One vnode's rows. Called from one thread at a time, which need not always be the same.
pub trait Store: Send {
    /// The encoded object of a row, tombstones included.
    ///
    /// Fails with [`StoreError::Corrupt`] or [`StoreError::Io`] when the row cannot be read; trying again is harmless.
    fn get(&mut self, row: RowKey<'_>) -> Result<Option<&[u8]>, StoreError>;

    /// Says that a row with that hash is wanted soon. Called twice for each, with some time in between; changes nothing but how
    /// long the next [`get`](Store::get) or [`apply`](Store::apply) takes.
    fn expect(&self, hash: u64, ahead: Ahead);

    /// Makes all changes or none. They are readable at once, and durable when [`Engine::durable`] has reached the commit.
    fn apply(&mut self, batch: &Batch) -> Result<Commit, StoreError>;

    /// Visits one page of a range in order. Rows written between two pages appear if they come after the position.
    fn scan(&mut self, scan: &Scan<'_>, visit: &mut Visit<'_>) -> Result<Page, StoreError>;

    /// A new name for a write. Once in a million calls this waits for the disk, since a name must not come back after
    /// a crash.
    fn next_dot(&mut self) -> Result<Dot, StoreError>;

    /// Goes on under another actor, and returns it. For who is about to remove rows that others keep: a causal context says
    /// "everything of this actor up to here", so a write under the old name to a key that is not here any more would cover what
    /// was written there before.
    fn change_actor(&mut self) -> Result<u64, StoreError>;

    /// How much there is.
    fn stats(&self) -> Stats;

    /// Removes up to so many rows of the partition for good; called until it says [`Page::Last`].
    fn drop_rows(&mut self, max_rows: usize) -> Result<Page, StoreError>;
}

fn random() -> Result<u64, StoreError> {
    // Zero and the highest numbers are kept free for whoever needs a mark.
    loop {
        let number = getrandom::u64().map_err(StoreError::Random)?;
        if (1..u64::MAX - 1024).contains(&number) {
            return Ok(number);
        }
    }
}
