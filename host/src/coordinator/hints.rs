//! Hinted handoff: what this node holds for others goes home when they are up; and cleanup: what it has handed over is removed.
//!
//! A *hint* is a row of a partition that this node does not own: a write that came here while the owner was not up, or what
//! this node held before it joined a cluster. Rows are where they are, so nothing has to be kept besides them: the list of
//! hints is the list of partitions that are not owned and not empty, before and after a restart (riak keeps vnodes for this,
//! `riak_core_vnode_manager`, and looks at them when nothing was written for a while; here it starts as soon as the owner is
//! seen, whatever the traffic). Rows are sent in pages, merged by the owner, and removed here once the owner has acknowledged
//! them and if nothing was written to them meanwhile.
//!
//! A partition that was handed over is *kept* for the retention time, unless something is written to it or this node leaves. Then
//! its owner is asked row by row whether it has the same on its disk; what it has is removed, what it lacks is sent.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vnode_cluster::failpoint;
use vnode_ring::{Holder, MemberStatus, NodeName, ObjectRef, PartitionId};

use super::Coordinator;
use super::replicas::To;
use super::sending::Stop;
use super::transfers::{Amount, Kind, Phase, Which};
use crate::executor::seats::Seat;
use crate::store::{Batch, Changes};
use crate::vnode::failure::Failure;
use crate::vnode::replica::{Fetched, fetched};
use crate::vnode::request::{Held, Work};
use crate::vnode::service::Service;
use crate::vnode::words::Words;
use crate::wasm::Hook;

/// How often it is looked for hints whose owner is up.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What this node holds of a partition that another one owns.
#[derive(Clone)]
pub struct Hint {
    /// The number of its vnode's seat.
    pub seat: usize,
    /// The service.
    pub service: Arc<Service>,
    /// The partition that another node owns.
    pub partition: PartitionId,
    /// Live rows here.
    pub objects: u64,
    /// Bytes here.
    pub bytes: u64,
    /// When its rows were handed over: until when they are kept.
    pub kept_until: Option<Instant>,
}

impl Hint {
    /// Its transfer.
    pub fn which(&self) -> Which {
        Which {
            kind: Kind::Hinted,
            partition: self.partition,
            service: Some(self.service.index),
        }
    }
}

