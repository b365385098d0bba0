//! Resizing the ring: from a commit to the day when nobody has rows of the other ring any more.
//!
//! The ring doubles or halves as `split.rs` says, so that each node only divides or joins its own rows. First (*filling*) partitions
//! move until that can be done, which a ring that doubles does not need, and every node copies its rows to where they will be. Then
//! the ring *flips* in one event: before it everything is as it was, after it the new ring is the ring. Each node takes what was
//! written since its copy over before it serves a partition, and says when it holds nothing by the old numbers (*cleaning*). Whoever
//! was away does all of that when he is back. A resize that is given up before its flip is cleaned up in the same way.
//!
//! While a ring is resized nothing else changes but who is up: one thing after another, as in riak.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::change::{Change, Staged};
use super::plan::{self, Plan};
use super::{ClusterMap, MapError};
use crate::claim::{claim, safety};
use crate::index::{IndexError, RingSize};
use crate::member::MemberStatus;
use crate::ring::{NodeName, Ring};
use crate::split::Split;

/// A resize under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Its name in the cluster: the epoch at which it began.
    pub id: u64,
    /// The size before.
    pub from: RingSize,
    /// The size that was asked for.
    pub to: RingSize,
    /// Replicas of the services with rows.
    pub n: u16,
    /// How far it is.
    pub stage: ResizeStage,
}

/// How far a resize is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResizeStage {
    /// The ring is the old one. It may still be given up.
    Filling {
        /// Who owned what when it began, in ring order.
        before: Vec<NodeName>,
        /// Those that have copied their rows.
        filled: BTreeSet<NodeName>,
    },
    /// The ring has flipped, or the resize was given up. These members may have rows of the other ring.
    Cleaning {
        /// Who.
        left: BTreeSet<NodeName>,
    },
}

impl ResizeStage {
    /// In one word, for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            ResizeStage::Filling { .. } => "filling",
            ResizeStage::Cleaning { .. } => "cleaning",
        }
    }
}

/// What happens to a resize. Each names it, so that nothing is said of a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResizeEvent {
    /// A member has copied its rows to where the new ring has them.
    Filled {
        /// The resize.
        id: u64,
        /// The member.
        node: NodeName,
    },
    /// The new ring is the ring.
    Flipped {
        /// The resize.
        id: u64,
    },
    /// A member holds nothing by the numbers of the other ring any more.
    Cleaned {
        /// The resize.
        id: u64,
        /// The member.
        node: NodeName,
    },
}

/// Why a resize does not happen, or something else does not because of one. The words are for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ResizeError {
    /// No ring has that size.
    #[error(
        "ring size {found} is not a power of two from {} to {}",
        RingSize::MIN,
        RingSize::MAX
    )]
    Size {
        /// What was asked for.
        found: u16,
    },
    /// One step at a time.
    #[error(
        "the ring has {from} partitions and can be resized to twice or half as many, not to {found}; go there in steps"
    )]
    Step {
        /// The size of the ring.
        from: RingSize,
        /// What was asked for.
        found: u16,
    },
    /// There is nothing to do, and nothing to give up.
    #[error("the ring has {from} partitions already")]
    Same {
        /// The size of the ring.
        from: RingSize,
    },
    /// The number of replicas does not allow it.
    #[error(
        "a ring is resized only for services with an odd number of replicas that fits both sizes, not yet for n={n}"
    )]
    Replicas {
        /// The number of replicas.
        n: u16,
    },
    /// It is committed alone.
    #[error(
        "a resize is committed alone; commit the other changes first, or forget them with `host cluster clear`"
    )]
    Alone,
    /// Everything else has to be at rest.
    #[error("{count} partitions are moving; resize the ring when `host transfers` shows none")]
    Transfers {
        /// How many.
        count: usize,
    },
    /// A rollout has to be over.
    #[error(
        "service {service} is going over to another version; finish that first, see `host guest show`"
    )]
    Rollout {
        /// The service.
        service: String,
    },
    /// Everybody takes part.
    #[error("{node} is {status}; a ring is resized when every member is valid")]
    Member {
        /// The member.
        node: NodeName,
        /// What it is.
        status: MemberStatus,
    },
    /// Something else has to wait for it.
    #[error(
        "the ring is being resized from {from} to {to} partitions; wait until that is done, or give it up with `host cluster resize {from}`"
    )]
    Filling {
        /// The size before.
        from: RingSize,
        /// The size after.
        to: RingSize,
    },
    /// Something else has to wait until everybody has cleaned up.
    #[error(
        "the ring was resized a moment ago, and {left} still has rows of the other size; wait until `host transfers` shows no resize"
    )]
    Cleaning {
        /// One of those that have.
        left: NodeName,
    },
    /// It is not the resize under way, or not at that stage.
    #[error("no such resize is under way")]
    None,
    /// Somebody has not said that his rows are copied.
    #[error("{node} has not copied its rows yet")]
    NotFilled {
        /// Who.
        node: NodeName,
    },
}

