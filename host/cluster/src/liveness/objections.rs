//! How this node objects to being called down: under a higher incarnation each time, and at a pace. Pure: the time is handed in.
//!
//! Mostly the next incarnation will do. But the others may remember a later run of this name, as when its node lost its disk and
//! got a clock that is behind, and all that they say is that it is down. So the leaps grow until they are beyond that.

use std::time::Duration;

use tokio::time::Instant;

use super::SUSPECT_FOR;

/// How often a node objects at most, whatever it is told.
pub(super) const OBJECT_EVERY: Duration = Duration::from_millis(100);

/// Whoever is called down again within that time was not found down under its new incarnation, which takes longer: the others
/// remember a later one.
const REMEMBERED_WITHIN: Duration = SUSPECT_FOR;

/// How much longer each leap is than the one before: a day is made up for within two seconds.
const LEAPS_GROW: u64 = 16;

/// The longest leap, a day and a half of the clock that incarnations are taken from. A clock that is years behind is made up for
/// within minutes, and to use all incarnations up takes the others hours.
const LEAP_MAX: u64 = 1 << 47;

/// The objections of one run.
#[derive(Debug, Default)]
pub(super) struct Objections {
    /// When the last one was, and how far it leapt.
    last: Option<(Instant, u64)>,
    /// How far the next one will, if there is to be one.
    next: Option<u64>,
}

impl Objections {
    /// Takes in that others call this node down. Returns how long it has to wait before it objects, unless it waits already.
    pub(super) fn called_down(&mut self, now: Instant) -> Option<Duration> {
        if self.is_waiting() {
            return None;
        }
        let (ago, before) = self.last.map_or((Duration::MAX, 0), |(at, leap)| {
            (now.saturating_duration_since(at), leap)
        });
        self.next = Some(match ago < REMEMBERED_WITHIN {
            true => before.saturating_mul(LEAPS_GROW).min(LEAP_MAX),
            false => 1,
        });
        Some(OBJECT_EVERY.saturating_sub(ago))
    }

    /// Whether this node is about to object.
    pub(super) fn is_waiting(&self) -> bool {
        self.next.is_some()
    }

    /// The objection that is due: by how much the incarnation grows.
    pub(super) fn object(&mut self, now: Instant) -> Option<u64> {
        let leap = self.next.take()?;
        self.last = Some((now, leap));
        Some(leap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How far a node leaps that is called down so long after each objection.
    fn leaps(after: Duration, count: usize) -> Vec<u64> {
        let (mut objections, mut now) = (Objections::default(), Instant::now());
        let leaps = (0..count).map(|_| {
            let wait = objections.called_down(now).unwrap();
            assert_eq!(objections.called_down(now), None, "it waits");
            let leap = objections.object(now + wait).unwrap();
            assert_eq!(objections.object(now + wait), None, "it has objected");
            now += wait + after;
            leap
        });
        leaps.collect()
    }

    #[test]
    fn leaps_grow_only_while_the_others_remember_a_later_run() {
        assert_eq!(leaps(REMEMBERED_WITHIN, 5), [1; 5]);
        assert_eq!(leaps(REMEMBERED_WITHIN / 2, 5), [1, 16, 256, 4096, 65536]);
        assert_eq!(leaps(Duration::ZERO, 100).last(), Some(&LEAP_MAX));
    }

    #[test]
    fn a_node_objects_at_once_and_then_at_its_pace() {
        let (mut objections, start) = (Objections::default(), Instant::now());
        let mut waits = Vec::new();
        for at in [0, 30, 130, 500] {
            let now = start + Duration::from_millis(at);
            let wait = objections.called_down(now).unwrap();
            objections.object(now + wait).unwrap();
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [0, 70, 70, 0]);
    }
}
