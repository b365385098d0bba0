//! The gate after each stage of a rollout: may the next one begin?
//!
//! A pure judgement of two groups of vnodes over the same time: those that run the new version, and those that run the old one.
//! After the last wave there is no old one any more; then errors are held against what it did before, and times against nothing:
//! those depend on what else the machine does.

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets of command durations, microseconds; the last bucket has none.
pub const DURATION_BUCKETS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];

/// What a group of vnodes has done, which grows only, and what it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Commands that ended, however.
    pub commands: u64,
    /// Those that the guest refused, or that failed otherwise.
    pub errors: u64,
    /// Those in which the guest trapped, ran out of time or broke the contract.
    pub traps: u64,
    /// From arrival to reply, counted into [`DURATION_BUCKETS_US`] and one more.
    pub durations: [u64; DURATION_BUCKETS_US.len() + 1],
    /// Linear memory of the largest instance now, percent of what one may have.
    pub memory_percent: u64,
}

impl Sample {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Sample) -> Sample {
        self.commands += other.commands;
        self.errors += other.errors;
        self.traps += other.traps;
        self.memory_percent = self.memory_percent.max(other.memory_percent);
        for (all, more) in self.durations.iter_mut().zip(other.durations) {
            *all += more;
        }
        self
    }

    /// What has happened since `before`. What a node that began anew has lost counts as nothing.
    #[must_use]
    pub fn since(mut self, before: &Sample) -> Sample {
        self.commands = self.commands.saturating_sub(before.commands);
        self.errors = self.errors.saturating_sub(before.errors);
        self.traps = self.traps.saturating_sub(before.traps);
        for (now, then) in self.durations.iter_mut().zip(before.durations) {
            *now = now.saturating_sub(then);
        }
        self
    }

    /// The same counts without the durations: of another time, they say nothing about how fast anything is now.
    #[must_use]
    pub fn without_durations(self) -> Sample {
        Sample {
            durations: Sample::default().durations,
            ..self
        }
    }

    /// A bound that 99 of 100 commands kept, microseconds; none if there was no command, or if it is beyond all buckets.
    #[must_use]
    pub fn p99_us(&self) -> Option<u64> {
        DURATION_BUCKETS_US.get(self.p99_bucket()?).copied()
    }

    /// What the 99th percentile is certainly above, microseconds; none if there was no command.
    fn p99_above_us(&self) -> Option<u64> {
        let below = self.p99_bucket()?.checked_sub(1);
        let bound = below.and_then(|bucket| DURATION_BUCKETS_US.get(bucket));
        Some(bound.copied().unwrap_or(0))
    }

    fn p99_bucket(&self) -> Option<usize> {
        let counted: u64 = self.durations.iter().sum();
        let mut below = 0;
        let within = |count: &u64| {
            below += count;
            below.saturating_mul(100) >= counted.saturating_mul(99)
        };
        let bucket = self.durations.iter().position(within);
        bucket.filter(|_| counted > 0)
    }

    /// Of a thousand commands, how many ended so.
    fn per_mille(&self, count: u64) -> u64 {
        match self.commands {
            0 => 0,
            commands => count.saturating_mul(1000) / commands,
        }
    }
}

/// What is too much. Each is a setting of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Commands that the new version has to have run before it is judged.
    pub commands_min: u64,
    /// Traps in a thousand commands, beyond those of the old version.
    pub traps_per_mille: u64,
    /// Errors in a thousand commands, beyond twice those of the old version.
    pub errors_per_mille: u64,
    /// The 99th percentile of durations, percent of that of the old version; beyond it is what certainly is, by the buckets.
    /// What stays within a millisecond is never too slow.
    pub p99_percent: u64,
    /// Linear memory of an instance, percent of its limit, if none of the old version has as much.
    pub memory_percent: u64,
}

/// May the next stage begin?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong with it.
    Good,
    /// So few commands that nothing can be said.
    TooLittle {
        /// How many there were.
        commands: u64,
        /// How many there have to be.
        wanted: u64,
    },
    /// It has to go back, and why.
    Breach(String),
}

/// Commands of the new version before its errors and its times mean anything, whatever the thresholds say.
const JUDGED_MIN: u64 = 20;
/// What is faster is not slow, microseconds: buckets below are too narrow to compare a group of few commands by.
const FAST_US: u64 = 1_000;

/// Judges the new version by what both groups did in the same time.
#[must_use]
pub fn judge(new: &Sample, old: &Sample, thresholds: &Thresholds) -> Verdict {
    // A trap is never normal: few commands are enough.
    let (traps, usual) = (new.per_mille(new.traps), old.per_mille(old.traps));
    if new.traps > 0 && traps > usual + thresholds.traps_per_mille {
        return Verdict::Breach(format!(
            "{} of {} commands trapped or ran out of time; of the old version {} of {}",
            new.traps, new.commands, old.traps, old.commands
        ));
    }
    if new.memory_percent > thresholds.memory_percent.max(old.memory_percent) {
        return Verdict::Breach(format!(
            "an instance has {} % of the memory that it may have; of the old version {} %",
            new.memory_percent, old.memory_percent
        ));
    }
    let compares = new.commands >= JUDGED_MIN && old.commands >= JUDGED_MIN;
    let (errors, usual) = (new.per_mille(new.errors), old.per_mille(old.errors));
    if compares && errors > 2 * usual && errors > thresholds.errors_per_mille {
        return Verdict::Breach(format!(
            "{} of {} commands failed; of the old version {} of {}",
            new.errors, new.commands, old.errors, old.commands
        ));
    }
    if new.commands < thresholds.commands_min {
        return Verdict::TooLittle {
            commands: new.commands,
            wanted: thresholds.commands_min,
        };
    }
    if let Some(usual) = old.p99_us().filter(|_| compares) {
        let most = (usual.saturating_mul(thresholds.p99_percent) / 100).max(FAST_US);
        if new.p99_above_us().is_some_and(|above| above >= most) {
            return Verdict::Breach(format!(
                "99 of 100 commands within {}; of the old version within {usual} us",
                new.p99_us().map_or_else(
                    || "more than a second".to_owned(),
                    |p99| format!("{p99} us")
                )
            ));
        }
    }
    Verdict::Good
}
