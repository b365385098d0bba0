//! The cluster map: what all nodes agree on, and how it changes.
//!
//! Owns the members, the owners of the partitions, the transfers under way and the staged changes, at one epoch. It is a
//! state machine without I/O: every node applies the same events in the same order and holds the same map. Somebody else agrees
//! on the order. Next: `change.rs` for what operators stage, `plan.rs` for what a commit would do.

pub mod change;
mod error;
mod id;
pub mod limits;
pub mod plan;
pub mod resize;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::change::{Change, Staged};
pub use self::error::MapError;
pub use self::id::{ClusterId, NotClusterId};
use self::limits::TransferLimits;
use self::plan::{Plan, PlanId};
use self::resize::{Resize, ResizeEvent};
use crate::claim::Claimer;
use crate::hash::HashId;
use crate::index::{PartitionId, RingSize};
use crate::member::{Card, Member, MemberStatus, WEIGHT};
use crate::ring::{NodeName, Ring};
use crate::rollout::{self, Release, RolloutEvent, Surroundings, Versions};

/// A partition on its way to another owner. Its present owner serves it until the map says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Who will own it.
    pub to: NodeName,
    /// Which try this is. Whoever gives one up has it renewed, after which nothing that belongs to the old one counts.
    pub attempt: u64,
}

/// What all nodes of a cluster agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct ClusterMap {
    cluster: ClusterId,
    /// Replicas of a key that the claim spreads over nodes.
    n: u16,
    /// Its epoch is that of the map.
    ring: Ring,
    members: BTreeMap<NodeName, Member>,
    transfers: BTreeMap<PartitionId, Transfer>,
    staged: Vec<Staged>,
    /// The number of the next try of a transfer.
    next_attempt: u64,
    limits: TransferLimits,
    /// By the names of the services; those that have had a rollout.
    versions: BTreeMap<String, Versions>,
    /// From its commit until nobody has rows of the other ring any more.
    resize: Option<Resize>,
}

/// Something that happens to a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapEvent {
    /// The first node of a cluster starts. Always the first event, and only that.
    Founded(Box<ClusterMap>),
    /// A node asks to be let in. The same node may ask again.
    JoinStaged {
        /// Its name.
        node: NodeName,
        /// What it says of itself.
        card: Card,
        /// Partitions of the ring it has kept its rows by.
        size: RingSize,
        /// How it has placed its keys.
        hash: HashId,
        /// What it shares with other nodes that may fail together with it.
        location: Option<String>,
    },
    /// An operator stages a change, instead of the one of the same kind that was staged for the node before.
    ChangeStaged(Staged),
    /// An operator gives up everything that is staged; nodes that only asked to join are forgotten.
    StagedCleared,
    /// An operator commits the plan that he has seen.
    PlanCommitted(PlanId),
    /// An operator says that a node will not come back soon.
    MarkedDown(NodeName),
    /// A node has started, or is back.
    Returned {
        /// Its name.
        node: NodeName,
        /// What it says of itself now.
        card: Card,
    },
    /// The owner of partitions has handed them over, each at the try that succeeded. All of them, or none if one is at another
    /// try by now.
    HandedOver(BTreeMap<PartitionId, u64>),
    /// The owner of partitions gives up these tries to hand them over; others begin. Tries that are over already do not matter.
    TransfersRenewed(BTreeMap<PartitionId, u64>),
    /// A node that may go has gone.
    Left(NodeName),
    /// An operator limits transfers, or pauses them, instead of what was said before.
    TransfersLimited(TransferLimits),
    /// Something happens to the rollout of a service.
    Rollout {
        /// The service.
        service: String,
        /// What.
        event: RolloutEvent,
    },
    /// Something happens to the resize that is under way.
    Resize(ResizeEvent),
}

