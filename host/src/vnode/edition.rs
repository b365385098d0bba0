//! One version of a service's guest on this node: its commands under the numbers that the service gives them, how many replicas
//! they have, and what they did.
//!
//! Never changes but for what is counted and learned. A vnode that takes another version over has another edition from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::request::Consistency;
use super::service::CommandStats;
use crate::config::Replication;
use crate::descriptor::{CommandSpec, Quorum};
use crate::wasm::Guest;
use vnode_ring::rollout::gate::Sample;

/// A version of a guest.
pub struct Edition {
    /// The guest.
    pub guest: Arc<Guest>,
    version: Arc<str>,
    digest: Arc<str>,
    /// By the number of the command; none for one that other versions have.
    commands: Vec<Option<Own>>,
    counters: Arc<Counters>,
}

/// What the commands of a version did. Outlives it: counters never go back.
pub struct Counters {
    /// By executor, and last for what has the whole ring as its place; then by the number of the command.
    stats: Vec<Arc<Vec<CommandStats>>>,
}

/// What is to be known of a command.
struct Own {
    /// Its position in the guest's descriptor.
    position: u16,
    consistency: Consistency,
    /// It was seen to need the typed door.
    typed: AtomicBool,
}

impl Edition {
    /// The guest as a version of a service that has these commands, by their numbers.
    pub(super) fn new(
        guest: Arc<Guest>,
        known: &[CommandSpec],
        replication: Replication,
        within: Duration,
        executors: usize,
    ) -> Edition {
        let own = |known: &CommandSpec| {
            let (position, spec) = guest.descriptor().command(&known.name)?;
            Some(Own {
                position: u16::try_from(position).ok()?,
                consistency: consistency(replication, spec.quorum, within),
                typed: AtomicBool::new(!guest.has_batch()),
            })
        };
        let commands: Vec<Option<Own>> = known.iter().map(own).collect();
        let stats = || {
            let each = std::iter::repeat_with(CommandStats::default);
            Arc::new(each.take(commands.len()).collect())
        };
        let stats = std::iter::repeat_with(stats).take(executors + 1).collect();
        let counters = Arc::new(Counters { stats });
        Edition {
            version: guest.descriptor().version.as_str().into(),
            digest: guest.digest().into(),
            guest,
            commands,
            counters,
        }
    }

    /// The version that the guest says it is, for people.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// SHA-256 of the component, hexadecimal.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    fn own(&self, command: u16) -> Option<&Own> {
        self.commands.get(usize::from(command))?.as_ref()
    }

    /// The command of a number, if this version has it.
    pub fn command(&self, command: u16) -> Option<&CommandSpec> {
        let position = self.own(command)?.position;
        let commands = &self.guest.descriptor().commands;
        commands.get(usize::from(position))
    }

    /// Where the command of a number stands in the guest's descriptor.
    pub fn position(&self, command: u16) -> Option<u16> {
        self.own(command).map(|own| own.position)
    }

    /// By the number of the command: whether the other version has it, too, and says the same of it.
    pub fn comparable(&self, other: &Edition) -> Vec<bool> {
        let numbers = 0..u16::try_from(self.commands.len()).unwrap_or(u16::MAX);
        let alike = numbers.map(
            |number| match (self.command(number), other.command(number)) {
                (Some(own), Some(others)) => own.is_as(others),
                _ => false,
            },
        );
        alike.collect()
    }

    /// How many replicas a command has and waits for, unless its client wishes otherwise.
    pub fn consistency(&self, command: u16) -> Consistency {
        match self.own(command) {
            Some(own) => own.consistency,
            None => Consistency::single(Duration::ZERO),
        }
    }

    /// Whether a command goes through the typed door.
    pub fn is_typed(&self, command: u16) -> bool {
        self.own(command)
            .is_none_or(|own| own.typed.load(Ordering::Relaxed))
    }

    /// Remembers that a command needs the typed door.
    pub fn set_typed(&self, command: u16) {
        if let Some(own) = self.own(command) {
            own.typed.store(true, Ordering::Relaxed);
        }
    }

    /// What its commands did.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What an executor has counted, by the number of the command.
    pub fn stats(&self, executor: usize) -> Arc<Vec<CommandStats>> {
        let stats = self.counters.stats.get(executor);
        stats.cloned().unwrap_or_default()
    }
}

impl Counters {
    /// What was counted of commands for the whole ring, which no executor runs as such.
    pub fn coverage(&self) -> &[CommandStats] {
        self.stats.last().map_or(&[], |stats| stats)
    }

    /// What was counted of a command, by all who count.
    pub fn of(&self, command: u16) -> impl Iterator<Item = &CommandStats> {
        let command = usize::from(command);
        self.stats.iter().filter_map(move |all| all.get(command))
    }

    /// What was counted of all commands but those for the whole ring and those that never had their turn.
    pub fn sample(&self) -> Sample {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut sample = Sample::default();
        let executors = self.stats.len().saturating_sub(1);
        for stats in self.stats.iter().take(executors).flat_map(|all| all.iter()) {
            let (errors, traps) = (read(&stats.error), read(&stats.trap) + read(&stats.timeout));
            sample.commands += read(&stats.ok) + errors + traps;
            sample.errors += errors;
            sample.traps += traps;
            for (all, bucket) in sample.durations.iter_mut().zip(&stats.durations) {
                *all += read(bucket);
            }
        }
        sample
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
        pr: few(service.demands.pr),
        pw: few(service.demands.pw),
        dw: few(service.demands.dw),
        node_confirms: few(service.demands.node_confirms),
        ..Consistency::single(within)
    }
}
