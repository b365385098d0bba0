//! Sorted tables on disk, the lowest layer of the `disk` backend. The only file that knows fjall.
//!
//! fjall is used for what it does well: sorted runs with checksummed blocks, Bloom filters and compaction. Its journal and
//! its memtables stay empty: rows come in as whole sorted runs, which are durable when [`Tables::ingest`] returns.
//! A row's key is service u16, partition u16, hash u64 (all big-endian), key; the first four bytes alone are the partition's
//! own row with its [`Totals`].

use super::StoreError;
use super::RowKey;
use super::catalog::Place;
use super::rows::Rows;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

const PREFIX: usize = 12;
/// Tables that wait to be merged; past it flushing waits for the merging.
const RUNS_MAX: usize = 16;

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
    database: Database,
    rows: Keyspace,
}

impl Tables {
    /// Opens or creates the tables in `path`.
    pub(super) fn open(path: &Path, block_cache_bytes: u64) -> Result<Self, StoreError> {
        contain("open", path, || {
            let database = Database::builder(path)
                .cache_size(block_cache_bytes)
                .manual_journal_persist(true)
                // One thread merges; flushing has its own, and cores are for commands.
                .worker_threads(1)
                .open()?;
            let rows = database.keyspace("rows", || {
                KeyspaceCreateOptions::default().manual_journal_persist(true)
            })?;
            Ok(Self {
                path: path.to_path_buf(),
                database,
                rows,
            })
        })
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
        contain("read a row from", &self.path, || self.rows.get(&*scratch))
    }

    /// What was known of a partition when it was last flushed.
    pub(super) fn totals(&self, place: Place) -> Result<Totals, StoreError> {
        let key = prefix(place);
        let Some(bytes) = contain("read a partition from", &self.path, || self.rows.get(key))? else {
            return Ok(Totals::default());
        };
        decode_totals(&bytes).ok_or_else(|| StoreError::Corrupt {
            path: self.path.clone(),
            what: format!("the totals of partition {} have {} bytes", place.partition, bytes.len()),
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
        let iter = (!empty).then(|| self.rows.range((from, Bound::Excluded(to))));
        Cursor { tables: self, iter }
    }

    /// Adds one sorted run with the rows of several partitions, which are in ascending order. All of it is durable and
    /// visible when this returns, none of it when it fails.
    pub(super) fn ingest<'a>(
        &self,
        runs: impl Iterator<Item = (Place, Totals, &'a Rows)>,
    ) -> Result<(), StoreError> {
        contain("write rows to", &self.path, || {
            let mut ingestion = self.rows.start_ingestion()?;
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
        self.rows.l0_table_count() >= RUNS_MAX
    }

    /// Fails when merging has failed and will not go on.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        contain("merge", &self.path, || self.database.persist(PersistMode::Buffer))
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.rows.disk_space()
    }
}

/// Rows of one partition in the tables.
pub(super) struct Cursor<'t> {
    tables: &'t Tables,
    iter: Option<fjall::Iter>,
}

impl Cursor<'_> {
    /// The next row, key with its prefix and object.
    pub(super) fn next(&mut self) -> Result<Option<(fjall::Slice, fjall::Slice)>, StoreError> {
        let Some(iter) = &mut self.iter else {
            return Ok(None);
        };
        contain("read rows from", &self.tables.path, || {
            iter.next().map(fjall::Guard::into_inner).transpose()
        })
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
                why: "merging its tables failed; see the log, mend the disk and restart the node".into(),
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
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => {
            StoreError::Corrupt {
                path: path.to_path_buf(),
                what: format!("cannot {action} it ({source})"),
            }
        }
        _ => StoreError::Io {
            action,
            path: path.to_path_buf(),
            source,
        },
    }
}
