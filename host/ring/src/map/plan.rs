//! Plans: what a commit of the staged changes would do, computed before anything is done.
//!
//! Owns the way from staged changes to the map that a commit leads to. A pure function of the map: whoever computes it again, at
//! the commit or on another node, gets the same, or the map has changed and the plan is stale (`riak_core_claimant`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::change::{Change, Staged};
use super::{ClusterMap, MapError, Transfer, resize};
use crate::claim::{Claimer, Safety, claim, safety};
use crate::index::PartitionId;
use crate::member::MemberStatus;
use crate::ring::NodeName;

/// Name of a plan: part of a hash of the map that it leads to, as eight hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanId(u32);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Not a plan's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a plan, which has eight hexadecimal digits")]
pub struct NotPlanId(String);

impl FromStr for PlanId {
    type Err = NotPlanId;

    fn from_str(text: &str) -> Result<PlanId, NotPlanId> {
        if text.len() != 8 {
            return Err(NotPlanId(text.to_owned()));
        }
        match u32::from_str_radix(text, 16) {
            Ok(number) => Ok(PlanId(number)),
            Err(_) => Err(NotPlanId(text.to_owned())),
        }
    }
}

/// A partition that changes its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: PartitionId,
    /// Who owns it now.
    pub from: NodeName,
    /// Who will.
    pub to: NodeName,
    /// Whether what `from` holds of it is given up, because `from` is gone.
    pub lossy: bool,
}

/// What a commit would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub id: PlanId,
    /// The changes that led to it.
    pub changes: Vec<Staged>,
    /// The map after the commit.
    pub after: ClusterMap,
    /// The partitions that change their owner, in ring order; those too that were on their way before.
    pub moves: Vec<Move>,
    /// Who owns what once everything has moved, in ring order. After a resize there are more or fewer of them.
    pub owners: Vec<NodeName>,
    /// How safe the ring is then.
    pub safety: Safety,
}

pub(super) fn plan(map: &ClusterMap) -> Result<Plan, MapError> {
    let changes = map.staged();
    if changes.is_empty() {
        return Err(MapError::NothingStaged);
    }
    if let Some(resized) = resize::plan(map, &changes)? {
        return Ok(resized);
    }
    let mut after = map.clone();
    let gone = members_after(&mut after, &changes)?;
    let claimers = after.claimers();
    let target = owners_after(map, &changes, &claimers)?;
    let moves = reassign(&mut after, &target, &gone);
    for node in &gone {
        after.forget(node);
    }
    after.staged.clear();
    after.let_go();
    let safety = safety(&target, &claimers, map.n).map_err(|_| MapError::NobodyLeft)?;
    Ok(Plan {
        id: name(&after),
        changes,
        after,
        moves,
        owners: target,
        safety,
    })
}

/// Gives the members the status and the properties that they will have. Returns those that are gone at once.
fn members_after(
    after: &mut ClusterMap,
    changes: &[Staged],
) -> Result<BTreeSet<NodeName>, MapError> {
    let mut gone = BTreeSet::new();
    for Staged { node, change } in changes {
        match change {
            Change::Join => after.become_(node, MemberStatus::Valid)?,
            // It may have been marked down since this was staged.
            Change::Leave | Change::Replace { .. } => after.become_(node, MemberStatus::Leaving)?,
            Change::ForceReplace { .. } | Change::ForceRemove => {
                if let Some(member) = after.members.get_mut(node) {
                    member.status = MemberStatus::Exiting;
                }
                gone.insert(node.clone());
            }
            Change::Location(location) => {
                if let Some(member) = after.members.get_mut(node) {
                    member.location.clone_from(location);
                }
            }
            Change::Weight(weight) => {
                if let Some(member) = after.members.get_mut(node) {
                    member.weight = *weight;
                }
            }
            // It is alone, and was planned by itself.
            Change::Resize { .. } => {}
        }
    }
    Ok(gone)
}

/// Who should own what in the end. One that replaces another takes over exactly what that one owned, unless other changes ask
/// for a claim.
fn owners_after(
    map: &ClusterMap,
    changes: &[Staged],
    claimers: &[Claimer],
) -> Result<Vec<NodeName>, MapError> {
    let mut owners = map.future_owners();
    for owner in &mut owners {
        let heir = changes
            .iter()
            .find(|staged| staged.node == *owner)
            .and_then(|staged| staged.change.by());
        if let Some(heir) = heir {
            *owner = heir.clone();
        }
    }
    let replaces = |node: &NodeName| changes.iter().any(|s| s.change.by() == Some(node));
    let only_replaced = changes.iter().all(|staged| match staged.change {
        Change::Join => replaces(&staged.node),
        Change::Replace { .. } | Change::ForceReplace { .. } => true,
        _ => false,
    });
    if only_replaced {
        return Ok(owners);
    }
    // The claimers of a map name nobody twice and n is never 0, so a claim fails for one reason.
    claim(&owners, claimers, map.n).map_err(|_| MapError::NobodyLeft)
}

/// Hands what the gone owned to their heirs at once, and begins the other transfers that lead to `target`.
pub(super) fn reassign(
    after: &mut ClusterMap,
    target: &[NodeName],
    gone: &BTreeSet<NodeName>,
) -> Vec<Move> {
    let mut moves = Vec::new();
    for (partition, to) in after.ring.size().partitions().zip(target) {
        let from = after.ring.owner(partition).clone();
        let under_way = after.transfers.remove(&partition);
        if from == *to {
            continue;
        }
        let lossy = gone.contains(&from);
        if lossy {
            after.ring = after.ring.with_owner(partition, to.clone());
        } else {
            let transfer = under_way
                .filter(|transfer| transfer.to == *to)
                .unwrap_or_else(|| Transfer {
                    to: to.clone(),
                    attempt: after.new_attempt(),
                });
            after.transfers.insert(partition, transfer);
        }
        moves.push(Move {
            partition,
            from,
            to: to.clone(),
            lossy,
        });
    }
    moves
}

/// Names what operators decide about: members, owners, transfers and the size of the ring; not addresses, nor the epoch.
pub(super) fn name(after: &ClusterMap) -> PlanId {
    let mut hash = Sha1::new();
    let mut text = |part: &str| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    for (node, member) in &after.members {
        text(node.as_str());
        text(&member.status.to_string());
        text(member.location.as_deref().unwrap_or_default());
        text(&member.weight.to_string());
        text(&member.card.number.to_string());
    }
    for owner in after.ring.owners().iter().chain(&after.future_owners()) {
        text(owner.as_str());
    }
    if let Some(resize) = &after.resize {
        text(&resize.to.to_string());
        text(resize.stage.word());
    }
    let digest: [u8; 20] = hash.finalize().into();
    let [a, b, c, d, ..] = digest;
    PlanId(u32::from_be_bytes([a, b, c, d]))
}
