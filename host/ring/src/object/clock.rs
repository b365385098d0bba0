//! Hybrid logical clock stamps.
//!
//! Owns the arithmetic of [`Hlc`] and nothing else: the wall clock is an argument, because the core reads none. Stamps order
//! concurrent values for display and for last-write policies; they never decide whether one write has seen another, that is
//! the work of dots and contexts.

use std::fmt;

use serde::{Deserialize, Serialize};

const COUNTER_BITS: u32 = 16;
const MILLIS_MAX: u64 = (1 << (u64::BITS - COUNTER_BITS)) - 1;

/// A hybrid logical clock stamp: 48 bits of milliseconds since the Unix epoch, then a 16-bit counter.
///
/// The construction is that of Kulkarni and others, "Logical Physical Clocks" (2014), with both parts in one word so that
/// stamps compare as integers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The stamp after `last` at wall-clock time `now_ms` (milliseconds since the Unix epoch).
    ///
    /// The result is greater than `last` even when the wall clock stands still or steps back, and when the counter is full:
    /// then it carries into the milliseconds. To take in a stamp from elsewhere pass `last.max(remote)`. A stamp at the end of
    /// the 48-bit range (the year 10889) stays where it is, so refuse remote stamps that lie far ahead.
    #[must_use]
    pub fn next(last: Hlc, now_ms: u64) -> Hlc {
        let wall = now_ms.min(MILLIS_MAX) << COUNTER_BITS;
        Hlc(wall.max(last.0.saturating_add(1)))
    }

    /// The milliseconds part, since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = self.0 & ((1 << COUNTER_BITS) - 1);
        write!(f, "{}.{counter}", self.millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_stamp_is_always_later() {
        let full_counter = Hlc((7 << 16) | 0xffff);
        let table = [
            // last, wall clock, next
            (Hlc(0), 5, Hlc(5 << 16)),
            (Hlc(5 << 16), 5, Hlc((5 << 16) | 1)),
            (Hlc(5 << 16), 4, Hlc((5 << 16) | 1)),
            (full_counter, 7, Hlc(8 << 16)),
            (Hlc(0), u64::MAX, Hlc(MILLIS_MAX << 16)),
        ];
        for (last, now_ms, next) in table {
            assert_eq!(Hlc::next(last, now_ms), next, "after {last} at {now_ms}");
            assert!(next > last);
        }
        assert_eq!(Hlc::next(Hlc(u64::MAX), 0), Hlc(u64::MAX));
    }

    #[test]
    fn a_stamp_prints_millis_and_counter() {
        assert_eq!(
            Hlc((1_700_000_000_000 << 16) | 3).to_string(),
            "1700000000000.3"
        );
    }
}
