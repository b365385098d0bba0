//! Ownership handoff: what a partition holds is carried to its next owner while this node serves it.
//!
//! First all rows go over in pages (*copying*), then what has changed meanwhile, found by hash trees (*dual*: both nodes have the
//! rows). After that the partition is frozen for a moment by `vnode_cluster`'s hand-over, the rest follows in the same way, and the
//! *flip* is committed. Rows are merged where they arrive, so nothing is lost or counted twice however often they are sent. A copy
//! that was interrupted goes on at its last page; what either node has lost since is found by the trees. What is left here after
//! the flip is kept for a while and then removed (*cleanup*), see `hints`.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use vnode_cluster::failpoint;
use vnode_ring::{Holder, NodeName, PartitionId, Role};

use super::Coordinator;
use super::entropy::Pair;
use super::replicas::To;
use super::sending::{Sending, Stop};
use super::transfers::{Amount, Kind, Phase, Which};
use crate::vnode::failure::Failure;
use crate::vnode::request::Work;
use crate::vnode::service::Service;
use crate::wasm::Hook;

/// How often it is looked for partitions that are to go.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After each page clients have the nodes to themselves for as long as it took, and no longer than this.
pub(super) const LET_GO_MAX: Duration = Duration::from_millis(20);
/// A frozen partition for which the rest takes longer than this is let go on, and tried again.
const REST_WITHIN: Duration = Duration::from_secs(1);

/// Which partitions have been carried, and whose guests have been told that they go.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// All rows of these were at that node a moment ago.
    there: BTreeMap<PartitionId, NodeName>,
    /// The guests of these have agreed to go to that node.
    told: BTreeMap<PartitionId, NodeName>,
}

/// Carries what is to go elsewhere, for as long as the node runs.
pub async fn carry(coordinator: Arc<Coordinator>) {
    let mut views = coordinator.views();
    let mut under_way = JoinSet::new();
    loop {
        coordinator.forget_carried().await;
        for (partition, to, attempt) in coordinator.to_be_carried() {
            let coordinator = Arc::clone(&coordinator);
            under_way.spawn(async move { coordinator.carry_one(partition, &to, attempt).await });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(_) = under_way.join_next() => {}
            changed = views.changed() => match changed {
                // Somebody may have come back: no reason to wait any longer.
                Ok(()) => coordinator.transfers().hurry(),
                Err(_) => return,
            },
        }
    }
}

/// The transfer of a partition to its next owner.
pub(super) fn ownership(partition: PartitionId) -> Which {
    Which {
        kind: Kind::Ownership,
        partition,
        service: None,
    }
}

impl Coordinator {
    /// What is to go to a node that is up, has not been carried there, and has not just been tried: as many as may be sent at once.
    /// What holds nothing needs no carrying.
    fn to_be_carried(&self) -> Vec<(PartitionId, NodeName, u64)> {
        let view = self.view();
        let transfers = view.map().transfers().iter();
        let mine = transfers.filter(|(partition, transfer)| {
            view.ring().owner(**partition) == view.me()
                && view.is_up(&transfer.to)
                && !self.is_carried(**partition, &transfer.to)
        });
        let mut due: Vec<_> = mine
            .map(|(partition, transfer)| (*partition, transfer.to.clone(), transfer.attempt))
            .collect();
        let (now, mut places) = (self.steady_ms(), self.transfers());
        due.retain(|(partition, ..)| places.is_due(ownership(*partition), now));
        let mut begun = Vec::new();
        for (partition, to, attempt) in due {
            let which = ownership(partition);
            let total = self.held(partition);
            let parties = (view.me(), &to);
            if places.begin(which, parties, attempt, total, now).is_ok() {
                begun.push((partition, to, attempt));
            }
        }
        begun
    }

    /// What the vnodes of a partition hold here.
    pub fn held(&self, partition: PartitionId) -> Amount {
        let mut held = Amount::default();
        for number in self.seats_of(partition) {
            if let Some(seat) = self.seats.lock(number) {
                let store = &seat.figures().store;
                held.objects += store.live;
                held.bytes += store.bytes;
            }
        }
        held
    }

    fn carried(&self) -> MutexGuard<'_, Carried> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all that the vnodes of a partition held a moment ago is on that node, and it is known to be able to serve them.
    pub(super) fn is_carried(&self, partition: PartitionId, to: &NodeName) -> bool {
        let holds = self.held(partition).bytes > 0 || self.is_filling(partition);
        let needs_carrying = holds || self.came_with_other_versions(to, partition);
        !needs_carrying || self.carried().there.get(&partition) == Some(to)
    }

    /// Forgets what is not under way any more: a partition that goes again later has to be carried again. Guests that have agreed to
    /// go and stay are told so.
    async fn forget_carried(&self) {
        let view = self.view();
        let goes = |partition: &PartitionId, to: &NodeName| {
            let transfer = view.map().transfers().get(partition);
            transfer.is_some_and(|transfer| transfer.to == *to)
        };
        let stay: Vec<_> = {
            let mut carried = self.carried();
            carried.there.retain(|partition, to| goes(partition, to));
            let over = |(partition, to): (&PartitionId, &NodeName)| {
                (!goes(partition, to)).then(|| (*partition, to.clone()))
            };
            let over: Vec<_> = carried.told.iter().filter_map(over).collect();
            for (partition, _) in &over {
                carried.told.remove(partition);
            }
            over
        };
        for (partition, to) in stay {
            if view.ring().is_owner(view.me(), partition) {
                let hook = Hook::HandoffCancelled(to.to_string());
                self.tell_guests(partition, &hook).await;
            }
        }
        let over: Vec<Which> = {
            let transfers = self.transfers();
            let ownership = transfers.all().iter();
            let ownership = ownership.filter(|(which, _)| which.kind == Kind::Ownership);
            let over = ownership.filter(|(which, one)| !goes(&which.partition, &one.to));
            over.map(|(which, _)| *which).collect()
        };
        for which in over {
            if view.ring().is_owner(view.me(), which.partition) {
                self.tell_of(which, "was given up");
                self.transfers().forget(which);
            }
        }
    }

