//! What a node is to its cluster, as it stands on disk: one file, replaced as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vnode_ring::{ClusterId, PartitionId};

use crate::raft::encoding::{EncodingError, decode, encode};
use crate::raft::frames::{FrameError, Frames, read_whole};

/// The file in the directory of the cluster.
const FILE: &str = "standing";

/// Why it cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// The file.
    #[error(transparent)]
    Frames(#[from] FrameError),
    /// What it holds.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// It should hold one frame.
    #[error("{} holds {frames} frames instead of one; restore it from a backup", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// How many there are.
        frames: usize,
    },
}

/// What a node is to its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The cluster that it belongs to, or asks to join.
    pub cluster: ClusterId,
    /// The number of its membership.
    pub number: u64,
    /// The epoch of the map since which it is a member.
    pub since: u64,
    /// Addresses of members, while the node does not know the cluster's map.
    pub contacts: Vec<String>,
    /// Partitions that it has offered to their next owners, each with its try.
    pub offered: BTreeMap<PartitionId, u64>,
    /// The incarnation of its last run.
    pub incarnation: u64,
}

/// The file with it.
#[derive(Debug)]
pub(crate) struct StandingFile {
    path: PathBuf,
    now: Standing,
}

impl StandingFile {
    /// Reads the file, or begins with what `first` gives.
    pub(crate) fn open<E: From<StandingError>>(
        directory: &Path,
        first: impl FnOnce() -> Result<Standing, E>,
    ) -> Result<StandingFile, E> {
        let path = directory.join(FILE);
        match Self::read(&path)? {
            Some(now) => Ok(StandingFile { path, now }),
            None => {
                let now = first()?;
                write(&path, &now)?;
                Ok(StandingFile { path, now })
            }
        }
    }

    /// What the directory says, if it says anything.
    pub(crate) fn read_in(directory: &Path) -> Result<Option<Standing>, StandingError> {
        Self::read(&directory.join(FILE))
    }

    fn read(path: &Path) -> Result<Option<Standing>, StandingError> {
        let Some(payloads) = read_whole(path)? else {
            return Ok(None);
        };
        match payloads.as_slice() {
            [(_, payload)] => Ok(Some(decode("standing of a node", payload)?)),
            others => Err(StandingError::Shape {
                path: path.to_path_buf(),
                frames: others.len(),
            }),
        }
    }

    pub(crate) fn now(&self) -> &Standing {
        &self.now
    }

    /// Changes it and makes that durable. On an error nothing has changed here.
    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(&mut Standing),
    ) -> Result<(), StandingError> {
        let mut next = self.now.clone();
        change(&mut next);
        if next != self.now {
            write(&self.path, &next)?;
            self.now = next;
        }
        Ok(())
    }

    /// Removes the file, and what else the directory holds of the cluster.
    pub(crate) fn forget(&self) {
        if let Some(directory) = self.path.parent() {
            // What is left over is forgotten when the node starts: it is no member, as the others say.
            drop(Self::forget_in(directory));
        }
    }

    /// The same, of the directory of a node that has ended.
    pub(crate) fn forget_in(directory: &Path) -> std::io::Result<()> {
        // The standing goes first: without it the rest counts for nothing.
        std::fs::remove_file(directory.join(FILE))?;
        std::fs::remove_dir_all(directory)
    }
}

fn write(path: &Path, standing: &Standing) -> Result<(), StandingError> {
    Frames::replace(path, &encode("standing of a node", standing)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Result<Standing, StandingError> {
        Ok(Standing {
            cluster: ClusterId([1; 16]),
            number: 7,
            since: 0,
            contacts: Vec::new(),
            offered: BTreeMap::new(),
            incarnation: 0,
        })
    }

    #[test]
    fn what_was_changed_is_there_again_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StandingFile::open(directory.path(), first).unwrap();
        file.change(|standing| standing.since = 5).unwrap();
        let never = || -> Result<Standing, StandingError> { panic!("it is there") };
        let again = StandingFile::open(directory.path(), never).unwrap();
        assert_eq!(again.now(), file.now());
        let path = directory.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(StandingFile::open(directory.path(), never).is_err(), "{at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(StandingFile::open(directory.path(), never).is_err(), "{at}");
        }
    }
}
