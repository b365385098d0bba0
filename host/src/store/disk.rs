//! The `disk` backend: rows in a journal and in memory first, in sorted tables later.
//!
//! ```text
//! apply -> journal buffer -> segment file            (sync.rs: written and synced once for many commits)
//!       -> overlay, active rows -> frozen rows       (overlay.rs: read from memory until the flush after next)
//!                                     -> tables      (flush.rs, tables.rs: one sorted run for all partitions)
//! get   <- active <- frozen <- cache <- tables
//! ```
//!
//! A partition's overlay is locked by its store and, briefly, by the flush. The journal's lock is taken inside the overlay's,
//! never the other way round, so that a flush that has sealed a segment finds each of its commits in an overlay.

use super::cache::RowCache;
use super::catalog::{Catalog, Lease, Place};
use super::engine::DiskSettings;
use super::flush::{Flush, Slots};
use super::journal::Journal;
use super::overlay::Overlay;
use super::tables::{self, Tables};
use super::{Ahead, Batch, Commit, Dot, Page, RowKey, Scan, Stats, Store, StoreError, Visit};
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the stores, the sync thread and the flush thread of one engine share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) settings: DiskSettings,
    pub(super) journal: Journal,
    pub(super) tables: Tables,
    pub(super) catalog: Mutex<Catalog>,
    pub(super) slots: Mutex<Slots>,
    pub(super) flush: Flush,
    /// What the active rows of all partitions occupy.
    pub(super) dirty: AtomicU64,
    /// Stores that are open, which share the cache's budget.
    pub(super) open: AtomicUsize,
    pub(super) closing: AtomicBool,
    pub(super) flush_failed: AtomicBool,
}

impl Shared {
    pub(super) fn slots(&self) -> Vec<(Place, Arc<Slot>)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .map(|(place, slot)| (*place, Arc::clone(slot)))
            .collect()
    }

    pub(super) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writers wait when as much is unflushed again as a flush takes at once.
    pub(super) fn is_full(&self) -> bool {
        self.dirty.load(Ordering::Relaxed) > self.settings.write_buffer_bytes.saturating_mul(2)
    }

    pub(super) fn tables_path(&self) -> PathBuf {
        self.path.join("tables")
    }

    pub(super) fn set_flush_failed(&self, failed: bool) {
        self.flush_failed.store(failed, Ordering::Relaxed);
    }

    /// Fails when writes are refused, waits when they come too fast.
    fn admit(&self) -> Result<(), StoreError> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(StoreError::Closed);
        }
        if self.flush_failed.load(Ordering::Relaxed)
            && let Some(why) = self.flush.failure()
        {
            return Err(StoreError::Failed {
                path: self.tables_path(),
                why,
            });
        }
        if self.is_full() {
            self.flush.want();
            return self.flush.wait_for_room(self);
        }
        Ok(())
    }

    /// Asks for a flush when memory or journal hold enough.
    pub(super) fn consider_flush(&self) {
        if self.dirty.load(Ordering::Relaxed) > self.settings.write_buffer_bytes
            || self.journal.file_bytes.load(Ordering::Relaxed) > self.settings.journal_bytes
        {
            self.flush.want();
        }
    }

    fn cache_share(&self) -> u64 {
        let open = self.open.load(Ordering::Relaxed).max(1) as u64;
        self.settings.object_cache_bytes / open
    }
}

/// The place of a partition in the engine.
#[derive(Debug, Default)]
pub(super) struct Slot {
    overlay: Mutex<Overlay>,
    taken: AtomicBool,
}

