//! The node's storage: opens stores, tells what is durable, and shuts down in order.
//!
//! One engine of either kind per node. It is shared by reference; stores keep what they need of it alive.

use super::catalog::{Catalog, Place};
use super::disk::{DiskStore, Shared, Slot};
use super::error::io_error;
use super::flush::{self, Flush, Slots};
use super::journal::Journal;
use super::memory::MemoryStore;
use super::overlay::Overlay;
use super::sync::Writer;
use super::tables::Tables;
use super::{Acknowledge, Commit, Store, StoreError, recovery, sealed};
use crate::vital::Vital;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// When commits are brought to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// At once, many commits in one sync; acknowledgements wait for it.
    Always,
    /// Within this time. A crash of the process or the machine loses at most what was acknowledged in the last interval.
    Interval(Duration),
    /// When the operating system likes. A crash of the process loses at most 100 ms, one of the machine more.
    Never,
}

/// Settings of the `disk` backend.
#[derive(Clone, Copy, Debug)]
pub struct DiskSettings {
    /// When commits are brought to disk; every 100 ms by default.
    pub durability: Durability,
    /// Bytes of rows from tables that are kept for reading again, over all stores; 256 MiB by default.
    pub object_cache_bytes: u64,
    /// Bytes of table blocks that are kept, which scans and first reads use; 32 MiB by default.
    pub block_cache_bytes: u64,
    /// Memory for rows that are not in tables yet before they are flushed; 64 MiB by default. While a flush runs, twice as
    /// much again may be in use; past that writers wait, and after ten seconds are refused with [`StoreError::Busy`].
    pub write_buffer_bytes: u64,
    /// Size of the journal that starts a flush, and so about the most that a start after a crash reads; 256 MiB by default.
    pub journal_bytes: u64,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Interval(Duration::from_millis(100)),
            object_cache_bytes: 256 * 1024 * 1024,
            block_cache_bytes: 32 * 1024 * 1024,
            write_buffer_bytes: 64 * 1024 * 1024,
            journal_bytes: 256 * 1024 * 1024,
        }
    }
}

/// How far the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// This commit and all before it are on disk.
    pub commit: Commit,
    /// Later ones can be expected to follow. When not, whoever waits should look at the commit once more and then give up.
    pub healthy: bool,
}

/// Whether the engine takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Good,
    /// It does not; reads go on.
    ReadOnly {
        /// What failed.
        path: PathBuf,
        /// Why, and what would help.
        why: String,
    },
}

/// The node's storage.
#[derive(Debug)]
pub struct Engine {
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Memory(watch::Sender<Durable>),
    Disk(Disk),
    #[cfg(feature = "sim")]
    Simulated(super::Simulated),
}

struct Disk {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    sync: JoinHandle<()>,
    flush: JoinHandle<()>,
}

impl Engine {
    /// Rows in memory only.
    pub fn memory() -> Self {
        let (progress, _) = watch::channel(Durable {
            commit: Commit::NONE,
            healthy: true,
        });
        Self {
            backend: Backend::Memory(progress),
        }
    }

    /// Rows on disk in directory `path`, which is made when it is missing. Reads the journal back.
    ///
    /// Fails with [`StoreError::Corrupt`] when anything there is not as it was written; nothing is changed then.
    pub fn disk(path: &Path, settings: DiskSettings) -> Result<Self, StoreError> {
        Ok(Self {
            backend: Backend::Disk(Disk::open(path, settings)?),
        })
    }

    /// Rows where a simulator has them.
    #[cfg(feature = "sim")]
    pub fn simulated(simulated: super::Simulated) -> Self {
        Self {
            backend: Backend::Simulated(simulated),
        }
    }

    /// The store of one partition of a service.
    pub fn open(&self, service: &str, partition: u16) -> Result<Box<dyn Store>, StoreError> {
        let mut stores = self.open_all(&[(service, partition)])?;
        stores.pop().ok_or(StoreError::Closed)
    }

    /// Stores of several partitions, in that order, at the price of one sync. None is open when this fails.
    pub fn open_all(&self, wanted: &[(&str, u16)]) -> Result<Vec<Box<dyn Store>>, StoreError> {
        match &self.backend {
            Backend::Memory(_) => wanted
                .iter()
                .map(|_| Ok(Box::new(MemoryStore::new()?) as Box<dyn Store>))
                .collect(),
            Backend::Disk(disk) => disk.open_all(wanted),
            #[cfg(feature = "sim")]
            Backend::Simulated(disk) => {
                let open = |(service, partition): &(&str, u16)| (disk.open)(service, *partition);
                Ok(wanted.iter().map(open).collect())
            }
        }
    }

    /// Partitions that were opened here at any time and not forgotten. Memory remembers none.
    pub fn partitions(&self) -> Vec<(String, u16)> {
        match &self.backend {
            Backend::Memory(_) => Vec::new(),
            Backend::Disk(disk) => disk
                .shared
                .catalog()
                .partitions()
                .map(|(service, partition)| (service.to_owned(), partition))
                .collect(),
            #[cfg(feature = "sim")]
            Backend::Simulated(disk) => (disk.partitions)(),
        }
    }

