//! Another version for one vnode, between two of its commands.
//!
//! Its commands wait in their mailbox until it is over, in order; none fails because of it. What the vnode holds is not touched:
//! the old version would find the same rows again, and does when the new one does not start.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vnode_cluster::failpoint;

use super::Coordinator;
use crate::vnode::edition::Edition;

/// A vnode that is not back in its seat for that long keeps its version for now.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether a vnode is back in its seat.
const BACK_POLL: Duration = Duration::from_millis(1);

/// Commands of a seat wait as long as it lives.
struct Held<'a> {
    coordinator: &'a Coordinator,
    number: usize,
}

impl<'a> Held<'a> {
    fn new(coordinator: &'a Coordinator, number: usize) -> Held<'a> {
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
    /// Why the new version does not start; the vnode runs the old one then.
    pub(super) async fn swap(&self, number: usize, edition: &Arc<Edition>) -> Result<(), String> {
        let Some(this) = self.me.upgrade() else {
            return Ok(());
        };
        let _held = Held::new(self, number);
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
        match swapped {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err("the vnode was taken away".into()),
            Err(error) => Err(error.to_string()),
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
    async fn settled(&self, number: usize) -> Result<(), String> {
        let until = Instant::now() + BACK_WITHIN;
        while self.seats.lock(number).is_some_and(|seat| seat.is_taken()) {
            if Instant::now() >= until {
                return Err(format!("the vnode was busy for {BACK_WITHIN:?}"));
            }
            tokio::time::sleep(BACK_POLL).await;
        }
        Ok(())
    }
}