impl ClusterMap {
    /// The map of a new cluster: one node owns everything, at epoch 1.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        n: u16,
        size: RingSize,
        hash: HashId,
        node: NodeName,
        card: Card,
        location: Option<String>,
    ) -> ClusterMap {
        let member = Member {
            status: MemberStatus::Valid,
            card,
            location,
            weight: WEIGHT,
        };
        ClusterMap {
            cluster,
            n,
            ring: Ring::single(node.clone(), size, hash),
            members: BTreeMap::from([(node, member)]),
            transfers: BTreeMap::new(),
            staged: Vec::new(),
            next_attempt: 1,
            limits: TransferLimits::default(),
            versions: BTreeMap::new(),
            resize: None,
        }
    }

    /// The map after the first event of all.
    ///
    /// # Errors
    /// Refuses every event but the one that founds a cluster.
    pub fn found(event: &MapEvent) -> Result<ClusterMap, MapError> {
        match event {
            MapEvent::Founded(map) => Ok(ClusterMap::clone(map)),
            _ => Err(MapError::NotTheBeginning),
        }
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The version of the map; grows with every event that changes it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.ring.epoch()
    }

    /// Replicas of a key that the claim spreads over nodes.
    #[must_use]
    pub fn n(&self) -> u16 {
        self.n
    }

    /// Who owns what now.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The members by name.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<NodeName, Member> {
        &self.members
    }

    /// A member.
    ///
    /// # Errors
    /// When it is none.
    pub fn member(&self, node: &NodeName) -> Result<&Member, MapError> {
        self.members
            .get(node)
            .ok_or_else(|| MapError::NotMember { node: node.clone() })
    }

    /// Partitions on their way to another owner.
    #[must_use]
    pub fn transfers(&self) -> &BTreeMap<PartitionId, Transfer> {
        &self.transfers
    }

    /// What operators say of transfers.
    #[must_use]
    pub fn transfer_limits(&self) -> TransferLimits {
        self.limits
    }

    /// Which versions the cluster runs of each service that has had a rollout, by the names of the services.
    #[must_use]
    pub fn versions(&self) -> &BTreeMap<String, Versions> {
        &self.versions
    }

    /// The resize under way, until nobody has rows of the other ring any more.
    #[must_use]
    pub fn resize(&self) -> Option<&Resize> {
        self.resize.as_ref()
    }

    /// Which version a partition of a service is to run; none as long as there was no rollout, when each node runs what it was
    /// started with.
    #[must_use]
    pub fn assigned(&self, service: &str, partition: PartitionId) -> Option<&Release> {
        Some(self.versions.get(service)?.assigned(partition))
    }

    /// Everything that is staged, joins too: in the order in which a plan shows it.
    #[must_use]
    pub fn staged(&self) -> Vec<Staged> {
        let joining = self
            .members
            .iter()
            .filter(|(_, member)| member.status == MemberStatus::Joining);
        let joins = joining.map(|(node, _)| Staged {
            node: node.clone(),
            change: Change::Join,
        });
        joins.chain(self.staged.iter().cloned()).collect()
    }

    /// Who owns each partition once all transfers are done, in ring order.
    #[must_use]
    pub fn future_owners(&self) -> Vec<NodeName> {
        let owner = |partition| match self.transfers.get(&partition) {
            Some(transfer) => transfer.to.clone(),
            None => self.ring.owner(partition).clone(),
        };
        self.ring.size().partitions().map(owner).collect()
    }

    /// Those among whom the ring is divided.
    #[must_use]
    pub fn claimers(&self) -> Vec<Claimer> {
        let claims = self.members.iter().filter(|(_, m)| m.status.claims());
        let claimer = |(node, member): (&NodeName, &Member)| Claimer {
            node: node.clone(),
            location: member.location.clone(),
            weight: member.weight,
        };
        claims.map(claimer).collect()
    }

    /// What a commit would do now.
    ///
    /// # Errors
    /// When nothing is staged, or nobody would be left to own the ring.
    pub fn plan(&self) -> Result<Plan, MapError> {
        plan::plan(self)
    }

    /// Lets an event happen. Returns the epoch after it, which is the old one when it changes nothing.
    ///
    /// # Errors
    /// Says why it cannot happen; then nothing has changed.
    pub fn apply(&mut self, event: &MapEvent) -> Result<u64, MapError> {
        let mut next = self.clone();
        next.happen(event)?;
        next.let_go();
        resize::finish(&mut next);
        if next != *self {
            let epoch = self.epoch() + 1;
            next.ring = next.ring.at_epoch(epoch);
            *self = next;
        }
        Ok(self.epoch())
    }

    fn happen(&mut self, event: &MapEvent) -> Result<(), MapError> {
        match event {
            MapEvent::Founded(_) => Err(MapError::NotTheBeginning),
            MapEvent::JoinStaged {
                node,
                card,
                size,
                hash,
                location,
            } => {
                resize::check_none(self)?;
                self.check_join(node, card, *size, *hash)?;
                self.let_join(node, card, location.as_ref());
                Ok(())
            }
            MapEvent::ChangeStaged(staged) => change::stage(self, staged),
            MapEvent::StagedCleared => {
                self.staged.clear();
                self.members
                    .retain(|_, member| member.status != MemberStatus::Joining);
                Ok(())
            }
            MapEvent::PlanCommitted(id) => {
                let plan = self.plan()?;
                if plan.id != *id {
                    return Err(MapError::StalePlan {
                        found: *id,
                        current: plan.id,
                    });
                }
                *self = plan.after;
                Ok(())
            }
            MapEvent::MarkedDown(node) => {
                self.someone_else_serves(node)?;
                self.become_(node, MemberStatus::Down)
            }
            MapEvent::Returned { node, card } => self.welcome_back(node, card),
            MapEvent::HandedOver(tries) => {
                for (partition, attempt) in tries {
                    let transfer = self.transfer(*partition, *attempt)?.clone();
                    self.transfers.remove(partition);
                    self.ring = self.ring.with_owner(*partition, transfer.to);
                }
                Ok(())
            }
            MapEvent::TransfersRenewed(tries) => {
                for (partition, attempt) in tries {
                    let next = self.next_attempt;
                    if let Some(transfer) = self.transfers.get_mut(partition)
                        && transfer.attempt == *attempt
                    {
                        transfer.attempt = next;
                        self.next_attempt += 1;
                    }
                }
                Ok(())
            }
            MapEvent::Left(node) => {
                let status = self.member(node)?.status;
                if status != MemberStatus::Exiting {
                    return Err(self.illegal(node, status, "gone"));
                }
                self.forget(node);
                Ok(())
            }
            MapEvent::TransfersLimited(limits) => {
                self.limits = *limits;
                Ok(())
            }
            MapEvent::Rollout { service, event } => {
                if matches!(event, RolloutEvent::Begun { .. }) {
                    resize::check_none(self)?;
                }
                let versions = self.versions.get(service).cloned();
                let around = self.surroundings(service);
                let versions = rollout::happen(service, versions, event, &around)?;
                self.versions.insert(service.clone(), versions);
                Ok(())
            }
            MapEvent::Resize(event) => resize::happen(self, event),
        }
    }

    /// What a rollout of a service depends on.
    fn surroundings(&self, service: &str) -> Surroundings<'_> {
        let waited_for = self.members.iter().filter(|(_, member)| {
            matches!(member.status, MemberStatus::Valid | MemberStatus::Leaving)
        });
        let serving = waited_for.filter_map(|(node, member)| {
            let guest = member.card.guests.get(service)?;
            Some((node, guest.digest.as_str()))
        });
        Surroundings {
            epoch: self.epoch() + 1,
            ring: &self.ring,
            serving: serving.collect(),
            transfers: self.transfers.len(),
        }
    }

    fn check_join(
        &self,
        node: &NodeName,
        card: &Card,
        size: RingSize,
        hash: HashId,
    ) -> Result<(), MapError> {
        if let Some(member) = self.members.get(node)
            && member.status != MemberStatus::Joining
            && member.card.number != card.number
        {
            return Err(MapError::NameTaken { node: node.clone() });
        }
        // How often its ring was resized does not matter: its rows get the numbers of this one.
        if (size.get(), hash) != (self.ring.size().get(), self.ring.hash()) {
            return Err(MapError::OtherRing {
                node: node.clone(),
                wanted: self.ring.size(),
                wanted_hash: self.ring.hash(),
                found: size,
                hash,
            });
        }
        Ok(())
    }

    /// A node that asks again has begun anew, unless it is in already.
    fn let_join(&mut self, node: &NodeName, card: &Card, location: Option<&String>) {
        let member = self.members.entry(node.clone()).or_insert_with(|| Member {
            status: MemberStatus::Joining,
            card: card.clone(),
            location: location.cloned(),
            weight: WEIGHT,
        });
        member.card = card.clone();
    }

    fn welcome_back(&mut self, node: &NodeName, card: &Card) -> Result<(), MapError> {
        let member = self
            .members
            .get_mut(node)
            .ok_or_else(|| MapError::NotMember { node: node.clone() })?;
        if member.card.number != card.number {
            return Err(MapError::NameTaken { node: node.clone() });
        }
        member.card = card.clone();
        if member.status == MemberStatus::Down {
            member.status = MemberStatus::Valid;
        }
        Ok(())
    }

    /// Refuses what would leave nobody but `node` to own the ring.
    fn someone_else_serves(&self, node: &NodeName) -> Result<(), MapError> {
        self.member(node)?;
        let other = self.members.iter().any(|(name, member)| {
            name != node && member.status == MemberStatus::Valid && member.weight > 0
        });
        if other {
            Ok(())
        } else {
            Err(MapError::OnlyMember { node: node.clone() })
        }
    }

    fn become_(&mut self, node: &NodeName, next: MemberStatus) -> Result<(), MapError> {
        let status = self.member(node)?.status;
        if !status.may_become(next) {
            return Err(self.illegal(node, status, &next.to_string()));
        }
        if let Some(member) = self.members.get_mut(node) {
            member.status = next;
        }
        Ok(())
    }

    fn illegal(&self, node: &NodeName, status: MemberStatus, wanted: &str) -> MapError {
        MapError::Status {
            node: node.clone(),
            status,
            wanted: wanted.to_owned(),
        }
    }

    fn transfer(&self, partition: PartitionId, attempt: u64) -> Result<&Transfer, MapError> {
        self.transfers
            .get(&partition)
            .filter(|transfer| transfer.attempt == attempt)
            .ok_or(MapError::NoTransfer { partition, attempt })
    }

    fn new_attempt(&mut self) -> u64 {
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        attempt
    }

    /// Removes a member and what is staged for it.
    fn forget(&mut self, node: &NodeName) {
        self.members.remove(node);
        self.staged
            .retain(|staged| staged.node != *node && staged.change.by() != Some(node));
    }

    /// Leaving nodes that own nothing any more, and are to own nothing, may exit.
    fn let_go(&mut self) {
        let owns = |node: &NodeName| {
            self.ring.owners().contains(node) || self.transfers.values().any(|t| t.to == *node)
        };
        let done: Vec<NodeName> = self
            .members
            .iter()
            .filter(|(node, member)| member.status == MemberStatus::Leaving && !owns(node))
            .map(|(node, _)| node.clone())
            .collect();
        for node in done {
            if let Some(member) = self.members.get_mut(&node) {
                member.status = MemberStatus::Exiting;
            }
        }
    }

    /// What holds of every map: each owner and each heir is a member that may own partitions.
    fn check(&self) -> Result<(), String> {
        let partitions = self.ring.size().partitions();
        let owners = partitions.zip(self.ring.owners());
        for (partition, owner) in owners {
            let status = self.members.get(owner).map(|member| member.status);
            if matches!(
                status,
                None | Some(MemberStatus::Joining | MemberStatus::Exiting)
            ) {
                return Err(format!(
                    "partition {partition} is owned by {owner}, which is {status:?}"
                ));
            }
        }
        for (partition, transfer) in &self.transfers {
            if !self.ring.size().contains(*partition)
                || self.ring.owner(*partition) == &transfer.to
                || !self.members.contains_key(&transfer.to)
                || transfer.attempt >= self.next_attempt
            {
                return Err(format!(
                    "partition {partition} has the transfer {transfer:?}"
                ));
            }
        }
        Ok(())
    }
}