impl Slot {
    pub(super) fn new(overlay: Overlay) -> Self {
        Self {
            overlay: Mutex::new(overlay),
            taken: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the slot for one store; false when another has it.
    pub(super) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

/// One partition on disk.
pub(super) struct DiskStore {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    place: Place,
    lease: Lease,
    cache: RowCache,
    /// The object that `get` lends out.
    object: Vec<u8>,
    scratch: Vec<u8>,
    /// How far `drop_rows` has come.
    dropped: Option<(u64, Vec<u8>)>,
}

impl DiskStore {
    /// A store on a slot that was taken for it.
    pub(super) fn new(shared: Arc<Shared>, slot: Arc<Slot>, place: Place, lease: Lease) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        let cache = RowCache::new(shared.cache_share());
        Self {
            shared,
            slot,
            place,
            lease,
            cache,
            object: Vec::new(),
            scratch: Vec::new(),
            dropped: None,
        }
    }

    /// Reads from cache or tables into `self.object`; whether there is such a row.
    fn read(&mut self, row: RowKey<'_>) -> Result<bool, StoreError> {
        self.object.clear();
        if let Some(object) = self.cache.get(row) {
            self.object.extend_from_slice(object);
            return Ok(true);
        }
        let Some(object) = self.shared.tables.get(self.place, row, &mut self.scratch)? else {
            return Ok(false);
        };
        self.object.extend_from_slice(&object);
        self.cache.set_budget(self.shared.cache_share());
        self.cache.insert(row, &object);
        Ok(true)
    }
}

impl Store for DiskStore {
    fn get(&mut self, row: RowKey<'_>) -> Result<Option<&[u8]>, StoreError> {
        let overlay = self.slot.lock();
        match overlay.get(row) {
            Some(None) => return Ok(None),
            Some(Some(object)) => {
                self.object.clear();
                self.object.extend_from_slice(object);
                drop(overlay);
                return Ok(Some(&self.object));
            }
            None if !overlay.in_tables => return Ok(None),
            None => drop(overlay),
        }
        Ok(self.read(row)?.then_some(&*self.object))
    }

    fn expect(&self, hash: u64, ahead: Ahead) {
        self.slot.lock().active.expect(hash, ahead);
    }

    fn apply(&mut self, batch: &Batch) -> Result<Commit, StoreError> {
        if batch.is_empty() {
            return Ok(Commit::NONE);
        }
        self.shared.admit()?;
        let mut overlay = self.slot.lock();
        let commit = self.shared.journal.append(self.place, batch)?;
        let before = overlay.active.footprint() as u64;
        for change in batch.changes() {
            let cached = self.cache.remove(change.row);
            overlay.apply(&change, || cached);
        }
        overlay.totals.commit = commit.0;
        let after = overlay.active.footprint() as u64;
        // Under the lock, so that a freeze takes off what was put on. Wraps around when the rows became fewer.
        self.shared
            .dirty
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        drop(overlay);
        self.shared.consider_flush();
        Ok(commit)
    }

    fn scan(&mut self, scan: &Scan<'_>, visit: &mut Visit<'_>) -> Result<Page, StoreError> {
        let overlay = self.slot.lock();
        let none = super::rows::Rows::default();
        let mut active = overlay.active.range(scan.from).peekable();
        let mut frozen = overlay
            .frozen()
            .unwrap_or(&none)
            .range(scan.from)
            .peekable();
        let mut cursor = overlay.in_tables.then(|| {
            self.shared
                .tables
                .range(self.place, scan.from, scan.to_hash)
        });
        let mut limits = scan.limits();
        let mut table = next_row(&mut cursor)?;
        loop {
            let stored = table
                .as_ref()
                .and_then(|(key, object)| Some((tables::decode_key(key)?, Some(&**object))));
            let heads = [active.peek().copied(), frozen.peek().copied(), stored];
            // The first of equal rows is the newest: `min_by` keeps it.
            let newest = heads
                .into_iter()
                .flatten()
                .min_by(|(a, _), (b, _)| a.cmp(b));
            let Some((row, object)) = newest else {
                return Ok(Page::Last);
            };
            if row.hash > scan.to_hash {
                return Ok(Page::Last);
            }
            if let Some(object) = object
                && (!limits.take(row, object) || visit(row, object) == ControlFlow::Break(()))
            {
                return Ok(Page::More);
            }
            active.next_if(|(other, _)| *other == row);
            frozen.next_if(|(other, _)| *other == row);
            if stored.is_some_and(|(other, _)| other == row) {
                table = next_row(&mut cursor)?;
            }
        }
    }

    fn next_dot(&mut self) -> Result<Dot, StoreError> {
        if let Some(dot) = self.lease.take() {
            return Ok(dot);
        }
        self.lease = self.shared.catalog().renew(self.place)?;
        self.lease.take().ok_or(StoreError::Closed)
    }

    fn change_actor(&mut self) -> Result<u64, StoreError> {
        self.lease = self.shared.catalog().change_actor(self.place)?;
        Ok(self.lease.actor)
    }

    fn stats(&self) -> Stats {
        let totals = self.slot.lock().totals;
        Stats {
            live: totals.live,
            bytes: totals.bytes,
        }
    }

    fn drop_rows(&mut self, max_rows: usize) -> Result<Page, StoreError> {
        let from = self.dropped.take();
        let from = match &from {
            None => Bound::Unbounded,
            Some((hash, key)) => Bound::Excluded(RowKey { hash: *hash, key }),
        };
        let scan = Scan {
            from,
            to_hash: u64::MAX,
            max_rows,
            max_bytes: usize::MAX,
        };
        let mut batch = Batch::new();
        let mut last = None;
        let mut refused = Ok(());
        let page = self.scan(&scan, &mut |row, _| {
            refused = batch.remove(row, false);
            last = Some((row.hash, row.key.to_vec()));
            if refused.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        refused?;
        self.apply(&batch)?;
        self.dropped = last;
        if page == Page::Last {
            let mut overlay = self.slot.lock();
            overlay.totals.live = 0;
            overlay.totals.bytes = 0;
            self.dropped = None;
        }
        Ok(page)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        self.slot.taken.store(false, Ordering::Release);
    }
}

type TableRow = (fjall::Slice, fjall::Slice);

fn next_row(cursor: &mut Option<tables::Cursor<'_>>) -> Result<Option<TableRow>, StoreError> {
    match cursor {
        Some(cursor) => cursor.next(),
        None => Ok(None),
    }
}