    /// Ends the incarnation of a partition whose rows were dropped and whose store is closed: should it ever come back, its
    /// writes have another actor.
    pub fn forget(&self, service: &str, partition: u16) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::Disk(disk) => disk.forget(service, partition),
            #[cfg(feature = "sim")]
            Backend::Simulated(disk) => {
                (disk.forget)(service, partition);
                Ok(())
            }
        }
    }

    /// Follows what is on disk. Memory stays at [`Commit::NONE`].
    pub fn durable(&self) -> watch::Receiver<Durable> {
        match &self.backend {
            Backend::Memory(progress) => progress.subscribe(),
            Backend::Disk(disk) => disk.shared.journal.progress(),
            #[cfg(feature = "sim")]
            Backend::Simulated(disk) => disk.durable.clone(),
        }
    }

    /// When writes may be acknowledged. Memory, and a disk that is never synced on purpose, have nothing to wait for.
    pub fn acknowledge(&self) -> Acknowledge {
        let durability = match &self.backend {
            Backend::Memory(_) => Durability::Never,
            Backend::Disk(disk) => disk.shared.journal.durability,
            #[cfg(feature = "sim")]
            Backend::Simulated(_) => Durability::Always,
        };
        Acknowledge::new(
            (durability == Durability::Always).then(|| self.durable()),
            (durability != Durability::Never).then(|| self.durable()),
        )
    }

    /// Whether an acknowledgement of this commit has to wait until [`Engine::durable`] has reached it.
    pub fn must_wait(&self, commit: Commit) -> bool {
        match &self.backend {
            Backend::Memory(_) => false,
            Backend::Disk(disk) => {
                let journal = &disk.shared.journal;
                journal.durability == Durability::Always
                    && commit > journal.progress().borrow().commit
            }
            #[cfg(feature = "sim")]
            Backend::Simulated(disk) => commit > disk.durable.borrow().commit,
        }
    }

    /// Whether writes are taken, and if not, why.
    pub fn health(&self) -> Health {
        let Backend::Disk(disk) = &self.backend else {
            return Health::Good;
        };
        match disk.shared.flush.failure() {
            Some(why) => Health::ReadOnly {
                path: disk.shared.tables_path(),
                why,
            },
            None => disk.shared.journal.health(),
        }
    }

    /// Bytes on disk, journal and tables.
    pub fn disk_bytes(&self) -> u64 {
        match &self.backend {
            Backend::Memory(_) => 0,
            #[cfg(feature = "sim")]
            Backend::Simulated(_) => 0,
            Backend::Disk(disk) => {
                disk.shared.tables.disk_bytes()
                    + disk.shared.journal.file_bytes.load(Ordering::Relaxed)
            }
        }
    }

    /// Refuses writes from now on, and brings everything to disk. The directory can be opened again when the stores
    /// are dropped as well.
    pub fn close(&self) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::Disk(disk) => disk.close(),
            #[cfg(feature = "sim")]
            Backend::Simulated(_) => Ok(()),
        }
    }
}

impl Disk {
    fn open(path: &Path, settings: DiskSettings) -> Result<Self, StoreError> {
        let tables_path = path.join("tables");
        let journal_path = path.join("journal");
        let catalog_path = path.join("catalog.toml");
        let parts = Parts {
            catalog: catalog_path.exists(),
            tables: Tables::exist(&tables_path),
            first_segment: recovery::first_segment(&journal_path)?,
        };
        let catalog = Catalog::open(catalog_path)?;
        parts.check(path, catalog.partitions().next().is_some())?;
        fs::create_dir_all(&journal_path).map_err(io_error("create", &journal_path))?;
        if !parts.catalog {
            catalog.create()?;
        }
        let tables = Tables::open(&tables_path, settings.block_cache_bytes)?;
        let mut slots = Slots::new();
        let recovered = recovery::recover(&journal_path, &mut |place, commit, changes| {
            replay(&tables, &mut slots, &journal_path, place, commit, changes)
        })?;
        let dirty = slots
            .values()
            .map(|slot| slot.lock().active.footprint() as u64)
            .sum();
        let journal = Journal::new(
            journal_path,
            settings.durability,
            super::random()?,
            recovered.commit,
            recovered.last_segment,
            recovered.bytes,
        );
        let writer = Writer::start(&journal, recovered.last_segment + 1, recovered.commit)?;
        sealed::sync_directory(path)?;
        Self::start(
            Shared {
                path: path.to_path_buf(),
                settings,
                journal,
                tables,
                catalog: Mutex::new(catalog),
                slots: Mutex::new(slots),
                flush: Flush::default(),
                dirty: AtomicU64::new(dirty),
                open: AtomicUsize::new(0),
                closing: AtomicBool::new(false),
                flush_failed: AtomicBool::new(false),
            },
            writer,
        )
    }

