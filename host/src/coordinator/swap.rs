//! Another version for one vnode, between two of its commands.
//!
//! Its commands wait in their mailbox until it is over, in order; none fails because of it. What the vnode holds is not touched:
//! the old version would find the same rows again, and does when the new one does not start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use vnode_cluster::failpoint;

use super::Coordinator;
use super::versions::Obstacle;
use crate::vnode::edition::Edition;

/// A vnode that is not back in its seat for that long keeps its version for now.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether a vnode is back in its seat.
const BACK_POLL: Duration = Duration::from_millis(1);

/// Upper bounds of the buckets of [`Pauses`], microseconds; the last bucket has none.
pub const PAUSE_BUCKETS_US: [u64; 10] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000,
];

/// For how long the commands of vnodes waited because those got another version.
#[derive(Default)]
pub struct Pauses {
    buckets: [AtomicU64; PAUSE_BUCKETS_US.len() + 1],
    total_us: AtomicU64,
}

impl Pauses {
    fn add(&self, pause: Duration) {
        let us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        let bucket = PAUSE_BUCKETS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.total_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many there were in each bucket, and their sum in microseconds.
    pub fn counts(&self) -> ([u64; PAUSE_BUCKETS_US.len() + 1], u64) {
        let counts = self.buckets.each_ref();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        (counts, self.total_us.load(Ordering::Relaxed))
    }
}

/// Commands of a seat wait as long as it lives.
pub(super) struct Held<'a> {
    coordinator: &'a Coordinator,
    number: usize,
}

impl<'a> Held<'a> {
    pub(super) fn new(coordinator: &'a Coordinator, number: usize) -> Held<'a> {
        if let Some(mut seat) = coordinator.seats.lock(number) {
            seat.set_held(true);
        }
        Held {
            coordinator,
            number,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(mut seat) = self.coordinator.seats.lock(self.number) {
            seat.set_held(false);
        }
        self.coordinator.look(self.number);
    }
}

impl Coordinator {
    /// Gives the vnode of a seat another version.
    ///
    /// # Errors
    /// Why the new version does not start, and the vnode runs the old one then; or that there is no vnode.
    pub(super) async fn swap(&self, number: usize, edition: &Arc<Edition>) -> Result<(), Obstacle> {
        let Some(this) = self.me.upgrade() else {
            return Ok(());
        };
        let since = Instant::now();
        let held = Held::new(self, number);
        self.settled(number).await?;
        failpoint("swap-held");
        let edition = Arc::clone(edition);
        // A guest must not keep a control thread.
        let swapped = tokio::task::spawn_blocking(move || {
            let seats = &this.seats;
            let starts = seats.lock(number).is_some_and(|seat| seat.is_owned());
            seats.with(number, |vnode| vnode.take_over(edition, starts))
        });
        let swapped = swapped.await;
        failpoint("swapped");
        drop(held);
        self.pauses.add(since.elapsed());
        match swapped {
            Ok(Some(outcome)) => outcome.map_err(Obstacle::Unfit),
            Ok(None) => Err(gone()),
            Err(error) => Err(Obstacle::Unfit(error.to_string())),
        }
    }

    /// Has the vnode of a seat serve nothing until it gets another version.
    pub(super) async fn withhold(&self, number: usize, why: &str) {
        let _held = Held::new(self, number);
        if self.settled(number).await.is_ok() {
            self.seats.with(number, |vnode| vnode.withhold(why));
        }
    }

    /// Waits until the vnode of a seat that is held is there.
    ///
    /// # Errors
    /// When the seat has none any more, or its vnode is not back in time.
    pub(super) async fn settled(&self, number: usize) -> Result<(), Obstacle> {
        let until = Instant::now() + BACK_WITHIN;
        while self.seats.lock(number).is_some_and(|seat| seat.is_taken()) {
            if self.seats.is_vacant(number) {
                return Err(gone());
            }
            if Instant::now() >= until {
                let why = format!("the vnode was busy for {BACK_WITHIN:?}");
                return Err(Obstacle::Unfit(why));
            }
            tokio::time::sleep(BACK_POLL).await;
        }
        Ok(())
    }
}

fn gone() -> Obstacle {
    Obstacle::Passing("the vnode was taken away".into())
}
