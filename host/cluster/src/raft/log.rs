//! The log of the consensus on disk, with the node's vote.
//!
//! One file of frames (see [`super::frames`]): what is appended are entries, votes and how far the log is committed. Removing
//! entries at either end writes the file anew, which is rare. All entries are in memory as well; there are few, and small:
//! only changes of the cluster map, never user data.
//!
//! Files are written on the task that calls. They are tiny, openraft needs the result before it goes on, and under
//! simulation there are no other threads.

use super::encoding::{EncodingError, decode, encode};
use super::frames::{FrameError, Frames};
use super::{Entry, LogId, StorageError, TypeConfig, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The file's name in the directory of the consensus.
pub const LOG_FILE: &str = "log";

/// A log that cannot be used. What is on disk is left as it is.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file could not be read or written, or is damaged.
    #[error(transparent)]
    Frames(#[from] FrameError),
    /// A sound frame holds something else than a record.
    #[error("the record at byte {offset} of {} is not readable", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Where the frame starts.
        offset: usize,
        /// Why.
        #[source]
        source: EncodingError,
    },
    /// A record could not be made.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// Entries that do not follow each other.
    #[error("in {} entry {found} follows where entry {expected} should", path.display())]
    Gap {
        /// Which file.
        path: PathBuf,
        /// The index that comes next.
        expected: u64,
        /// The index that came.
        found: u64,
    },
}

/// What one frame of the file holds.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// The first of a file: all there was when it was written.
    Start {
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        entries: Vec<Entry>,
    },
    Entries(Vec<Entry>),
    Vote(Vote),
    Committed(Option<LogId>),
}

/// What the file says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    /// The last entry that was removed from the front.
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

/// The log of one node. Clones are the same log.
#[derive(Debug, Clone)]
pub struct Log {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    frames: Frames,
    content: Content,
}

impl Log {
    /// Opens the log in `directory`; `None` when there is none.
    ///
    /// # Errors
    /// The file is damaged or cannot be read. Only an append that a crash left unfinished is dropped.
    pub fn open(directory: &Path) -> Result<Option<Self>, LogError> {
        let path = directory.join(LOG_FILE);
        let Some((frames, payloads)) = Frames::open(&path)? else {
            return Ok(None);
        };
        let mut content = Content::default();
        for (offset, payload) in payloads {
            let record = decode("log record", &payload).map_err(|source| LogError::Record {
                path: path.clone(),
                offset,
                source,
            })?;
            content.check(&path, &record)?;
            content.take(record);
        }
        Ok(Some(Self::over(path, frames, content)))
    }

    /// Makes an empty log in `directory`, or replaces the one there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(LOG_FILE);
        let content = Content::default();
        let frames = Frames::replace(&path, &content.encoded()?)?;
        Ok(Self::over(path, frames, content))
    }

    fn over(path: PathBuf, frames: Frames, content: Content) -> Self {
        let open = Open {
            path,
            frames,
            content,
        };
        Self {
            open: Arc::new(Mutex::new(open)),
        }
    }

    /// The last entry that was removed from the front.
    #[must_use]
    pub fn purged(&self) -> Option<LogId> {
        self.lock().content.purged
    }

    pub(crate) fn content(&self) -> Content {
        self.lock().content.clone()
    }

    /// Replaces all in one step: a crash leaves the old content or the new one.
    pub(crate) fn replace(&self, content: Content) -> Result<(), LogError> {
        let mut open = self.lock();
        open.frames.rewrite(&content.encoded()?)?;
        open.content = content;
        Ok(())
    }

    fn append_record(&self, record: Record) -> Result<(), LogError> {
        let mut open = self.lock();
        open.content.check(&open.path, &record)?;
        let payload = encode("log record", &record)?;
        open.frames.append(&payload)?;
        open.content.take(record);
        Ok(())
    }

    /// No code panics while it holds the lock; if one did, what is on disk is still whole.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// Refuses entries that would leave a gap.
    fn check(&self, path: &Path, record: &Record) -> Result<(), LogError> {
        let (Record::Entries(entries) | Record::Start { entries, .. }) = record else {
            return Ok(());
        };
        let indexes = entries.iter().map(|entry| entry.log_id.index);
        // The first may replace what is there; see `take`.
        let first = indexes.clone().next().unwrap_or_default();
        let next = self.last().map_or(first, |id| id.index + 1);
        for (expected, found) in (first.min(next)..).zip(indexes) {
            if found != expected {
                return Err(LogError::Gap {
                    path: path.to_path_buf(),
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Start {
                vote,
                committed,
                purged,
                entries,
            } => {
                *self = Self {
                    vote,
                    committed,
                    purged,
                    entries: BTreeMap::new(),
                };
                self.take(Record::Entries(entries));
            }
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(committed) => self.committed = committed,
            Record::Entries(entries) => {
                // As in Raft: an entry replaces the one in its place and all behind it.
                if let Some(first) = entries.first() {
                    self.entries.split_off(&first.log_id.index);
                }
                let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry));
                self.entries.extend(entries);
            }
        }
    }

    /// The last entry there is or was.
    pub(crate) fn last(&self) -> Option<LogId> {
        let present = self.entries.last_key_value().map(|(_, entry)| entry.log_id);
        present.or(self.purged)
    }

    pub(crate) fn encoded(&self) -> Result<Vec<u8>, EncodingError> {
        let start = Record::Start {
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            entries: self.entries.values().cloned().collect(),
        };
        encode("log record", &start)
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        // A range that ends before it starts holds nothing; a BTreeMap would panic.
        let open = self.lock();
        let within = |(_, entry): (&u64, &Entry)| entry.clone();
        Ok(match span(&range) {
            Some(span) => open.content.entries.range(span).map(within).collect(),
            None => Vec::new(),
        })
    }
}

/// First and last index of a range; `None` when it is empty.
fn span(range: &impl RangeBounds<u64>) -> Option<std::ops::RangeInclusive<u64>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let first = match range.start_bound() {
        Included(first) => *first,
        Excluded(before) => before.checked_add(1)?,
        Unbounded => 0,
    };
    let last = match range.end_bound() {
        Included(last) => *last,
        Excluded(behind) => behind.checked_sub(1)?,
        Unbounded => u64::MAX,
    };
    (first <= last).then_some(first..=last)
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let open = self.lock();
        Ok(LogState {
            last_purged_log_id: open.content.purged,
            last_log_id: open.content.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.append_record(Record::Vote(*vote))
            .map_err(|error| failed(ErrorSubject::Vote, &error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.lock().content.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.append_record(Record::Committed(committed))
            .map_err(|error| failed(ErrorSubject::Store, &error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.lock().content.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = Vec::from_iter(entries);
        self.append_record(Record::Entries(entries))
            .map_err(|error| failed(ErrorSubject::Logs, &error))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        let mut content = self.content();
        content.entries.split_off(&from.index);
        self.replace(content)
            .map_err(|error| failed(ErrorSubject::Log(from), &error))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let mut content = self.content();
        content.entries.retain(|index, _| *index > upto.index);
        content.purged = content.purged.max(Some(upto));
        self.replace(content)
            .map_err(|error| failed(ErrorSubject::Log(upto), &error))
    }
}

/// Openraft stops the node on such an error; nothing else is safe.
fn failed(subject: ErrorSubject<u64>, error: &LogError) -> StorageError {
    openraft::StorageIOError::new(subject, ErrorVerb::Write, AnyError::new(error)).into()
}
