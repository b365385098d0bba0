//! One service on this node: where its keys live, the versions of its guest that are here, and what its commands did.
//!
//! A service outlives the versions of its guest. Its commands have numbers that never change: those of a later version that an
//! earlier one did not have get the next ones. So a command that waits somewhere means the same whatever version runs it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::edition::{Counters, Edition};
use crate::config::Replication;
use crate::descriptor::CommandSpec;
use crate::wasm::{Guest, Placement, Schemas};

/// A service that this node serves. Shared by all its vnodes.
pub struct Service {
    /// Position among the node's services.
    pub index: u16,
    /// Where its keys live.
    pub placement: Placement,
    /// Replication of the service: the setting, else the guest's wish, else the cluster's default.
    pub replication: Replication,
    /// In which schema values may be stored now; set by who follows the versions in the cluster map.
    pub schemas: Arc<Schemas>,
    /// Time of a command that wishes no other.
    within: Duration,
    /// Executors that count what commands do.
    executors: usize,
    first: Arc<Edition>,
    known: RwLock<Known>,
}

/// What grows while the node runs.
#[derive(Default)]
struct Known {
    /// All commands that any version has had, by their numbers, as the first one had them.
    commands: Vec<CommandSpec>,
    /// The versions that were loaded, the first one first.
    editions: Vec<Arc<Edition>>,
    /// What they did, and those that are forgotten.
    counters: Vec<Arc<Counters>>,
}

impl Service {
    /// The service at position `index`, as this guest has it at first, on so many executors.
    pub fn new(
        index: u16,
        guest: Arc<Guest>,
        placement: Placement,
        replication: Replication,
        within: Duration,
        executors: usize,
    ) -> Service {
        let mut known = Known::default();
        let first = known.edition(guest, replication, within, executors);
        Service {
            index,
            placement,
            replication,
            schemas: Arc::default(),
            within,
            executors,
            first,
            known: RwLock::new(known),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.placement.service
    }

    /// The version that the node was started with.
    pub fn first(&self) -> &Arc<Edition> {
        &self.first
    }

    /// The version with that digest, if it is here.
    pub fn edition(&self, digest: &str) -> Option<Arc<Edition>> {
        let known = self.known();
        let mut editions = known.editions.iter();
        editions
            .find(|edition| edition.guest.digest() == digest)
            .cloned()
    }

    /// All versions that are here.
    pub fn editions(&self) -> Vec<Arc<Edition>> {
        self.known().editions.clone()
    }

    /// Forgets all versions but the first and these. Vnodes keep what they run.
    pub fn retain(&self, digests: &BTreeSet<String>) {
        let known = self.known.write();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.editions.retain(|edition| {
            digests.contains(edition.guest.digest()) || Arc::ptr_eq(edition, &self.first)
        });
    }

    /// Takes another version in.
    pub fn add(&self, guest: Arc<Guest>) -> Arc<Edition> {
        if let Some(edition) = self.edition(guest.digest()) {
            return edition;
        }
        let known = self.known.write();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.edition(guest, self.replication, self.within, self.executors)
    }

    /// A version that no vnode is to serve. Of its commands it knows those that the service has.
    pub fn beside(&self, guest: Arc<Guest>) -> Arc<Edition> {
        let commands = &self.known().commands;
        let (replication, within) = (self.replication, self.within);
        Arc::new(Edition::new(guest, commands, replication, within, 0))
    }

    /// What each version has done that was ever here.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.known().counters.clone()
    }

    /// All commands that any version has had, by their numbers.
    pub fn commands(&self) -> Vec<CommandSpec> {
        self.known().commands.clone()
    }

    /// The number of a command.
    pub fn command_number(&self, name: &str) -> Option<u16> {
        let known = self.known();
        let mut commands = known.commands.iter();
        u16::try_from(commands.position(|command| command.name == name)?).ok()
    }

    /// Replicas of each of its keys.
    pub fn n(&self) -> u16 {
        self.placement.n
    }

    /// Whether some version of its guest wants to hear what happens to its vnodes.
    pub fn has_lifecycle(&self) -> bool {
        let known = self.known();
        let mut editions = known.editions.iter();
        editions.any(|edition| edition.guest.has_lifecycle())
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Adds a version, and numbers the commands that it has first.
    fn edition(
        &mut self,
        guest: Arc<Guest>,
        replication: Replication,
        within: Duration,
        executors: usize,
    ) -> Arc<Edition> {
        for spec in &guest.descriptor().commands {
            if !self.commands.iter().any(|known| known.name == spec.name) {
                self.commands.push(spec.clone());
            }
        }
        let edition = Edition::new(guest, &self.commands, replication, within, executors);
        let edition = Arc::new(edition);
        self.editions.push(Arc::clone(&edition));
        self.counters.push(Arc::clone(edition.counters()));
        edition
    }
}

/// Upper bounds of the buckets of command durations, microseconds; the last bucket has none.
pub use vnode_ring::rollout::gate::DURATION_BUCKETS_US;

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
