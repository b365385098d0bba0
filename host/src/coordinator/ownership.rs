//! Which seats serve what their node owns, and how that changes while commands run.
//!
//! **Order.** A partition that comes is opened before the view says so, and one that goes is shut after: whoever is turned away
//! finds a view that knows better. A partition that goes was frozen before, so nothing ran in between.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vnode_cluster::{Vnodes, failpoint};
use vnode_ring::{NodeName, PartitionId, View};

use super::Coordinator;
use super::carry::ownership;
use super::rollouts;
use super::transfers::Phase;
use crate::executor::Message;
use crate::vnode::request::Request;

/// How often it is looked whether a vnode is back in its seat.
const BACK_POLL: Duration = Duration::from_millis(1);
/// How often commands that wait for a frozen partition are looked at.
const LATE_POLL: Duration = Duration::from_millis(100);
/// Time for a guest to be told that its partition is served elsewhere.
const TERMINATE_WITHIN: Duration = Duration::from_millis(100);

impl Coordinator {
    /// The seats of a partition's vnodes.
    pub(super) fn seats_of(&self, partition: PartitionId) -> impl Iterator<Item = usize> {
        (0..self.services.len()).map(move |service| self.seat(service, partition))
    }

    /// Whether commands for a partition run here as at its owner: at no time on two nodes of a cluster.
    pub fn serves(&self, partition: PartitionId) -> bool {
        let mut seats = self.seats_of(partition).filter_map(|n| self.seats.lock(n));
        seats.any(|seat| seat.serves())
    }

    fn owns(view: &View, partition: PartitionId) -> bool {
        view.ring().is_owner(view.me(), partition)
    }

    /// Opens the seats of what this node owns at first. Nobody sits there yet, and nothing waits.
    pub(super) fn take_up_ownership(&self) {
        let view = self.view();
        let resize = view.map().resize();
        // Rows may be left that lie by the numbers of the ring before.
        let filling =
            resize.is_some_and(|one| one.to == view.ring().size() && one.is_left(view.me()));
        for partition in view.ring().size().partitions() {
            let owned = Self::owns(&view, partition);
            for mut seat in self.seats_of(partition).filter_map(|n| self.seats.lock(n)) {
                if owned {
                    seat.own();
                }
                seat.set_filling(filling);
            }
        }
    }

    /// A partition comes: its commands may run.
    fn take_over(&self, partition: PartitionId) {
        for number in self.seats_of(partition) {
            if let Some(mut seat) = self.seats.lock(number) {
                seat.own();
            }
            self.look(number);
        }
        failpoint("taken-over");
    }

    /// A partition went to another owner. Its rows are kept for a while if that one has them all.
    fn give_up(&self, partition: PartitionId, owner: &NodeName) {
        let which = ownership(partition);
        let flips = self.transfers().all().get(&which).map(|one| one.phase);
        let carried = flips == Some(Phase::Flip);
        for number in self.seats_of(partition) {
            let Some(mut seat) = self.seats.lock(number) else {
                continue;
            };
            let elsewhere = seat.disown();
            if carried {
                seat.keep_until(Instant::now() + self.limits.retention);
            }
            drop(seat);
            self.send_all(number, elsewhere);
            self.seats.rest(number, owner, TERMINATE_WITHIN);
            self.look(number);
        }
        failpoint("given-up");
        if self.transfers().all().contains_key(&which) {
            self.tell_of(which, "is over: the partition has its new owner");
            self.transfers().finish(which);
        }
    }

    pub(super) fn send_all(&self, number: usize, requests: impl IntoIterator<Item = Request>) {
        let Some(inbox) = self.inboxes.get(self.executor_of(number)) else {
            return;
        };
        for request in requests {
            inbox.send(Message::Request(Box::new(request)));
        }
    }

    /// Has an executor look at a seat.
    pub(super) fn look(&self, number: usize) {
        if let Some(inbox) = self.inboxes.get(self.executor_of(number)) {
            inbox.send(Message::Look(number));
        }
    }

    fn is_frozen(&self, partition: PartitionId) -> bool {
        let mut seats = self.seats_of(partition).filter_map(|n| self.seats.lock(n));
        seats.any(|seat| seat.is_frozen())
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
}

impl Vnodes for Coordinator {
    fn view(&self) -> Arc<View> {
        Coordinator::view(self)
    }

    fn publish(&self, view: View) {
        let old = self.view();
        self.transfers()
            .set_cluster_limits(view.map().transfer_limits());
        let versions = view.map().versions();
        for text in rollouts::news(old.map().versions(), versions) {
            let feed = self.cluster.feed();
            feed.add("rollout", None, view.map().epoch(), text);
        }
        if old.ring().size() != view.ring().size() {
            return self.flip(old.ring().size(), view);
        }
        let changed = view
            .ring()
            .size()
            .partitions()
            .filter(|partition| Self::owns(&old, *partition) != Self::owns(&view, *partition));
        let (comes, goes): (Vec<_>, Vec<_>) =
            changed.partition(|partition| Self::owns(&view, *partition));
        for partition in comes {
            self.take_over(partition);
        }
        if old.map().versions() != view.map().versions() {
            self.renew_front(view.map());
        }
        let view = Arc::new(view);
        self.views.send_replace(Arc::clone(&view));
        for partition in goes {
            self.give_up(partition, view.ring().owner(partition));
        }
    }

    fn freeze(&self, partition: PartitionId) {
        self.set_frozen(partition, true);
        // Nobody may know for long whether the cluster agreed. Whoever waits for a command is told in time all the same.
        let this = self.me.upgrade();
        if let (Some(this), Ok(runtime)) = (this, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(LATE_POLL).await;
                while this.is_frozen(partition) {
                    this.seats_of(partition)
                        .for_each(|number| this.look(number));
                    tokio::time::sleep(LATE_POLL).await;
                }
            });
        }
    }

    fn thaw(&self, partition: PartitionId) {
        self.set_frozen(partition, false);
        let (which, mut transfers) = (ownership(partition), self.transfers());
        let flips = transfers.all().get(&which).map(|one| one.phase) == Some(Phase::Flip);
        if flips {
            transfers.enter(which, Phase::Dual, self.steady_ms());
            transfers.explain(
                which,
                "the cluster has not agreed on the flip; it is tried again",
            );
        }
    }

    async fn carried(&self) {
        self.carried_one.notified().await;
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
        self.answer_ask(&request).await
    }
}
