//! Why an event does not happen to a cluster map.

use serde::{Deserialize, Serialize};

use super::plan::PlanId;
use super::resize::ResizeError;
use crate::hash::HashId;
use crate::index::{PartitionId, RingSize};
use crate::member::MemberStatus;
use crate::ring::NodeName;
use crate::rollout::RolloutError;

/// Why an event does not happen. The words are for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MapError {
    /// The cluster has begun, or has not.
    #[error("the cluster has its map already, or none yet")]
    NotTheBeginning,
    /// The node is not one of the cluster's.
    #[error("{node} is not a member; `host cluster status` lists them")]
    NotMember {
        /// The node.
        node: NodeName,
    },
    /// Another node has the name.
    #[error(
        "the cluster has another node named {node}; start this one with another --name and a data directory of its own"
    )]
    NameTaken {
        /// The name.
        node: NodeName,
    },
    /// A ring cannot take in rows of another.
    #[error(
        "the cluster's ring has {wanted} partitions and hash {wanted_hash}, {node} has {found} and {hash}; start it with --join and a new data directory"
    )]
    OtherRing {
        /// The node.
        node: NodeName,
        /// The cluster's.
        wanted: RingSize,
        /// The cluster's.
        wanted_hash: HashId,
        /// The node's.
        found: RingSize,
        /// The node's.
        hash: HashId,
    },
    /// Somebody has to own the ring.
    #[error("nobody but {node} may own partitions; let another node join first")]
    OnlyMember {
        /// The node.
        node: NodeName,
    },
    /// A member's status does not allow it.
    #[error("{node} is {status}, which does not allow it to be {wanted}")]
    Status {
        /// The node.
        node: NodeName,
        /// What it is.
        status: MemberStatus,
        /// What was wanted.
        wanted: String,
    },
    /// The one that replaces has to be new.
    #[error(
        "{by} is {status}; only a node that joins can replace another: `host cluster join` makes it one"
    )]
    NotJoining {
        /// The node that was to replace another.
        by: NodeName,
        /// What it is.
        status: MemberStatus,
    },
    /// One node replaces one other.
    #[error("{by} already replaces {node}; `host cluster clear` forgets all staged changes")]
    AlreadyReplacement {
        /// The node that replaces.
        by: NodeName,
        /// The node that it replaces.
        node: NodeName,
    },
    /// There is nothing to plan.
    #[error("nothing is staged; stage a change first, such as `host cluster join`")]
    NothingStaged,
    /// What was planned is not what a commit would do now.
    #[error(
        "plan {found} is not that of the cluster any more, which is {current}; look at `host cluster plan` again"
    )]
    StalePlan {
        /// The plan that was to be committed.
        found: PlanId,
        /// What a commit would do now.
        current: PlanId,
    },
    /// The staged changes leave nobody to own the ring.
    #[error(
        "with the staged changes no member would be left to own partitions: every one leaves, is down or has weight 0; let another node join too, or forget them with `host cluster clear`"
    )]
    NobodyLeft,
    /// A location's name is no name.
    #[error("a location has 1 to 128 visible characters")]
    Location,
    /// The transfer is over, or another try has begun.
    #[error("no transfer of partition {partition} is at attempt {attempt}")]
    NoTransfer {
        /// The partition.
        partition: PartitionId,
        /// The try.
        attempt: u64,
    },
    /// It does not happen to a rollout.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// The ring cannot be resized, or is being resized and something else has to wait.
    #[error(transparent)]
    Resize(#[from] ResizeError),
}
