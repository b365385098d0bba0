//! The cluster as one node takes part in it: proposing changes, asking other nodes, answering them.

mod incarnations;
mod proposing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{RwLock, mpsc, watch};
use tokio::time::Instant;
use vnode_ring::{
    Card, ClusterId, ClusterMap, GuestCard, MapError, MapEvent, MemberStatus, NodeName,
    PartitionId, View,
};

pub(crate) use self::proposing::PROPOSE_WITHIN;
pub use self::proposing::ProposeError;
use self::proposing::Proposed;
use crate::ask::{self, Answer, Ask};
use crate::events::Feed;
use crate::hello::{self, DialError, Me};
use crate::peers::{PeerError, Peers};
use crate::raft::{self, Consensus, ConsensusError};
use crate::standing::{Standing, StandingError, StandingFile};
use crate::stream::PeerStream;
use crate::tls::Tls;
use crate::wire;

/// Why a node cannot take part in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The consensus cannot start.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// What the node is to its cluster cannot be read or written.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// The directory cannot be made.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The node has asked to join and nobody has let it in.
    #[error("this node was joining a cluster, and none of its members answers: {}\n  next: start one of them, or give the join up with `host recover --force`", contacts.join(", "))]
    NobodyAnswers {
        /// Whom it asked.
        contacts: Vec<String>,
    },
    /// The first event was not accepted.
    #[error("the cluster cannot begin: {0}")]
    Found(#[from] ProposeError),
}

/// The map, once it is known.
pub(crate) type MapReader = watch::Receiver<Option<Arc<ClusterMap>>>;

/// What the control plane asks of the vnodes of its node.
pub trait Vnodes: Send + Sync + 'static {
    /// The cluster as the vnodes and their clients know it.
    fn view(&self) -> Arc<View>;
    /// The cluster looks like this from now on.
    fn publish(&self, view: View);
    /// Has the commands for a partition wait.
    fn freeze(&self, partition: PartitionId);
    /// Lets them run again.
    fn thaw(&self, partition: PartitionId);
    /// Whether it is worth freezing a partition: all that its vnodes held a moment ago is on that node.
    fn is_carried(&self, partition: PartitionId, to: &NodeName) -> bool;
    /// Returns when another partition has been carried.
    fn carried(&self) -> impl Future<Output = ()> + Send;
    /// Brings the rest of what the vnodes of a frozen partition hold to that node. Waits until what runs in them has ended. True
    /// when everything is there.
    fn carry_rest(
        &self,
        partition: PartitionId,
        to: &NodeName,
    ) -> impl Future<Output = bool> + Send;
    /// Whether the vnodes here hold something for other nodes, which have to have it before this one may go.
    fn holds_hints(&self) -> bool;
    /// Answers what another node asks of the vnodes here.
    fn answer(&self, request: Vec<u8>) -> impl Future<Output = Vec<u8>> + Send;
}

/// This node in its cluster.
pub struct Cluster {
    pub(crate) name: NodeName,
    pub(crate) me: Arc<Me>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) consensus: Mutex<Arc<Consensus>>,
    /// The map of the present consensus.
    pub(crate) maps: watch::Sender<Option<Arc<ClusterMap>>>,
    directory: PathBuf,
    standing: Mutex<StandingFile>,
    pub(crate) card: Card,
    pub(crate) location: Option<String>,
    pub(crate) feed: Feed,
    /// Written while this node asks to join, read while another one is let in.
    pub(crate) joining: RwLock<()>,
    rng: Mutex<SmallRng>,
    /// It does not want to join any more.
    pub(crate) gives_up: AtomicBool,
    /// When the claimant last said something to this node.
    heard: Mutex<Instant>,
}