/// Refuses what has to wait for a resize.
pub(super) fn check_none(map: &ClusterMap) -> Result<(), ResizeError> {
    match &map.resize {
        None => Ok(()),
        Some(resize) => Err(resize.in_the_way()),
    }
}

/// Refuses another change that has to wait for a resize.
pub(super) fn check_allows(map: &ClusterMap, change: &Change) -> Result<(), ResizeError> {
    match &map.resize {
        Some(resize) if !resize.allows(change) => Err(resize.in_the_way()),
        _ => Ok(()),
    }
}

impl Resize {
    /// What is left to do after the flip does not need those who are gone, and they cannot do it.
    fn allows(&self, change: &Change) -> bool {
        !self.is_filling() && *change == Change::ForceRemove
    }

    fn in_the_way(&self) -> ResizeError {
        let filling = ResizeError::Filling {
            from: self.from,
            to: self.to,
        };
        match &self.stage {
            ResizeStage::Filling { .. } => filling,
            ResizeStage::Cleaning { left } => match left.first().cloned() {
                Some(left) => ResizeError::Cleaning { left },
                None => filling,
            },
        }
    }

    /// How the old ring's rows come to lie on the new one.
    #[must_use]
    pub fn split(&self) -> Option<Split> {
        Split::new(self.from, self.to, self.n)
    }

    /// Whether the ring is the old one and may become the new one.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        matches!(self.stage, ResizeStage::Filling { .. })
    }

    /// Whether a member has copied its rows.
    #[must_use]
    pub fn has_filled(&self, node: &NodeName) -> bool {
        matches!(&self.stage, ResizeStage::Filling { filled, .. } if filled.contains(node))
    }

    /// Whether a member may have rows by the numbers of a ring that is not the cluster's any more.
    #[must_use]
    pub fn is_left(&self, node: &NodeName) -> bool {
        matches!(&self.stage, ResizeStage::Cleaning { left } if left.contains(node))
    }
}

/// The ring's next size, if `partitions` is one. None gives up the resize that is under way.
fn wanted(map: &ClusterMap, partitions: u16) -> Result<Option<RingSize>, ResizeError> {
    let from = map.ring.size();
    let given_up = partitions == from.get();
    match &map.resize {
        Some(resize) if resize.is_filling() && given_up => return Ok(None),
        Some(resize) => return Err(resize.in_the_way()),
        None if given_up => return Err(ResizeError::Same { from }),
        None => {}
    }
    let to = from.next_generation(partitions.into());
    let to = to.map_err(|_: IndexError| ResizeError::Size { found: partitions })?;
    let steps = [from.get().checked_mul(2), Some(from.get() / 2)];
    match steps.contains(&Some(partitions)) {
        true => Ok(Some(to)),
        false => Err(ResizeError::Step {
            from,
            found: partitions,
        }),
    }
}

