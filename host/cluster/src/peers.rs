//! Links to all other nodes by name, and the door for theirs.
//!
//! A link is dialled when it is first wanted, kept, and dialled again when it breaks: at once the first time, then with growing
//! pauses. While it is known to be broken calls fail at once, so that a dead node slows nobody. A node calls only over links
//! that it dialled and answers only on those that it accepted; two nodes that talk both ways have two.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use vnode_ring::NodeName;

use super::hello::{self, Me};
use super::keeper::{self, Peer};
use super::link::{self, CallError, Ended, MessageHandler, RequestHandler};
use super::wire::{Hello, Purpose};
use crate::net::{TcpListener, TcpStream};
use crate::stream::PeerStream;

/// Connections that may be greeted or served at once. Further ones are closed.
pub const ACCEPTED_MAX: usize = 1024;

/// The pause after the system could not accept a connection, which is mostly a lack of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Names of nodes that broke a link off and wait to be read. Later ones are dropped.
const GONE_MAX: usize = 256;

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not sent: no address is known.
    #[error("no address of node {node} is known; is it a member?")]
    Unknown {
        /// Who was called.
        node: NodeName,
    },
    /// Not sent: the node cannot be reached now. It is dialled again without being asked.
    #[error("node {node} is unreachable: {why}; use another replica or try again later")]
    Unreachable {
        /// Who was called.
        node: NodeName,
        /// What was seen.
        why: String,
    },
    /// Not sent, or not looked at there: too much waits already.
    #[error("link to node {node} is busy; call less at once or try again")]
    Busy {
        /// Who was called.
        node: NodeName,
    },
    /// Not sent: the request is too long.
    #[error(
        "request to node {node} has {bytes} bytes, at most {} are allowed; send it in parts",
        super::wire::BODY_BYTES_MAX
    )]
    TooLong {
        /// Who was called.
        node: NodeName,
        /// How long it is.
        bytes: usize,
    },
    /// Sent, and perhaps done: no reply came before the deadline.
    #[error("node {node} did not reply in time; it may have done what was asked")]
    Timeout {
        /// Who was called.
        node: NodeName,
    },
    /// Sent, and perhaps done: the link broke before a reply came.
    #[error(
        "link to node {node} was lost before its reply: {why}; it may have done what was asked"
    )]
    Lost {
        /// Who was called.
        node: NodeName,
        /// How it broke.
        why: Ended,
    },
}

/// Takes a connection for commands or transfers after its hello. Must not block.
pub type ConnectionHandler = Arc<dyn Fn(Hello, PeerStream) + Send + Sync>;

/// Who takes what arrives at [`Peers::serve`].
#[derive(Clone)]
pub struct Doors {
    /// Requests on control connections.
    pub request: RequestHandler,
    /// Messages on control connections.
    pub message: MessageHandler,
    /// Connections for another purpose.
    pub connection: ConnectionHandler,
}

/// Links to other nodes. Dropping it ends them all.
pub struct Peers {
    me: Arc<Me>,
    known: Mutex<BTreeMap<NodeName, Known>>,
    rng: Mutex<SmallRng>,
    gone: mpsc::Sender<NodeName>,
}

struct Known {
    peer: Arc<Peer>,
    keeper: AbortHandle,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// What liveness says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers somebody.
    Up,
    /// It answers nobody.
    Down,
}

impl Peers {
    /// No links yet. Also returns where the names of nodes arrive that broke a steady link off: their process is gone, most
    /// likely. `rng` spreads the pauses between dials.
    #[must_use]
    pub fn new(me: Arc<Me>, rng: SmallRng) -> (Arc<Peers>, mpsc::Receiver<NodeName>) {
        let (gone, gone_read) = mpsc::channel(GONE_MAX);
        let peers = Peers {
            me,
            known: Mutex::default(),
            rng: Mutex::new(rng),
            gone,
        };
        (Arc::new(peers), gone_read)
    }

    /// Who this node is.
    #[must_use]
    pub fn me(&self) -> &Arc<Me> {
        &self.me
    }

    /// Makes a node known under `host:port`, or moves it there: its link is dialled anew. Nothing happens if the address is the
    /// one that is known, or the node is this one. Needs a tokio runtime.
    pub fn set_address(&self, node: &NodeName, address: &str) {
        if node == self.me.name() {
            return;
        }
        let mut known = self.known();
        if let Some(old) = known.get(node) {
            old.peer.move_to(address);
            return;
        }
        let peer = Arc::new(Peer::new(node.clone(), address));
        let rng = SmallRng::seed_from_u64(
            self.rng
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .random(),
        );
        let keeping = keeper::keep(
            Arc::clone(&self.me),
            Arc::clone(&peer),
            self.gone.clone(),
            rng,
        );
        let keeper = tokio::spawn(keeping).abort_handle();
        known.insert(node.clone(), Known { peer, keeper });
    }

