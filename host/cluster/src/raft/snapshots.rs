//! The snapshots of the cluster map on disk. The newest three are kept, each a file of one frame.

use super::encoding::{EncodingError, decode, encode};
use super::frames::{FrameError, Frames, io_error, read_whole};
use super::{LogId, SnapshotMeta};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use vnode_ring::ClusterMap;

/// How many snapshots stay on disk.
pub(crate) const SNAPSHOTS_KEPT: usize = 3;
const PREFIX: &str = "snapshot-";

/// Snapshots that cannot be used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// A file could not be read or written, or is damaged.
    #[error(transparent)]
    Frames(#[from] FrameError),
    /// A snapshot could not be made, or holds something else.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The frame of a snapshot is sound, but what it holds is not a snapshot.
    #[error("{} does not hold a snapshot", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: EncodingError,
    },
    /// A file should hold one frame.
    #[error("{} holds {frames} frames instead of one", path.display())]
    Frame {
        /// Which file.
        path: PathBuf,
        /// How many frames were found.
        frames: usize,
    },
    /// The log starts behind the newest snapshot that is readable, so entries in between are lost.
    #[error(
        "no snapshot in {} reaches the log, which starts behind entry {purged}; \
         restore the directory from a backup, or empty it and let the node join again",
        directory.display()
    )]
    Unreachable {
        /// Where the snapshots are.
        directory: PathBuf,
        /// The last entry that the log no longer has.
        purged: LogId,
        /// What is wrong with the newest one.
        #[source]
        source: Option<Box<SnapshotError>>,
    },
}

/// A map, and which entries and members it includes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) map: Option<Arc<ClusterMap>>,
}

/// The snapshots in a directory. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    directory: PathBuf,
    newest: Arc<Mutex<Option<Snapshot>>>,
}

impl Snapshots {
    /// Finds the newest readable snapshot. An unreadable one is set aside if the log, which starts behind `purged`, still
    /// reaches back to an older one.
    pub(crate) fn open(directory: &Path, purged: Option<LogId>) -> Result<Self, SnapshotError> {
        let mut unreadable = Vec::new();
        let mut newest = None;
        let mut reason = None;
        for path in files(directory)?.into_iter().rev() {
            match load(&path) {
                Ok(snapshot) => {
                    newest = Some(snapshot);
                    break;
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a snapshot is unreadable");
                    reason = reason.or(Some(Box::new(error)));
                    unreadable.push(path);
                }
            }
        }
        let reached = newest.as_ref().and_then(|newest| newest.meta.last_log_id);
        if let Some(purged) = purged
            && reached < Some(purged)
        {
            return Err(SnapshotError::Unreachable {
                directory: directory.to_path_buf(),
                purged,
                source: reason,
            });
        }
        for path in unreadable {
            let aside = path.with_extension("damaged");
            fs::rename(&path, &aside).map_err(io_error("set aside", &path))?;
        }
        Ok(Self {
            directory: directory.to_path_buf(),
            newest: Arc::new(Mutex::new(newest)),
        })
    }

    /// Whether `directory` holds any, readable or not.
    pub(crate) fn exist(directory: &Path) -> Result<bool, SnapshotError> {
        Ok(!files(directory)?.is_empty())
    }

    pub(crate) fn newest(&self) -> Option<Snapshot> {
        self.lock().clone()
    }

