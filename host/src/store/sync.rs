//! The thread that brings the journal to disk: it alone writes, syncs and starts segments.
//!
//! A failed write (a full disk, say) is tried again at the same place each second, and writers are refused meanwhile. After a
//! failed sync nobody knows what the disk has kept, so nothing is tried again until the node restarts and reads it back.

use super::engine::Durability;
use super::error::{StoreError, io_error};
use super::journal::{
    Head, Journal, NOWHERE, SEGMENT_BYTES, SEGMENT_HEAD, State, WRITE_EARLY_BYTES, segment_head,
    segment_path,
};
use super::sealed::{checksum, sync_directory};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two tries on a disk that refuses to write.
const RETRY: Duration = Duration::from_secs(1);
/// Under `never` records reach the operating system after this time, though not the disk.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);
/// A journal that was quiet for so long notes that its last records are durable.
const QUIET: Duration = Duration::from_millis(100);
/// A file grows by so many zeros at once, which later syncs then overwrite: to sync a file that did not grow takes a
/// fraction of the time.
const ALLOCATE_BYTES: u64 = 256 * 1024;
/// A buffer that grew past this for one large batch is given back.
const SPARE_BYTES_MAX: usize = 4 * WRITE_EARLY_BYTES;

/// The segment being written.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    segment: u64,
    offset: u64,
    /// Bytes that the file has, those after `offset` being zeros.
    allocated: u64,
    /// Taken from the journal, not in the file yet.
    pending: Vec<u8>,
    /// Last commit in `pending` or in the file.
    target: u64,
    /// The file has bytes that were not synced.
    unsynced: bool,
    /// When those have to be on disk.
    deadline: Option<Instant>,
    /// The file does not yet say that its last record is durable.
    unmarked: bool,
}

/// What the thread woke up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    sync: bool,
    seal: bool,
    mark: bool,
    stop: bool,
}

impl Writer {
    /// Starts a segment, whose first commit will be the one after `last`.
    pub(super) fn start(journal: &Journal, segment: u64, last: u64) -> Result<Self, StoreError> {
        let path = segment_path(&journal.directory, segment);
        // An empty file of that name may stand there from a crash at this point.
        let file = File::create(&path).map_err(io_error("create the journal", &path))?;
        file.write_all_at(&segment_head(segment, last + 1, journal.salt), 0)
            .map_err(io_error("write the journal", &path))?;
        file.sync_all()
            .map_err(io_error("sync the journal", &path))?;
        sync_directory(&journal.directory)?;
        journal
            .file_bytes
            .fetch_add(SEGMENT_HEAD as u64, Ordering::Relaxed);
        Ok(Self {
            file,
            segment,
            offset: SEGMENT_HEAD as u64,
            allocated: SEGMENT_HEAD as u64,
            pending: Vec::new(),
            target: last,
            unsynced: false,
            deadline: None,
            unmarked: false,
        })
    }

    /// Runs until the journal is closed and everything is on disk, or cannot be brought there.
    pub(super) fn run(mut self, journal: &Journal) {
        loop {
            let work = self.wait(journal);
            match self.perform(journal, work) {
                Ok(()) if work.stop => return,
                Ok(()) => journal.set_failure(None),
                Err(Trouble::Later(why)) => {
                    journal.set_failure(Some(why));
                    if work.stop {
                        return;
                    }
                    std::thread::sleep(RETRY);
                }
                Err(Trouble::Final(why)) => {
                    journal.set_failure(Some(why));
                    return;
                }
            }
        }
    }

    /// Waits for work and takes the buffer.
    fn wait(&mut self, journal: &Journal) -> Work {
        let mut state = journal.lock();
        loop {
            let waiting = !state.buffer.is_empty() || !self.pending.is_empty();
            let unsynced = self.unsynced && journal.durability != Durability::Never;
            if (waiting || unsynced) && self.deadline.is_none() {
                self.deadline = Some(Instant::now() + interval(journal.durability));
            }
            let due = self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now());
            let seal = state.seal_wanted || self.offset > SEGMENT_BYTES;
            if due || seal || state.closed || state.buffer.len() >= WRITE_EARLY_BYTES {
                break;
            }
            let timeout = match self.deadline {
                Some(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
                None => self.unmarked.then_some(QUIET),
            };
            state.asleep = self.deadline.is_none();
            let timed_out;
            (state, timed_out) = sleep(journal, state, timeout);
            let idle = state.buffer.is_empty() && self.deadline.is_none() && !state.closed;
            if timed_out && idle && self.unmarked {
                state.asleep = false;
                return Work {
                    sync: false,
                    seal: false,
                    mark: true,
                    stop: false,
                };
            }
        }
        state.asleep = false;
        let due = self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        let seal = state.seal_wanted || self.offset > SEGMENT_BYTES;
        let work = Work {
            sync: (due && journal.durability != Durability::Never) || seal || state.closed,
            seal,
            mark: state.closed,
            stop: state.closed,
        };
        if self.pending.is_empty() {
            std::mem::swap(&mut self.pending, &mut state.buffer);
            self.target = state.last;
            journal.done.notify_all();
        }
        if due {
            self.deadline = None;
        }
        work
    }

