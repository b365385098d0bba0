//! Resizing the ring: this node divides its own rows, or joins them, and no other node has a part in it.
//!
//! While the resize is *filling*, each vnode of a partition copies its rows to its heirs (`vnode_ring::Split`), which sit in seats of
//! the next ring and serve nobody; what changes after it was copied is taken down and copied again and again. When the ring *flips*,
//! the old seats close and what waits there is sent by the new numbers; the heirs hold their commands until the last changes are
//! copied, too. Then, *cleaning*, each row is merged once more, which finds it there, before the old ones are removed. A node that
//! was away, or starts again, does the same with more to copy. Rows of partitions that other nodes own go the same way, and from
//! there home like all hints.
//!
//! Copying is merging, so nothing is lost or counted twice however often it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vnode_cluster::{failpoint, fails};
use vnode_ring::{MapEvent, PartitionId, Resize, ResizeEvent, ResizeStage, RingSize, Split, View};

use super::Coordinator;
use super::transfers::Amount;
use crate::data_dir::DataDirError;
use crate::store::{Batch, Changes, Commit, Verdict};
use crate::vnode::Vnode;
use crate::vnode::request::Failure;

/// How often it is looked for what is to be done.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether a vnode is back in its seat.
const BACK_POLL: Duration = Duration::from_millis(1);
/// After each page clients have the node to themselves for as long as it took, and no longer than this.
const LET_GO_MAX: Duration = Duration::from_millis(20);
/// After a failure it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes down by the numbers of which ring rows lie here, for the next start.
pub type KeepRing = Box<dyn Fn(RingSize) -> Result<(), DataDirError> + Send + Sync>;

/// How far this node is with a resize.
#[derive(Clone, Debug, Default)]
pub struct Resizing {
    /// Which one.
    id: u64,
    /// The seats whose rows are all copied, but for changes that their vnodes have taken down.
    copied: BTreeSet<usize>,
    /// Nothing is left here by the numbers of the other ring.
    cleaned: bool,
    /// The ring by whose numbers all rows lay when no resize was under way.
    settled: Option<RingSize>,
    /// When it began, milliseconds of the steady clock.
    pub since_ms: u64,
    /// What there was to copy when it began.
    pub total: Amount,
    /// What has been copied.
    pub moved: Amount,
    /// Why it does not go on, if it does not.
    pub reason: Option<String>,
}

/// Resizes what this node has, for as long as it runs.
pub async fn tend(coordinator: Arc<Coordinator>) {
    tokio::select! {
        () = follow(&coordinator) => {}
        never = look_at_late(&coordinator) => match never {},
    }
}

/// Has the executors refuse what has waited for too long where rows are not all there yet. To bring them there may take long, or fail
/// again and again.
async fn look_at_late(coordinator: &Coordinator) -> Infallible {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let size = coordinator.ring_size();
        if coordinator.resizing().settled == Some(size) {
            continue;
        }
        for number in size.partitions().flat_map(|one| coordinator.seats_of(one)) {
            let seat = coordinator.seats.lock(number);
            if seat.is_some_and(|seat| seat.is_filling()) {
                coordinator.look(number);
            }
        }
    }
}

async fn follow(coordinator: &Coordinator) {
    let mut views = coordinator.views();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let done = match view.map().resize() {
            Some(resize) => coordinator.tend_resize(&view, resize).await,
            None => coordinator.settle(view.ring().size()).await,
        };
        if let Err(why) = done {
            tracing::warn!(%why, "the ring cannot be resized here; it is tried again");
            coordinator.resizing().reason = Some(why.to_string());
            tokio::time::sleep(RETRY_AFTER).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = views.changed() => if changed.is_err() { return },
        }
    }
}

impl Coordinator {
    /// How far this node is with the resize under way.
    pub fn resizing(&self) -> MutexGuard<'_, Resizing> {
        let resizing = self.resizing.lock();
        resizing.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a vnode of the partition has commands wait for rows of the ring before.
    pub(super) fn is_filling(&self, partition: PartitionId) -> bool {
        let mut seats = self.seats_of(partition).filter_map(|n| self.seats.lock(n));
        seats.any(|seat| seat.is_filling())
    }

