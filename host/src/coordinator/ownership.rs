//! Which seats serve what their node owns, and how that changes while commands run.
//!
//! **Order.** A partition that comes is opened before the view says so, and one that goes is shut after: whoever is turned away
//! finds a view that knows better. A partition that goes was frozen before, so nothing ran in between.

use std::sync::Arc;
use std::time::Duration;

use vnode_cluster::Vnodes;
use vnode_ring::{NodeName, PartitionId, View};

use super::Coordinator;
use crate::executor::Message;
use crate::vnode::request::Request;

/// How often it is looked whether a vnode is back in its seat.
const BACK_POLL: Duration = Duration::from_millis(1);
/// Time for a guest to be told that its partition is served elsewhere.
const TERMINATE_WITHIN: Duration = Duration::from_millis(100);

impl Coordinator {
    /// The seats of a partition's vnodes.
    pub(super) fn seats_of(&self, partition: PartitionId) -> impl Iterator<Item = usize> {
        (0..self.services.len()).map(move |service| self.seat(service, partition))
    }

    fn owns(view: &View, partition: PartitionId) -> bool {
        view.ring().owner(partition) == view.me()
    }

    /// Opens the seats of what this node owns at first. Nobody sits there yet, and nothing waits.
    pub(super) fn take_up_ownership(&self) {
        let view = self.view();
        for partition in self.ring_size.partitions() {
            let owned = Self::owns(&view, partition);
            for mut seat in self.seats_of(partition).filter_map(|n| self.seats.lock(n)) {
                seat.set_owned(owned);
            }
        }
    }

    fn set_owned(&self, partition: PartitionId, owned: bool) {
        for number in self.seats_of(partition) {
            let Some(mut seat) = self.seats.lock(number) else {
                continue;
            };
            let elsewhere = seat.set_owned(owned);
            drop(seat);
            self.send_all(number, elsewhere);
            if !owned {
                self.seats.rest(number, TERMINATE_WITHIN);
            }
            self.look(number);
        }
    }

    fn send_all(&self, number: usize, requests: impl IntoIterator<Item = Request>) {
        let Some(inbox) = self.inboxes.get(self.executor_of(number)) else {
            return;
        };
        for request in requests {
            inbox.send(Message::Request(Box::new(request)));
        }
    }

    /// Has an executor look at a seat.
    fn look(&self, number: usize) {
        if let Some(inbox) = self.inboxes.get(self.executor_of(number)) {
            inbox.send(Message::Look(number));
        }
    }

    fn set_frozen(&self, partition: PartitionId, frozen: bool) {
        for number in self.seats_of(partition) {
            if let Some(mut seat) = self.seats.lock(number) {
                seat.set_frozen(frozen);
            }
            if !frozen {
                self.look(number);
            }
        }
    }

    /// Live rows of a partition's vnodes on this node.
    pub fn live_rows(&self, partition: PartitionId) -> u64 {
        let live = |number| Some(self.seats.lock(number)?.figures().store.live);
        self.seats_of(partition).filter_map(live).sum()
    }
}

impl Vnodes for Coordinator {
    fn view(&self) -> Arc<View> {
        Coordinator::view(self)
    }

    fn publish(&self, view: View) {
        let old = self.view();
        let changed = self
            .ring_size
            .partitions()
            .filter(|partition| Self::owns(&old, *partition) != Self::owns(&view, *partition));
        let (comes, goes): (Vec<_>, Vec<_>) =
            changed.partition(|partition| Self::owns(&view, *partition));
        for partition in comes {
            self.set_owned(partition, true);
        }
        self.views.send_replace(Arc::new(view));
        for partition in goes {
            self.set_owned(partition, false);
        }
    }

    fn freeze(&self, partition: PartitionId) {
        self.set_frozen(partition, true);
    }

    fn thaw(&self, partition: PartitionId) {
        self.set_frozen(partition, false);
    }

    fn holds_hints(&self) -> bool {
        !self.hints().is_empty()
    }

    fn is_carried(&self, partition: PartitionId, to: &NodeName) -> bool {
        Coordinator::is_carried(self, partition, to)
    }

    async fn carry_rest(&self, partition: PartitionId, to: &NodeName) -> bool {
        for number in self.seats_of(partition) {
            while self.seats.lock(number).is_some_and(|seat| seat.is_taken()) {
                tokio::time::sleep(BACK_POLL).await;
            }
        }
        Coordinator::carry_rest(self, partition, to).await
    }

    async fn answer(&self, request: Vec<u8>) -> Vec<u8> {
        self.answer_question(&request).await
    }
}