    fn perform(&mut self, journal: &Journal, work: Work) -> Result<(), Trouble> {
        self.write(journal)?;
        if work.sync {
            self.sync(journal)?;
        }
        if work.mark {
            self.mark(journal)?;
        }
        if work.seal || work.stop {
            self.trim()?;
        }
        if work.seal && !work.stop {
            self.seal(journal)?;
        }
        Ok(())
    }

    /// Takes the zeros off: a segment that gets no more records ends with its last one.
    fn trim(&mut self) -> Result<(), Trouble> {
        if self.allocated > self.offset {
            self.file
                .set_len(self.offset)
                .and_then(|()| self.file.sync_data())
                .map_err(sync_failed)?;
            self.allocated = self.offset;
        }
        Ok(())
    }

    fn write(&mut self, journal: &Journal) -> Result<(), Trouble> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let len = self.pending.len();
        let end = self.offset + len as u64;
        let allocated = self.allocated.max(end.next_multiple_of(ALLOCATE_BYTES));
        if end > self.allocated {
            let zeros = usize::try_from(allocated - end).unwrap_or(0);
            self.pending.resize(len + zeros, 0);
        }
        let written = self.file.write_all_at(&self.pending, self.offset);
        self.pending.truncate(len);
        written.map_err(|error| {
            Trouble::Later(format!(
                "{error}; make room on its disk, writes go on by themselves then"
            ))
        })?;
        self.allocated = allocated;
        self.offset = end;
        self.unsynced = true;
        self.unmarked = true;
        journal.file_bytes.fetch_add(len as u64, Ordering::Relaxed);
        self.pending.clear();
        if self.pending.capacity() > SPARE_BYTES_MAX {
            self.pending = Vec::new();
        }
        Ok(())
    }

    fn sync(&mut self, journal: &Journal) -> Result<(), Trouble> {
        if self.unsynced {
            self.file.sync_data().map_err(sync_failed)?;
        }
        self.unsynced = false;
        let mut state = journal.lock();
        if state.durable < self.target {
            state.durable = self.target;
            journal.publish(&state);
        }
        Ok(())
    }

    /// Notes that everything before is durable, for telling damage from a torn tail later. Needs no sync itself.
    fn mark(&mut self, journal: &Journal) -> Result<(), Trouble> {
        let durable = journal.lock().durable;
        if durable == self.target && self.pending.is_empty() {
            let head = Head {
                len: 0,
                commit: durable,
                durable,
                place: NOWHERE,
            };
            self.pending
                .extend_from_slice(&head.encode(journal.salt, checksum(journal.salt, &[])));
            self.write(journal)?;
            // A mark alone is no reason to wake the disk.
            self.unsynced = false;
        }
        self.unmarked = false;
        Ok(())
    }

    fn seal(&mut self, journal: &Journal) -> Result<(), Trouble> {
        let next = Self::start(journal, self.segment + 1, self.target).map_err(|error| {
            Trouble::Later(format!(
                "{error}: {}",
                std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default()
            ))
        })?;
        let old = std::mem::replace(self, next);
        let mut state = journal.lock();
        state.sealed = old.segment;
        state.seal_wanted = false;
        journal.publish(&state);
        Ok(())
    }
}

/// Why the journal cannot go on.
enum Trouble {
    /// The same may work later.
    Later(String),
    /// It may not.
    Final(String),
}

fn sync_failed(error: std::io::Error) -> Trouble {
    Trouble::Final(format!(
        "a sync failed ({error}); mend the disk and restart the node"
    ))
}

fn interval(durability: Durability) -> Duration {
    match durability {
        Durability::Always => Duration::ZERO,
        Durability::Interval(interval) => interval,
        Durability::Never => WRITE_INTERVAL,
    }
}

fn sleep<'a>(
    journal: &Journal,
    state: MutexGuard<'a, State>,
    timeout: Option<Duration>,
) -> (MutexGuard<'a, State>, bool) {
    match timeout {
        None => {
            let state = journal.wake.wait(state);
            (
                state.unwrap_or_else(std::sync::PoisonError::into_inner),
                false,
            )
        }
        Some(timeout) => match journal.wake.wait_timeout(state, timeout) {
            Ok((state, result)) => (state, result.timed_out()),
            Err(poisoned) => {
                let (state, result) = poisoned.into_inner();
                (state, result.timed_out())
            }
        },
    }
}
