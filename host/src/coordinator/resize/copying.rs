//! Bringing the rows of a vnode to its heirs on another ring of the same node, and removing them where they were.

use std::time::Duration;

use tokio::time::Instant;
use vnode_cluster::{failpoint, fails};
use vnode_ring::{PartitionId, Split};

use super::super::Coordinator;
use super::super::transfers::Amount;
use crate::store::{Batch, Changes, Commit, Verdict};
use crate::vnode::Vnode;
use crate::vnode::failure::Failure;

/// How often it is looked whether a vnode is back in its seat.
const BACK_POLL: Duration = Duration::from_millis(1);
/// After each page clients have the node to themselves for as long as it took, and no longer than this.
const LET_GO_MAX: Duration = Duration::from_millis(20);

impl Coordinator {
    /// Copies what the heirs of a vnode lack: everything, or what has changed since that was copied.
    pub(super) async fn copy_to_heirs(
        &self,
        number: usize,
        source: PartitionId,
        split: &Split,
    ) -> Result<(), Failure> {
        let copied = self.resizing().copied.contains(&number);
        if copied && self.copy_changes(number, source, split).await? {
            return Ok(());
        }
        // Until all is copied again, nothing is known of what the heirs have.
        self.resizing().copied.remove(&number);
        self.with_vnode(number, Vnode::watch_changes).await?;
        self.copy_all(number, source, split).await?;
        self.resizing().copied.insert(number);
        Ok(())
    }

    pub(super) async fn copy_all(
        &self,
        number: usize,
        source: PartitionId,
        split: &Split,
    ) -> Result<Option<Commit>, Failure> {
        let (mut place, mut last) = (Vec::new(), None);
        loop {
            let begun = Instant::now();
            let page = self.with_vnode(number, |vnode| vnode.rows_from(&place));
            let (rows, next) = page.await??;
            last = self.bequeath(number, source, split, &rows).await?.max(last);
            failpoint("resize-page");
            let amount = Amount {
                objects: Changes::new(rows.as_bytes()).count() as u64,
                bytes: rows.as_bytes().len() as u64,
            };
            {
                let moved = &mut self.resizing().moved;
                moved.objects += amount.objects;
                moved.bytes += amount.bytes;
            }
            if next.is_empty() {
                return Ok(last);
            }
            place = next;
            tokio::time::sleep(begun.elapsed().min(LET_GO_MAX)).await;
        }
    }

    /// Copies what has changed since all was copied. False if it is not known what has.
    async fn copy_changes(
        &self,
        number: usize,
        source: PartitionId,
        split: &Split,
    ) -> Result<bool, Failure> {
        loop {
            let changed = self.with_vnode(number, Vnode::rows_changed).await??;
            let Some((rows, all)) = changed else {
                return Ok(false);
            };
            if fails("resize-changes") {
                return Err(Failure::Store {
                    partition: source,
                    why: "a test has it fail".into(),
                });
            }
            if !rows.is_empty() {
                self.bequeath(number, source, split, &rows).await?;
            }
            self.with_vnode(number, Vnode::confirm_changed).await?;
            if all {
                return Ok(true);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Has the heirs of a partition take in rows of it. Returns the last of their commits.
    async fn bequeath(
        &self,
        number: usize,
        source: PartitionId,
        split: &Split,
        rows: &Batch,
    ) -> Result<Option<Commit>, Failure> {
        let mut shares: Vec<(PartitionId, Batch)> = Vec::new();
        for change in Changes::new(rows.as_bytes()) {
            let Some(object) = change.object else {
                continue;
            };
            let heir = split.heir(source, change.row.hash);
            // Rows come by their hashes, so most are for the same heir as the one before.
            match shares.iter_mut().find(|(other, _)| *other == heir) {
                Some((_, share)) => share.pass_on(change.row, object),
                None => {
                    let mut share = Batch::new();
                    share.pass_on(change.row, object);
                    shares.push((heir, share));
                }
            }
        }
        let service = self.seats.service_of(number);
        let mut last = None;
        for (heir, share) in &shares {
            let seat = self.seat(service, *heir);
            let taken = self
                .with_vnode(seat, |vnode| vnode.take_in(share))
                .await??;
            last = taken.max(last);
        }
        Ok(last)
    }

    /// Removes the rows of a vnode of the ring before. Each is merged with what its heir has first, which finds it there or brings it.
    pub(super) async fn remove_source(
        &self,
        number: usize,
        source: PartitionId,
        split: &Split,
    ) -> Result<(), Failure> {
        let last = self.copy_all(number, source, split).await?;
        if let Some(commit) = last {
            self.wait_for_disk(commit).await?;
        }
        self.remove_vnode(number, source).await
    }

    /// Removes a vnode for good, with its rows.
    pub(super) async fn remove_vnode(
        &self,
        number: usize,
        partition: PartitionId,
    ) -> Result<(), Failure> {
        while !self.with_vnode(number, Vnode::drop_rows).await?? {
            tokio::task::yield_now().await;
        }
        drop(self.seats.remove(number));
        let service = self.services.get(self.seats.service_of(number));
        let name = service.map(|service| service.name()).unwrap_or_default();
        let forgotten = self.engine.forget(name, partition.id());
        forgotten.map_err(|error| Failure::of_store(&error, partition))
    }

    async fn wait_for_disk(&self, commit: Commit) -> Result<(), Failure> {
        let mut disk = self.acknowledge.clone();
        loop {
            match disk.verdict_for(commit, true) {
                Verdict::Now => return Ok(()),
                Verdict::Failed => return Err(Failure::NotDurable),
                Verdict::Wait => disk.disk_changed().await,
            }
        }
    }

    /// Does something with a vnode out of turn, as soon as it is in its seat.
    pub(super) async fn with_vnode<T>(
        &self,
        number: usize,
        mut act: impl FnMut(&mut Vnode) -> T,
    ) -> Result<T, Failure> {
        loop {
            if self.is_draining() {
                return Err(Failure::Draining);
            }
            if let Some(done) = self.seats.with(number, &mut act) {
                self.look(number);
                return Ok(done);
            }
            tokio::time::sleep(BACK_POLL).await;
        }
    }
}