/// Refuses a resize that cannot be.
pub(super) fn check(map: &ClusterMap, partitions: u16, n: u16) -> Result<(), ResizeError> {
    if let Some(to) = wanted(map, partitions)? {
        let split = Split::new(map.ring.size(), to, n);
        split.ok_or(ResizeError::Replicas { n })?;
    }
    Ok(())
}

/// What a commit would do if a resize is staged or under way; none if it has nothing to do with one.
pub(super) fn plan(map: &ClusterMap, changes: &[Staged]) -> Result<Option<Plan>, MapError> {
    let resizes = |staged: &Staged| match staged.change {
        Change::Resize { partitions, n } => Some((partitions, n)),
        _ => None,
    };
    let Some((partitions, n)) = changes.iter().find_map(resizes) else {
        for staged in changes {
            check_allows(map, &staged.change)?;
        }
        return Ok(None);
    };
    if changes.len() > 1 {
        return Err(ResizeError::Alone.into());
    }
    let mut after = map.clone();
    after.staged.clear();
    let (moves, target) = match wanted(map, partitions)? {
        None => give_up(&mut after),
        Some(to) => begin(&mut after, to, n)?,
    };
    let claimers = after.claimers();
    let safety = safety(&target, &claimers, map.n).map_err(|_| MapError::NobodyLeft)?;
    Ok(Some(Plan {
        id: plan::name(&after),
        changes: changes.to_vec(),
        after,
        moves,
        owners: target,
        safety,
    }))
}

/// The owners that a plan leads to, with what moves until then.
type Outlook = (Vec<plan::Move>, Vec<NodeName>);

fn give_up(after: &mut ClusterMap) -> Outlook {
    let mut target = after.ring.owners().to_vec();
    let members = after.members.keys().cloned().collect();
    let mut moves = Vec::new();
    if let Some(resize) = &mut after.resize
        && let ResizeStage::Filling { before, .. } =
            std::mem::replace(&mut resize.stage, ResizeStage::Cleaning { left: members })
    {
        moves = plan::reassign(after, &before, &BTreeSet::new());
        target = before;
    }
    (moves, target)
}

fn begin(after: &mut ClusterMap, to: RingSize, n: u16) -> Result<Outlook, MapError> {
    check_at_rest(after)?;
    let from = after.ring.size();
    let split = Split::new(from, to, n).ok_or(ResizeError::Replicas { n })?;
    let claimers = after.claimers();
    let claimed = |owners: &[NodeName]| claim(owners, &claimers, after.n);
    let before = after.ring.owners().to_vec();
    let target = match split.doubles() {
        // Nobody is without an owner on a ring that doubles.
        true => split.owners_after(&before).unwrap_or_default(),
        // Of the two parts of a partition one stays where it is.
        false => to
            .partitions()
            .filter_map(|heir| split.sources(heir).pop())
            .map(|source| after.ring.owner(source).clone())
            .collect(),
    };
    let target = claimed(&target).map_err(|_| MapError::NobodyLeft)?;
    let moves = match split.doubles() {
        true => Vec::new(),
        false => plan::reassign(after, &split.owners_before(&target), &BTreeSet::new()),
    };
    after.resize = Some(Resize {
        id: after.epoch() + 1,
        from,
        to,
        n,
        stage: ResizeStage::Filling {
            before,
            filled: BTreeSet::new(),
        },
    });
    Ok((moves, target))
}

/// Everything else is done, and everybody is there.
fn check_at_rest(map: &ClusterMap) -> Result<(), ResizeError> {
    let mut members = map.members.iter();
    if let Some((node, member)) = members.find(|(_, one)| one.status != MemberStatus::Valid) {
        return Err(ResizeError::Member {
            node: node.clone(),
            status: member.status,
        });
    }
    if !map.transfers.is_empty() {
        let count = map.transfers.len();
        return Err(ResizeError::Transfers { count });
    }
    let mut rollouts = map.versions.iter();
    if let Some((service, _)) = rollouts.find(|(_, versions)| versions.under_way().is_some()) {
        let service = service.clone();
        return Err(ResizeError::Rollout { service });
    }
    Ok(())
}

