//! Rows that outlive the vnodes on them, with names for writes that leave nothing to chance.

use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::{
    Ahead, Batch, Commit, Dot, Page, RowKey, Scan, Stats, Store, StoreError, Visit,
};

/// Hash and key of a row, and its encoded object.
pub(super) type Stored = ((u64, Vec<u8>), Vec<u8>);

/// Rows of one partition, shared by the vnodes that come and go on them.
#[derive(Clone)]
pub(super) struct Rows {
    inner: Arc<Mutex<Inner>>,
    found: Vec<u8>,
}

struct Inner {
    store: Box<dyn Store>,
    dot: Dot,
}

impl Rows {
    /// The rows of a store; whoever writes them is called `actor`.
    pub(super) fn new(store: Box<dyn Store>, actor: u64) -> Rows {
        let dot = Dot { actor, seq: 0 };
        Rows {
            inner: Arc::new(Mutex::new(Inner { store, dot })),
            found: Vec::new(),
        }
    }

    /// The next writes have the numbers after this one.
    pub(super) fn number_from(&self, seq: u64) {
        self.lock().dot.seq = seq;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every row, tombstones included.
    pub(super) fn all(&self) -> Vec<Stored> {
        let mut rows = Vec::new();
        let scan = Scan {
            from: Bound::Included(RowKey { hash: 0, key: b"" }),
            to_hash: u64::MAX,
            max_rows: usize::MAX,
            max_bytes: usize::MAX,
        };
        let visited = self.lock().store.scan(&scan, &mut |row, object| {
            rows.push(((row.hash, row.key.to_vec()), object.to_vec()));
            ControlFlow::Continue(())
        });
        // Rows in memory can always be read.
        drop(visited);
        rows
    }
}

impl Store for Rows {
    fn get(&mut self, row: RowKey<'_>) -> Result<Option<&[u8]>, StoreError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(object) = inner.store.get(row)? else {
            return Ok(None);
        };
        self.found.clear();
        self.found.extend_from_slice(object);
        Ok(Some(&self.found))
    }

    fn expect(&self, _hash: u64, _ahead: Ahead) {}

    fn apply(&mut self, batch: &Batch) -> Result<Commit, StoreError> {
        self.lock().store.apply(batch)
    }

    fn scan(&mut self, scan: &Scan<'_>, visit: &mut Visit<'_>) -> Result<Page, StoreError> {
        self.lock().store.scan(scan, visit)
    }

    fn next_dot(&mut self) -> Result<Dot, StoreError> {
        let mut inner = self.lock();
        inner.dot.seq += 1;
        Ok(inner.dot)
    }

    fn change_actor(&mut self) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        inner.dot = Dot {
            actor: inner.dot.actor + 1,
            seq: 0,
        };
        Ok(inner.dot.actor)
    }

    fn stats(&self) -> Stats {
        self.lock().store.stats()
    }

    fn drop_rows(&mut self, max_rows: usize) -> Result<Page, StoreError> {
        self.lock().store.drop_rows(max_rows)
    }
}