    async fn carry_one(&self, partition: PartitionId, to: &NodeName, attempt: u64) {
        let which = ownership(partition);
        match self.try_to_carry(which, to, attempt).await {
            Ok(()) => {
                self.carried().there.insert(partition, to.clone());
                self.transfers()
                    .explain(which, "all rows are there; the flip comes next");
                self.carried_one.notify_one();
            }
            Err(stop) => self.stopped(which, stop),
        }
    }

    async fn try_to_carry(&self, which: Which, to: &NodeName, attempt: u64) -> Result<(), Stop> {
        let partition = which.partition;
        let total = self.held(partition);
        let mut sending = self.begin_sending(which, to, attempt, total).await?;
        if self.carried().told.get(&partition) != Some(to) {
            self.ask_guests(partition, to).await?;
            self.carried().told.insert(partition, to.clone());
        }
        let next = self.next_owner(partition, to)?;
        sending.enter(Phase::Copying);
        failpoint("copy-begins");
        for service in &self.services {
            for pair in self.pairs(service, partition, next) {
                pair.begin().await?;
            }
            self.copy(service, which, next, &mut sending).await?;
        }
        failpoint("copy-ends");
        sending.enter(Phase::Dual);
        // What has changed since it was read. Afterwards the trees of both are complete, so that the rest is found at once.
        for service in &self.services {
            self.push_ranges(service, partition, next).await?;
        }
        failpoint("trees-equal");
        Ok(())
    }

    /// Sends all rows of a vnode, or those that were not sent yet.
    async fn copy(
        &self,
        service: &Arc<Service>,
        which: Which,
        next: To,
        sending: &mut Sending<'_>,
    ) -> Result<(), Stop> {
        let partition = which.partition;
        let cursor = || self.transfers().cursor(which, service.index);
        while let Some(place) = cursor() {
            let begun = Instant::now();
            let (rows, after) = self.rows_here(service, partition, &place).await?;
            let mut amount = Amount::default();
            if !rows.is_empty() {
                amount.objects = self.send_page(service, partition, next, &rows).await?;
                failpoint("page-sent");
                amount.bytes = rows.len() as u64;
            }
            let after = (!after.is_empty()).then_some(after);
            let took = begun.elapsed();
            sending.moved(amount, Some((service.index, after))).await?;
            // The busier the two nodes are, the longer their clients are let go first.
            tokio::time::sleep(took.min(LET_GO_MAX)).await;
        }
        Ok(())
    }

    /// Brings the rest of a frozen partition over. True when everything is there.
    pub(super) async fn carry_rest(&self, partition: PartitionId, to: &NodeName) -> bool {
        let which = ownership(partition);
        if self.transfers().enter(which, Phase::Flip, self.steady_ms()) {
            self.tell_of(which, "is flip");
        }
        let rest = async {
            let next = self.next_owner(partition, to)?;
            for service in &self.services {
                let number = self.seat(usize::from(service.index), partition);
                let holds = self.seats.lock(number);
                if holds.is_some_and(|seat| seat.figures().store.bytes > 0) {
                    self.push_ranges(service, partition, next).await?;
                }
            }
            Ok::<(), Failure>(())
        };
        let failed = match tokio::time::timeout(REST_WITHIN, rest).await {
            Ok(Ok(())) => return true,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("the rest of its rows took longer than {REST_WITHIN:?}"),
        };
        // It is brought over again while it is served.
        self.carried().there.remove(&partition);
        self.stopped(which, Stop::Failed(failed));
        false
    }

    /// Sends what the next owner lacks of the ranges that a partition has.
    async fn push_ranges(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        next: To,
    ) -> Result<(), Failure> {
        for pair in self.pairs(service, partition, next) {
            pair.push().await?;
        }
        Ok(())
    }

    /// A partition here and its next owner, for each range that it has.
    fn pairs<'a>(
        &'a self,
        service: &'a Arc<Service>,
        partition: PartitionId,
        next: To,
    ) -> impl Iterator<Item = Pair<'a>> {
        self.ranges_of(service, partition).map(move |range| Pair {
            coordinator: self,
            service,
            range,
            first: To::Here(partition),
            other: next,
        })
    }

    /// The ranges of which a partition has a replica.
    pub(super) fn ranges_of(
        &self,
        service: &Service,
        partition: PartitionId,
    ) -> impl Iterator<Item = PartitionId> + use<> {
        let size = self.ring_size();
        let several = 0..service.n().min(size.get());
        several.map(move |behind| size.after(partition, size.get() - behind))
    }

    /// Has another vnode merge a page of rows. Returns how many there were.
    pub(super) async fn send_page(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        to: To,
        rows: &[u8],
    ) -> Result<u64, Failure> {
        let words = super::replicas::page_words(rows);
        self.ask_replica(service, partition, to, Work::Merge, words)
            .await?;
        Ok(crate::store::Changes::new(rows).count() as u64)
    }

    /// The vnode of a partition on the node that will own it.
    fn next_owner(&self, partition: PartitionId, to: &NodeName) -> Result<To, Failure> {
        let view = self.view();
        let position = view.nodes().binary_search(to).ok();
        let node = position.and_then(|position| u16::try_from(position).ok());
        let role = Role::Fallback;
        let holder = node.map(|node| Holder {
            partition,
            node,
            role,
        });
        holder.map(To::Vnode).ok_or(Failure::NobodyUp { partition })
    }
}
