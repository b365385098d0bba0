//! What follows from the map: the view that executors route by, who votes, and what this node itself has to do.
//!
//! Two tasks. One publishes views and never waits; the other proposes what has become due, one thing after another, and looks
//! again whenever the map, the up nodes or the claimant changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ChangeMembers;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use vnode_ring::{ClusterMap, MapEvent, MemberStatus, NodeName, View};

use crate::cluster::{Cluster, Vnodes};
use crate::damping::{Sight, Unheard};
use crate::raft::Peer;
use crate::raft::voters::{self, Contact, Member as Voter, Seats};

/// How often it is looked whether something has become due, besides at each change.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time for a change of the voters, before it is looked anew what is due.
const VOTERS_WITHIN: Duration = Duration::from_secs(5);
/// A member to which the claimant says nothing for that long asks the others whether it is one still.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A member that lacks fewer entries of the log may vote.
const ENTRIES_BEHIND: u64 = 50;

/// Publishes a view at each change, until the cluster is dropped.
pub async fn publish(
    cluster: Arc<Cluster>,
    vnodes: Arc<impl Vnodes>,
    mut sight: watch::Receiver<Sight>,
) {
    let mut maps = cluster.maps();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut known: Option<Arc<ClusterMap>> = None;
    let mut shown = None;
    let mut unheard = Unheard::default();
    loop {
        let seen = sight.borrow_and_update().clone();
        let map = maps.borrow_and_update().clone();
        let claimant = cluster.claimant();
        if let Some(map) = map {
            keep_addresses(&cluster, &map);
            let unheard = unheard.among(cluster.may_be_up(&map), &seen, Instant::now());
            let now = (map.epoch(), seen.up.clone(), unheard, claimant.clone());
            if shown.as_ref() != Some(&now) {
                if let Some(view) = cluster.view(&seen.up, now.2.clone()) {
                    tell(&cluster, known.as_deref(), &map, &*vnodes, &view);
                    vnodes.publish(view);
                }
                known = Some(map);
                shown = Some(now);
            }
        }
        tokio::select! {
            changed = maps.changed() => if changed.is_err() { return },
            changed = sight.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
        }
    }
}

/// Lets the links know where the members are, and those who are none any more while they still vote or learn.
fn keep_addresses(cluster: &Cluster, map: &ClusterMap) {
    if cluster.me().cluster() != Some(map.cluster()) {
        // The node is leaving that cluster for another, whose map has not come yet.
        return;
    }
    let members = map.members().iter();
    let mut wanted: BTreeMap<NodeName, String> = members
        .map(|(node, member)| (node.clone(), member.card.addresses.peer.clone()))
        .collect();
    for peer in cluster.consensus().nodes() {
        if let Ok(node) = NodeName::new(&peer.name) {
            wanted.entry(node).or_insert(peer.peer_address);
        }
    }
    for (node, address) in &wanted {
        cluster.peers().set_address(node, address);
    }
    for node in cluster.peers().nodes() {
        if !wanted.contains_key(&node) {
            cluster.peers().remove(&node);
        }
    }
}

/// Tells those who watch what has changed.
fn tell(
    cluster: &Cluster,
    old: Option<&ClusterMap>,
    new: &ClusterMap,
    vnodes: &impl Vnodes,
    now: &View,
) {
    let feed = cluster.feed();
    let epoch = new.epoch();
    let before = vnodes.view();
    for node in new.members().keys().filter(|node| **node != cluster.name) {
        let (was, is) = (before.is_seen(node), now.is_seen(node));
        if was != is && before.map().members().contains_key(node) {
            let word = if is { "up" } else { "unreachable" };
            feed.add(
                "member",
                Some(node.as_str()),
                epoch,
                format!("{node} is {word}"),
            );
        }
    }
    if before.claimant() != now.claimant()
        && let Some(claimant) = now.claimant()
    {
        let text = format!("{claimant} is the claimant");
        feed.add("claimant", Some(claimant.as_str()), epoch, text);
    }
    let Some(old) = old.filter(|old| old.cluster() == new.cluster()) else {
        return;
    };
    for (node, member) in new.members() {
        let was = old.members().get(node).map(|member| member.status);
        if was != Some(member.status) {
            let text = format!("{node} is {}", member.status);
            feed.add("member", Some(node.as_str()), epoch, text);
        }
    }
    for node in old.members().keys() {
        if !new.members().contains_key(node) {
            let text = format!("{node} is no member any more");
            feed.add("member", Some(node.as_str()), epoch, text);
        }
    }
    let begun = new.transfers().len();
    if begun > old.transfers().len() {
        feed.add(
            "plan",
            None,
            epoch,
            format!("{begun} partitions are to move"),
        );
    }
    tell_of_resize(cluster, old, new);
    if old.ring().size() != new.ring().size() {
        return;
    }
    let moved = new
        .ring()
        .owners()
        .iter()
        .zip(old.ring().owners())
        .filter(|(new, old)| new != old)
        .count();
    if moved > 0 {
        let text = format!("{moved} partitions have changed their owner");
        feed.add("transfer", None, epoch, text);
    }
}

