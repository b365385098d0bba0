//! Who is up as seen here: the SWIM protocol, whose packets ride the control links as messages.
//!
//! Each node asks one other after the other whether it is there, asks third nodes to try when there is no answer, and passes on
//! what it finds out. The verdict only chooses fallbacks, so a wrong one costs little; nothing may depend on two nodes having
//! the same. The protocol itself is foca's; here are its clock, its network and what it is told from outside.

mod objections;

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use foca::{Config, Foca, Member, Notification, PeriodicParams, State, Timer};
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use vnode_ring::NodeName;

use self::objections::Objections;
use super::damping::{Damping, Sight};
use super::peers::{Peers, Verdict};
use super::wire::{LIVENESS_BYTES_MAX, PacketCodec};

/// How often a node asks another one whether it is there.
pub const PROBE_EVERY: Duration = Duration::from_millis(180);

/// How long it waits for the answer before it asks third nodes to try.
pub const PROBE_ANSWER: Duration = Duration::from_millis(70);

/// How long a node that did not answer may object before it is down. With [`PROBE_EVERY`] the shortest pause that is seen as a
/// failure: a node that is stopped for 700 ms and then runs on still objects in time.
pub const SUSPECT_FOR: Duration = Duration::from_millis(600);

/// The same for a node that broke its link off and does not take a new one: it is gone, most likely.
pub const GONE_FOR: Duration = Duration::from_millis(250);

/// How often this node calls out to known nodes that are not up, so that they find each other again.
pub const ANNOUNCE_EVERY: Duration = Duration::from_millis(250);

/// How often news are passed on, to how many nodes.
const GOSSIP_EVERY: Duration = Duration::from_millis(100);
const GOSSIP_TO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// How often one node is asked for all that it knows, in case news were lost.
const CATCH_UP_EVERY: Duration = Duration::from_secs(5);

/// How many third nodes are asked to try.
const INDIRECT_PROBES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// How often one piece of news is sent by each node. Enough for 64 nodes.
const NEWS_SENT: NonZeroU8 = NonZeroU8::MIN.saturating_add(9);

/// Packets that wait to be looked at. Later ones are dropped.
const PACKETS_MAX: usize = 1024;

/// One run of a node. A later run, or one that objects to being called down, has a higher incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    node: NodeName,
    incarnation: u64,
}

impl foca::Identity for Identity {
    type Addr = NodeName;

    /// foca would object at once and each time, as fast as the network carries it: [`Looker::object`] does it instead.
    fn renew(&self) -> Option<Identity> {
        None
    }

    fn addr(&self) -> NodeName {
        self.node.clone()
    }

    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        self.incarnation > adversary.incarnation
    }
}

/// The liveness of all nodes that `Peers` knows. Dropping it ends it: this node then seems down to the others.
#[derive(Debug)]
pub struct Liveness {
    packets: mpsc::Sender<Vec<u8>>,
    leave: mpsc::Sender<oneshot::Sender<()>>,
    sight: watch::Receiver<Sight>,
    task: AbortHandle,
}

impl Liveness {
    /// Starts to look and to answer. Also tells `peers` whom not to call. `gone` is what `Peers::new` returned. `incarnation`
    /// should be higher than any in the node's last run, as [`Cluster::next_incarnation`](crate::Cluster::next_incarnation) is: the others
    /// call a lower one down until it has caught up. Needs a tokio runtime.
    #[must_use]
    pub fn start(
        peers: Arc<Peers>,
        gone: mpsc::Receiver<NodeName>,
        incarnation: u64,
        rng: SmallRng,
    ) -> Liveness {
        let (packets, packets_read) = mpsc::channel(PACKETS_MAX);
        let (leave, leave_read) = mpsc::channel(1);
        let me = peers.me().name().clone();
        let mut damping = Damping::default();
        damping.saw(&me, Verdict::Up, Instant::now());
        let (show, sight) = watch::channel(damping.sight(&BTreeSet::from([me.clone()])));
        let foca = Foca::new(
            Identity {
                node: me,
                incarnation,
            },
            config(),
            rng,
            PacketCodec,
        );
        let outside = Outside {
            peers,
            damping,
            objections: Objections::default(),
            agenda: BTreeMap::new(),
            agenda_last: 0,
            changed: false,
        };
        let looker = Looker {
            foca,
            outside,
            show,
        };
        let task = tokio::spawn(looker.run(packets_read, gone, leave_read)).abort_handle();
        Liveness {
            packets,
            leave,
            sight,
            task,
        }
    }

