//! Becoming a member of another cluster.
//!
//! The node asks a member to be let in under a new number. When that is agreed on, it leaves the consensus of which it was the
//! only member, and begins an empty log under the new number; the new claimant fills it. Which cluster it belongs to is on disk
//! before the old log goes, so a crash at any moment leaves it in one of the two.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use vnode_ring::{Change, ClusterMap, MapError, MapEvent, MemberStatus, NodeName, Staged};

use crate::ask::{About, Answer, Ask};
use crate::cluster::{Cluster, ClusterError, PROPOSE_WITHIN};
use crate::hello::{self, DialError};
use crate::link::Link;
use crate::raft::Consensus;
use crate::tls::Tls;
use crate::wire::{Hello, PROTOCOL, Purpose};

/// Time for a member to say what its cluster is.
const ABOUT_WITHIN: Duration = Duration::from_secs(2);
/// Time for a member to have a join agreed on: a little more than it gives itself.
const JOIN_WITHIN: Duration = Duration::from_secs(6);
/// How long a node that restarts while it joins looks for a member that answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Time for a node that gives up joining to find a member that takes it off its list.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(8);
/// Pause between two rounds of asking.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The address does not lead to a member.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// There is no answer.
    #[error("{address} does not answer; it may be stopped or cut off")]
    Silent {
        /// Where.
        address: String,
    },
    /// The cluster does not let it in.
    #[error("{0}")]
    Refused(MapError),
    /// The member could not have it agreed on.
    #[error("{address} cannot let this node in: {why}")]
    Failed {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// A node is in one cluster.
    #[error(
        "this node is in a cluster with {others} other members; let it leave first: `host cluster leave`"
    )]
    HasMembers {
        /// How many others.
        others: usize,
    },
    /// It is in.
    #[error("this node is a member of that cluster already")]
    AlreadyMember,
    /// It is about to be in.
    #[error(
        "this node is joining a cluster already; wait until `host cluster status` shows it, or give that up with `host cluster leave`"
    )]
    Joining,
    /// It would join itself.
    #[error(
        "{address} is this node's own address; give the address of a member of the other cluster"
    )]
    Itself {
        /// Where.
        address: String,
    },
    /// This node's disk or consensus fails.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// A connection to a member, from outside its cluster.
struct Door {
    address: String,
    link: Link,
}

impl Door {
    async fn open(address: &str, name: &NodeName, tls: Option<&Tls>) -> Result<Door, DialError> {
        let hello = Hello {
            protocol: PROTOCOL,
            cluster: None,
            node: name.clone(),
            purpose: Purpose::Control,
            to: None,
        };
        let dialled = hello::dial(address, &hello, tls).await?;
        Ok(Door {
            address: address.to_owned(),
            link: Link::open(dialled.stream),
        })
    }

    /// The same at an address that somebody typed.
    async fn find(address: &str, name: &NodeName, tls: Option<&Tls>) -> Result<Door, DialError> {
        match Door::open(address, name, tls).await {
            Err(error) => Err(hello::explain(error).await),
            found => found,
        }
    }

    async fn ask(&self, ask: &Ask, within: Duration) -> Result<Answer, JoinError> {
        let deadline = Instant::now() + within;
        match self.link.call(&ask.encode(), deadline).await {
            Ok(answer) => Ok(Answer::decode(&answer)),
            Err(_) => Err(JoinError::Silent {
                address: self.address.clone(),
            }),
        }
    }

    async fn about(&self) -> Result<About, JoinError> {
        match self.ask(&Ask::About, ABOUT_WITHIN).await? {
            Answer::About(about) => Ok(about),
            Answer::Failed(why) => Err(self.failed(why)),
            _ => Err(self.failed("it answers another question".into())),
        }
    }

    fn failed(&self, why: String) -> JoinError {
        JoinError::Failed {
            address: self.address.clone(),
            why,
        }
    }
}

/// What the ring of the cluster is to which a member's address belongs.
///
/// # Errors
/// When nobody answers there.
pub async fn ring_at(
    address: &str,
    name: &NodeName,
    tls: Option<&Tls>,
) -> Result<(vnode_ring::RingSize, vnode_ring::HashId), JoinError> {
    let about = Door::find(address, name, tls).await?.about().await?;
    Ok((about.map.ring().size(), about.map.ring().hash()))
}