/// The same of a resize.
fn tell_of_resize(cluster: &Cluster, old: &ClusterMap, new: &ClusterMap) {
    let stage = |map: &ClusterMap| map.resize().map(|one| (one.id, one.is_filling()));
    let (before, now) = (stage(old), stage(new));
    let (from, to) = (old.ring().size(), new.ring().size());
    let text = match (before, new.resize()) {
        _ if before == now => return,
        (None, Some(resize)) => format!(
            "the ring is to be resized from {} to {} partitions",
            resize.from, resize.to
        ),
        (_, None) => "every node has cleaned up after the resize".into(),
        _ if from != to => format!("the ring has {to} partitions now, and had {from}"),
        _ => format!("the resize is given up; the ring keeps its {to} partitions"),
    };
    cluster.feed().add("plan", None, new.epoch(), text);
}

/// Does what is due, until this node is no member any more; then says so. To be called before commands are let in: what may have
/// gone to another owner waits from now on, not only once the future runs.
pub fn tend<V: Vnodes>(
    cluster: Arc<Cluster>,
    vnodes: Arc<V>,
    sight: watch::Receiver<Sight>,
) -> impl Future<Output = ()> + use<V> {
    cluster.freeze_offered(&*vnodes);
    tend_on(cluster, vnodes, sight)
}

async fn tend_on(
    cluster: Arc<Cluster>,
    vnodes: Arc<impl Vnodes>,
    mut sight: watch::Receiver<Sight>,
) {
    let mut maps = cluster.maps();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let map = maps.borrow_and_update().clone();
        sight.mark_unchanged();
        if let Some(map) = map
            && cluster.tend_once(&map, &*vnodes).await == Place::Gone
        {
            return;
        }
        tokio::select! {
            changed = maps.changed() => if changed.is_err() { return },
            changed = sight.changed() => if changed.is_err() { return },
            () = vnodes.carried() => {}
            _ = look.tick() => {}
        }
    }
}

/// Sees that the right members vote, while this node leads; until the cluster is dropped.
pub async fn tend_voters(cluster: Arc<Cluster>, mut sight: watch::Receiver<Sight>) {
    let mut maps = cluster.maps();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let map = maps.borrow_and_update().clone();
        let seen = sight.borrow_and_update().clone();
        if let Some(map) = map
            && cluster.consensus().leads()
        {
            cluster.change_voters(&map, &seen).await;
        }
        tokio::select! {
            changed = maps.changed() => if changed.is_err() { return },
            changed = sight.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
        }
    }
}

/// What this node is to its cluster.
#[derive(PartialEq, Eq)]
enum Place {
    Member,
    Gone,
}

impl Cluster {
    async fn tend_once(&self, map: &ClusterMap, vnodes: &impl Vnodes) -> Place {
        if self.gives_up.load(Ordering::Relaxed) && self.is_joining() {
            return self.go("it has given up joining").await;
        }
        let consensus = self.consensus();
        if !consensus.leads() && self.silence() > SILENCE_MAX && self.is_forgotten(map).await {
            return self.go("it was removed from the cluster").await;
        }
        let Some(member) = map.members().get(&self.name) else {
            // The others may need its vote to go on without it.
            return match consensus.votes() {
                true => Place::Member,
                false => self.go("it was removed from the cluster").await,
            };
        };
        if member.card.number != consensus.number() {
            // The map is that of a membership before.
            return Place::Member;
        }
        if let Err(error) = self.arrived(consensus.number()) {
            tracing::error!(%error, "the data directory cannot be written");
        }
        let mut card = self.card.clone();
        card.number = consensus.number();
        if member.card != card || member.status == MemberStatus::Down {
            let node = self.name.clone();
            self.try_to(MapEvent::Returned { node, card }).await;
        }
        let may_go = !consensus.votes() && !vnodes.holds_hints();
        if member.status == MemberStatus::Exiting && may_go {
            let node = self.name.clone();
            if self.propose(MapEvent::Left(node)).await.is_ok() {
                return self.go("it has left the cluster").await;
            }
        }
        self.hand_over(map, vnodes).await;
        Place::Member
    }

