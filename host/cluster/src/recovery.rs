//! Going on with one node when the majority of the voters is lost for good.

use std::path::Path;

use vnode_ring::NodeName;

use crate::raft::Peer;
use crate::raft::recover::{RecoverError, Recovered as Voter, force_new_cluster};
use crate::standing::{StandingError, StandingFile};

/// Why it does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// What the node is to its cluster cannot be read.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// The node was never in a cluster.
    #[error("{directory} holds nothing of a cluster; is it the directory of a node that has run?")]
    Nothing {
        /// Where it was looked for.
        directory: String,
    },
    /// What it holds of a cluster cannot be removed.
    #[error("cannot remove {directory}: {source}")]
    Kept {
        /// Where it is.
        directory: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its consensus cannot be taken up.
    #[error(transparent)]
    Consensus(#[from] RecoverError),
}

/// What has become of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It is the only voter of its cluster.
    Voter(Voter),
    /// It had asked to join a cluster and nobody had let it in: it begins one of its own when it starts.
    Alone,
}

/// Makes a stopped node the only voter, with the last map it had. `directory` is that of the cluster in its data directory.
///
/// See [`force_new_cluster`] for what is given up. A node that waits to be let into a cluster gives that up instead.
///
/// # Errors
/// Then nothing has changed.
pub fn recover(directory: &Path, node: &NodeName) -> Result<Recovered, RecoveryError> {
    let nothing = || RecoveryError::Nothing {
        directory: directory.display().to_string(),
    };
    let standing = StandingFile::read_in(directory)?.ok_or_else(nothing)?;
    if !standing.contacts.is_empty() {
        let kept = |source| RecoveryError::Kept {
            directory: directory.display().to_string(),
            source,
        };
        StandingFile::forget_in(directory).map_err(kept)?;
        return Ok(Recovered::Alone);
    }
    let me = Peer {
        name: node.to_string(),
        // It tells the others when it has started.
        peer_address: String::new(),
    };
    let path = directory.join(format!("{:016x}", standing.number));
    Ok(Recovered::Voter(force_new_cluster(
        &path,
        standing.number,
        me,
    )?))
}
