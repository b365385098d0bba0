//! Open loop: when each operation is meant to be sent, whatever became of those before it.
//!
//! A generator that waits for slow replies before it goes on asks least when the server is slowest, and so leaves out the worst
//! latencies (Tene: "coordinated omission"). Here the times are fixed from the start, and latency counts from them.

use std::time::Duration;

/// The times of one thread: every `lanes`-th operation of a constant rate, beginning with the `lane`-th.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    rate: u64,
    lanes: u64,
    next: u64,
}

impl Pace {
    /// `rate` operations a second in all, at least one.
    pub(super) fn new(rate: u64, lane: u64, lanes: u64) -> Self {
        Self {
            rate: rate.max(1),
            lanes: lanes.max(1),
            next: lane,
        }
    }

    /// When the next operation is meant to be sent, from the start of the run.
    pub(super) fn next(&self) -> Duration {
        let nanos = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes the next operation if its time has come, and says when that was.
    pub(super) fn take(&mut self, elapsed: Duration) -> Option<Duration> {
        let intended = self.next();
        if intended > elapsed {
            return None;
        }
        self.next += self.lanes;
        Some(intended)
    }

    /// How many were meant to be sent before `end` and have not been taken.
    pub(super) fn left(&self, end: Duration) -> u64 {
        // Operation k is meant for k / rate seconds, so those before the end are the k < rate * end.
        let before = (u128::from(self.rate) * end.as_nanos()).div_ceil(1_000_000_000);
        let before = u64::try_from(before).unwrap_or(u64::MAX);
        before.saturating_sub(self.next).div_ceil(self.lanes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_evenly_spaced_and_do_not_drift() {
        let mut pace = Pace::new(3, 0, 1);
        let end = Duration::from_secs(1_000_000);
        let times: Vec<u128> = std::iter::from_fn(|| pace.take(end))
            .take(4)
            .map(|time| time.as_millis())
            .collect();
        assert_eq!(times, [0, 333, 666, 1000]);
    }

    #[test]
    fn nothing_is_due_before_its_time_and_all_of_it_when_the_server_was_slow() {
        let mut pace = Pace::new(1000, 0, 1);
        let ms = Duration::from_millis;
        assert_eq!(pace.take(ms(0)), Some(ms(0)));
        assert_eq!(pace.take(Duration::from_micros(999)), None);
        assert_eq!(pace.next(), ms(1));
        // Half a second later everything that was missed comes, with the times that were meant.
        let late: Vec<Duration> = std::iter::from_fn(|| pace.take(ms(500))).collect();
        assert_eq!(late, (1..=500).map(ms).collect::<Vec<_>>());
        assert_eq!(pace.left(ms(1000)), 499);
    }

    proptest! {
        #[test]
        fn lanes_share_the_operations_of_a_rate(rate in 1..5_000_u64, lanes in 1..5_u64, ms in 0..2_000_u64, taken in 0..100_usize) {
            let end = Duration::from_millis(ms);
            let mut all = Vec::new();
            for lane in 0..lanes {
                let mut pace = Pace::new(rate, lane, lanes);
                // What was taken and what was left add up, wherever one stops.
                let before = Duration::from_nanos(u64::try_from(end.as_nanos()).unwrap().saturating_sub(1));
                let mut own = Vec::new();
                if ms > 0 {
                    own.extend(std::iter::from_fn(|| pace.take(before)).take(taken));
                }
                let left = usize::try_from(pace.left(end)).unwrap();
                if ms > 0 {
                    own.extend(std::iter::from_fn(|| pace.take(before)));
                    prop_assert!(own.len() <= taken + left);
                    prop_assert!(own.len() < taken || own.len() == own.len().min(taken) + left);
                }
                prop_assert_eq!(pace.left(end), 0);
                all.extend(own);
            }
            all.sort();
            let expected = (u128::from(rate) * end.as_nanos()).div_ceil(1_000_000_000);
            prop_assert_eq!(all.len() as u128, expected);
        }
    }
}
