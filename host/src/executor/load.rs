//! Which executor serves which clients.
//!
//! A pass costs the same for one client as for fifty, and a thread that often sleeps has to be woken often. So new clients
//! go to the first executor that has time left, and one that has none gives half of its clients to another, provided that
//! the machine has a core for that: a third busy thread on two cores only takes from the others. (Seen on two cores with 50
//! clients that wait for each reply: 3-12 % more commands per second than with the clients spread from the start.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::inbox::Inbox;

/// How often an executor looks at its own load, while it has something to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A load that was measured longer ago than this says nothing.
const FRESH: Duration = Duration::from_millis(300);
/// From this part of its time on, in thousandths, an executor has no time left.
const SATURATED: u32 = 900;
/// Below this part of its time an executor can take clients of another one.
const HALF: u32 = 500;
/// An executor that has not looked at its messages for so long gets no more clients.
const STUCK: Duration = Duration::from_millis(50);
/// What `/proc/stat` counts in.
const TICK: Duration = Duration::from_millis(10);

/// What part of its time an executor's thread was running, as others may see it.
#[derive(Default)]
pub(super) struct Load {
    thousandths: AtomicU32,
    /// When it was measured: milliseconds since the first look at a clock in this process.
    at: AtomicU64,
}

impl Load {
    fn set(&self, thousandths: u32, at: Duration) {
        self.thousandths.store(thousandths, Ordering::Relaxed);
        self.at.store(millis(at), Ordering::Relaxed);
    }

    fn get(&self, now: Duration) -> u32 {
        let age = millis(now).saturating_sub(self.at.load(Ordering::Relaxed));
        match age < millis(FRESH) {
            true => self.thousandths.load(Ordering::Relaxed),
            false => 0,
        }
    }
}

/// Measures the load of the thread that it lives on.
pub(super) struct Meter {
    looked: Instant,
    ran: Duration,
    /// Idle time of all cores together, as it was when the thread was last found without time.
    idle: Option<(Duration, Instant)>,
}

impl Meter {
    /// Starts on the thread to be measured.
    pub(super) fn start() -> Meter {
        Meter {
            looked: Instant::now(),
            ran: of_thread(),
            idle: None,
        }
    }

    /// Measures, when it is time to. True when this thread has had no time left while the machine had.
    pub(super) fn look(&mut self, now: Instant, inbox: &Inbox) -> bool {
        let passed = now.saturating_duration_since(self.looked);
        if passed < LOOK_EVERY {
            return false;
        }
        let ran = of_thread();
        let part = ran.saturating_sub(self.ran).as_secs_f64() / passed.as_secs_f64();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and about 1000"
        )]
        let thousandths = (part * 1000.0) as u32;
        (self.looked, self.ran) = (now, ran);
        inbox.load.set(thousandths, of_machine());
        if thousandths < SATURATED {
            self.idle = None;
            return false;
        }
        let before = self.idle.take();
        self.idle = idle_cores().map(|idle| (idle, now));
        match (before, self.idle) {
            (Some((before, since)), Some((idle, _))) => {
                2 * idle.saturating_sub(before) >= now.saturating_duration_since(since)
            }
            (None, Some(_)) => false,
            // Nobody knows on this system: the other cores are taken to be free.
            (_, None) => true,
        }
    }
}

/// The executor for a new client: the first that has time left and answers, else the one with the fewest clients.
pub fn first_with_time(inboxes: &[Arc<Inbox>]) -> Option<&Arc<Inbox>> {
    let now = of_machine();
    inboxes
        .iter()
        .find(|inbox| {
            !inbox.is_stuck(STUCK) && (inbox.connected() == 0 || inbox.load.get(now) < SATURATED)
        })
        .or_else(|| inboxes.iter().min_by_key(|inbox| inbox.connected()))
}

/// The executor that may take clients of the one with this index: the least loaded, if it has half of its time left.
pub(super) fn with_half_its_time(inboxes: &[Arc<Inbox>], but: usize) -> Option<usize> {
    let now = of_machine();
    let others = inboxes
        .iter()
        .enumerate()
        .filter(|(index, inbox)| *index != but && !inbox.is_stuck(STUCK));
    let (load, index) = others
        .map(|(index, inbox)| (inbox.load.get(now), index))
        .min()?;
    (load < HALF).then_some(index)
}

