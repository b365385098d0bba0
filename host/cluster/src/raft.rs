//! The types and settings of the consensus. Its log entries are events of the cluster map.
//!
//! It decides in which order the map changes, and no more: no user data passes through it.
//!
//! Leaders are ordered by term and node id, openraft's default. So two candidates of one term do not block each other: the
//! one with the greater id wins, and may even take over from a leader of the same term. Openraft 0.9 needs this. It draws
//! a node's election timeout once, when it starts, so two that block each other once would do so for ever (seen in
//! the simulation with the feature `single-term-leader`).

pub(crate) mod encoding;
pub(crate) mod frames;
pub mod log;
pub mod machine;
pub mod network;
pub mod recover;
pub mod runtime;
mod snapshots;
pub mod voters;

use self::machine::OpenError;
use self::network::Network;
use self::runtime::Runtime;
use crate::peers::Peers;
use openraft::error::RaftError;
use openraft::{Config, ConfigError, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use vnode_ring::{ClusterId, ClusterMap, NodeName};
use vnode_ring::{MapError, MapEvent};

/// How often the leader shows itself, in milliseconds.
pub const HEARTBEAT_MS: u64 = 100;
/// A follower waits at least this long for the leader, in milliseconds. Three heartbeats, so that one lost one is no election.
pub const ELECTION_MIN_MS: u64 = 300;
/// And at most this long, in milliseconds. The spread keeps two followers from standing at once.
pub const ELECTION_MAX_MS: u64 = 600;
/// How long a snapshot may take to be sent and installed, in milliseconds.
pub const SNAPSHOT_SEND_MS: u64 = 10_000;
/// Bytes of a snapshot in one message. A map is smaller, so it travels in one.
pub const SNAPSHOT_CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// Entries after which a snapshot is taken.
pub const SNAPSHOT_EVERY_ENTRIES: u64 = 500;
/// Entries kept although a snapshot has them. The log thus reaches back to the oldest snapshot kept.
pub const ENTRIES_KEPT: u64 = SNAPSHOT_EVERY_ENTRIES * snapshots::SNAPSHOTS_KEPT as u64;
/// A node that is further behind gets a snapshot instead of entries.
pub const ENTRIES_BEHIND_MAX: u64 = SNAPSHOT_EVERY_ENTRIES * 2;
/// Entries in one message.
pub const ENTRIES_PER_MESSAGE_MAX: u64 = 64;
/// Entries removed at once. Each removal writes the whole log, so it should be worth it.
pub const ENTRIES_PURGED_MIN: u64 = 100;

openraft::declare_raft_types!(
    /// The types that the consensus works with.
    pub TypeConfig:
        D = MapEvent,
        R = Result<u64, MapError>,
        NodeId = u64,
        Node = Peer,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

/// The running consensus of one node.
pub type Raft = openraft::Raft<TypeConfig>;
/// One place in the log.
pub type LogId = openraft::LogId<u64>;
/// A term and who leads it.
pub type Vote = openraft::Vote<u64>;
/// One change, or a change of who votes.
pub type Entry = openraft::Entry<TypeConfig>;
/// Who votes and who learns, and since when.
pub type Membership = openraft::StoredMembership<u64, Peer>;
/// What a snapshot holds.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Peer>;
/// What stops the consensus on this node.
pub type StorageError = openraft::StorageError<u64>;

/// Where a member is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The node's name. It is the identity; the address may change.
    pub name: String,
    /// Host and port for other nodes.
    pub peer_address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer_address)
    }
}

/// The settings, for nodes on one machine or in one network.
///
/// # Errors
/// The named constants contradict each other.
pub fn config(cluster_name: &str) -> Result<Arc<Config>, Box<ConfigError>> {
    let config = Config {
        cluster_name: cluster_name.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: SNAPSHOT_SEND_MS,
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY_ENTRIES),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        replication_lag_threshold: ENTRIES_BEHIND_MAX,
        max_payload_entries: ENTRIES_PER_MESSAGE_MAX,
        purge_batch_size: ENTRIES_PURGED_MIN,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(Box::new)
}

