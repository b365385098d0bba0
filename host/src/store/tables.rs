//! Sorted tables on disk, the lowest layer of the `disk` backend. The only file that knows fjall.
//!
//! fjall is used for what it does well: sorted runs with checksummed blocks, Bloom filters and compaction. Its journal and
//! its memtables stay empty: rows come in as whole sorted runs, which are durable when [`Tables::ingest`] returns.
//! A row's key is service u16, partition u16, hash u64 (all big-endian), key; the first four bytes alone are the partition's
//! own row with its [`Totals`].

use super::RowKey;
use super::StoreError;
use super::catalog::Place;
use super::manifest;
use super::rows::Rows;
use fjall::config::PartitioningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

const PREFIX: usize = 12;
/// Tables that wait to be merged; past it flushing waits for the merging.
const RUNS_MAX: usize = 16;
/// What a disk has to take before tables that failed on it are opened again.
const PROBE_BYTES: usize = 1024 * 1024;

/// What a partition's tables amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Live rows.
    pub(super) live: u64,
    /// Bytes of keys and objects.
    pub(super) bytes: u64,
    /// Last commit of the journal that they contain.
    pub(super) commit: u64,
}

/// The tables of a node.
pub(super) struct Tables {
    path: PathBuf,
    block_cache_bytes: u64,
    /// Nothing only while they are mended.
    open: RwLock<Option<Open>>,
}

struct Open {
    database: Database,
    rows: Keyspace,
}

impl Open {
    fn new(path: &Path, block_cache_bytes: u64) -> Result<Self, StoreError> {
        manifest::check(path)?;
        contain("open", path, || {
            let database = Database::builder(path)
                .cache_size(block_cache_bytes)
                .manual_journal_persist(true)
                // One thread merges; flushing has its own, and cores are for commands.
                .worker_threads(1)
                .open()?;
            // Indexes and filters in parts: what is not in the cache is then read for one place, and not for a whole table.
            let rows = database.keyspace("rows", || {
                KeyspaceCreateOptions::default()
                    .manual_journal_persist(true)
                    .index_block_partitioning_policy(PartitioningPolicy::all(true))
                    .filter_block_partitioning_policy(PartitioningPolicy::all(true))
            })?;
            Ok(Self { database, rows })
        })
    }
}