    /// Takes a message that another node sent with `Peers::tell`. Dropped if too many wait.
    pub fn hear(&self, packet: Vec<u8>) {
        let _ = self.packets.try_send(packet);
    }

    /// Who is up, from now on. This node always is.
    #[must_use]
    pub fn sight(&self) -> watch::Receiver<Sight> {
        self.sight.clone()
    }

    /// Tells others that this node stops, so that they need not find out. To be called before it does; nothing is seen
    /// afterwards.
    pub async fn leave(&self) {
        let (done, is_done) = oneshot::channel();
        if self.leave.send(done).await.is_ok() {
            let _ = is_done.await;
        }
    }
}

impl Drop for Liveness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config() -> Config {
    Config {
        probe_period: PROBE_EVERY,
        probe_rtt: PROBE_ANSWER,
        num_indirect_probes: INDIRECT_PROBES,
        max_transmissions: NEWS_SENT,
        suspect_to_down_after: SUSPECT_FOR,
        // An identity is never used twice, so none need be forgotten; foca keeps one per name.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::MIN.saturating_add(LIVENESS_BYTES_MAX - 1),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: CATCH_UP_EVERY,
            num_members: NonZeroUsize::MIN,
        }),
        // Done here, because foca stops doing it when it is alone.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: GOSSIP_EVERY,
            num_members: GOSSIP_TO,
        }),
    }
}

/// What is to be done later.
enum Due {
    Foca(Timer<Identity>),
    /// This identity is down unless it has objected.
    Gone(Member<Identity>),
    Object,
    Announce,
}

/// The world as the protocol sees it.
struct Outside {
    peers: Arc<Peers>,
    damping: Damping,
    objections: Objections,
    /// By time, then in the order in which it was put there.
    agenda: BTreeMap<(Instant, u64), Due>,
    agenda_last: u64,
    /// Something may have to be shown.
    changed: bool,
}

impl Outside {
    fn later(&mut self, after: Duration, due: Due) {
        self.agenda_last += 1;
        self.agenda
            .insert((Instant::now() + after, self.agenda_last), due);
    }

    fn take_due(&mut self, now: Instant) -> Option<Due> {
        let first = self
            .agenda
            .first_entry()
            .filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    fn wake_at(&self) -> Option<Instant> {
        let first = self.agenda.keys().next().map(|&(at, _)| at);
        first.into_iter().chain(self.damping.due()).min()
    }
}

impl foca::Runtime<Identity> for &mut Outside {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        let now = Instant::now();
        self.changed = true;
        match notification {
            Notification::MemberUp(member) => self.damping.saw(&member.node, Verdict::Up, now),
            Notification::MemberDown(member) => self.damping.saw(&member.node, Verdict::Down, now),
            Notification::Rename(_, member) => self.damping.restarted(&member.node, now),
            Notification::Defunct => {
                if let Some(wait) = self.objections.called_down(now) {
                    self.later(wait, Due::Object);
                }
            }
            Notification::Active | Notification::Idle | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.peers.tell(&to.node, data);
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.later(after, Due::Foca(timer));
    }
}

/// The task that looks.
struct Looker {
    foca: Foca<Identity, PacketCodec, SmallRng, foca::NoCustomBroadcast>,
    outside: Outside,
    show: watch::Sender<Sight>,
}

impl Looker {
    async fn run(
        mut self,
        mut packets: mpsc::Receiver<Vec<u8>>,
        mut gone: mpsc::Receiver<NodeName>,
        mut leave: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        self.outside.later(Duration::ZERO, Due::Announce);
        loop {
            let wake_at = self.outside.wake_at().unwrap_or_else(Instant::now);
            // Packets before clocks: after a pause the answers that wait are heard before anybody is suspected.
            tokio::select! { biased;
                Some(done) = leave.recv() => {
                    log(self.foca.leave_cluster(&mut self.outside));
                    let _ = done.send(());
                    return;
                }
                Some(packet) = packets.recv() => self.take(&packet),
                Some(node) = gone.recv() => self.doubt(&node),
                () = sleep_until(wake_at) => {}
            }
            let now = Instant::now();
            while let Some(due) = self.outside.take_due(now) {
                self.act(due);
            }
            if self.outside.damping.due().is_some_and(|due| due <= now) {
                self.outside.damping.settle(now);
                self.outside.changed = true;
            }
            if std::mem::take(&mut self.outside.changed) {
                self.publish();
            }
        }
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::Foca(timer) if self.is_answered(&timer) => {}
            Due::Foca(timer) => log(self.foca.handle_timer(timer, &mut self.outside)),
            Due::Gone(member) => self.condemn(&member),
            Due::Object => self.object(),
            Due::Announce => {
                self.announce();
                // Nodes may have become known, or unknown.
                self.outside.changed = true;
                self.outside.later(ANNOUNCE_EVERY, Due::Announce);
            }
        }
    }

