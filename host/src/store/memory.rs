//! The `memory` backend: rows that live as long as the process, for caches, tests and measurements.
//!
//! It never touches a disk. Whoever opens a partition gets an empty one under a fresh actor, so that nothing written
//! before can be mistaken for something written now.

use super::rows::Rows;
use super::{
    Ahead, Batch, Commit, Dot, Page, RowKey, Scan, Stats, Store, StoreError, Visit, random,
};
use std::ops::ControlFlow;

/// One partition in memory.
#[derive(Debug)]
pub(super) struct MemoryStore {
    rows: Rows,
    live: u64,
    dot: Dot,
}

impl MemoryStore {
    pub(super) fn new() -> Result<Self, StoreError> {
        Ok(Self {
            rows: Rows::default(),
            live: 0,
            dot: Dot {
                actor: random()?,
                seq: 0,
            },
        })
    }
}

impl Store for MemoryStore {
    fn get(&mut self, row: RowKey<'_>) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.rows.get(row).flatten())
    }

    fn expect(&self, hash: u64, ahead: Ahead) {
        self.rows.expect(hash, ahead);
    }

    fn apply(&mut self, batch: &Batch) -> Result<Commit, StoreError> {
        for change in batch.changes() {
            if change.object.is_some() {
                self.rows.put(change.row, change.object);
            } else {
                self.rows.remove(change.row);
            }
            self.live = self.live.saturating_add_signed(change.live.delta());
        }
        Ok(Commit::NONE)
    }

    fn scan(&mut self, scan: &Scan<'_>, visit: &mut Visit<'_>) -> Result<Page, StoreError> {
        let mut limits = scan.limits();
        for (row, object) in self.rows.range(scan.from) {
            let object = object.unwrap_or_default();
            if row.hash > scan.to_hash {
                break;
            }
            if !limits.take(row, object) || visit(row, object) == ControlFlow::Break(()) {
                return Ok(Page::More);
            }
        }
        Ok(Page::Last)
    }

    fn next_dot(&mut self) -> Result<Dot, StoreError> {
        self.dot.seq += 1;
        Ok(self.dot)
    }

    fn change_actor(&mut self) -> Result<u64, StoreError> {
        self.dot = Dot {
            actor: random()?,
            seq: 0,
        };
        Ok(self.dot.actor)
    }

    fn stats(&self) -> Stats {
        Stats {
            live: self.live,
            bytes: self.rows.bytes() as u64,
        }
    }

    fn drop_rows(&mut self, _max_rows: usize) -> Result<Page, StoreError> {
        self.rows = Rows::default();
        self.live = 0;
        Ok(Page::Last)
    }
}