impl Tables {
    /// Opens or creates the tables in `path`.
    pub(super) fn open(path: &Path, block_cache_bytes: u64) -> Result<Self, StoreError> {
        let open = Open::new(path, block_cache_bytes)?;
        Ok(Self {
            path: path.to_path_buf(),
            block_cache_bytes,
            open: RwLock::new(Some(open)),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls fjall.
    fn call<T>(
        &self,
        action: &'static str,
        call: impl FnOnce(&Open) -> fjall::Result<T>,
    ) -> Result<T, StoreError> {
        match &*self.read() {
            Some(open) => contain(action, &self.path, || call(open)),
            None => Err(self.not_open()),
        }
    }

    fn not_open(&self) -> StoreError {
        StoreError::Failed {
            path: self.path.clone(),
            why: "they could not be opened again after merging had failed; see the log and mend the disk".into(),
        }
    }

    /// Whether there are tables in `path`.
    pub(super) fn exist(path: &Path) -> bool {
        path.join("version").exists()
    }

    /// The object of a row. `scratch` is for putting the key together.
    pub(super) fn get(
        &self,
        place: Place,
        row: RowKey<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<fjall::Slice>, StoreError> {
        encode_key(place, row, scratch);
        self.call("read a row from", |open| open.rows.get(&*scratch))
    }

    /// What was known of a partition when it was last flushed.
    pub(super) fn totals(&self, place: Place) -> Result<Totals, StoreError> {
        let key = prefix(place);
        let Some(bytes) = self.call("read a partition from", |open| open.rows.get(key))? else {
            return Ok(Totals::default());
        };
        decode_totals(&bytes).ok_or_else(|| StoreError::Corrupt {
            path: self.path.clone(),
            what: format!(
                "the totals of partition {} have {} bytes",
                place.partition,
                bytes.len()
            ),
        })
    }

    /// The rows of a partition from `from` to the end of `to_hash`, in order.
    pub(super) fn range(&self, place: Place, from: Bound<RowKey<'_>>, to_hash: u64) -> Cursor<'_> {
        let key = |row| {
            let mut key = Vec::new();
            encode_key(place, row, &mut key);
            key
        };
        let from = match from {
            Bound::Included(row) => Bound::Included(key(row)),
            Bound::Excluded(row) => Bound::Excluded(key(row)),
            Bound::Unbounded => Bound::Included(key(RowKey { hash: 0, key: &[] })),
        };
        let to = match to_hash.checked_add(1) {
            Some(hash) => key(RowKey { hash, key: &[] }),
            None => after(place).to_vec(),
        };
        let empty = matches!(&from, Bound::Included(key) | Bound::Excluded(key) if *key >= to);
        let open = self.read();
        let iter = match &*open {
            Some(open) if !empty => Some(open.rows.range((from, Bound::Excluded(to)))),
            _ => None,
        };
        Cursor {
            tables: self,
            iter,
            done: empty,
            _open: open,
        }
    }

    /// Adds one sorted run with the rows of several partitions, which are in ascending order. All of it is durable and
    /// visible when this returns, none of it when it fails.
    pub(super) fn ingest<'a>(
        &self,
        runs: impl Iterator<Item = (Place, Totals, &'a Rows)>,
    ) -> Result<(), StoreError> {
        self.call("write rows to", |open| {
            let mut ingestion = open.rows.start_ingestion()?;
            let mut key = Vec::new();
            for (place, totals, rows) in runs {
                ingestion.write(prefix(place), encode_totals(totals))?;
                for (row, object) in rows.range(Bound::Unbounded) {
                    encode_key(place, row, &mut key);
                    match object {
                        Some(object) => ingestion.write(key.as_slice(), object)?,
                        None => ingestion.write_tombstone(key.as_slice())?,
                    }
                }
            }
            ingestion.finish()
        })
    }

    /// Whether merging is so far behind that another run would slow reads down.
    pub(super) fn is_behind(&self) -> bool {
        self.read()
            .as_ref()
            .is_some_and(|open| open.rows.l0_table_count() >= RUNS_MAX)
    }

    /// Fails when merging has failed, which a full disk is enough for, and fjall takes nothing any more.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.call("merge", |open| open.database.persist(PersistMode::Buffer))
    }

    /// Opens the tables again if merging has failed and the disk takes writes again. Reads wait meanwhile.
    pub(super) fn mend(&self) -> Result<(), StoreError> {
        let Err(failure) = self.check() else {
            return Ok(());
        };
        let probe = self.path.join("probe");
        let writable =
            fs::write(&probe, vec![0; PROBE_BYTES]).and_then(|()| File::open(&probe)?.sync_all());
        let removed = fs::remove_file(&probe);
        if writable.is_err() || removed.is_err() {
            return Err(failure);
        }
        tracing::info!(path = %self.path.display(), "opening the tables again");
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // fjall holds a lock on the directory, so the old ones have to go first.
        *open = None;
        *open = Some(Open::new(&self.path, self.block_cache_bytes)?);
        Ok(())
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.read()
            .as_ref()
            .map_or(0, |open| open.rows.disk_space())
    }
}

/// Rows of one partition in the tables.
pub(super) struct Cursor<'t> {
    tables: &'t Tables,
    iter: Option<fjall::Iter>,
    /// The range is empty whatever there is.
    done: bool,
    /// Keeps the tables open while they are read.
    _open: RwLockReadGuard<'t, Option<Open>>,
}

impl Cursor<'_> {
    /// The next row, key with its prefix and object.
    pub(super) fn next(&mut self) -> Result<Option<(fjall::Slice, fjall::Slice)>, StoreError> {
        match &mut self.iter {
            Some(iter) => contain("read rows from", &self.tables.path, || {
                iter.next().map(fjall::Guard::into_inner).transpose()
            }),
            None if self.done => Ok(None),
            None => Err(self.tables.not_open()),
        }
    }
}

/// The row of a key in the tables; `None` when it is none.
pub(super) fn decode_key(key: &[u8]) -> Option<RowKey<'_>> {
    let (prefix, key) = key.split_first_chunk::<PREFIX>()?;
    let (_, hash) = prefix.split_first_chunk::<4>()?;
    let (hash, _) = hash.split_first_chunk()?;
    Some(RowKey {
        hash: u64::from_be_bytes(*hash),
        key,
    })
}

fn encode_key(place: Place, row: RowKey<'_>, into: &mut Vec<u8>) {
    into.clear();
    into.reserve(PREFIX + row.key.len());
    into.extend_from_slice(&prefix(place));
    into.extend_from_slice(&row.hash.to_be_bytes());
    into.extend_from_slice(row.key);
}

fn prefix(place: Place) -> [u8; 4] {
    (u32::from(place.service) << 16 | u32::from(place.partition)).to_be_bytes()
}

/// The prefix after a partition. No service has the last number, so there is one.
fn after(place: Place) -> [u8; 4] {
    (u32::from(place.service) << 16 | u32::from(place.partition))
        .saturating_add(1)
        .to_be_bytes()
}

fn encode_totals(totals: Totals) -> Vec<u8> {
    [totals.live, totals.bytes, totals.commit]
        .into_iter()
        .flat_map(u64::to_be_bytes)
        .collect()
}

fn decode_totals(bytes: &[u8]) -> Option<Totals> {
    let (live, rest) = bytes.split_first_chunk()?;
    let (total, rest) = rest.split_first_chunk()?;
    let (commit, rest) = rest.split_first_chunk()?;
    rest.is_empty().then(|| Totals {
        live: u64::from_be_bytes(*live),
        bytes: u64::from_be_bytes(*total),
        commit: u64::from_be_bytes(*commit),
    })
}

/// Runs a call of fjall. Its parsers check most of what they read, but some damage ends in a failed assertion there,
/// which must not end this process.
fn contain<T>(
    action: &'static str,
    path: &Path,
    call: impl FnOnce() -> fjall::Result<T>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| explain(action, path, error)),
        Err(_) => Err(StoreError::Corrupt {
            path: path.to_path_buf(),
            what: format!("cannot {action} it (an assertion failed, see the log)"),
        }),
    }
}

/// Sorts what fjall reports into damage and everything else.
fn explain(action: &'static str, path: &Path, error: fjall::Error) -> StoreError {
    let source = match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => source,
        fjall::Error::Locked => {
            return StoreError::Failed {
                path: path.to_path_buf(),
                why: "another process holds it; stop that one first".into(),
            };
        }
        fjall::Error::Poisoned => {
            return StoreError::Failed {
                path: path.to_path_buf(),
                why: "merging them failed; make room or mend the disk, writes go on by themselves then"
                    .into(),
            };
        }
        other => {
            return StoreError::Corrupt {
                path: path.to_path_buf(),
                what: format!("cannot {action} it ({other})"),
            };
        }
    };
    // These are what reading a file that was cut or overwritten ends in.
    match source.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::NotFound => StoreError::Corrupt {
            path: path.to_path_buf(),
            what: format!("cannot {action} it ({source})"),
        },
        _ => StoreError::Io {
            action,
            path: path.to_path_buf(),
            source,
        },
    }
}
