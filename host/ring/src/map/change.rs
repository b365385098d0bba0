//! Changes that operators stage: what they ask for, and when they may.
//!
//! Staging moves nothing. What the staged changes lead to is in `plan.rs`.

use serde::{Deserialize, Serialize};

use super::{ClusterMap, MapError, resize};
use crate::member::MemberStatus;
use crate::ring::NodeName;

/// The longest name of a location, in characters.
const LOCATION_CHARS_MAX: usize = 128;

/// What is to happen to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is let in. Staged by the node itself.
    Join,
    /// It hands over what it owns, and goes. If it has only asked to join, that is taken back at once.
    Leave,
    /// It goes, and everything that it owns is handed over to one that joins.
    Replace {
        /// The one that joins.
        by: NodeName,
    },
    /// It is gone: one that joins owns its partitions at once, without their data.
    ForceReplace {
        /// The one that joins.
        by: NodeName,
    },
    /// It is gone: others own its partitions at once, without their data.
    ForceRemove,
    /// It is somewhere else; `None` for nowhere in particular.
    Location(Option<String>),
    /// It is to own more or less than the others.
    Weight(u16),
    /// The ring is to have twice or half as many partitions. Not about the member, which only says so. With the present size, while
    /// the ring is being resized: that is given up.
    Resize {
        /// How many partitions.
        partitions: u16,
        /// Replicas that all services with rows have.
        n: u16,
    },
}

/// Changes of one kind exclude each other.
#[derive(PartialEq, Eq)]
enum Kind {
    Membership,
    Location,
    Weight,
    Ring,
}

impl Change {
    /// The node that replaces another, if one does.
    #[must_use]
    pub fn by(&self) -> Option<&NodeName> {
        match self {
            Change::Replace { by } | Change::ForceReplace { by } => Some(by),
            _ => None,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Change::Location(_) => Kind::Location,
            Change::Weight(_) => Kind::Weight,
            Change::Resize { .. } => Kind::Ring,
            _ => Kind::Membership,
        }
    }
}

/// A change that waits for its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The member.
    pub node: NodeName,
    /// What is to happen to it.
    pub change: Change,
}

/// Stages a change, instead of one of its kind for the same node.
pub(super) fn stage(map: &mut ClusterMap, staged: &Staged) -> Result<(), MapError> {
    let Staged { node, change } = staged;
    let status = map.member(node)?.status;
    let refuse = |wanted: &str| Err(map.illegal(node, status, wanted));
    match change {
        // Only the node itself can say what it is.
        Change::Join => return refuse("let in again"),
        // There is nothing to hand over: it takes back that it asked to join.
        Change::Leave if status == MemberStatus::Joining => {
            map.members.remove(node);
            map.staged
                .retain(|other| other.node != *node && other.change.by() != Some(node));
            return Ok(());
        }
        Change::Leave | Change::Replace { .. } if status != MemberStatus::Valid => {
            return refuse("leaving");
        }
        Change::ForceReplace { .. } | Change::ForceRemove if status == MemberStatus::Joining => {
            return refuse("removed; `host cluster leave` takes its join back");
        }
        Change::Resize { partitions, n } => resize::check(map, *partitions, *n)?,
        Change::Location(Some(location)) => {
            let good = |c: char| !c.is_control();
            let chars = location.chars().count();
            if chars == 0 || chars > LOCATION_CHARS_MAX || !location.chars().all(good) {
                return Err(MapError::Location);
            }
        }
        _ => {}
    }
    if !matches!(change, Change::Resize { .. }) {
        resize::check_allows(map, change)?;
    }
    let mut kept = map.staged.clone();
    let of_ring = |change: &Change| change.kind() == Kind::Ring;
    kept.retain(|other| {
        let same = other.node == *node || of_ring(change);
        !same || other.change.kind() != change.kind()
    });
    if let Some(by) = change.by() {
        let status = map.member(by)?.status;
        if status != MemberStatus::Joining {
            let by = by.clone();
            return Err(MapError::NotJoining { by, status });
        }
        if let Some(other) = kept.iter().find(|other| other.change.by() == Some(by)) {
            return Err(MapError::AlreadyReplacement {
                by: by.clone(),
                node: other.node.clone(),
            });
        }
    }
    kept.push(staged.clone());
    map.staged = kept;
    Ok(())
}
