//! How long many calls took: counts by buckets, so that the sums of several nodes have percentiles too.
//!
//! Buckets are as in an HDR histogram: each power of two is cut into sixteen, so a percentile is at most a sixteenth too high.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Binary digits of a time that are kept below its first.
const DIGITS: u32 = 4;

/// Times of calls. Grows only; at most a thousand buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Calls by the nanoseconds at which their bucket begins.
    counts: BTreeMap<u64, u64>,
    total_ns: u64,
}

impl Times {
    /// Counts a call.
    pub fn add(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        *self.counts.entry(begin(ns)).or_default() += 1;
        self.total_ns = self.total_ns.saturating_add(ns);
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Times) -> Times {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self
    }

    /// Calls that were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Their mean; none if there was no call.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.total_ns.checked_div(self.count())?;
        Some(Duration::from_nanos(mean))
    }

    /// What so many percent of them stayed within; none if there was no call.
    #[must_use]
    pub fn within(&self, percent: u64) -> Option<Duration> {
        let wanted = u128::from(self.count()) * u128::from(percent);
        let mut below = 0;
        let bucket = self.counts.iter().find(|(_, count)| {
            below += u128::from(**count) * 100;
            below >= wanted
        });
        bucket.map(|(begin, _)| Duration::from_nanos(end(*begin)))
    }
}

/// Where the bucket of a time begins, nanoseconds.
fn begin(ns: u64) -> u64 {
    ns & !(width(ns) - 1)
}

/// The longest time in the bucket that begins there.
fn end(begin: u64) -> u64 {
    begin | (width(begin) - 1)
}

fn width(ns: u64) -> u64 {
    1 << ns.checked_ilog2().unwrap_or(0).saturating_sub(DIGITS)
}