    async fn tend_resize(&self, view: &View, resize: &Resize) -> Result<(), Failure> {
        let Some(split) = resize.split() else {
            return Ok(());
        };
        if resize.is_filling() {
            self.settle(resize.from).await?;
        }
        self.begin_resizing(resize);
        let me = view.me().clone();
        let id = resize.id;
        match &resize.stage {
            ResizeStage::Filling { .. } => {
                if view.map().transfers().is_empty() && self.fits(resize) {
                    self.fill(resize, &split).await?;
                    if !resize.has_filled(&me) && self.is_filled(resize) {
                        failpoint("resize-filled");
                        self.say(ResizeEvent::Filled { id, node: me }).await;
                    }
                }
                if view.claimant() == Some(view.me()) && view.map().flips().is_some() {
                    failpoint("resize-flips");
                    self.say(ResizeEvent::Flipped { id }).await;
                }
            }
            ResizeStage::Cleaning { .. } if resize.is_left(&me) => {
                if !self.resizing().cleaned {
                    let flipped = view.ring().size() == resize.to;
                    match flipped {
                        true => {
                            self.write_ring_down(resize.to)?;
                            self.inherit((resize.from, resize.to), &split).await?;
                        }
                        false => self.forget_copies(resize.to).await?,
                    }
                    let gone = if flipped { resize.from } else { resize.to };
                    self.seats.retire(gone);
                    {
                        let mut resizing = self.resizing();
                        (resizing.cleaned, resizing.reason) = (true, None);
                    }
                    failpoint("resize-cleaned");
                }
                self.say(ResizeEvent::Cleaned { id, node: me }).await;
            }
            ResizeStage::Cleaning { .. } => {}
        }
        Ok(())
    }

    /// Has all rows lie by the numbers of the cluster's ring, as they do after a resize. Those that do not this node had when it joined
    /// a cluster whose ring has those numbers, or when it was removed from one in the middle of a resize.
    async fn settle(&self, size: RingSize) -> Result<(), Failure> {
        if self.resizing().settled == Some(size) {
            return Ok(());
        }
        self.write_ring_down(size)?;
        while let Some((from, split)) = self.left_behind(size) {
            tracing::info!(%from, to = %size, "rows of another ring get the numbers of this one");
            self.inherit((from, size), &split).await?;
            self.seats.retire(from);
        }
        self.resizing().settled = Some(size);
        Ok(())
    }

    fn write_ring_down(&self, size: RingSize) -> Result<(), Failure> {
        let kept = (self.keep_ring)(size);
        kept.map_err(|error| Failure::Usage(error.to_string()))
    }

    /// A ring by whose numbers there are rows, though it is not the cluster's, and their way from there.
    fn left_behind(&self, size: RingSize) -> Option<(RingSize, Split)> {
        let known = |name: &str| self.services.iter().any(|service| service.name() == name);
        let mut last: BTreeMap<u8, u16> = BTreeMap::new();
        for (service, id) in self.engine.partitions() {
            let partition = PartitionId::from_id(id);
            // The next generation may be that of a resize of which this node has not heard again since it started.
            let ahead = size.next_generation(size.get().into()).ok();
            let mine = [Some(size), ahead].into_iter().flatten();
            let generation = partition.generation();
            if known(&service) && !mine.map(RingSize::generation).any(|own| own == generation) {
                let last = last.entry(generation).or_default();
                *last = partition.number().max(*last);
            }
        }
        let stored = last.into_iter().filter_map(|(generation, last)| {
            // Every partition of a ring is opened, and the last one goes last.
            let count = (u32::from(last) + 1).next_power_of_two();
            RingSize::of_generation(count.max(RingSize::MIN), generation).ok()
        });
        let n = self.services.iter().map(|service| service.n()).max()?;
        let closed = self.seats.closed().filter(|ring| *ring != size);
        let mut rings = closed.chain(stored);
        rings.find_map(|from| Some((from, Split::new(from, size, n)?)))
    }