/// Lets something happen to the resize under way.
pub(super) fn happen(map: &mut ClusterMap, event: &ResizeEvent) -> Result<(), MapError> {
    let (ResizeEvent::Filled { id, .. }
    | ResizeEvent::Flipped { id }
    | ResizeEvent::Cleaned { id, .. }) = event;
    let resize = map.resize.as_mut().filter(|resize| resize.id == *id);
    let resize = resize.ok_or(ResizeError::None)?;
    match (event, &mut resize.stage) {
        (ResizeEvent::Filled { node, .. }, ResizeStage::Filling { filled, .. }) => {
            filled.insert(node.clone());
        }
        (ResizeEvent::Cleaned { node, .. }, ResizeStage::Cleaning { left }) => {
            left.remove(node);
        }
        (ResizeEvent::Flipped { .. }, ResizeStage::Filling { .. }) => flip(map)?,
        // It is a stage further already.
        (ResizeEvent::Filled { .. } | ResizeEvent::Flipped { .. }, _) => {}
        (ResizeEvent::Cleaned { .. }, _) => return Err(ResizeError::None.into()),
    }
    Ok(())
}

fn flip(map: &mut ClusterMap) -> Result<(), MapError> {
    if let Some(node) = waits_for(map).next() {
        return Err(ResizeError::NotFilled { node: node.clone() }.into());
    }
    let (Some(resize), true) = (&mut map.resize, map.transfers.is_empty()) else {
        let count = map.transfers.len();
        return Err(ResizeError::Transfers { count }.into());
    };
    let owners = resize
        .split()
        .and_then(|split| split.owners_after(map.ring.owners()));
    let ring = owners.and_then(|owners| {
        let (hash, epoch) = (map.ring.hash(), map.ring.epoch());
        Ring::new(resize.to, hash, owners, epoch).ok()
    });
    map.ring = ring.ok_or(ResizeError::None)?;
    resize.stage = ResizeStage::Cleaning {
        left: map.members.keys().cloned().collect(),
    };
    Ok(())
}

/// Members that have to say something before the ring flips. Those that are down do what they have missed when they are back.
fn waits_for(map: &ClusterMap) -> impl Iterator<Item = &NodeName> {
    let resize = map.resize.as_ref();
    let members = map.members.iter();
    members
        .filter(|(_, member)| member.status == MemberStatus::Valid)
        .map(|(node, _)| node)
        .filter(move |node| !resize.is_some_and(|resize| resize.has_filled(node)))
}

impl ClusterMap {
    /// The resize that may flip now.
    #[must_use]
    pub fn flips(&self) -> Option<&Resize> {
        let resize = self.resize.as_ref().filter(|resize| resize.is_filling());
        resize.filter(|_| self.transfers.is_empty() && waits_for(self).next().is_none())
    }
}

/// A resize is over when no member has rows of the other ring any more. What a larger or smaller ring can do better than the one it
/// came from follows as transfers.
pub(super) fn finish(map: &mut ClusterMap) {
    let Some(resize) = &mut map.resize else {
        return;
    };
    let ResizeStage::Cleaning { left } = &mut resize.stage else {
        return;
    };
    left.retain(|node| map.members.contains_key(node));
    if !left.is_empty() {
        return;
    }
    let flipped = map.ring.size() == resize.to;
    map.resize = None;
    if flipped && map.transfers.is_empty() {
        let claimers = map.claimers();
        // Those who own it all may go on owning it as it is.
        if let Ok(target) = claim(map.ring.owners(), &claimers, map.n) {
            plan::reassign(map, &target, &BTreeSet::new());
        }
    }
}