/// A map as it is written down, before its invariants have been checked.
#[derive(Serialize, Deserialize)]
struct Parts {
    cluster: ClusterId,
    n: u16,
    ring: Ring,
    members: BTreeMap<NodeName, Member>,
    transfers: BTreeMap<PartitionId, Transfer>,
    staged: Vec<Staged>,
    next_attempt: u64,
    limits: TransferLimits,
    versions: BTreeMap<String, Versions>,
    resize: Option<Resize>,
}

impl TryFrom<Parts> for ClusterMap {
    type Error = String;

    fn try_from(parts: Parts) -> Result<ClusterMap, String> {
        let map = ClusterMap {
            cluster: parts.cluster,
            n: parts.n,
            ring: parts.ring,
            members: parts.members,
            transfers: parts.transfers,
            staged: parts.staged,
            next_attempt: parts.next_attempt,
            limits: parts.limits,
            versions: parts.versions,
            resize: parts.resize,
        };
        map.check()?;
        Ok(map)
    }
}

impl From<ClusterMap> for Parts {
    fn from(map: ClusterMap) -> Parts {
        Parts {
            cluster: map.cluster,
            n: map.n,
            ring: map.ring,
            members: map.members,
            transfers: map.transfers,
            staged: map.staged,
            next_attempt: map.next_attempt,
            limits: map.limits,
            versions: map.versions,
            resize: map.resize,
        }
    }
}
