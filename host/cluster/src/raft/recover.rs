//! A new cluster from what one stopped node has, for when the majority of the voters is lost for good.

use super::log::{Content, Log, LogError};
use super::machine;
use super::snapshots::{Snapshot, SnapshotError, Snapshots};
use super::{Entry, LogId, Peer, Vote};
use openraft::{CommittedLeaderId, EntryPayload, LogIdOptionExt, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no new cluster. The directory is as it was.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The log is unusable.
    #[error("cannot use the log of the consensus")]
    Log(#[from] LogError),
    /// The snapshots are unusable.
    #[error("cannot use the snapshots of the cluster map")]
    Snapshots(#[from] SnapshotError),
    /// There is no map.
    #[error("{} holds no cluster map; is it the directory of a node that was part of a cluster?", path.display())]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
}

/// What the new cluster starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// The epoch of the map.
    pub epoch: u64,
    /// How many of the last entries this node did not know to be agreed on. They are kept: some may have been acknowledged.
    pub uncertain: u64,
}

/// Makes the node the only voter of a new cluster, with the last map it had. The node must be stopped.
///
/// Given up is what the lost voters agreed on and this node had not yet received. No other node of the old cluster may
/// start with its old directory again: it would follow the old voters, and the two clusters would each change the map.
/// Empty those directories and let the nodes join.
///
/// # Errors
/// There is nothing to start from, or it is damaged. After a failed write, call it again: it is done in one step.
pub fn force_new_cluster(directory: &Path, id: u64, me: Peer) -> Result<Recovered, RecoverError> {
    let nothing = || RecoverError::Nothing {
        path: directory.to_path_buf(),
    };
    let log = Log::open(directory)?.ok_or_else(nothing)?;
    let snapshot = Snapshots::open(directory, log.purged())?.newest();
    let mut content = log.content();
    let recovered = take_over(&mut content, snapshot, id, me).ok_or_else(nothing)?;
    log.replace(content)?;
    Ok(recovered)
}

/// Adds the entry that makes this node the only voter. `None` when there are no entries at all.
fn take_over(
    content: &mut Content,
    snapshot: Option<Snapshot>,
    id: u64,
    me: Peer,
) -> Option<Recovered> {
    let included = snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.meta.last_log_id);
    let last = content.last().max(included)?;
    if content.last() < included {
        // A crash came between the snapshot and the removal of the entries that it includes.
        content.entries.clear();
        content.purged = included;
    }
    let mut map = snapshot.and_then(|snapshot| snapshot.map);
    for entry in content
        .entries
        .range(included.next_index()..)
        .map(|(_, entry)| entry)
    {
        if let EntryPayload::Normal(event) = &entry.payload {
            // A refused change is refused again when the node starts.
            drop(machine::step(&mut map, event));
        }
    }
    let known = content.committed.max(included);
    let voted = content.vote.map_or(0, |vote| vote.leader_id().get_term());
    let term = last.leader_id.term.max(voted) + 1;
    let log_id = LogId::new(CommittedLeaderId::new(term, id), last.index + 1);
    let only = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, me)]));
    let payload = EntryPayload::Membership(only);
    content
        .entries
        .insert(log_id.index, Entry { log_id, payload });
    content.committed = Some(log_id);
    content.vote = Some(Vote::new(term, id));
    Some(Recovered {
        epoch: map.map_or(0, |map| map.epoch()),
        uncertain: log_id.index.saturating_sub(known.next_index()),
    })
}
