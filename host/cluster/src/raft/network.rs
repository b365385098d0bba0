//! What the consensus says to other nodes: three requests and their answers.

use super::encoding::{EncodingError, decode, encode};
use super::{HEARTBEAT_MS, Peer, Raft, TypeConfig};
use crate::ask::{self, Ask};
use crate::peers::{PeerError, Peers};
use openraft::error::{
    InstallSnapshotError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;
use vnode_ring::NodeName;

/// How long to wait before an unreachable node is tried again. Shorter than an election timeout, or one lost connection
/// would start an election.
const RETRY_AFTER: Duration = Duration::from_millis(HEARTBEAT_MS);

/// What one node asks another. New kinds are added at the end; a node refuses kinds it does not know.
#[derive(Serialize, Deserialize)]
enum Request {
    AppendEntries(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    InstallSnapshot(InstallSnapshotRequest<TypeConfig>),
}

/// What comes back.
#[derive(Serialize, Deserialize)]
enum Answer {
    AppendEntries(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    InstallSnapshot(InstallSnapshotResponse<u64>),
    /// The pieces of the snapshot did not fit together: start again.
    SnapshotMismatch(SnapshotMismatch),
    /// The other node cannot, and why.
    Failed(String),
}

/// A request without a usable answer.
#[derive(Debug, Error)]
enum CallError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    #[error("{name} cannot answer: {reason}")]
    Failed { name: String, reason: String },
    #[error("{name} answered another question")]
    Unexpected { name: String },
}

/// Makes links for the consensus.
#[derive(Clone)]
pub struct Network {
    peers: Arc<Peers>,
}

impl Network {
    /// Over `peers`.
    #[must_use]
    pub fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, id: u64, peer: &Peer) -> Link {
        Link {
            peers: Arc::clone(&self.peers),
            id,
            peer: peer.clone(),
        }
    }
}

/// The way to one other node.
pub struct Link {
    peers: Arc<Peers>,
    id: u64,
    peer: Peer,
}

impl Link {
    async fn call(&self, request: Request, option: &RPCOption) -> Result<Answer, CallError> {
        let request = encode("request", &request)?;
        let deadline = Instant::now() + option.hard_ttl();
        let name = &self.peer.name;
        let failed = |reason| CallError::Failed {
            name: name.clone(),
            reason,
        };
        let node = NodeName::new(name).map_err(|error| failed(error.to_string()))?;
        let request = Ask::Raft(self.id, request).encode();
        let answer = self.peers.call(&node, request, deadline).await?;
        let answer = match ask::Answer::decode(&answer) {
            ask::Answer::Raft(answer) => answer,
            ask::Answer::Failed(reason) => return Err(failed(reason)),
            _ => return Err(self.unexpected()),
        };
        match decode("answer", &answer)? {
            Answer::Failed(reason) => Err(failed(reason)),
            answer => Ok(answer),
        }
    }

    fn unexpected(&self) -> CallError {
        CallError::Unexpected {
            name: self.peer.name.clone(),
        }
    }
}

type CallResult<T, E> = Result<T, RPCError<u64, Peer, E>>;

/// All failures count as unreachable: openraft repeats other kinds without a pause.
fn unreachable<E: std::error::Error>(error: &CallError) -> RPCError<u64, Peer, E> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> CallResult<AppendEntriesResponse<u64>, RaftError<u64>> {
        match self.call(Request::AppendEntries(request), &option).await {
            Ok(Answer::AppendEntries(answer)) => Ok(answer),
            Ok(_) => Err(unreachable(&self.unexpected())),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> CallResult<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>> {
        match self.call(Request::InstallSnapshot(request), &option).await {
            Ok(Answer::InstallSnapshot(answer)) => Ok(answer),
            Ok(Answer::SnapshotMismatch(mismatch)) => {
                let mismatch = InstallSnapshotError::SnapshotMismatch(mismatch);
                let error = RemoteError::new(self.id, RaftError::APIError(mismatch));
                Err(RPCError::RemoteError(error))
            }
            Ok(_) => Err(unreachable(&self.unexpected())),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> CallResult<VoteResponse<u64>, RaftError<u64>> {
        match self.call(Request::Vote(request), &option).await {
            Ok(Answer::Vote(answer)) => Ok(answer),
            Ok(_) => Err(unreachable(&self.unexpected())),
            Err(error) => Err(unreachable(&error)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_AFTER))
    }
}

/// Answers a request of another node. Bytes that are no request are answered with a refusal.
pub async fn answer(raft: &Raft, request: &[u8]) -> Vec<u8> {
    let answer = match decode("request", request) {
        Ok(request) => perform(raft, request).await,
        Err(error) => Answer::Failed(reason(&error)),
    };
    // No bytes are no answer: the other side reports that it cannot decode them.
    encode("answer", &answer).unwrap_or_default()
}

async fn perform(raft: &Raft, request: Request) -> Answer {
    match request {
        Request::AppendEntries(request) => match raft.append_entries(request).await {
            Ok(answer) => Answer::AppendEntries(answer),
            Err(error) => Answer::Failed(error.to_string()),
        },
        Request::Vote(request) => match raft.vote(request).await {
            Ok(answer) => Answer::Vote(answer),
            Err(error) => Answer::Failed(error.to_string()),
        },
        Request::InstallSnapshot(request) => match raft.install_snapshot(request).await {
            Ok(answer) => Answer::InstallSnapshot(answer),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                Answer::SnapshotMismatch(mismatch)
            }
            Err(error) => Answer::Failed(error.to_string()),
        },
    }
}

/// An error and what caused it.
fn reason(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", reason(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_requests_and_left_over_bytes_are_refused() {
        let request = Request::Vote(VoteRequest::new(openraft::Vote::new(3, 1), None));
        let bytes = encode("request", &request).unwrap();
        assert!(decode::<Request>("request", &bytes).is_ok());
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(decode::<Request>("request", &longer).is_err());
        let mut unknown = bytes.clone();
        unknown[0] = 3;
        assert!(decode::<Request>("request", &unknown).is_err());
        for len in 0..bytes.len() {
            assert!(decode::<Request>("request", &bytes[..len]).is_err());
        }
    }
}
