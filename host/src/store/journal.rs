//! The node's journal: one sequence of batches of all partitions, in segments of some 32 MiB.
//!
//! Appending copies a batch into a buffer and gives it the next commit number; the thread in `sync.rs` writes the
//! buffer to the file and syncs, so that whatever was committed meanwhile shares one sync. All numbers big-endian:
//!
//! ```text
//! segment  MAGIC u64 | segment u64 | first commit u64 | salt u64 | checksum u64 | records
//! record   MARK u32 | checksum u64 | length u32 | commit u64 | durable u64 | service u16 | partition u16
//!          | checksum of the rows u64 | rows
//! ```
//!
//! Checksums of records begin with the salt, a number that nobody outside knows: rows hold what clients send, and no
//! client may write what passes for a record.
//!
//! `durable` is the last commit known to be on disk when the record was made. With it `recovery.rs` tells a torn tail, which is
//! what a crash leaves, from damage to something that was safe already.

use super::catalog::Place;
use super::engine::{Durability, Durable, Health};
use super::sealed::checksum;
use super::{BATCH_BYTES_MAX, Batch, Commit, StoreError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"vnjrnl\x00\x02");
pub(super) const MARK: [u8; 4] = [0xa7, b'v', b'n', b'r'];
pub(super) const SEGMENT_HEAD: usize = 40;
pub(super) const RECORD_HEAD: usize = 44;
/// A segment past this size is closed.
pub(super) const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// A buffer of this size is written without waiting for the interval.
pub(super) const WRITE_EARLY_BYTES: usize = 1024 * 1024;
/// Most bytes that wait for the disk; past it writers wait too.
const BUFFER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a writer waits for the disk before it is refused.
pub(super) const STALL_MAX: Duration = Duration::from_secs(10);
/// The place of records without rows, which only say what is durable.
pub(super) const NOWHERE: Place = Place {
    service: u16::MAX,
    partition: u16::MAX,
};

/// What writers and the sync thread share.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) directory: PathBuf,
    pub(super) durability: Durability,
    /// With what checksums of records begin.
    pub(super) salt: u64,
    /// Bytes in all segments.
    pub(super) file_bytes: AtomicU64,
    state: Mutex<State>,
    /// Tells the sync thread that there is something to do.
    pub(super) wake: Condvar,
    /// Tells everybody else that the sync thread has done something.
    pub(super) done: Condvar,
    progress: watch::Sender<Durable>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Records that are not in the file yet.
    pub(super) buffer: Vec<u8>,
    /// Last commit handed out.
    pub(super) last: u64,
    /// Last commit on disk.
    pub(super) durable: u64,
    /// The sync thread waits for a first record.
    pub(super) asleep: bool,
    /// Segments up to this one hold nothing that is not on disk, and get no more records.
    pub(super) sealed: u64,
    /// Somebody waits for the current segment to be sealed.
    pub(super) seal_wanted: bool,
    /// No more commits.
    pub(super) closed: bool,
    /// Why commits are refused.
    pub(super) failure: Option<String>,
}

impl Journal {
    /// A journal whose commits go on after `last`, in a segment after `sealed`.
    pub(super) fn new(
        directory: PathBuf,
        durability: Durability,
        salt: u64,
        last: u64,
        sealed: u64,
        file_bytes: u64,
    ) -> Self {
        let (progress, _) = watch::channel(Durable {
            commit: Commit(last),
            healthy: true,
        });
        Self {
            directory,
            durability,
            salt,
            file_bytes: AtomicU64::new(file_bytes),
            state: Mutex::new(State {
                buffer: Vec::new(),
                last,
                durable: last,
                asleep: false,
                sealed,
                seal_wanted: false,
                closed: false,
                failure: None,
            }),
            wake: Condvar::new(),
            done: Condvar::new(),
            progress,
        }
    }

