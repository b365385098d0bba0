//! Resizing the ring: this node divides its own rows, or joins them, and no other node has a part in it.
//!
//! While the resize is *filling*, each vnode of a partition copies its rows to its heirs (`vnode_ring::Split`), which sit in seats of
//! the next ring and serve nobody; what changes after it was copied is taken down and copied again and again. When the ring *flips*,
//! the old seats close and what waits there is sent by the new numbers; the heirs hold their commands until the last changes are
//! copied, too. Then, *cleaning*, each row is merged once more, which finds it there, before the old ones are removed. A node that
//! was away, or starts again, does the same with more to copy. Rows of partitions that other nodes own go the same way, and from
//! there home like all hints.
//!
//! Copying is merging, so nothing is lost or counted twice however often it is done. [`copying`] does that, [`seating`] has the seats of
//! both rings, and this file is the course of it all.

mod copying;
mod seating;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use vnode_cluster::failpoint;
use vnode_ring::{MapEvent, PartitionId, Resize, ResizeEvent, ResizeStage, RingSize, Split, View};

use super::Coordinator;
use super::transfers::Amount;
use crate::data_dir::DataDirError;
use crate::vnode::failure::Failure;

/// How often it is looked for what is to be done.
const LOOK_EVERY: Duration = Duration::from_millis(100);
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
                // Everybody has filled once: what has changed since is not waited for, it follows behind the flip.
                if view.claimant() == Some(view.me()) && view.map().flips().is_some() {
                    failpoint("resize-flips");
                    self.say(ResizeEvent::Flipped { id }).await;
                    return Ok(());
                }
                if view.map().transfers().is_empty() && self.fits(resize) {
                    let filled = self.fill(resize, &split).await;
                    if !resize.has_filled(&me) && self.is_filled(resize) {
                        failpoint("resize-filled");
                        self.say(ResizeEvent::Filled { id, node: me }).await;
                    }
                    filled?;
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
}