/// How long this thread has run.
fn of_thread() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// A clock that all threads share.
fn of_machine() -> Duration {
    clock(ClockId::Monotonic)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    let part = |of: i64| u64::try_from(of).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// How long the cores have had nothing to do, all together: the fourth number of the first line (proc(5)).
fn idle_cores() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: u32 = idle_ticks(&stat)?;
    Some(TICK * ticks)
}

fn idle_ticks(stat: &str) -> Option<u32> {
    let cpu = stat.lines().next()?.strip_prefix("cpu ")?;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "it wraps every 497 days of one core; a difference across that is taken for none"
    )]
    cpu.split_whitespace()
        .nth(3)?
        .parse::<u64>()
        .ok()
        .map(|ticks| ticks as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(clients: usize, load: u32) -> Arc<Inbox> {
        let inbox = Inbox::default();
        inbox.connections.store(clients, Ordering::Relaxed);
        inbox.load.set(load, of_machine());
        Arc::new(inbox)
    }

    fn chosen(inboxes: &[Arc<Inbox>]) -> Option<usize> {
        let first = first_with_time(inboxes)?;
        inboxes.iter().position(|inbox| Arc::ptr_eq(inbox, first))
    }

    #[test]
    fn clients_come_together_until_an_executor_is_full() {
        assert_eq!(chosen(&[inbox(0, 0), inbox(0, 0)]), Some(0));
        assert_eq!(chosen(&[inbox(49, 890), inbox(0, 0)]), Some(0));
        assert_eq!(chosen(&[inbox(49, 990), inbox(0, 0)]), Some(1));
        assert_eq!(chosen(&[inbox(30, 990), inbox(20, 950)]), Some(1));
        assert_eq!(
            chosen(&[inbox(0, 990), inbox(20, 100)]),
            Some(0),
            "its clients have gone"
        );
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn one_that_does_not_answer_gets_no_more() {
        let stuck = inbox(1, 0);
        stuck.send(super::super::Message::Look(0));
        let all = [stuck, inbox(3, 100)];
        assert_eq!(
            chosen(&all),
            Some(0),
            "it may well look at its messages soon"
        );
        while !all[0].is_stuck(STUCK) {
            std::thread::yield_now();
        }
        assert_eq!(chosen(&all), Some(1));
        drop(all[0].take());
        assert_eq!(chosen(&all), Some(0));
    }

    #[test]
    fn clients_move_to_one_with_time_only() {
        let all = [inbox(9, 990), inbox(0, 400), inbox(0, 300)];
        assert_eq!(with_half_its_time(&all, 0), Some(2));
        assert_eq!(with_half_its_time(&all[..1], 0), None);
        assert_eq!(with_half_its_time(&[inbox(9, 990), inbox(0, 600)], 0), None);
    }

    #[test]
    fn a_load_is_soon_forgotten() {
        let load = Load::default();
        load.set(990, Duration::from_secs(10));
        assert_eq!(load.get(Duration::from_millis(10_200)), 990);
        assert_eq!(load.get(Duration::from_millis(10_400)), 0);
    }

    #[test]
    fn a_thread_that_works_is_seen_to() {
        let inbox = Inbox::default();
        let mut meter = Meter::start();
        let began = meter.looked;
        assert!(!meter.look(began + LOOK_EVERY / 2, &inbox));
        assert_eq!(inbox.load.at.load(Ordering::Relaxed), 0, "too early to say");
        let until = of_thread() + Duration::from_millis(20);
        while of_thread() < until {}
        meter.look(began + LOOK_EVERY, &inbox);
        let load = inbox.load.get(of_machine());
        assert!(load >= 200, "ran 20 ms of 100: {load}");
    }

    #[test]
    fn idle_time_is_the_fourth_number() {
        assert_eq!(
            idle_ticks("cpu  10 20 30 4000 5 6 7\ncpu0 1 2 3 4\n"),
            Some(4000)
        );
        assert_eq!(idle_ticks("intr 1 2 3 4"), None);
        assert_eq!(idle_ticks(""), None);
    }
}