impl Cluster {
    /// Asks to be let into the cluster of the member at `address` (for other nodes), and becomes a member that owns nothing.
    /// What this node holds stays on its disk.
    ///
    /// # Errors
    /// See [`JoinError`]; the node then is where it was, or joins as it restarts.
    pub async fn join(self: &Arc<Self>, address: &str) -> Result<(), JoinError> {
        // One after the other: the last number that was asked for is the one that this node has. And nobody is let in meanwhile.
        let _one = self.joining.write().await;
        let map = self.map();
        let others = self.consensus().others();
        if [&self.card.addresses.peer, &self.card.addresses.http].contains(&&address.to_owned()) {
            let address = address.to_owned();
            return Err(JoinError::Itself { address });
        }
        let door = Door::find(address, &self.name, self.me.tls()).await?;
        let about = door.about().await?;
        if self.me.cluster() == Some(about.map.cluster()) {
            return Err(JoinError::AlreadyMember);
        }
        if map.as_ref().map(|map| map.cluster()) != self.me.cluster() {
            return Err(JoinError::Joining);
        }
        if others > 0 {
            return Err(JoinError::HasMembers { others });
        }
        let number = self.draw();
        let since = self.ask_to_join(&door, number).await?;
        // The member may have gone to another cluster itself, and this node with it.
        if door.about().await?.map.cluster() != about.map.cluster() {
            return Err(door.failed("it has joined another cluster meanwhile; try again".into()));
        }
        self.begin_membership(&about, number, since).await?;
        Ok(())
    }

    /// Returns the epoch since which this node is a member.
    async fn ask_to_join(&self, door: &Door, number: u64) -> Result<u64, JoinError> {
        let ring = self.maps.borrow().as_ref().map(|map| map.ring().clone());
        let Some(ring) = ring else {
            return Err(door.failed("this node does not know its own ring yet".into()));
        };
        let mut card = self.card.clone();
        card.number = number;
        let event = MapEvent::JoinStaged {
            node: self.name.clone(),
            card,
            size: ring.size(),
            hash: ring.hash(),
            location: self.location.clone(),
        };
        match door.ask(&Ask::Propose(event), JOIN_WITHIN).await? {
            Answer::Proposed(Ok(epoch)) => Ok(epoch),
            Answer::Proposed(Err(error)) => Err(JoinError::Refused(error)),
            Answer::Failed(why) => Err(door.failed(why)),
            _ => Err(door.failed(format!(
                "it was not confirmed within {PROPOSE_WITHIN:?}; try again"
            ))),
        }
    }

    /// Leaves the consensus of this node alone for that of the cluster, under the number it was let in by.
    async fn begin_membership(
        self: &Arc<Self>,
        about: &About,
        number: u64,
        since: u64,
    ) -> Result<(), ClusterError> {
        let directory = self.consensus_path(number);
        let id = about.map.cluster();
        let members = about.map.members().iter();
        let members = members.map(|(node, member)| (node, &member.card.addresses.peer));
        self.standing()
            .change(|standing| {
                standing.cluster = id;
                standing.number = number;
                standing.since = since;
                standing.contacts = members.clone().map(|(_, at)| at.clone()).collect();
                standing.offered.clear();
            })
            .map_err(ClusterError::from)?;
        let old = self.consensus();
        // It ends whether or not it ends well: nobody else takes part in it.
        drop(old.raft().shutdown().await);
        self.me.set_cluster(Some(id));
        for (node, address) in members {
            self.peers.set_address(node, address);
        }
        let new = Consensus::start(number, id, &directory, &self.peers).await?;
        {
            let consensus = self.consensus.lock();
            *consensus.unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(new);
        }
        self.follow();
        self.feed.add(
            "member",
            Some(self.name.as_str()),
            0,
            format!("{} asks to join cluster {id}", self.name),
        );
        Ok(())
    }

    /// The addresses of members of the cluster that this node has asked to join, while it does not know that cluster's map yet.
    pub fn awaits(&self) -> Vec<String> {
        self.standing().now().contacts.clone()
    }

