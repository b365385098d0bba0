//! Going on with one node when the majority of the voters is lost for good.

use std::path::Path;

use vnode_ring::NodeName;

use crate::raft::Peer;
use crate::raft::recover::{RecoverError, Recovered, force_new_cluster};
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
    /// Its consensus cannot be taken up.
    #[error(transparent)]
    Consensus(#[from] RecoverError),
}

/// Makes a stopped node the only voter, with the last map it had. `directory` is that of the cluster in its data directory.
///
/// See [`force_new_cluster`] for what is given up.
///
/// # Errors
/// Then nothing has changed.
pub fn recover(directory: &Path, node: &NodeName) -> Result<Recovered, RecoveryError> {
    let nothing = || RecoveryError::Nothing {
        directory: directory.display().to_string(),
    };
    let standing = StandingFile::read_in(directory)?.ok_or_else(nothing)?;
    let me = Peer {
        name: node.to_string(),
        // It tells the others when it has started.
        peer_address: String::new(),
    };
    let path = directory.join(format!("{:016x}", standing.number));
    Ok(force_new_cluster(&path, standing.number, me)?)
}
