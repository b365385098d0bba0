//! Rows of one partition that were read from tables and may be read again, within a budget in bytes.
//!
//! It holds no row that was written since: a write takes the row out, and the overlay has it then.

use super::RowKey;
use super::sealed::checksum;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use std::hash::{BuildHasherDefault, Hasher};

/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 72;
/// For sizing the cache's own table; an average row with its entry.
const AVERAGE_BYTES: u64 = 256;

/// The cache. Its keys are checksums of row keys; two rows with the same checksum take turns.
pub(super) struct RowCache {
    entries: Cache<u64, Entry, Weight, BuildHasherDefault<Through>>,
    budget: u64,
}

/// Key and object in one allocation.
#[derive(Clone)]
struct Entry {
    hash: u64,
    key_len: usize,
    bytes: Box<[u8]>,
}

impl Entry {
    fn object_of(&self, row: RowKey<'_>) -> Option<&[u8]> {
        let (key, object) = self.bytes.split_at_checked(self.key_len)?;
        (self.hash == row.hash && key == row.key).then_some(object)
    }
}

impl RowCache {
    pub(super) fn new(budget: u64) -> Self {
        let items = usize::try_from(budget / AVERAGE_BYTES).unwrap_or(usize::MAX);
        Self {
            entries: Cache::with(
                items,
                budget,
                Weight,
                BuildHasherDefault::default(),
                quick_cache::unsync::DefaultLifecycle::default(),
            ),
            budget,
        }
    }

    /// The object of a row, if it is here.
    pub(super) fn get(&self, row: RowKey<'_>) -> Option<&[u8]> {
        self.entries.get(&spot(row))?.object_of(row)
    }

    /// Keeps a row that was just read.
    pub(super) fn insert(&mut self, row: RowKey<'_>, object: &[u8]) {
        let mut bytes = Vec::with_capacity(row.key.len() + object.len());
        bytes.extend_from_slice(row.key);
        bytes.extend_from_slice(object);
        let entry = Entry {
            hash: row.hash,
            key_len: row.key.len(),
            bytes: bytes.into_boxed_slice(),
        };
        self.entries.insert(spot(row), entry);
    }

    /// Takes a row out that is about to change. Returns the bytes of its key and object.
    pub(super) fn remove(&mut self, row: RowKey<'_>) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let (_, entry) = self.entries.remove(&spot(row))?;
        entry
            .object_of(row)
            .map(|object| row.key.len() + object.len())
    }

    /// Changes the budget when stores were opened or closed.
    pub(super) fn set_budget(&mut self, budget: u64) {
        if self.budget != budget {
            self.budget = budget;
            self.entries.set_capacity(budget);
        }
    }
}

fn spot(row: RowKey<'_>) -> u64 {
    checksum(row.hash, row.key)
}

#[derive(Clone)]
struct Weight;

impl Weighter<u64, Entry> for Weight {
    fn weight(&self, _: &u64, entry: &Entry) -> u64 {
        (ENTRY_BYTES + entry.bytes.len()) as u64
    }
}

/// The keys are hashes already.
#[derive(Clone, Default)]
struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = checksum(self.0, bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