    /// Whether this node has asked to join a cluster, and nobody has committed that.
    pub fn is_joining(&self) -> bool {
        let map = self.map();
        let me = map.as_ref().and_then(|map| map.members().get(&self.name));
        !self.awaits().is_empty() || me.is_some_and(|me| me.status == MemberStatus::Joining)
    }

    /// Takes back that this node asked to join: it ends, and when it is started again it is a cluster of its own that has what it
    /// had. Whether the other members listen or not; says whether one has agreed.
    pub async fn give_up_joining(&self) -> bool {
        let mut addresses = self.awaits();
        let map = self
            .map()
            .filter(|map| Some(map.cluster()) == self.me.cluster());
        let members = map.iter().flat_map(|map| map.members());
        let others = members.filter(|(node, _)| **node != self.name);
        addresses.extend(others.map(|(_, member)| member.card.addresses.peer.clone()));
        let staged = Staged {
            node: self.name.clone(),
            change: Change::Leave,
        };
        let taken_back = timeout(GIVE_UP_WITHIN, self.tell_one(&addresses, staged)).await;
        self.gives_up.store(true, Ordering::Relaxed);
        taken_back.unwrap_or(false)
    }

    /// Whether a member at one of these addresses has a change agreed on.
    async fn tell_one(&self, addresses: &[String], staged: Staged) -> bool {
        let ask = Ask::Propose(MapEvent::ChangeStaged(staged));
        for address in addresses {
            if let Ok(door) = Door::open(address, &self.name, self.me.tls()).await
                && let Ok(Answer::Proposed(Ok(_))) = door.ask(&ask, JOIN_WITHIN).await
            {
                return true;
            }
        }
        false
    }

    /// Gets the map of the cluster that this node was joining when it ended. The claimant cannot bring it: nobody is let in yet.
    pub(crate) async fn ask_for_map(&self, contacts: &[String]) -> Result<(), ClusterError> {
        let until = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < until {
            for address in contacts {
                if let Some(about) = self.about_at(address).await {
                    self.learn(about.map);
                    if self.map().is_some() {
                        return Ok(());
                    }
                }
            }
            tokio::time::sleep(ASK_PAUSE).await;
        }
        Err(ClusterError::NobodyAnswers {
            contacts: contacts.to_vec(),
        })
    }

    /// What the node at that address says of this node's cluster.
    async fn about_at(&self, address: &str) -> Option<About> {
        let door = Door::open(address, &self.name, self.me.tls()).await.ok()?;
        let about = door.about().await.ok()?;
        (Some(about.map.cluster()) == self.me.cluster()).then_some(about)
    }

    /// Whether a member says that this node, which knows `map`, is none any more. One that was removed while it was cut off is
    /// told nothing: nobody counts on it.
    pub(crate) async fn is_forgotten(&self, map: &ClusterMap) -> bool {
        let number = self.consensus().number();
        let standing = self.standing().now().clone();
        if standing.number != number {
            // It is just about to begin another membership, of which the old number is none.
            return false;
        }
        let (mut addresses, mut known) = (standing.contacts, standing.since);
        if map.cluster() == standing.cluster {
            let others = map.members().iter().filter(|(node, _)| **node != self.name);
            addresses.extend(others.map(|(_, member)| member.card.addresses.peer.clone()));
            known = map.epoch();
        }
        for address in &addresses {
            if let Some(about) = self.about_at(address).await
                && about.map.epoch() >= known
            {
                let me = about.map.members().get(&self.name);
                let is_member = me.is_some_and(|me| me.card.number == number);
                return !is_member && !about.voters.contains(&number);
            }
        }
        false
    }

    /// The map has come to the membership of that number: nobody need be asked for it any more, and older logs may go. Not when the
    /// node has begun another one meanwhile, whose log would go instead.
    pub(crate) fn arrived(&self, number: u64) -> Result<(), ClusterError> {
        let mut standing = self.standing();
        if standing.now().number == number && !standing.now().contacts.is_empty() {
            standing.change(|standing| standing.contacts.clear())?;
            // While nobody can begin another membership.
            self.forget_others(number);
        }
        Ok(())
    }

    /// This node is no member any more: what it knows of the cluster goes, and the next start begins a new one.
    pub(crate) async fn forget_cluster(&self) {
        drop(self.consensus().raft().shutdown().await);
        self.standing().forget();
    }
}
