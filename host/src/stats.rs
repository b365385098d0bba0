//! The last quarter of an hour of a node, second by second, for charts where nobody runs Prometheus.
//!
//! Each second the counters of commands are read, and what they have grown by since the second before is one sample.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::coordinator::{Coordinator, now_ms};
use crate::metrics::CommandTotals;
use crate::vnode::service::DURATION_BUCKETS_US;

/// Between two samples.
pub const EVERY: Duration = Duration::from_secs(1);
/// Samples that are kept: 15 minutes.
const KEPT: usize = 900;

/// One second of a node.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it ended, milliseconds since 1970: no finer than it is told, so that whoever names it has seen it.
    pub at_ms: u64,
    /// Clients that were connected then.
    pub clients: usize,
    /// What the services did, in their order.
    pub services: Vec<ServiceSample>,
}

/// What one service did in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceSample {
    /// Commands that ended, however.
    pub commands: u64,
    /// Those of them that were refused or failed.
    pub failed: u64,
    /// Half of the commands took no longer than this, microseconds, rounded up to a bound of the histogram; none when there was no
    /// command, or when they took longer than its last bound.
    pub p50_us: Option<u64>,
    /// The same for 99 of 100.
    pub p99_us: Option<u64>,
}

impl ServiceSample {
    fn between(before: &CommandTotals, after: &CommandTotals) -> ServiceSample {
        let commands = after.calls().saturating_sub(before.calls());
        let counts = after.durations.iter().zip(&before.durations);
        let counts: Vec<u64> = counts
            .map(|(after, before)| after.saturating_sub(*before))
            .collect();
        ServiceSample {
            commands,
            failed: commands.saturating_sub(after.ok.saturating_sub(before.ok)),
            p50_us: percentile(&counts, 50),
            p99_us: percentile(&counts, 99),
        }
    }
}

/// The bound below which so many of a hundred are.
fn percentile(counts: &[u64], percent: u64) -> Option<u64> {
    let all: u64 = counts.iter().sum();
    let rank = all.saturating_mul(percent).div_ceil(100);
    let mut passed = 0;
    let bucket = counts.iter().position(|count| {
        passed += count;
        passed >= rank && rank > 0
    })?;
    DURATION_BUCKETS_US.get(bucket).copied()
}

/// The samples that are kept.
#[derive(Debug, Default)]
pub struct Stats(Mutex<VecDeque<Sample>>);

impl Stats {
    /// The samples that ended after that time, milliseconds since 1970; oldest first.
    pub fn since(&self, time_ms: u64) -> Vec<Sample> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples
            .iter()
            .filter(|sample| sample.at_ms > time_ms)
            .cloned()
            .collect()
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// Takes samples for as long as the node runs.
pub async fn keep(stats: Arc<Stats>, coordinator: Arc<Coordinator>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = totals(&coordinator);
    loop {
        ticks.tick().await;
        let after = totals(&coordinator);
        let services = before.iter().zip(&after);
        stats.add(Sample {
            at_ms: now_ms(),
            clients: coordinator
                .inboxes()
                .iter()
                .map(|inbox| inbox.connected())
                .sum(),
            services: services
                .map(|(before, after)| ServiceSample::between(before, after))
                .collect(),
        });
        before = after;
    }
}

/// What each service has done since the node began.
fn totals(coordinator: &Coordinator) -> Vec<CommandTotals> {
    let all = coordinator.services().iter().map(|service| {
        let mut sum = CommandTotals::default();
        for (command, _) in (0..).zip(service.commands()) {
            sum.add(&CommandTotals::of(service, command));
        }
        sum
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_bounds_of_the_histogram() {
        let mut counts = [0; DURATION_BUCKETS_US.len() + 1];
        assert_eq!(percentile(&counts, 50), None);
        counts[1] = 98;
        counts[4] = 2;
        assert_eq!(percentile(&counts, 50), Some(100));
        assert_eq!(percentile(&counts, 98), Some(100));
        assert_eq!(percentile(&counts, 99), Some(1_000));
        // Whoever took longer than all bounds is not said to have kept one.
        counts[DURATION_BUCKETS_US.len()] = 100;
        assert_eq!(percentile(&counts, 99), None);
    }

    #[test]
    fn a_sample_is_what_happened_meanwhile() {
        let mut before = CommandTotals {
            ok: 5,
            trap: 1,
            ..CommandTotals::default()
        };
        before.durations[0] = 6;
        let mut after = CommandTotals {
            ok: 8,
            trap: 1,
            busy: 1,
            ..CommandTotals::default()
        };
        after.durations[0] = 6;
        after.durations[2] = 4;
        let sample = ServiceSample::between(&before, &after);
        assert_eq!((sample.commands, sample.failed), (4, 1));
        assert_eq!((sample.p50_us, sample.p99_us), (Some(250), Some(250)));
    }

    #[test]
    fn a_quarter_of_an_hour_is_kept() {
        let stats = Stats::default();
        for second in 1..=1_000 {
            let (clients, services) = (0, Vec::new());
            stats.add(Sample {
                at_ms: second * 1_000,
                clients,
                services,
            });
        }
        assert_eq!(stats.since(0).len(), KEPT);
        let last: Vec<_> = stats
            .since(998_000)
            .iter()
            .map(|sample| sample.at_ms)
            .collect();
        assert_eq!(last, [999_000, 1_000_000]);
    }
}
