//! What vnodes of this node saw of a version that runs beside their own: counts, times, and a few examples of what differs.
//!
//! Shared by the vnodes that have the shadow and by whoever reports. Everything in it is bounded: examples are few and cut.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::PartitionId;
use vnode_ring::rollout::shadow::{Compared, Difference, Side, Tally};

use super::edition::Edition;

/// Examples of one command that are kept.
const EXAMPLES_MAX: usize = 3;

/// A version that runs beside others, and what was seen of it.
pub struct Comparison {
    /// The version.
    pub edition: Arc<Edition>,
    /// Commands that one vnode gives it in a second.
    pub per_second: u32,
    /// Until when it gets any.
    pub until: Option<Instant>,
    /// When it began.
    pub since: Instant,
    seen: Mutex<Seen>,
}

/// What was seen.
#[derive(Clone, Default)]
pub struct Seen {
    /// By the name of the command.
    pub commands: BTreeMap<String, Command>,
    /// Failures in calls of several commands: nobody knows whose.
    pub together: Tally,
    /// The most memory of one instance of the running version, bytes.
    pub running_memory_bytes: usize,
    /// And of its shadow.
    pub shadow_memory_bytes: usize,
    /// Where the vnodes stand that have, or had, the shadow.
    pub vnodes: BTreeMap<PartitionId, Standing>,
}

/// Where the shadow of a vnode stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Runs,
    /// It has to be made again; why, if it failed.
    Ended(Option<String>),
    /// It has failed too often.
    GivenUp(String),
}

/// What was seen of one command.
#[derive(Clone, Default)]
pub struct Command {
    /// What became of it, and the first example.
    pub compared: Compared,
    /// More of those that did not end alike.
    pub examples: Vec<Difference>,
}

/// One command that both versions finished.
pub(super) struct Verdict {
    /// Its name.
    pub(super) command: String,
    /// What differs, if anything does.
    pub(super) differences: Vec<Difference>,
    /// The shadow refused it.
    pub(super) refused: bool,
    /// Time of the running version.
    pub(super) running: Duration,
    /// Time of the shadow.
    pub(super) shadow: Duration,
}

/// How a call of the shadow failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It trapped or broke the contract.
    Trap,
    /// It ran out of its time.
    Overrun,
}

impl Comparison {
    /// A comparison of which nothing was seen yet.
    pub fn new(edition: Arc<Edition>, per_second: u32, within: Option<Duration>) -> Comparison {
        let since = Instant::now();
        Comparison {
            edition,
            per_second,
            until: within.map(|within| since + within),
            since,
            seen: Mutex::default(),
        }
    }

    /// Whether its time is over.
    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// A copy of what was seen so far.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Where the shadow of a vnode stands, if it ever had one.
    pub fn standing(&self, partition: PartitionId) -> Option<Standing> {
        self.lock().vnodes.get(&partition).cloned()
    }

    pub(super) fn stands(&self, partition: PartitionId, standing: Standing) {
        self.lock().vnodes.insert(partition, standing);
    }

    /// Takes down commands that both versions finished, and the memory of both.
    pub(super) fn add(
        &self,
        verdicts: impl IntoIterator<Item = Verdict>,
        (running, shadow): (usize, usize),
    ) {
        let mut seen = self.lock();
        seen.running_memory_bytes = seen.running_memory_bytes.max(running);
        seen.shadow_memory_bytes = seen.shadow_memory_bytes.max(shadow);
        for verdict in verdicts {
            seen.commands
                .entry(verdict.command.clone())
                .or_default()
                .add(verdict);
        }
    }

    /// Takes down a failure of the shadow, in commands of that name alone or of several.
    pub(super) fn fail(&self, command: Option<&str>, failed: Failed) {
        let mut seen = self.lock();
        let tally = match command {
            Some(command) => {
                let command = seen.commands.entry(command.to_owned()).or_default();
                &mut command.compared.tally
            }
            None => &mut seen.together,
        };
        match failed {
            Failed::Trap => tally.traps += 1,
            Failed::Overrun => tally.overruns += 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Command {
    fn add(&mut self, verdict: Verdict) {
        let differs = |side| verdict.differences.iter().any(|one| one.what == side);
        let tally = &mut self.compared.tally;
        tally.compared += 1;
        tally.differ += u64::from(!verdict.differences.is_empty());
        tally.replies += u64::from(differs(Side::Reply));
        tally.effects += u64::from(differs(Side::Effects));
        tally.errors += u64::from(verdict.refused);
        self.compared.running.add(verdict.running);
        self.compared.shadow.add(verdict.shadow);
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples
            .extend(verdict.differences.into_iter().take(room));
        if self.compared.example.is_none() {
            self.compared.example = self.examples.first().cloned();
        }
    }
}

impl Seen {
    /// All commands together, and what could not be told apart.
    pub fn total(&self) -> Tally {
        let each = self
            .commands
            .values()
            .map(|command| &command.compared.tally);
        each.fold(self.together, Tally::and)
    }
}