    /// Proposes what will be proposed again if it fails.
    async fn try_to(&self, event: MapEvent) {
        if let Err(error) = self.propose(event).await {
            tracing::warn!(%error, "a change of the cluster map was not made; it is tried again");
        }
    }

    async fn go(&self, why: &str) -> Place {
        self.forget_cluster().await;
        self.feed.add(
            "member",
            Some(self.name.as_str()),
            0,
            format!("{} ends: {why}", self.name),
        );
        Place::Gone
    }

    /// Makes one change towards the right voters and learners.
    async fn change_voters(&self, map: &ClusterMap, sight: &Sight) {
        let consensus = self.consensus();
        let Some(change) = self.next_change(map, sight) else {
            return;
        };
        // A leader steps down only when it is left out altogether. If it is still to learn, the next one lets it.
        let steps_down = matches!(&change, ChangeMembers::ReplaceAllVoters(voters) if !voters.contains(&consensus.number()));
        let changed = consensus.raft().change_membership(change, !steps_down);
        match timeout(VOTERS_WITHIN, changed).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "who votes could not be changed"),
            Err(_) => tracing::debug!("a change of who votes is not agreed on yet"),
        }
    }

    fn next_change(&self, map: &ClusterMap, sight: &Sight) -> Option<ChangeMembers<u64, Peer>> {
        let consensus = self.consensus();
        let metrics = consensus.raft().metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        // It is about to step down, and openraft takes no change from it any more.
        membership.get_node(&consensus.number())?;
        if let [_, .., last] = membership.get_joint_config().as_slice() {
            // A change has begun and not ended. It ends first: another one could leave this node out before it is done.
            return Some(ChangeMembers::ReplaceAllVoters(last.clone()));
        }
        let peer = |node: &NodeName, member: &vnode_ring::Member| Peer {
            name: node.to_string(),
            peer_address: member.card.addresses.peer.clone(),
        };
        let by_number: BTreeMap<u64, Peer> = map
            .members()
            .iter()
            .map(|(node, member)| (member.card.number, peer(node, member)))
            .collect();
        let moved = membership.nodes().find_map(|(number, old)| {
            let new = by_number.get(number)?;
            (new != old).then(|| [(*number, new.clone())].into())
        });
        if let Some(moved) = moved {
            return Some(ChangeMembers::SetNodes(moved));
        }
        let up_without = |peer: &Peer| {
            NodeName::new(&peer.name)
                .is_ok_and(|node| sight.up.contains(&node) && !map.members().contains_key(&node))
        };
        let seats = Seats {
            leader: consensus.number(),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            strangers: membership
                .nodes()
                .filter(|(number, peer)| !by_number.contains_key(number) && up_without(peer))
                .map(|(number, _)| *number)
                .collect(),
        };
        let written = metrics.last_log_index.unwrap_or(0);
        let members = map.members().iter().map(|(node, member)| {
            let number = member.card.number;
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|replication| (*replication.get(&number)?)?.index.into());
            let contact = match (sight.up.contains(node), matched) {
                (true, Some(matched)) if written.saturating_sub(matched) < ENTRIES_BEHIND => {
                    Contact::Current
                }
                (true, _) => Contact::Behind,
                (false, _) => Contact::Lost(
                    sight
                        .since
                        .get(node)
                        .map_or(Duration::ZERO, Instant::elapsed),
                ),
            };
            let voter = Voter {
                status: member.status,
                location: member.location.clone(),
                contact,
            };
            (number, voter)
        });
        match voters::next_change(&seats, &members.collect())? {
            voters::Change::Learn(number) => {
                let peer = by_number.get(&number)?.clone();
                Some(ChangeMembers::AddNodes([(number, peer)].into()))
            }
            voters::Change::Vote(voters) => Some(ChangeMembers::ReplaceAllVoters(voters)),
            voters::Change::Forget(number) => Some(ChangeMembers::RemoveNodes([number].into())),
        }
    }
}
