//! One service on this node: its guest, where its keys live, and what its commands did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::request::Consistency;
use crate::config::Replication;
use crate::descriptor::{CommandSpec, Quorum};
use crate::wasm::{Guest, Placement};

/// A guest that this node serves. Shared by all its vnodes.
pub struct Service {
    /// Position among the node's services.
    pub index: u16,
    /// The guest.
    pub guest: Arc<Guest>,
    /// Where its keys live.
    pub placement: Placement,
    /// Replication of the service: the setting, else the guest's wish, else the cluster's default.
    pub replication: Replication,
    /// Counters of its commands for the whole ring, which no executor runs as such, by position.
    pub coverage: Arc<Vec<CommandStats>>,
    /// Replicas of each command, by position.
    consistency: Vec<Consistency>,
    /// Commands that were seen to need the typed door, by position.
    typed: Vec<AtomicBool>,
}

impl Service {
    /// The service at position `index`.
    pub fn new(
        index: u16,
        guest: Arc<Guest>,
        placement: Placement,
        replication: Replication,
        within: Duration,
    ) -> Service {
        let commands = &guest.descriptor().commands;
        let consistency = commands
            .iter()
            .map(|command| consistency(replication, command.quorum, within))
            .collect();
        let typed = commands.iter().map(|_| AtomicBool::new(!guest.has_batch()));
        let typed = typed.collect();
        let coverage = commands.iter().map(|_| CommandStats::default()).collect();
        Service {
            index,
            guest,
            placement,
            replication,
            coverage: Arc::new(coverage),
            consistency,
            typed,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.guest.descriptor().name
    }

    /// The command at a position of the descriptor.
    pub fn command(&self, position: u16) -> Option<&CommandSpec> {
        self.guest.descriptor().commands.get(usize::from(position))
    }

    /// How many replicas the command at a position has and waits for, unless its client wishes otherwise.
    pub fn consistency(&self, position: u16) -> Consistency {
        let known = self.consistency.get(usize::from(position)).copied();
        known.unwrap_or_else(|| Consistency::single(Duration::ZERO))
    }

    /// Replicas of each of its keys.
    pub fn n(&self) -> u16 {
        self.placement.n
    }

    /// Whether the command at a position goes through the typed door.
    pub fn is_typed(&self, position: u16) -> bool {
        self.typed
            .get(usize::from(position))
            .is_none_or(|typed| typed.load(Ordering::Relaxed))
    }

    /// Remembers that the command at a position needs the typed door.
    pub fn set_typed(&self, position: u16) {
        if let Some(typed) = self.typed.get(usize::from(position)) {
            typed.store(true, Ordering::Relaxed);
        }
    }
}

fn consistency(service: Replication, command: Quorum, within: Duration) -> Consistency {
    let wished = service.narrowed(command);
    // Where the replicas are is a matter of the whole service.
    let n = wished.n.min(service.n);
    let few = |count: u32| u8::try_from(count.min(n)).unwrap_or(u8::MAX);
    Consistency {
        n: few(n),
        r: few(wished.r),
        w: few(wished.w),
        ..Consistency::single(within)
    }
}

/// Upper bounds of the buckets of command durations, microseconds; the last bucket has none.
pub const DURATION_BUCKETS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];

/// What one command of one service did on one executor and for the vnodes it lent. Read by the metrics.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Replies of the guest.
    pub ok: AtomicU64,
    /// Refusals of the guest, and failures that are neither of the following.
    pub error: AtomicU64,
    /// Traps and broken contracts.
    pub trap: AtomicU64,
    /// Deadlines.
    pub timeout: AtomicU64,
    /// Full mailboxes.
    pub busy: AtomicU64,
    /// From arrival to reply, counted into `DURATION_BUCKETS_US` and one more.
    pub durations: [AtomicU64; DURATION_BUCKETS_US.len() + 1],
    /// Sum of the durations, microseconds.
    pub duration_us: AtomicU64,
}

/// How a command ended, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest replied.
    Ok,
    /// It was refused.
    Error,
    /// The guest trapped.
    Trap,
    /// The guest used up its time.
    Timeout,
    /// The mailbox was full.
    Busy,
}

impl CommandStats {
    /// Counts one command.
    pub fn count(&self, ended: Ended, took: Duration) {
        let counter = match ended {
            Ended::Ok => &self.ok,
            Ended::Error => &self.error,
            Ended::Trap => &self.trap,
            Ended::Timeout => &self.timeout,
            Ended::Busy => &self.busy,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BUCKETS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.durations.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.duration_us.fetch_add(us, Ordering::Relaxed);
    }
}
