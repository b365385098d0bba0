//! The disk of a simulated node: rows that outlive a crash, as far as they were synced.
//!
//! It keeps what the `disk` backend promises under `sync always`. A commit is in memory at once and on disk with the next sync, whose
//! end is what acknowledgements wait for. A crash takes away what was not synced, but for some of the oldest of it: a journal is
//! written in order. After a crash every partition writes under another name.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use vnode_host::store::{
    Ahead, Batch, Commit, Dot, Durable, Page, RowKey, Scan, Stats, Store, StoreError, Visit,
};

use crate::book;

type Key = (u64, Vec<u8>);
/// A service's name and a partition.
type Place = (String, u16);

/// The rows of one partition, by hash and key.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) rows: BTreeMap<Key, Vec<u8>>,
    live: u64,
    bytes: u64,
}

/// What takes one change back.
struct Undo {
    commit: u64,
    place: Place,
    key: Key,
    old: Option<Vec<u8>>,
    live: i64,
}

/// What a node has on its disk, and what it believes to have there.
pub(crate) struct Disk {
    pub(crate) places: BTreeMap<Place, Rows>,
    commit: u64,
    /// What is not on disk, oldest first.
    unsynced: Vec<Undo>,
    rng: SmallRng,
    progress: watch::Sender<Durable>,
    book: book::Shared,
    /// Its node is dead from this commit on: what it does until it is crashed never happened.
    halted: Option<u64>,
    /// Rows that crashes took away.
    pub(crate) lost: usize,
}

pub(crate) type Shared = Arc<Mutex<Disk>>;

fn durable(commit: u64) -> Durable {
    Durable {
        commit: Commit(commit),
        healthy: true,
    }
}

impl Disk {
    pub(crate) fn new(seed: u64, book: book::Shared) -> Shared {
        Arc::new(Mutex::new(Disk {
            places: BTreeMap::new(),
            commit: 0,
            unsynced: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
            progress: watch::Sender::new(durable(0)),
            book,
            halted: None,
            lost: 0,
        }))
    }

    /// Follows what is on disk.
    pub(crate) fn progress(&self) -> watch::Receiver<Durable> {
        self.progress.subscribe()
    }

    /// Brings everything to disk.
    pub(crate) fn sync(&mut self) {
        if !self.unsynced.is_empty() && self.halted.is_none() {
            self.unsynced.clear();
            self.progress.send_replace(durable(self.commit));
        }
    }

    /// Nothing that comes from now on is there after the crash, which follows at once.
    pub(crate) fn halt(&mut self) {
        self.halted = Some(self.commit);
    }

    /// Forgets an empty place, at once and for good.
    pub(crate) fn forget(&mut self, service: &str, partition: u16) {
        if self.halted.is_none() {
            self.sync();
            self.places.remove(&(service.to_owned(), partition));
        }
    }

    /// Takes away what was not synced, but for some of the oldest.
    pub(crate) fn crash(&mut self) {
        let last = self.halted.take().unwrap_or(self.commit);
        let synced = self.unsynced.first().map_or(last, |undo| undo.commit - 1);
        let kept = self.rng.random_range(synced.min(last)..=last);
        while let Some(undo) = self.unsynced.pop_if(|undo| undo.commit > kept) {
            let rows = self.places.get_mut(&undo.place).unwrap();
            rows.set(undo.key, undo.old);
            rows.live = rows.live.saturating_add_signed(-undo.live);
            self.lost += 1;
        }
        self.unsynced.clear();
        self.commit = kept;
        self.progress = watch::Sender::new(durable(kept));
    }
}

impl Rows {
    fn set(&mut self, key: Key, object: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let size = |key: &Key, object: &Vec<u8>| (key.1.len() + object.len()) as u64;
        if let Some(object) = &object {
            self.bytes += size(&key, object);
        }
        let old = match object {
            Some(object) => self.rows.insert(key.clone(), object),
            None => self.rows.remove(&key),
        };
        if let Some(old) = &old {
            self.bytes -= size(&key, old);
        }
        old
    }
}