    /// A packet that comes while this node waits to object is for who it was. Two nodes that call each other down and answer would
    /// do so for as long as they wait.
    fn take(&mut self, packet: &[u8]) {
        if !self.outside.objections.is_waiting() {
            log(self.foca.handle_data(packet, &mut self.outside));
        }
    }

    /// Goes on under a higher incarnation, which others take for a new run. All are told: should one of them remember a later run it
    /// says so at once, and not when its turn to be asked comes.
    fn object(&mut self) {
        let Some(leap) = self.outside.objections.object(Instant::now()) else {
            return;
        };
        let Identity { node, incarnation } = self.foca.identity().clone();
        let incarnation = incarnation.saturating_add(leap);
        let me = Identity { node, incarnation };
        log(self.foca.change_identity(me, &mut self.outside));
        for node in self.outside.peers.nodes() {
            self.call_out(node);
        }
        let text = "others took this node to be down; it objected";
        match leap {
            1 => tracing::info!(incarnation, "{text}"),
            // One of many in a row.
            _ => tracing::debug!(incarnation, leap, "{text}"),
        }
    }

    /// Whether a suspicion has been objected to. foca 2.0.0 does not call such a node down, but tells it that it is, and the
    /// node would take a new identity for nothing.
    fn is_answered(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = timer
        else {
            return false;
        };
        self.member(&member_id.node)
            .is_none_or(|member| member.id() != member_id || member.incarnation() != *incarnation)
    }

    /// Calls out to the nodes that should be there and are not.
    fn announce(&mut self) {
        let active: BTreeSet<NodeName> = self
            .foca
            .iter_members()
            .map(|member| member.id().node.clone())
            .collect();
        for node in self.outside.peers.nodes() {
            if !active.contains(&node) {
                self.call_out(node);
            }
        }
    }

    fn call_out(&mut self, node: NodeName) {
        // Any incarnation will do: the message is for the name.
        let anybody = Identity {
            node,
            incarnation: 0,
        };
        log(self.foca.announce(anybody, &mut self.outside));
    }

    fn member(&self, node: &NodeName) -> Option<Member<Identity>> {
        self.foca
            .iter_members()
            .find(|member| member.id().node == *node)
            .cloned()
    }

    /// A node's process seems to be gone: suspects it without asking, and gives it a short time to object through others.
    fn doubt(&mut self, node: &NodeName) {
        let Some(member) = self.member(node) else {
            return;
        };
        let suspect = Member::new(member.id().clone(), member.incarnation(), State::Suspect);
        log(self
            .foca
            .apply_many(std::iter::once(suspect.clone()), true, &mut self.outside));
        log(self.foca.gossip(&mut self.outside));
        self.outside.later(GONE_FOR, Due::Gone(suspect));
    }

    fn condemn(&mut self, suspect: &Member<Identity>) {
        if self.outside.peers.is_open(&suspect.id().node) {
            return;
        }
        // Whoever objects or starts anew has another identity or incarnation by now.
        if self.member(&suspect.id().node).as_ref() == Some(suspect) {
            let down = Member::new(suspect.id().clone(), suspect.incarnation(), State::Down);
            log(self
                .foca
                .apply_many(std::iter::once(down), true, &mut self.outside));
        }
    }

    /// Shows what has changed, and tells `Peers` without damping: a node that answers may be called.
    fn publish(&mut self) {
        let peers = &self.outside.peers;
        let mut known: BTreeSet<NodeName> = peers.nodes().into_iter().collect();
        for node in &known {
            if let Some(verdict) = self.outside.damping.seen(node) {
                peers.set_down(node, verdict);
            }
        }
        known.insert(peers.me().name().clone());
        let sight = self.outside.damping.sight(&known);
        self.show.send_if_modified(|old| {
            let changed = *old != sight;
            if changed {
                *old = sight;
            }
            changed
        });
    }
}

/// Packets come from other nodes: what is wrong with one is their fault, and harms nothing.
fn log(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "liveness dropped a packet or a step");
    }
}

#[cfg(test)]
mod tests;