    async fn say(&self, event: ResizeEvent) {
        if let Err(error) = self.cluster.propose(MapEvent::Resize(event)).await {
            tracing::debug!(%error, "a step of the resize was not agreed on; it is tried again");
        }
    }

    /// Whether the services here have the replicas that the resize was planned for.
    fn fits(&self, resize: &Resize) -> bool {
        let mut services = self.services.iter();
        let other = services.find(|service| service.n() != resize.n);
        self.resizing().reason = other.map(|service| {
            let (name, n, wanted) = (service.name(), service.n(), resize.n);
            format!("{name} has n={n} here, and the ring is resized for n={wanted}")
        });
        other.is_none()
    }

    fn begin_resizing(&self, resize: &Resize) {
        if self.resizing().id == resize.id {
            return;
        }
        let mut total = Amount::default();
        for source in resize.from.partitions() {
            let held = self.held(source);
            total.objects += held.objects;
            total.bytes += held.bytes;
        }
        *self.resizing() = Resizing {
            id: resize.id,
            since_ms: self.steady_ms(),
            total,
            ..Resizing::default()
        };
    }

    /// Copies what is not copied, and what has changed since.
    async fn fill(&self, resize: &Resize, split: &Split) -> Result<(), Failure> {
        self.seat_vnodes(resize.to)?;
        for source in resize.from.partitions() {
            for number in self.seats_of(source) {
                self.copy_to_heirs(number, source, split).await?;
                if self.view().ring().size() != resize.from {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether all rows have been copied, but for the last changes.
    fn is_filled(&self, resize: &Resize) -> bool {
        let mut sources = resize.from.partitions().flat_map(|one| self.seats_of(one));
        let resizing = self.resizing();
        sources.all(|number| resizing.copied.contains(&number))
    }

    /// Copies what the heirs of a vnode lack: everything, or what has changed since that was copied.
    async fn copy_to_heirs(
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

    async fn copy_all(
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
            if !rows.is_empty() {
                if fails("resize-changes") {
                    return Err(Failure::Store {
                        partition: source,
                        why: "a test has it fail".into(),
                    });
                }
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

    /// Takes over what the vnodes of the ring before have, lets the heirs serve, and removes it there.
    async fn inherit(
        &self,
        (from, to): (RingSize, RingSize),
        split: &Split,
    ) -> Result<(), Failure> {
        self.seat_vnodes(to)?;
        self.seat_closed(from)?;
        let view = self.view();
        let (owned, others): (Vec<_>, Vec<_>) = to
            .partitions()
            .partition(|heir| view.ring().is_owner(view.me(), *heir));
        failpoint("resize-inherits");
        let mut done = BTreeSet::new();
        for heir in owned.into_iter().chain(others) {
            for service in 0..self.services.len() {
                for source in split.sources(heir) {
                    let number = self.seat(service, source);
                    if !done.insert(number) || self.seats.is_vacant(number) {
                        continue;
                    }
                    self.copy_to_heirs(number, source, split).await?;
                }
                let seat = self.seat(service, heir);
                if !view.ring().is_owner(view.me(), heir) {
                    let sources = split.sources(heir).into_iter();
                    self.keep_on(seat, sources.map(|source| self.seat(service, source)));
                }
                self.let_serve(seat);
            }
        }
        failpoint("resize-inherited");
        for source in from.partitions() {
            for number in self.seats_of(source) {
                if !self.seats.is_vacant(number) {
                    self.remove_source(number, source, split).await?;
                }
            }
        }
        Ok(())
    }

    /// What the sources of a vnode only kept, because their owners have it all, it keeps as long. Their other rows go home.
    fn keep_on(&self, heir: usize, sources: impl Iterator<Item = usize>) {
        let sources = sources.filter_map(|number| {
            let seat = self.seats.lock(number)?;
            (seat.figures().store.bytes > 0).then(|| seat.kept_until())
        });
        let until: Option<Vec<_>> = sources.collect();
        if let (Some(until), Some(mut seat)) = (until, self.seats.lock(heir))
            && let Some(until) = until.into_iter().max()
        {
            seat.keep_until(until);
        }
    }

    /// The vnode of a seat has what it is to have.
    fn let_serve(&self, number: usize) {
        if let Some(mut seat) = self.seats.lock(number) {
            seat.set_filling(false);
        }
        self.look(number);
    }

    /// Removes the rows of a vnode of the ring before. Each is merged with what its heir has first, which finds it there or brings it.
    async fn remove_source(
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
    async fn remove_vnode(&self, number: usize, partition: PartitionId) -> Result<(), Failure> {
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

    /// Removes the copies of a resize that was given up.
    async fn forget_copies(&self, size: RingSize) -> Result<(), Failure> {
        self.seat_closed(size)?;
        for partition in size.partitions() {
            for number in self.seats_of(partition) {
                if !self.seats.is_vacant(number) {
                    self.remove_vnode(number, partition).await?;
                }
            }
        }
        Ok(())
    }

    /// Does something with a vnode out of turn, as soon as it is in its seat.
    async fn with_vnode<T>(
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

    /// Puts a vnode into each empty seat of a ring.
    fn seat_vnodes(&self, size: RingSize) -> Result<(), Failure> {
        self.open_seats(size)?;
        let mut places = Vec::new();
        for service in 0..self.services.len() {
            let partitions = size.partitions();
            places.extend(partitions.map(|partition| (service, partition)));
        }
        self.seat_at(size, places)
    }

    /// Puts a vnode into the empty seats of a ring that is not the cluster's, as far as there may be rows.
    fn seat_closed(&self, size: RingSize) -> Result<(), Failure> {
        self.open_seats(size)?;
        for number in size.partitions().flat_map(|one| self.seats_of(one)) {
            if let Some(mut seat) = self.seats.lock(number) {
                self.send_all(number, seat.close());
            }
        }
        let known = self.engine.partitions().into_iter();
        let places = known.filter_map(|(name, partition)| {
            let mut services = self.services.iter();
            let service = services.position(|service| service.name() == name)?;
            let partition = PartitionId::from_id(partition);
            size.contains(partition).then_some((service, partition))
        });
        self.seat_at(size, places.collect())
    }

    fn open_seats(&self, size: RingSize) -> Result<(), Failure> {
        match self.seats.open(size) {
            true => Ok(()),
            false => Err(Failure::Usage(
                "the ring was resized too often since this node started; start it again".into(),
            )),
        }
    }

    fn seat_at(
        &self,
        size: RingSize,
        mut places: Vec<(usize, PartitionId)>,
    ) -> Result<(), Failure> {
        places.retain(|(service, partition)| self.seats.is_vacant(self.seat(*service, *partition)));
        let named: Vec<(&str, u16)> = places
            .iter()
            .filter_map(|(service, partition)| {
                Some((self.services.get(*service)?.name(), partition.id()))
            })
            .collect();
        let failed = |error| Failure::of_store(&error, size.at(0));
        let stores = self.engine.open_all(&named).map_err(failed)?;
        for ((service, partition), store) in places.into_iter().zip(stores) {
            if let Some(of) = self.services.get(service) {
                let vnode = self.vnode(of, (size, partition), store).map_err(failed)?;
                self.seats.place(self.seat(service, partition), vnode);
            }
        }
        Ok(())
    }

    /// The ring has flipped: whoever has commands for the old partitions finds the seats of the new ones, where they wait.
    pub(super) fn flip(&self, old: RingSize, view: View) {
        let size = view.ring().size();
        if let Err(error) = self.open_seats(size) {
            tracing::error!(%error, "no commands are served");
        }
        for partition in size.partitions() {
            let owned = view.ring().is_owner(view.me(), partition);
            for mut seat in self.seats_of(partition).filter_map(|n| self.seats.lock(n)) {
                if owned {
                    seat.own();
                }
                seat.set_filling(true);
            }
        }
        let map = Arc::clone(view.map());
        self.views.send_replace(Arc::new(view));
        self.renew_front(&map);
        for number in old.partitions().flat_map(|one| self.seats_of(one)) {
            if let Some(mut seat) = self.seats.lock(number) {
                self.send_all(number, seat.close());
            }
            self.look(number);
        }
        self.transfers().forget_all_but(size);
        failpoint("resize-flipped");
    }
}
