//! Hinted handoff: what this node holds for others goes home when they are up.
//!
//! A *hint* is a row of a partition that this node does not own: a write that came here while the owner was not up, or what
//! this node held before it joined a cluster. Rows are where they are, so nothing has to be kept besides them: the list of
//! hints is the list of partitions that are not owned and not empty, before and after a restart (riak keeps vnodes for this,
//! `riak_core_vnode_manager`, and looks at them when nothing was written for a while; here it starts as soon as the owner is
//! seen, whatever the traffic). Rows are sent in pages, merged by the owner, and removed here once the owner has acknowledged
//! them and if nothing was written to them meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::{ObjectRef, PartitionId};

use super::Coordinator;
use super::replicas::To;
use crate::store::Changes;
use crate::vnode::request::{Failure, Held, Words, Work};
use crate::vnode::service::Service;

/// How often it is looked for hints whose owner is up.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a failure a partition waits so long, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest wait after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What this node holds for another one.
#[derive(Clone, Debug)]
pub struct Hint {
    /// The number of its vnode's seat.
    pub seat: usize,
    /// The service.
    pub service: String,
    /// The partition that another node owns.
    pub partition: PartitionId,
    /// Live rows here.
    pub objects: u64,
    /// Bytes here.
    pub bytes: u64,
}

/// A partition that could not be handed back.
struct Failed {
    next: Instant,
    pause: Duration,
}

/// Hands back what this node holds for others, for as long as the node runs.
pub async fn hand_back(coordinator: Arc<Coordinator>) {
    let mut failed: BTreeMap<usize, Failed> = BTreeMap::new();
    let mut empty: BTreeMap<usize, u64> = BTreeMap::new();
    let mut views = coordinator.views();
    loop {
        for (number, service, partition) in coordinator.hinted() {
            let now = Instant::now();
            if failed.get(&number).is_some_and(|failed| failed.next > now) {
                continue;
            }
            let bytes = coordinator.bytes_of(number);
            if empty.get(&number) == Some(&bytes) {
                continue;
            }
            match coordinator.hand_back_one(&service, partition).await {
                Ok(rows) => {
                    failed.remove(&number);
                    // How much there is on disk is an estimate, which may stay above nothing.
                    if rows == 0 {
                        empty.insert(number, bytes);
                    }
                }
                Err(error) => {
                    let service = service.name();
                    tracing::debug!(service, %partition, %error, "hints stay here for now");
                    let pause = failed
                        .get(&number)
                        .map_or(PAUSE_MIN, |failed| (2 * failed.pause).min(PAUSE_MAX));
                    let next = Instant::now() + pause;
                    failed.insert(number, Failed { next, pause });
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = views.changed() => match changed {
                // Somebody may have come back: no reason to wait any longer.
                Ok(()) => failed.clear(),
                Err(_) => return,
            },
        }
    }
}

impl Coordinator {
    /// What this node holds for others.
    pub fn hints(&self) -> Vec<Hint> {
        let hint = |(number, service, partition): (usize, Arc<Service>, PartitionId)| {
            let seat = self.seats().lock(number)?;
            let store = seat.figures().store;
            Some(Hint {
                seat: number,
                service: service.name().to_owned(),
                partition,
                objects: store.live,
                bytes: store.bytes,
            })
        };
        self.not_owned().filter_map(hint).collect()
    }

    fn bytes_of(&self, number: usize) -> u64 {
        let seat = self.seats().lock(number);
        seat.map_or(0, |seat| seat.figures().store.bytes)
    }

    /// Seats that have hints for a node that is up.
    fn hinted(&self) -> Vec<(usize, Arc<Service>, PartitionId)> {
        let view = self.view();
        let up = |partition| view.is_up(view.ring().owner(partition));
        let hinted = self.not_owned().filter(|(_, _, partition)| up(*partition));
        hinted.collect()
    }

    /// Seats of partitions that this node does not own, with rows.
    fn not_owned(&self) -> impl Iterator<Item = (usize, Arc<Service>, PartitionId)> {
        let view = self.view();
        let foreign = self.ring_size().partitions().filter(move |partition| {
            let transfer = view.map().transfers().get(partition);
            // What comes here to stay is no hint.
            let comes = transfer.is_some_and(|transfer| transfer.to == *view.me());
            view.ring().owner(*partition) != view.me() && !comes
        });
        foreign.flat_map(move |partition| {
            self.services().iter().filter_map(move |service| {
                let number = self.seat(usize::from(service.index), partition);
                let seat = self.seats().lock(number)?;
                let holds = seat.figures().store.bytes > 0;
                holds.then(|| (number, Arc::clone(service), partition))
            })
        })
    }

    /// Hands the rows of one partition back, page by page. Returns how many.
    async fn hand_back_one(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
    ) -> Result<usize, Failure> {
        let mut place = Vec::new();
        let mut count = 0;
        loop {
            let (rows, next) = self.rows_here(service, partition, &place).await?;
            if !rows.is_empty() {
                count += self.send_home(service, partition, &rows).await?;
            }
            if next.is_empty() {
                return Ok(count);
            }
            place = next;
        }
    }

    async fn send_home(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        rows: &[u8],
    ) -> Result<usize, Failure> {
        let view = self.view();
        let owner = view.holders(partition, 1).first().copied();
        let Some(owner) = owner.filter(|holder| holder.is_primary() && !view.is_here(holder))
        else {
            return Err(Failure::NobodyUp { partition });
        };
        let owner = To::Holder(owner);
        self.entrust(service, partition, owner, rows).await?;
        let (mut forget, mut count) = (Vec::new(), 0);
        for change in Changes::new(rows) {
            let object = change.object.map(ObjectRef::parse);
            if let Some(Ok(object)) = object {
                let held = Held {
                    hash: change.row.hash,
                    digest: object.digest(),
                };
                forget.push(change.row.key.to_vec());
                forget.push(held.to_bytes().to_vec());
                count += 1;
            }
        }
        let words = Words::copy(forget.iter().map(Vec::as_slice));
        self.ask_replica(service, partition, To::Here(partition), Work::Forget, words)
            .await?;
        self.healing().handed_back(count);
        Ok(count)
    }
}