    /// Forgets a node and closes its link once the calls that wait on it have ended.
    pub fn remove(&self, node: &NodeName) {
        let removed = self.known().remove(node);
        if let Some(removed) = removed {
            removed.peer.close("it is no member any more");
        }
    }

    /// The nodes with a known address, without this one.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeName> {
        self.known().keys().cloned().collect()
    }

    /// Whether there is a link to the node that works as far as is known.
    #[must_use]
    pub fn is_open(&self, node: &NodeName) -> bool {
        self.peer(node)
            .is_some_and(|peer| peer.open_link().is_some())
    }

    /// Says that a node is down, or is not: while it is, calls to it fail at once. Messages still go to it.
    pub fn set_down(&self, node: &NodeName, verdict: Verdict) {
        if let Some(peer) = self.peer(node) {
            peer.say(verdict);
        }
    }

    /// Sends a request to a node and waits for its reply, at most until `deadline`. Waits for a link only when none was tried
    /// yet, or when a good one broke just now.
    ///
    /// # Errors
    /// See [`PeerError`]: only after `Timeout` and `Lost` the request may have been done.
    pub async fn call(
        &self,
        node: &NodeName,
        request: Vec<u8>,
        deadline: Instant,
    ) -> Result<Vec<u8>, PeerError> {
        let peer = self
            .peer(node)
            .ok_or_else(|| PeerError::Unknown { node: node.clone() })?;
        let link = peer
            .link(deadline)
            .await
            .map_err(|why| PeerError::Unreachable {
                node: node.clone(),
                why: why.to_string(),
            })?;
        link.call(&request, deadline)
            .await
            .map_err(|error| call_error(node, error))
    }

    /// Sends a message to a node if there is a link with room for it. Else the message is dropped, and the link is dialled.
    pub fn tell(&self, node: &NodeName, message: &[u8]) {
        let Some(peer) = self.peer(node) else { return };
        match peer.open_link() {
            Some(link) => drop(link.tell(message)),
            None => peer.want(),
        }
    }

    /// Lets other nodes in, until the future is dropped, which closes their connections. Each says hello first and is refused
    /// with a reason if it is at the wrong place.
    pub async fn serve(self: Arc<Peers>, listener: TcpListener, doors: Doors) {
        let seats = Arc::new(Semaphore::new(ACCEPTED_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection of another node can be accepted; trying again");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match Arc::clone(&seats).try_acquire_owned() {
                Ok(seat) => {
                    connections.spawn(let_in(Arc::clone(&self), accepted, doors.clone(), seat));
                }
                Err(_) => tracing::warn!(
                    max = ACCEPTED_MAX,
                    "a connection was closed: too many nodes are connected"
                ),
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<NodeName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, node: &NodeName) -> Option<Arc<Peer>> {
        self.known().get(node).map(|known| Arc::clone(&known.peer))
    }
}

fn call_error(node: &NodeName, error: CallError) -> PeerError {
    let node = node.clone();
    match error {
        CallError::NotSent(ended) => PeerError::Unreachable {
            node,
            why: ended.to_string(),
        },
        CallError::Busy => PeerError::Busy { node },
        CallError::TooLong(bytes) => PeerError::TooLong { node, bytes },
        CallError::Timeout => PeerError::Timeout { node },
        CallError::Lost(why) => PeerError::Lost { node, why },
    }
}

/// Greets a connection and serves it, or hands it on.
async fn let_in(
    peers: Arc<Peers>,
    (socket, from): (TcpStream, SocketAddr),
    doors: Doors,
    _seat: OwnedSemaphorePermit,
) {
    let (hello, stream) = match hello::greet(socket, &peers.me).await {
        Ok(greeted) => greeted,
        Err(error) => {
            tracing::warn!(%from, %error, "a connection was not let in");
            return;
        }
    };
    if let Some(peer) = peers.peer(&hello.node) {
        // Who dials is there: no reason to wait before dialling back.
        peer.dial_now();
    }
    match hello.purpose {
        Purpose::Requests | Purpose::Bulk => (doors.connection)(hello, stream),
        Purpose::Control => {
            let hello = Arc::new(hello);
            let ended =
                link::serve(stream, Arc::clone(&hello), &doors.request, &doors.message).await;
            tracing::debug!(node = %hello.node, %ended, "a node's control connection ended");
        }
    }
}