/// The store of one partition.
pub(crate) struct DiskStore {
    disk: Shared,
    place: Place,
    dot: Dot,
    /// What was read last.
    found: Vec<u8>,
}

impl DiskStore {
    pub(crate) fn open(disk: &Shared, service: &str, partition: u16) -> DiskStore {
        let place = (service.to_owned(), partition);
        let mut open = disk.lock().unwrap();
        open.places.entry(place.clone()).or_default();
        let actor = open.rng.random_range(1..u64::MAX / 2);
        drop(open);
        DiskStore {
            disk: Arc::clone(disk),
            place,
            dot: Dot { actor, seq: 0 },
            found: Vec::new(),
        }
    }
}

impl Store for DiskStore {
    fn get(&mut self, row: RowKey<'_>) -> Result<Option<&[u8]>, StoreError> {
        let disk = self.disk.lock().unwrap();
        match disk.places[&self.place]
            .rows
            .get(&(row.hash, row.key.to_vec()))
        {
            None => Ok(None),
            Some(object) => {
                self.found.clone_from(object);
                Ok(Some(&self.found))
            }
        }
    }

    fn expect(&self, _hash: u64, _ahead: Ahead) {}

    fn apply(&mut self, batch: &Batch) -> Result<Commit, StoreError> {
        let mut disk = self.disk.lock().unwrap();
        let disk = &mut *disk;
        if disk.halted.is_none() {
            disk.book.lock().unwrap().look(batch);
        }
        disk.commit += 1;
        let rows = disk.places.get_mut(&self.place).unwrap();
        for change in batch.changes() {
            let key = (change.row.hash, change.row.key.to_vec());
            let old = rows.set(key.clone(), change.object.map(<[u8]>::to_vec));
            let live = change.live.delta();
            rows.live = rows.live.saturating_add_signed(live);
            disk.unsynced.push(Undo {
                commit: disk.commit,
                place: self.place.clone(),
                key,
                old,
                live,
            });
        }
        Ok(Commit(disk.commit))
    }

    fn scan(&mut self, scan: &Scan<'_>, visit: &mut Visit<'_>) -> Result<Page, StoreError> {
        let disk = self.disk.lock().unwrap();
        let owned = |row: RowKey<'_>| (row.hash, row.key.to_vec());
        let range = (scan.from.map(owned), Bound::Unbounded);
        let (mut rows, mut bytes) = (0, 0);
        for ((hash, key), object) in disk.places[&self.place].rows.range(range) {
            if *hash > scan.to_hash {
                break;
            }
            bytes += key.len() + object.len();
            let row = RowKey { hash: *hash, key };
            let full = rows == scan.max_rows || (bytes > scan.max_bytes && rows > 0);
            if full || visit(row, object) == ControlFlow::Break(()) {
                return Ok(Page::More);
            }
            rows += 1;
        }
        Ok(Page::Last)
    }

    fn next_dot(&mut self) -> Result<Dot, StoreError> {
        self.dot.seq += 1;
        Ok(self.dot)
    }

    fn change_actor(&mut self) -> Result<u64, StoreError> {
        let actor = self.disk.lock().unwrap().rng.random_range(1..u64::MAX / 2);
        self.dot = Dot { actor, seq: 0 };
        Ok(actor)
    }

    fn stats(&self) -> Stats {
        let disk = self.disk.lock().unwrap();
        let rows = &disk.places[&self.place];
        Stats {
            live: rows.live,
            bytes: rows.bytes,
        }
    }

    fn drop_rows(&mut self, _max_rows: usize) -> Result<Page, StoreError> {
        let mut disk = self.disk.lock().unwrap();
        let disk = &mut *disk;
        disk.commit += 1;
        let dropped = disk.places.insert(self.place.clone(), Rows::default());
        let dropped = dropped.unwrap_or_default();
        let mut live = i64::try_from(dropped.live).unwrap_or(i64::MAX);
        for (key, old) in dropped.rows {
            disk.unsynced.push(Undo {
                commit: disk.commit,
                place: self.place.clone(),
                key,
                old: Some(old),
                live: -std::mem::take(&mut live),
            });
        }
        Ok(Page::Last)
    }
}