    fn start(shared: Shared, writer: Writer) -> Result<Self, StoreError> {
        let shared = Arc::new(shared);
        let for_sync = Arc::clone(&shared);
        let sync = std::thread::Builder::new()
            .name("store-sync".into())
            .spawn(move || {
                let _vital = Vital("store-sync");
                writer.run(&for_sync.journal);
            })
            .map_err(io_error("start a thread for", &shared.path))?;
        let for_flush = Arc::clone(&shared);
        let flush = std::thread::Builder::new()
            .name("store-flush".into())
            .spawn(move || {
                let _vital = Vital("store-flush");
                flush::run(&for_flush);
            })
            .map_err(io_error("start a thread for", &shared.path))?;
        // The journal may hold more than a flush takes at once.
        shared.consider_flush();
        Ok(Self {
            shared,
            threads: Mutex::new(Some(Threads { sync, flush })),
        })
    }

    fn open_all(&self, wanted: &[(&str, u16)]) -> Result<Vec<Box<dyn Store>>, StoreError> {
        let leases = self.shared.catalog().lease(wanted)?;
        let mut stores: Vec<Box<dyn Store>> = Vec::with_capacity(wanted.len());
        for ((place, lease), (service, partition)) in leases.into_iter().zip(wanted) {
            let slot = self.slot(place)?;
            if !slot.take() {
                return Err(StoreError::AlreadyOpen {
                    service: (*service).to_owned(),
                    partition: *partition,
                });
            }
            stores.push(Box::new(DiskStore::new(
                Arc::clone(&self.shared),
                slot,
                place,
                lease,
            )));
        }
        Ok(stores)
    }

    fn slot(&self, place: Place) -> Result<Arc<Slot>, StoreError> {
        let mut slots = self
            .shared
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&place) {
            return Ok(Arc::clone(slot));
        }
        let totals = self.shared.tables.totals(place)?;
        let slot = Arc::new(Slot::new(Overlay::new(totals)));
        slots.insert(place, Arc::clone(&slot));
        Ok(slot)
    }

    fn forget(&self, service: &str, partition: u16) -> Result<(), StoreError> {
        let mut catalog = self.shared.catalog();
        let Some(place) = catalog.find(service, partition) else {
            return Ok(());
        };
        let slots = self
            .shared
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if slots.get(&place).is_some_and(|slot| slot.is_taken()) {
            return Err(StoreError::AlreadyOpen {
                service: service.to_owned(),
                partition,
            });
        }
        drop(slots);
        catalog.forget(place)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.shared.closing.store(true, Ordering::Relaxed);
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(threads) = threads else {
            return Ok(());
        };
        self.shared.flush.stop();
        let flushed = threads.flush.join();
        self.shared.journal.close();
        let synced = threads.sync.join();
        let (path, why) = if let Health::ReadOnly { path, why } = self.shared.journal.health() {
            (path, why)
        } else if let Some(why) = self.shared.flush.failure() {
            (self.shared.tables_path(), why)
        } else if flushed.is_err() || synced.is_err() {
            (
                self.shared.path.clone(),
                "a thread of the store failed, see the log".into(),
            )
        } else {
            return self.shared.catalog().close();
        };
        Err(StoreError::Failed { path, why })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was not closed cleanly");
        }
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.shared.path)
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

/// What is there when an engine starts.
struct Parts {
    catalog: bool,
    tables: bool,
    first_segment: Option<u64>,
}

impl Parts {
    /// Fails when a part is missing that the others say was there.
    fn check(&self, path: &Path, has_partitions: bool) -> Result<(), StoreError> {
        let (part, what) = match self.first_segment {
            _ if !self.catalog && (self.tables || self.first_segment.is_some()) => (
                "catalog.toml",
                "it is missing, though there are rows beside it",
            ),
            None if has_partitions => ("journal", "its segments are missing"),
            Some(2..) if !self.tables => (
                "tables",
                "they are missing, though the journal goes on after them",
            ),
            _ => return Ok(()),
        };
        Err(StoreError::Corrupt {
            path: path.join(part),
            what: what.into(),
        })
    }
}

/// Puts one commit of the journal back into memory, unless the tables have it.
fn replay(
    tables: &Tables,
    slots: &mut Slots,
    journal: &Path,
    place: Place,
    commit: u64,
    mut changes: super::Changes<'_>,
) -> Result<(), StoreError> {
    let slot = match slots.get(&place) {
        Some(slot) => slot,
        None => {
            let slot = Arc::new(Slot::new(Overlay::new(tables.totals(place)?)));
            slots.entry(place).or_insert(slot)
        }
    };
    let mut overlay = slot.lock();
    if commit <= overlay.totals.commit {
        return Ok(());
    }
    for change in &mut changes {
        overlay.apply(&change, || None);
    }
    overlay.totals.commit = commit;
    if changes.is_whole() {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        path: journal.to_path_buf(),
        what: format!("commit {commit} does not hold rows"),
    })
}