/// Hands back what this node holds for others, for as long as the node runs.
pub async fn hand_back(coordinator: Arc<Coordinator>) {
    let mut views = coordinator.views();
    loop {
        let view = coordinator.view();
        for hint in coordinator.hints() {
            if !view.ring().size().contains(hint.partition) {
                continue;
            }
            let (which, owner) = (hint.which(), view.ring().owner(hint.partition));
            let due = coordinator
                .transfers()
                .is_due(which, coordinator.steady_ms());
            if !due || !view.is_up(owner) {
                continue;
            }
            match coordinator.hand_back_one(&hint, owner).await {
                Ok(rows) => {
                    coordinator.transfers().finish(which);
                    if rows == 0 {
                        coordinator.emptied().insert(hint.seat, hint.bytes);
                    }
                }
                Err(stop) => coordinator.stopped(which, stop),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = views.changed() => match changed {
                // Somebody may have come back: no reason to wait any longer.
                Ok(()) => coordinator.transfers().hurry(),
                Err(_) => return,
            },
        }
    }
}

impl Coordinator {
    /// What this node holds for others, and what it has kept for long enough.
    pub fn hints(&self) -> Vec<Hint> {
        let (now, leaves) = (Instant::now(), self.leaves());
        let due = |hint: &Hint| leaves || hint.kept_until.is_none_or(|until| until <= now);
        self.not_owned().into_iter().filter(due).collect()
    }

    /// What this node has handed over and keeps for a while.
    pub fn kept(&self) -> Vec<Hint> {
        let (now, leaves) = (Instant::now(), self.leaves());
        let kept = |hint: &Hint| !leaves && hint.kept_until.is_some_and(|until| until > now);
        self.not_owned().into_iter().filter(kept).collect()
    }

    /// Whether this node goes as soon as it holds nothing for others any more.
    fn leaves(&self) -> bool {
        let view = self.view();
        let member = view.map().members().get(view.me());
        member.is_some_and(|member| member.status == MemberStatus::Exiting)
    }

    /// Partitions that this node does not own, with rows.
    fn not_owned(&self) -> Vec<Hint> {
        let view = self.view();
        let foreign = view.ring().size().partitions();
        // What comes here to stay is no hint.
        let foreign = foreign.filter(|partition| {
            view.ring().owner(*partition) != view.me() && !self.comes(*partition)
        });
        let emptied = &*self.emptied();
        let here = foreign.flat_map(|partition| {
            self.services().iter().filter_map(move |service| {
                let number = self.seat(usize::from(service.index), partition);
                let seat = self.seats().lock(number)?;
                let store = seat.figures().store;
                let holds = store.bytes > 0 && emptied.get(&number) != Some(&store.bytes);
                (holds && !seat.is_filling()).then(|| Hint {
                    seat: number,
                    service: Arc::clone(service),
                    partition,
                    objects: store.live,
                    bytes: store.bytes,
                    kept_until: seat.kept_until(),
                })
            })
        });
        here.collect()
    }

    /// Seats in which no row was found, and how many bytes there should be. How much there is on disk is an estimate, which may stay
    /// above nothing.
    fn emptied(&self) -> MutexGuard<'_, BTreeMap<usize, u64>> {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node is to own the partition.
    pub(super) fn comes(&self, partition: PartitionId) -> bool {
        let view = self.view();
        let transfer = view.map().transfers().get(&partition);
        transfer.is_some_and(|transfer| transfer.to == *view.me())
    }

    /// Hands the rows of one partition back, page by page. Returns how many.
    async fn hand_back_one(&self, hint: &Hint, owner: &NodeName) -> Result<usize, Stop> {
        let total = Amount {
            objects: hint.objects,
            bytes: hint.bytes,
        };
        let mut sending = self.begin_sending(hint.which(), owner, 0, total).await?;
        // From now on nobody is let in who brings it: if nobody was, what is removed here is nowhere needed here.
        if self.comes(hint.partition) || !self.view().ring().is_owner(owner, hint.partition) {
            return Err(Stop::Held("the partition changes its owner".into()));
        }
        sending.enter(match hint.kept_until {
            Some(_) => Phase::Cleanup,
            None => Phase::Copying,
        });
        let mut place = Vec::new();
        let mut count = 0;
        loop {
            let (rows, next) = self
                .rows_here(&hint.service, hint.partition, &place)
                .await?;
            if !rows.is_empty() {
                let seat = self.seats().lock(hint.seat);
                let kept = seat.is_some_and(|seat| Seat::kept_until(&seat).is_some());
                let gone = self.send_home(hint, kept, &rows).await?;
                count += gone;
                let bytes = rows.len() as u64;
                let objects = gone as u64;
                sending.moved(Amount { objects, bytes }, None).await?;
            }
            if next.is_empty() {
                break;
            }
            place = next;
        }
        if count > 0 && hint.kept_until.is_some() {
            drop(self.tell_guest(hint.seat, &Hook::Deleted).await);
            self.seats().with(hint.seat, |vnode| vnode.rest());
            self.look(hint.seat);
        }
        Ok(count)
    }

    /// Sees that the owner has these rows on its disk, then removes them here. Of rows that were handed over before it only has to
    /// say so.
    async fn send_home(&self, hint: &Hint, kept: bool, rows: &[u8]) -> Result<usize, Failure> {
        let (service, partition) = (&hint.service, hint.partition);
        let view = self.view();
        let owner = view.holders(partition, 1).first().copied();
        let owner = owner.filter(|holder| holder.is_primary() && !view.is_here(holder));
        let owner = owner.ok_or(Failure::NobodyUp { partition })?;
        let mut there = Vec::new();
        for change in Changes::new(rows) {
            if let Some(object) = change.object
                && let Ok(parsed) = ObjectRef::parse(object)
            {
                let held = Held {
                    hash: change.row.hash,
                    digest: parsed.digest(),
                };
                there.push(change.row.key.to_vec());
                there.push(held.to_bytes().to_vec());
            }
        }
        let words = Words::copy(there.iter().map(Vec::as_slice));
        let lacking = match kept {
            true => self.lacking(hint, owner, words.clone(), rows).await?,
            false => rows.to_vec(),
        };
        if !lacking.is_empty() {
            self.entrust(service, partition, To::Holder(owner), &lacking)
                .await?;
            let count = Changes::new(&lacking).count();
            self.healing().handed_back(count);
        }
        failpoint("owner-confirmed");
        self.ask_replica(service, partition, To::Here(partition), Work::Forget, words)
            .await?;
        failpoint("rows-removed");
        Ok(there.len() / 2)
    }

    /// Those of these rows that the owner has not got like that on its disk.
    async fn lacking(
        &self,
        hint: &Hint,
        owner: Holder,
        words: Words,
        rows: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let answer = self
            .confirm(&hint.service, hint.partition, owner, words)
            .await?;
        let objects = Changes::new(rows).filter(|change| change.object.is_some());
        let objects: Vec<_> = objects.collect();
        let said = fetched(&answer, objects.len()).ok_or_else(|| Failure::of_answer(&answer))?;
        let mut lacking = Batch::new();
        for (change, said) in objects.iter().zip(said) {
            if let (Some(object), false) = (change.object, said == Fetched::Same) {
                lacking.pass_on(change.row, object);
            }
        }
        Ok(lacking.as_bytes().to_vec())
    }
}