/// Why the consensus of this node cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// What is on disk cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The settings contradict each other.
    #[error("the settings of the consensus are wrong: {0}")]
    Config(#[from] Box<ConfigError>),
    /// It stopped, mostly since the disk failed.
    #[error(
        "the consensus of this node has stopped: {0}\n  next: see why the disk fails, then start the node again"
    )]
    Stopped(#[source] Box<openraft::error::Fatal<u64>>),
}

impl From<openraft::error::Fatal<u64>> for ConsensusError {
    fn from(fatal: openraft::error::Fatal<u64>) -> ConsensusError {
        ConsensusError::Stopped(Box::new(fatal))
    }
}

/// The consensus as one member takes part in it.
pub struct Consensus {
    number: u64,
    raft: Raft,
    maps: watch::Receiver<Option<Arc<ClusterMap>>>,
    agreed_voters: watch::Receiver<BTreeSet<u64>>,
}

impl Consensus {
    /// Takes up what the directory has, or starts there as a member that knows nothing. `number` is this membership's.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn start(
        number: u64,
        cluster: ClusterId,
        directory: &Path,
        peers: &Arc<Peers>,
    ) -> Result<Consensus, ConsensusError> {
        let (log, machine) = machine::open(directory)?;
        let (maps, agreed_voters) = (machine.maps(), machine.voters());
        let network = Network::new(Arc::clone(peers));
        let config = config(&cluster.to_string())?;
        let raft = Raft::new(number, config, network, log, machine).await?;
        Ok(Consensus {
            number,
            raft,
            maps,
            agreed_voters,
        })
    }

    /// Makes this node the only voter, unless the consensus has begun already.
    ///
    /// # Errors
    /// When it has stopped.
    pub async fn begin(&self, name: &NodeName, address: &str) -> Result<(), ConsensusError> {
        let peer = Peer {
            name: name.to_string(),
            peer_address: address.to_owned(),
        };
        if self.raft.is_initialized().await? {
            return Ok(());
        }
        let voters = BTreeMap::from([(self.number, peer)]);
        match self.raft.initialize(voters).await {
            // It has begun before.
            Ok(()) | Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(fatal.into()),
        }
    }

    /// The map, from none to the newest.
    pub fn maps(&self) -> watch::Receiver<Option<Arc<ClusterMap>>> {
        self.maps.clone()
    }

    /// How many other members the newest map has.
    pub(crate) fn others(&self) -> usize {
        let map = self.maps.borrow();
        map.as_ref()
            .map_or(0, |map| map.members().len().saturating_sub(1))
    }

    /// The number of whoever leads, if it is known.
    pub fn leader(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow();
        // One that was elected and has stepped down since is still named by its own vote.
        let leads = |leader: &u64| *leader != self.number || now.state.is_leader();
        now.current_leader.filter(leads)
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.leader() == Some(self.number)
    }

    /// Who votes, as is agreed on: a majority of them goes on whoever else is lost. Of a change that is under way nothing yet.
    pub fn agreed_voters(&self) -> BTreeSet<u64> {
        self.agreed_voters.borrow().clone()
    }

    /// Who votes, or will once the change is agreed on that this node knows of.
    pub fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow();
        now.membership_config.voter_ids().collect()
    }

    /// Who votes or learns, as far as this node knows.
    pub fn nodes(&self) -> Vec<Peer> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow();
        let nodes = now.membership_config.nodes();
        nodes.map(|(_, peer)| peer.clone()).collect()
    }

    /// Whether this node is a voter, as far as it knows.
    pub fn votes(&self) -> bool {
        self.voters().contains(&self.number)
    }

    /// This membership's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// To propose and to answer.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }
}

#[cfg(test)]
mod tests;
