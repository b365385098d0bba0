//! What guests are told of their partition's moves.
//!
//! A guest is told between two of its commands, by whoever finds its vnode in its seat. It may refuse to begin, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::{NodeName, PartitionId};

use super::Coordinator;
use super::sending::Stop;
use crate::wasm::Hook;

/// Time of a guest for what it is told.
const BUDGET: Duration = Duration::from_millis(100);
/// A vnode that has no time for that long is not told.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether a vnode is back in its seat.
const BACK_POLL: Duration = Duration::from_millis(1);

impl Coordinator {
    /// Asks the guests of a partition whether it may go.
    pub(super) async fn ask_guests(
        &self,
        partition: PartitionId,
        to: &NodeName,
    ) -> Result<(), Stop> {
        let hook = Hook::HandoffStarting(to.to_string());
        for service in &self.services {
            let number = self.seat(usize::from(service.index), partition);
            if service.has_lifecycle()
                && let Err(why) = self.tell_guest(number, &hook).await
            {
                let name = service.name();
                return Err(Stop::Failed(format!("the guest of {name} refuses: {why}")));
            }
        }
        Ok(())
    }

    /// Tells the guests of a partition something that they cannot change.
    pub(super) async fn tell_guests(&self, partition: PartitionId, hook: &Hook) {
        for service in &self.services {
            if service.has_lifecycle() {
                let number = self.seat(usize::from(service.index), partition);
                drop(self.tell_guest(number, hook).await);
            }
        }
    }

    /// Tells one guest. A vnode that is never in its seat agrees to everything.
    pub(super) async fn tell_guest(&self, number: usize, hook: &Hook) -> Result<(), String> {
        let Some(this) = self.me.upgrade() else {
            return Ok(());
        };
        let until = Instant::now() + WAIT_MAX;
        while Instant::now() < until {
            let (here, hook) = (Arc::clone(&this), hook.clone());
            // A guest must not keep a control thread.
            let heard = tokio::task::spawn_blocking(move || {
                let heard = here.seats.with(number, |vnode| vnode.hear(&hook, BUDGET));
                here.look(number);
                heard
            });
            match heard.await {
                Ok(Some(answer)) => return answer,
                Ok(None) => tokio::time::sleep(BACK_POLL).await,
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}
