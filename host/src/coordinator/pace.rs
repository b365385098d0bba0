//! How fast rows go, and how fast they may: an average that forgets, and a bucket that fills.

/// What happened so long ago counts e times less, milliseconds.
const MEMORY: f64 = 3_000.0;
/// A sender that has paused may make up for so much of a second at once.
const BURST_MS: u64 = 100;

/// Bytes a second of late: an exponentially weighted average.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// Bytes, each weighted by its age when the last ones came.
    weight: f64,
    first_ms: Option<u64>,
    last_ms: u64,
}

impl Rate {
    /// So many bytes have gone.
    #[allow(clippy::cast_precision_loss, reason = "an average")]
    pub(super) fn add(&mut self, bytes: u64, now: u64) {
        self.weight = self.weight * decay(now.saturating_sub(self.last_ms)) + bytes as f64;
        self.first_ms.get_or_insert(now);
        self.last_ms = now;
    }

    /// Bytes a second as it looks now.
    pub(super) fn at(&self, now: u64) -> f64 {
        let Some(first) = self.first_ms else {
            return 0.0;
        };
        // What has only begun has no past that could weigh; less than a tenth of a second says nothing.
        let age = now.saturating_sub(first).max(100);
        let weight = self.weight * decay(now.saturating_sub(self.last_ms));
        weight / (MEMORY / 1_000.0 * (1.0 - decay(age)))
    }
}

#[allow(clippy::cast_precision_loss, reason = "an average")]
fn decay(ms: u64) -> f64 {
    (-(ms as f64) / MEMORY).exp()
}

/// Holds what is sent to a number of bytes a second: a token bucket that may go into debt for one page.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When everything that was taken has been paid for, milliseconds.
    paid_ms: u64,
}

impl Pace {
    /// So many bytes go now. Returns how long to wait before more do, milliseconds; `per_second` 0 is without a limit.
    pub(super) fn take(&mut self, bytes: u64, per_second: u64, now: u64) -> u64 {
        let Some(cost) = bytes.saturating_mul(1_000).checked_div(per_second) else {
            self.paid_ms = 0;
            return 0;
        };
        let paid = self.paid_ms.max(now.saturating_sub(BURST_MS));
        self.paid_ms = paid.saturating_add(cost);
        self.paid_ms.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_has_its_rate_and_one_that_ends_fades() {
        let mut rate = Rate::default();
        assert!(rate.at(0).abs() < f64::EPSILON);
        for tick in 0..100 {
            rate.add(1_000, tick * 100);
        }
        let steady = rate.at(9_900);
        assert!((9_000.0..11_500.0).contains(&steady), "{steady}");
        assert!(rate.at(9_900 + 30_000) < 10.0);
    }

    #[test]
    fn what_is_taken_has_to_be_waited_for() {
        let mut pace = Pace::default();
        assert_eq!(pace.take(1 << 30, 0, 50_000), 0);
        let (mut now, mut sent) = (50_000, 0);
        while now < 60_000 {
            now += pace.take(1_000, 20_000, now).max(1);
            sent += 1_000;
        }
        assert!((200_000..=203_000).contains(&sent), "{sent}");
        // A debt of one page is paid before the next.
        let mut pace = Pace::default();
        assert_eq!(pace.take(100_000, 20_000, 1_000), 5_000 - BURST_MS);
    }
}
