//! The replicated state machine: applies committed events to the cluster map and publishes each new map.
//!
//! The map is in memory. On disk are snapshots of it; a restart takes the newest one and openraft applies the committed
//! entries behind it again.

use super::encoding::{EncodingError, decode, encode};
use super::log::{Log, LogError};
use super::snapshots::{Snapshot, SnapshotError, Snapshots};
use super::{Entry, LogId, Membership, SnapshotMeta, StorageError, TypeConfig};
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend};
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use vnode_ring::{ClusterMap, MapError, MapEvent};

/// A directory of the consensus that cannot be used. What is on disk is left as it is.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The log is unusable.
    #[error("cannot open the log of the consensus")]
    Log(#[from] LogError),
    /// The snapshots are unusable.
    #[error("cannot open the snapshots of the cluster map")]
    Snapshots(#[from] SnapshotError),
    /// The directory cannot be made.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There are snapshots, so there was a log; with it the vote is lost, and voting twice could elect two leaders.
    #[error(
        "{} has snapshots but no log; restore it from a backup, or empty it and let the node join again",
        path.display()
    )]
    LogMissing {
        /// The directory.
        path: PathBuf,
    },
}

/// Opens what a node's directory holds of the consensus, or starts it there.
///
/// # Errors
/// Something is damaged or missing; see [`OpenError`]. The node must not start then.
pub fn open(directory: &Path) -> Result<(Log, Machine), OpenError> {
    fs::create_dir_all(directory).map_err(|source| OpenError::Directory {
        path: directory.to_path_buf(),
        source,
    })?;
    let log = match Log::open(directory)? {
        Some(log) => log,
        None if Snapshots::exist(directory)? => {
            return Err(OpenError::LogMissing {
                path: directory.to_path_buf(),
            });
        }
        None => Log::create(directory)?,
    };
    let machine = Machine::open(directory, log.purged())?;
    Ok((log, machine))
}

/// The map as of the last applied entry.
#[derive(Debug, Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: Membership,
    map: Option<Arc<ClusterMap>>,
}

/// The state machine of one node.
#[derive(Debug)]
pub struct Machine {
    applied: Applied,
    maps: watch::Sender<Option<Arc<ClusterMap>>>,
    voters: watch::Sender<BTreeSet<u64>>,
    snapshots: Snapshots,
}

impl Machine {
    fn open(directory: &Path, purged: Option<LogId>) -> Result<Self, SnapshotError> {
        let snapshots = Snapshots::open(directory, purged)?;
        let applied = snapshots.newest().map(Applied::from).unwrap_or_default();
        Ok(Self {
            maps: watch::Sender::new(applied.map.clone()),
            voters: watch::Sender::new(applied.voters()),
            applied,
            snapshots,
        })
    }

    /// Follows the map. A slow reader sees the latest one and may miss some in between.
    #[must_use]
    pub fn maps(&self) -> watch::Receiver<Option<Arc<ClusterMap>>> {
        self.maps.subscribe()
    }

    /// Follows who votes, as is agreed on. While one change of that is under way those who vote before it and after it.
    #[must_use]
    pub fn voters(&self) -> watch::Receiver<BTreeSet<u64>> {
        self.voters.subscribe()
    }

    fn apply_one(&mut self, entry: Entry) -> Result<u64, MapError> {
        self.applied.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(self.epoch()),
            EntryPayload::Membership(membership) => {
                self.applied.membership = Membership::new(Some(entry.log_id), membership);
                self.voters.send_replace(self.applied.voters());
                Ok(self.epoch())
            }
            EntryPayload::Normal(event) => {
                let epoch = step(&mut self.applied.map, &event)?;
                self.maps.send_replace(self.applied.map.clone());
                Ok(epoch)
            }
        }
    }

    fn epoch(&self) -> u64 {
        self.applied.map.as_ref().map_or(0, |map| map.epoch())
    }
}

/// Lets an event happen to a map, or to none yet. Returns the epoch after it.
pub(super) fn step(map: &mut Option<Arc<ClusterMap>>, event: &MapEvent) -> Result<u64, MapError> {
    let next = match map {
        None => ClusterMap::found(event)?,
        Some(map) => {
            let mut next = ClusterMap::clone(map);
            next.apply(event)?;
            next
        }
    };
    let epoch = next.epoch();
    *map = Some(Arc::new(next));
    Ok(epoch)
}

impl Applied {
    fn voters(&self) -> BTreeSet<u64> {
        let sets = self.membership.membership().get_joint_config();
        let both = |id: &u64| sets.iter().all(|set| set.contains(id));
        sets.iter().flatten().copied().filter(both).collect()
    }
}

impl From<Snapshot> for Applied {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            last: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
            map: snapshot.map,
        }
    }
}

/// Writes a snapshot of the map as it was when the builder was made.
#[derive(Debug)]
pub struct Builder {
    applied: Applied,
    snapshots: Snapshots,
}

impl openraft::RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<TypeConfig>, StorageError> {
        let last = self.applied.last;
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: last,
                last_membership: self.applied.membership.clone(),
                // The same entries give the same bytes, so their last one identifies it.
                snapshot_id: last.map_or_else(|| "empty".into(), |id| id.to_string()),
            },
            map: self.applied.map.clone(),
        };
        let save = self.snapshots.save(snapshot.clone());
        save.map_err(|error| failed(ErrorVerb::Write, &error))?;
        transferable(snapshot).map_err(|error| failed(ErrorVerb::Read, &error))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Result<u64, MapError>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let apply = |entry| self.apply_one(entry);
        Ok(entries.into_iter().map(apply).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            applied: self.applied.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let map = decode("cluster map", data.get_ref())
            .map_err(|error| failed(ErrorVerb::Read, &error))?;
        let snapshot = Snapshot {
            meta: meta.clone(),
            map,
        };
        let save = self.snapshots.save(snapshot.clone());
        save.map_err(|error| failed(ErrorVerb::Write, &error))?;
        self.applied = Applied::from(snapshot);
        self.maps.send_replace(self.applied.map.clone());
        self.voters.send_replace(self.applied.voters());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::Snapshot<TypeConfig>>, StorageError> {
        let newest = self.snapshots.newest().map(transferable).transpose();
        newest.map_err(|error| failed(ErrorVerb::Read, &error))
    }
}

/// The snapshot as it travels: what it includes, and the bytes of the map.
fn transferable(snapshot: Snapshot) -> Result<openraft::Snapshot<TypeConfig>, EncodingError> {
    let bytes = encode("cluster map", &snapshot.map)?;
    Ok(openraft::Snapshot {
        meta: snapshot.meta,
        snapshot: Box::new(Cursor::new(bytes)),
    })
}

/// Openraft stops the node on such an error; nothing else is safe.
fn failed(verb: ErrorVerb, error: &(impl Error + 'static)) -> StorageError {
    let subject = ErrorSubject::Snapshot(None);
    openraft::StorageIOError::new(subject, verb, AnyError::new(error)).into()
}
