//! How replicas that differed have been brought together: counters by what noticed it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Rows that a replica lacked and was given.
#[derive(Debug, Default)]
pub struct Healing {
    read: AtomicU64,
    hints: AtomicU64,
    entropy: AtomicU64,
    reaped: AtomicU64,
}

impl Healing {
    /// So many rows were sent to a replica because a read had found that it lacks them.
    pub fn read_repaired(&self, rows: usize) {
        self.read.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// So many hints have gone home.
    pub fn handed_back(&self, rows: usize) {
        self.hints.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// So many rows were exchanged because hash trees differed.
    pub fn exchanged(&self, rows: u64) {
        self.entropy.fetch_add(rows, Ordering::Relaxed);
    }

    /// So many tombstones were removed from all replicas.
    pub fn reaped(&self, keys: usize) {
        self.reaped.fetch_add(keys as u64, Ordering::Relaxed);
    }

    /// Tombstones that this node has had removed.
    pub fn reaped_tombstones(&self) -> u64 {
        self.reaped.load(Ordering::Relaxed)
    }

    /// Each counter with the name of what noticed.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        [
            ("read", self.read.load(Ordering::Relaxed)),
            ("hint", self.hints.load(Ordering::Relaxed)),
            ("entropy", self.entropy.load(Ordering::Relaxed)),
        ]
    }
}
