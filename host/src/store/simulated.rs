//! Storage that a simulator hands in, in place of a disk.

use std::fmt;

use tokio::sync::watch;

use super::{Durable, Store};

/// What a node keeps on a simulated disk.
pub struct Simulated {
    /// The store of a partition of the service of that name.
    pub open: Box<dyn Fn(&str, u16) -> Box<dyn Store> + Send + Sync>,
    /// Partitions that were opened at any time and not forgotten.
    pub partitions: Box<dyn Fn() -> Vec<(String, u16)> + Send + Sync>,
    /// Forgets a partition whose rows were dropped.
    pub forget: Box<dyn Fn(&str, u16) + Send + Sync>,
    /// What is on disk.
    pub durable: watch::Receiver<Durable>,
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").finish_non_exhaustive()
    }
}