/// What is to be known of a node before it takes part in a cluster.
pub struct Founding {
    /// Its name.
    pub name: NodeName,
    /// Where it is and what it serves; the number is drawn here.
    pub addresses: vnode_ring::Addresses,
    /// The guests, by the names of their services.
    pub guests: BTreeMap<String, GuestCard>,
    /// Its location.
    pub location: Option<String>,
    /// Replicas of a key, for a new cluster.
    pub n: u16,
    /// The ring, for a new cluster.
    pub ring: (vnode_ring::RingSize, vnode_ring::HashId),
    /// Its certificates, if it talks TLS with other nodes.
    pub tls: Option<Arc<Tls>>,
}

impl Cluster {
    /// Takes up what the directory says: the node's cluster, or a new one of which it is the only member. Returns when the map is
    /// known. Also returns what [`liveness`](crate::liveness) needs.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(
        directory: PathBuf,
        founding: Founding,
        mut rng: SmallRng,
    ) -> Result<(Arc<Cluster>, mpsc::Receiver<NodeName>), ClusterError> {
        std::fs::create_dir_all(&directory).map_err(|source| ClusterError::Directory {
            path: directory.clone(),
            source,
        })?;
        let first = || -> Result<Standing, ClusterError> {
            Ok(Standing {
                cluster: ClusterId(rng.random()),
                number: rng.random(),
                since: 0,
                contacts: Vec::new(),
                offered: BTreeMap::new(),
                incarnation: 0,
            })
        };
        let standing = StandingFile::open(&directory, first)?;
        let now = standing.now().clone();
        let (cluster, number) = (now.cluster, now.number);
        let me = Arc::new(Me::new(founding.name.clone(), Some(cluster), founding.tls));
        let (peers, gone) = Peers::new(Arc::clone(&me), SmallRng::from_rng(&mut rng));
        let path = consensus_path(&directory, number);
        let consensus = Consensus::start(number, cluster, &path, &peers).await?;
        let card = Card {
            number,
            addresses: founding.addresses,
            guests: founding.guests,
        };
        let this = Arc::new(Cluster {
            name: founding.name,
            me,
            peers,
            maps: watch::Sender::new(None),
            consensus: Mutex::new(Arc::new(consensus)),
            directory,
            standing: Mutex::new(standing),
            card,
            location: founding.location,
            feed: Feed::default(),
            joining: RwLock::default(),
            rng: Mutex::new(rng),
            gives_up: AtomicBool::new(false),
            heard: Mutex::new(Instant::now()),
        });
        this.follow();
        if now.contacts.is_empty() {
            this.found(cluster, founding.n, founding.ring).await?;
        } else {
            this.ask_for_map(&now.contacts).await?;
        }
        Ok((this, gone))
    }

    /// Makes this node the first of a cluster, unless it is in one already.
    async fn found(
        &self,
        cluster: ClusterId,
        n: u16,
        (size, hash): (vnode_ring::RingSize, vnode_ring::HashId),
    ) -> Result<(), ClusterError> {
        let consensus = self.consensus();
        consensus
            .begin(&self.name, &self.card.addresses.peer)
            .await?;
        if consensus.maps().borrow().is_none() {
            let (name, card) = (self.name.clone(), self.card.clone());
            let location = self.location.clone();
            let map = ClusterMap::new(cluster, n, size, hash, name, card, location);
            match self.propose(MapEvent::Founded(Box::new(map))).await {
                // It was there already, and only came to light now.
                Ok(_) | Err(ProposeError::Refused(MapError::NotTheBeginning)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut maps = self.maps.subscribe();
        // The sender is ours.
        let _ = maps.wait_for(Option::is_some).await;
        Ok(())
    }

    /// Hands the maps of the present consensus on.
    pub(crate) fn follow(self: &Arc<Self>) {
        let consensus = self.consensus();
        let mut maps = consensus.maps();
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let map = maps.borrow_and_update().clone();
                if !Arc::ptr_eq(&this.consensus(), &consensus) {
                    return;
                }
                if let Some(map) = map {
                    this.learn(map);
                }
                if maps.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Takes a map for the present one. Not one of the time before this node was a member, nor one older than what it knows:
    /// whoever begins an empty log is told the whole history, in which it may own what it does not own now.
    pub(crate) fn learn(&self, map: Arc<ClusterMap>) {
        let since = self.standing().now().since;
        self.maps.send_if_modified(|known| {
            let older = known.as_ref().is_some_and(|known| {
                known.cluster() == map.cluster() && known.epoch() >= map.epoch()
            });
            let news = map.epoch() >= since && !older;
            if news {
                *known = Some(map);
            }
            news
        });
    }

    /// The map, which is known once the cluster is open.
    pub fn maps(&self) -> MapReader {
        self.maps.subscribe()
    }

    /// The map as this node knows it.
    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.maps.borrow().clone()
    }

    /// Who this node is to others.
    pub fn me(&self) -> &Arc<Me> {
        &self.me
    }

    /// The links to other nodes.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// A number that nobody else has drawn.
    pub(crate) fn draw(&self) -> u64 {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        rng.random()
    }

    /// What happens, for those who watch.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(crate) fn consensus(&self) -> Arc<Consensus> {
        let consensus = self.consensus.lock();
        Arc::clone(&consensus.unwrap_or_else(PoisonError::into_inner))
    }

    /// What this node is to its cluster, to read or to change. Never held for long.
    pub(crate) fn standing(&self) -> MutexGuard<'_, StandingFile> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the consensus of a membership keeps its log.
    pub(crate) fn consensus_path(&self, number: u64) -> PathBuf {
        consensus_path(&self.directory, number)
    }

    /// Removes the logs of the memberships before this one.
    pub(crate) fn forget_others(&self, number: u64) {
        let keep = self.consensus_path(number);
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path != keep && path.is_dir() {
                // What is left over costs room and nothing else.
                drop(std::fs::remove_dir_all(path));
            }
        }
    }

    /// The member that decides on changes, if it is known.
    pub fn claimant(&self) -> Option<NodeName> {
        let number = self.consensus().leader()?;
        let map = self.map()?;
        let members = map.members().iter();
        let mut leader = members.filter(|(_, member)| member.card.number == number);
        leader.next().map(|(node, _)| node.clone())
    }

    /// The members that vote on changes, as is agreed on.
    pub fn voters(&self) -> BTreeSet<NodeName> {
        let voters = self.consensus().agreed_voters();
        let map = self.map();
        let members = map.iter().flat_map(|map| map.members());
        members
            .filter(|(_, member)| voters.contains(&member.card.number))
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// For how long the claimant has said nothing. It never says anything to itself.
    pub(crate) fn silence(&self) -> Duration {
        let heard = self.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Asks another node something, and waits for the answer until `deadline`.
    pub(crate) async fn ask(
        &self,
        node: &NodeName,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Answer, PeerError> {
        let answer = self.peers.call(node, ask.encode(), deadline).await?;
        Ok(Answer::decode(&answer))
    }

    /// Asks the vnodes of another node something, in words that this crate does not know.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask_vnodes(
        &self,
        node: &NodeName,
        request: Vec<u8>,
        deadline: Instant,
    ) -> Result<Vec<u8>, PeerError> {
        match self.ask(node, &Ask::Vnodes(request), deadline).await? {
            Answer::Vnodes(answer) => Ok(answer),
            // It is of another version, and has done nothing.
            _ => Err(PeerError::Unreachable {
                node: node.clone(),
                why: "it does not understand what it was asked".into(),
            }),
        }
    }

    /// Answers what another node asks.
    pub async fn answer(&self, from: &NodeName, request: &[u8], vnodes: &impl Vnodes) -> Vec<u8> {
        self.answer_to(from, request, vnodes).await.encode()
    }

    async fn answer_to(&self, from: &NodeName, request: &[u8], vnodes: &impl Vnodes) -> Answer {
        match Ask::decode(request) {
            Ok(Ask::Vnodes(request)) => Answer::Vnodes(vnodes.answer(request).await),
            // What a membership before has promised does not bind this one, which began with an empty log.
            Ok(Ask::Raft(to, _)) if to != self.consensus().number() => {
                Answer::Failed(format!("{} begins another membership", self.name))
            }
            Ok(Ask::Raft(_, request)) => {
                if self.claimant().as_ref() == Some(from) {
                    *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                }
                let consensus = self.consensus();
                Answer::Raft(raft::network::answer(consensus.raft(), &request).await)
            }
            Ok(Ask::Propose(event)) => {
                let member = self
                    .map()
                    .is_some_and(|map| map.members().contains_key(from));
                // Also of one that is listed already: it may have been let in and not have heard so, and asks again.
                let joins = matches!(event, MapEvent::JoinStaged { .. });
                if !member && !joins {
                    return Answer::Failed(format!("{from} is no member of this cluster"));
                }
                let deadline = Instant::now() + PROPOSE_WITHIN;
                if joins {
                    let Ok(_stays) = self.joining.try_read() else {
                        return Answer::Failed("this node is joining a cluster itself".into());
                    };
                    // It does not know who leads.
                    return match self.propose(event).await {
                        Ok(epoch) => Answer::Proposed(Ok(epoch)),
                        Err(ProposeError::Refused(error)) => Answer::Proposed(Err(error)),
                        Err(ProposeError::Unknown) => Answer::Unknown,
                        Err(error) => Answer::Failed(error.to_string()),
                    };
                }
                match self.propose_here(&event, deadline).await {
                    Proposed::Done(outcome) => Answer::Proposed(outcome),
                    Proposed::Unknown => Answer::Unknown,
                    Proposed::Elsewhere(_) => Answer::Failed("this node does not lead".into()),
                }
            }
            Ok(Ask::About) => match self.map() {
                Some(map) if Some(map.cluster()) == self.me.cluster() => {
                    Answer::About(ask::About {
                        map,
                        voters: self.consensus().voters(),
                    })
                }
                _ => Answer::Failed("this node is joining a cluster itself".into()),
            },
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// How the cluster looks from here, unless the map is not known yet. `unheard` count as up, too.
    pub fn view(&self, up: &BTreeSet<NodeName>, unheard: BTreeSet<NodeName>) -> Option<View> {
        let view = View::new(self.name.clone(), self.map()?, up, self.claimant());
        Some(view.presuming(unheard))
    }

    /// How it looks to a node that has heard of nobody yet.
    pub fn first_view(&self) -> Option<View> {
        let everybody = self.may_be_up(&*self.map()?).cloned().collect();
        self.view(&BTreeSet::new(), everybody)
    }

    /// The other members that no operator has called down.
    pub(crate) fn may_be_up<'a>(
        &'a self,
        map: &'a ClusterMap,
    ) -> impl Iterator<Item = &'a NodeName> {
        let others = map
            .members()
            .iter()
            .filter(|(node, member)| **node != self.name && member.status != MemberStatus::Down);
        others.map(|(node, _)| node)
    }
}

/// Opens links for commands to other nodes, for executors.
pub struct Greeter {
    me: Arc<Me>,
    maps: MapReader,
}

impl Greeter {
    /// One that finds nodes by the map.
    pub fn new(cluster: &Cluster) -> Greeter {
        Greeter {
            me: Arc::clone(&cluster.me),
            maps: cluster.maps(),
        }
    }

    /// Opens a link for commands to a member.
    ///
    /// # Errors
    /// When it cannot be reached, or is not who it should be.
    pub async fn open_requests(&self, node: &NodeName) -> Result<PeerStream, DialError> {
        let map = self.maps.borrow().clone();
        let address = map
            .as_ref()
            .and_then(|map| map.members().get(node))
            .map(|member| member.card.addresses.peer.clone())
            .unwrap_or_default();
        let hello = self.me.hello(wire::Purpose::Requests, Some(node.clone()));
        Ok(hello::dial(&address, &hello, self.me.tls()).await?.stream)
    }
}

fn consensus_path(directory: &std::path::Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}"))
}
