//! Ownership handoff: what a partition holds is carried to its next owner while this node serves it.
//!
//! First all rows go over in pages, then what has changed meanwhile, found by hash trees. After that the partition is frozen for a
//! moment by `vnode_cluster`'s hand-over, the rest follows in the same way, and the flip is committed. Rows are merged where they
//! arrive, so nothing is lost or counted twice however often they are sent, and whoever of the two nodes ends in between, it begins
//! again. What is left here after the flip is a hint for the new owner, and goes the way of all hints.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vnode_ring::{Holder, NodeName, PartitionId, Role};

use super::Coordinator;
use super::entropy::Pair;
use super::replicas::To;
use crate::vnode::request::{Failure, Words, Work};
use crate::vnode::service::Service;

/// How often it is looked for partitions that are to go.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A frozen partition for which the rest takes longer than this is let go on, and tried again.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// Where the rows of vnodes have been carried, by service and partition.
pub type Carried = BTreeMap<(u16, PartitionId), NodeName>;

/// Carries what is to go elsewhere, for as long as the node runs.
pub async fn carry(coordinator: Arc<Coordinator>) {
    let mut views = coordinator.views();
    loop {
        for (service, partition, to) in coordinator.to_be_carried() {
            match coordinator.carry_one(&service, partition, &to).await {
                Ok(()) => coordinator.set_carried(service.index, partition, to),
                Err(error) => {
                    let service = service.name();
                    tracing::debug!(service, %partition, %to, %error, "not all rows were carried");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = views.changed() => if changed.is_err() {
                return;
            },
        }
        coordinator.forget_carried();
    }
}

impl Coordinator {
    /// What is to go to a node that is up and has not been carried there. What holds nothing needs no carrying.
    fn to_be_carried(&self) -> Vec<(Arc<Service>, PartitionId, NodeName)> {
        let view = self.view();
        let transfers = view.map().transfers().iter();
        let mine = transfers.filter(|(partition, transfer)| {
            view.ring().owner(**partition) == view.me() && view.is_up(&transfer.to)
        });
        mine.flat_map(|(partition, transfer)| {
            let waits =
                |service: &&Arc<Service>| !self.has_carried(service, *partition, &transfer.to);
            let services = self.services.iter().filter(waits);
            services.map(|service| (Arc::clone(service), *partition, transfer.to.clone()))
        })
        .collect()
    }

    /// Whether all that a vnode held a moment ago is on that node.
    fn has_carried(&self, service: &Service, partition: PartitionId, to: &NodeName) -> bool {
        let number = self.seat(usize::from(service.index), partition);
        let holds = |seat: &crate::executor::seats::Seat| seat.figures().store.bytes > 0;
        if !self.seats.lock(number).is_some_and(|seat| holds(&seat)) {
            return true;
        }
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.get(&(service.index, partition)) == Some(to)
    }

    /// The same for all vnodes of a partition.
    pub(super) fn is_carried(&self, partition: PartitionId, to: &NodeName) -> bool {
        let mut services = self.services.iter();
        services.all(|service| self.has_carried(service, partition, to))
    }

    fn set_carried(&self, service: u16, partition: PartitionId, to: NodeName) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.insert((service, partition), to);
    }

    /// Forgets what is not under way any more: a partition that goes again later has to be carried again.
    fn forget_carried(&self) {
        let view = self.view();
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.retain(|(_, partition), to| {
            let transfer = view.map().transfers().get(partition);
            transfer.is_some_and(|transfer| transfer.to == *to)
        });
    }

    async fn carry_one(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        to: &NodeName,
    ) -> Result<(), Failure> {
        let next = self.next_owner(partition, to)?;
        let mut place = Vec::new();
        loop {
            let (rows, after) = self.rows_here(service, partition, &place).await?;
            if !rows.is_empty() {
                let words = Words::copy([rows.as_slice()]);
                self.ask_replica(service, partition, next, Work::Merge, words)
                    .await?;
            }
            if after.is_empty() {
                break;
            }
            place = after;
        }
        // Builds the trees of both, so that the rest is found at once.
        self.push_ranges(service, partition, next).await
    }

    /// Brings the rest of a frozen partition over. True when everything is there.
    pub(super) async fn carry_rest(&self, partition: PartitionId, to: &NodeName) -> bool {
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
        matches!(tokio::time::timeout(REST_WITHIN, rest).await, Ok(Ok(())))
    }

    /// Sends what the next owner lacks of the ranges that a partition has.
    async fn push_ranges(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        next: To,
    ) -> Result<(), Failure> {
        let size = self.ring_size();
        for behind in 0..service.n().min(size.get()) {
            let pair = Pair {
                coordinator: self,
                service,
                range: size.after(partition, size.get() - behind),
                first: To::Here(partition),
                other: next,
            };
            pair.push().await?;
        }
        Ok(())
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