    /// Writes a snapshot and removes those that are too many. It is durable when this returns.
    pub(crate) fn save(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        // The lock is held meanwhile: a snapshot may be built while another is installed.
        let mut newest = self.lock();
        let path = self.directory.join(name(snapshot.meta.last_log_id));
        Frames::replace(&path, &encode("snapshot", &snapshot)?)?;
        let newer = |newest: &Snapshot| newest.meta.last_log_id <= snapshot.meta.last_log_id;
        if newest.as_ref().is_none_or(newer) {
            *newest = Some(snapshot);
        }
        let files = files(&self.directory)?;
        let surplus = files.len().saturating_sub(SNAPSHOTS_KEPT);
        for path in files.into_iter().take(surplus) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// No code panics while it holds the lock; if one did, the newest is still a snapshot.
    fn lock(&self) -> MutexGuard<'_, Option<Snapshot>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name sorts by the last entry that the snapshot includes.
fn name(last: Option<LogId>) -> String {
    let entries = last.map_or(0, |id| id.index + 1);
    format!("{PREFIX}{entries:020}")
}

/// All snapshots, the oldest first.
fn files(directory: &Path) -> Result<Vec<PathBuf>, FrameError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    list().map_err(io_error("list", directory))
}

fn load(path: &Path) -> Result<Snapshot, SnapshotError> {
    let payloads = read_whole(path)?.unwrap_or_default();
    match payloads.as_slice() {
        [(_, payload)] => decode("snapshot", payload).map_err(|source| SnapshotError::Content {
            path: path.to_path_buf(),
            source,
        }),
        other => Err(SnapshotError::Frame {
            path: path.to_path_buf(),
            frames: other.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::machine::step;
    use crate::raft::tests::{event, id};

    /// The map after the entries up to `index`, which is at epoch `index + 1`.
    fn snapshot(index: u64) -> Snapshot {
        let mut map = None;
        for index in 0..=index {
            step(&mut map, &event(index)).unwrap();
        }
        let meta = SnapshotMeta {
            last_log_id: Some(id(index)),
            ..SnapshotMeta::default()
        };
        Snapshot { meta, map }
    }

    fn newest(directory: &Path, purged: Option<LogId>) -> Result<Option<u64>, SnapshotError> {
        let newest = Snapshots::open(directory, purged)?.newest();
        Ok(newest.map(|newest| newest.map.unwrap().epoch() - 1))
    }

    #[test]
    fn the_newest_three_are_kept_and_an_older_one_does_not_become_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), None).unwrap();
        for index in [2, 4, 6, 8, 7] {
            snapshots.save(snapshot(index)).unwrap();
        }
        assert_eq!(snapshots.newest().unwrap().map.unwrap().epoch(), 9);
        let kept = files(directory.path()).unwrap();
        let expected = [6, 7, 8].map(|index| directory.path().join(name(Some(id(index)))));
        assert_eq!(kept, expected);
        assert_eq!(newest(directory.path(), Some(id(8))).unwrap(), Some(8));
    }

    #[test]
    fn a_damaged_one_is_passed_over_only_if_the_log_reaches_back() {
        for at in 0_usize.. {
            let directory = tempfile::tempdir().unwrap();
            let snapshots = Snapshots::open(directory.path(), None).unwrap();
            snapshots.save(snapshot(2)).unwrap();
            snapshots.save(snapshot(4)).unwrap();
            let path = directory.path().join(name(Some(id(4))));
            let mut bytes = fs::read(&path).unwrap();
            let Some(byte) = bytes.get_mut(at) else { break };
            *byte ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = newest(directory.path(), Some(id(3))).unwrap_err();
            assert!(
                matches!(
                    error,
                    SnapshotError::Unreachable {
                        source: Some(_),
                        ..
                    }
                ),
                "{error}"
            );
            assert!(
                path.exists(),
                "nothing may change when the node cannot start"
            );
            assert_eq!(
                newest(directory.path(), Some(id(2))).unwrap(),
                Some(2),
                "byte {at}"
            );
            assert_eq!(newest(directory.path(), Some(id(2))).unwrap(), Some(2));
            assert!(!path.exists() && path.with_extension("damaged").exists());
        }
    }

    #[test]
    fn a_shortened_one_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), None).unwrap();
        snapshots.save(snapshot(4)).unwrap();
        let path = directory.path().join(name(Some(id(4))));
        let bytes = fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(load(&path).is_err(), "{len} bytes");
        }
    }
}