    /// Adds a batch. It is not on disk yet.
    pub(super) fn append(&self, place: Place, batch: &Batch) -> Result<Commit, StoreError> {
        let rows = batch.as_bytes();
        if rows.len() > BATCH_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "a batch",
                size: rows.len(),
                max: BATCH_BYTES_MAX,
            });
        }
        let sum = checksum(self.salt, rows);
        let mut state = self.lock_for_append()?;
        state.last += 1;
        let record = Head {
            len: rows.len(),
            commit: state.last,
            durable: state.durable,
            place,
        };
        let before = state.buffer.len();
        state
            .buffer
            .extend_from_slice(&record.encode(self.salt, sum));
        state.buffer.extend_from_slice(rows);
        let early = before < WRITE_EARLY_BYTES && state.buffer.len() >= WRITE_EARLY_BYTES;
        if early || std::mem::take(&mut state.asleep) {
            self.wake.notify_one();
        }
        Ok(Commit(state.last))
    }

    /// Has the current segment sealed, and tells its number once that is done.
    pub(super) fn seal(&self) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let before = state.sealed;
        state.seal_wanted = true;
        self.wake.notify_one();
        while state.sealed == before {
            self.check(&state)?;
            state = self
                .done
                .wait_timeout(state, Duration::from_millis(100))
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        Ok(state.sealed)
    }

    /// Takes no more commits; the sync thread ends when the last ones are on disk.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Progress of the journal.
    pub(super) fn progress(&self) -> watch::Receiver<Durable> {
        self.progress.subscribe()
    }

    /// Tells whoever waits how far the disk is.
    pub(super) fn publish(&self, state: &State) {
        self.progress.send_replace(Durable {
            commit: Commit(state.durable),
            healthy: state.failure.is_none() && !state.closed,
        });
        self.done.notify_all();
    }

    /// From now on commits are refused for this reason, until there is none.
    pub(super) fn set_failure(&self, failure: Option<String>) {
        let mut state = self.lock();
        if state.failure != failure {
            match &failure {
                Some(why) => {
                    tracing::error!(path = %self.directory.display(), why, "the journal refuses writes")
                }
                None => {
                    tracing::info!(path = %self.directory.display(), "the journal takes writes again")
                }
            }
            state.failure = failure;
            self.publish(&state);
        }
    }

    pub(super) fn health(&self) -> Health {
        match &self.lock().failure {
            None => Health::Good,
            Some(why) => Health::ReadOnly {
                path: self.directory.clone(),
                why: why.clone(),
            },
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when commits are refused.
    pub(super) fn check(&self, state: &State) -> Result<(), StoreError> {
        match &state.failure {
            Some(why) => Err(StoreError::Failed {
                path: self.directory.clone(),
                why: why.clone(),
            }),
            None if state.closed => Err(StoreError::Closed),
            None => Ok(()),
        }
    }

    /// Waits until the buffer has room.
    fn lock_for_append(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.lock();
        self.check(&state)?;
        if state.buffer.len() < BUFFER_BYTES_MAX {
            return Ok(state);
        }
        let start = Instant::now();
        while state.buffer.len() >= BUFFER_BYTES_MAX {
            let waited = start.elapsed();
            if waited >= STALL_MAX {
                return Err(StoreError::Busy {
                    path: self.directory.clone(),
                    waited,
                });
            }
            state = self
                .done
                .wait_timeout(state, STALL_MAX - waited)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
            self.check(&state)?;
        }
        Ok(state)
    }
}

/// What stands before the rows of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) len: usize,
    pub(super) commit: u64,
    pub(super) durable: u64,
    pub(super) place: Place,
}

impl Head {
    /// The head of a record whose rows have that checksum.
    pub(super) fn encode(&self, salt: u64, rows_sum: u64) -> [u8; RECORD_HEAD] {
        let mut head = [0; RECORD_HEAD];
        let (front, back) = head.split_at_mut(12);
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        let parts = len
            .to_be_bytes()
            .into_iter()
            .chain(self.commit.to_be_bytes())
            .chain(self.durable.to_be_bytes())
            .chain(self.place.service.to_be_bytes())
            .chain(self.place.partition.to_be_bytes())
            .chain(rows_sum.to_be_bytes());
        for (to, from) in back.iter_mut().zip(parts) {
            *to = from;
        }
        let sum = checksum(salt, back).to_be_bytes();
        for (to, from) in front.iter_mut().zip(MARK.into_iter().chain(sum)) {
            *to = from;
        }
        head
    }

    /// Reads a record at the start of `bytes`: its head, its rows, and what follows. `None` when there is no whole and
    /// undamaged record.
    pub(super) fn decode(bytes: &[u8], salt: u64) -> Option<(Self, &[u8], &[u8])> {
        let (mark, rest) = bytes.split_first_chunk::<4>()?;
        if *mark != MARK {
            return None;
        }
        let (sum, rest) = rest.split_first_chunk()?;
        let (back, rest) = rest.split_first_chunk::<32>()?;
        // First, so that what only looks like a head costs no look at its rows.
        if checksum(salt, back) != u64::from_be_bytes(*sum) {
            return None;
        }
        let (len, fields) = back.split_first_chunk()?;
        let (commit, fields) = fields.split_first_chunk()?;
        let (durable, fields) = fields.split_first_chunk()?;
        let (service, fields) = fields.split_first_chunk()?;
        let (partition, fields) = fields.split_first_chunk()?;
        let (rows_sum, _) = fields.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (rows, rest) = rest.split_at_checked(len)?;
        if checksum(salt, rows) != u64::from_be_bytes(*rows_sum) {
            return None;
        }
        let head = Self {
            len,
            commit: u64::from_be_bytes(*commit),
            durable: u64::from_be_bytes(*durable),
            place: Place {
                service: u16::from_be_bytes(*service),
                partition: u16::from_be_bytes(*partition),
            },
        };
        Some((head, rows, rest))
    }
}

/// The first bytes of a segment.
pub(super) fn segment_head(segment: u64, first: u64, salt: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(SEGMENT_HEAD);
    for number in [MAGIC, segment, first, salt] {
        head.extend_from_slice(&number.to_be_bytes());
    }
    let sum = checksum(0, &head);
    head.extend_from_slice(&sum.to_be_bytes());
    head
}

/// Where a segment is.
pub(super) fn segment_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:016}.log"))
}
