//! Bringing an event into the log of all nodes, from whichever node.

use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use tokio::time::{Instant, timeout_at};
use vnode_ring::{MapError, MapEvent, NodeName};

use super::Cluster;
use crate::ask::{Answer, Ask};
use crate::failpoint::failpoint;
use crate::peers::PeerError;

/// Time for a change of the map to be agreed on.
pub(crate) const PROPOSE_WITHIN: Duration = Duration::from_secs(5);
/// Pause before another try to find out who leads.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The map does not allow it.
    #[error(transparent)]
    Refused(#[from] MapError),
    /// Nobody decides. It was not made.
    #[error(
        "no claimant within {PROPOSE_WITHIN:?}: a majority of the voters has to be up for changes; commands go on meanwhile"
    )]
    NoClaimant,
    /// No answer came.
    #[error(
        "the change was not confirmed within {PROPOSE_WITHIN:?} and may be made yet; look at `host cluster status` before trying again"
    )]
    Unknown,
}

/// What became of a proposal.
pub(super) enum Proposed {
    Done(Result<u64, MapError>),
    /// It may have been made, or may be made yet.
    Unknown,
    /// It was not made: another node leads, if one is known to.
    Elsewhere(Option<NodeName>),
}

impl Cluster {
    /// Has a change of the map agreed on, whoever leads. Returns the epoch after it.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, event: MapEvent) -> Result<u64, ProposeError> {
        let deadline = Instant::now() + PROPOSE_WITHIN;
        loop {
            let leader = match self.propose_here(&event, deadline).await {
                Proposed::Done(outcome) => return Ok(outcome?),
                Proposed::Unknown => return Err(ProposeError::Unknown),
                Proposed::Elsewhere(leader) => leader,
            };
            if let Some(leader) = leader.filter(|leader| *leader != self.name) {
                match self.propose_at(&leader, &event, deadline).await {
                    Proposed::Done(outcome) => return Ok(outcome?),
                    Proposed::Unknown => return Err(ProposeError::Unknown),
                    Proposed::Elsewhere(_) => {}
                }
            }
            if Instant::now() + LEADER_PAUSE >= deadline {
                return Err(ProposeError::NoClaimant);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    pub(super) async fn propose_here(&self, event: &MapEvent, deadline: Instant) -> Proposed {
        let consensus = self.consensus();
        let led = consensus.leads();
        let flips = led && matches!(event, MapEvent::HandedOver(_));
        if flips {
            failpoint("claimant-asked");
        }
        let written = consensus.raft().client_write(event.clone());
        match timeout_at(deadline, written).await {
            Err(_) => Proposed::Unknown,
            Ok(Ok(response)) => {
                if flips {
                    failpoint("claimant-agreed");
                }
                Proposed::Done(response.data)
            }
            // It was taken out of this node's log, and another one that has it may lead next.
            Ok(Err(_)) if led => Proposed::Unknown,
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                let leader = forward.leader_node.map(|peer| peer.name);
                Proposed::Elsewhere(leader.and_then(|name| NodeName::new(&name).ok()))
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the consensus of this node does not work");
                Proposed::Elsewhere(None)
            }
        }
    }

    async fn propose_at(&self, leader: &NodeName, event: &MapEvent, deadline: Instant) -> Proposed {
        match self
            .ask(leader, &Ask::Propose(event.clone()), deadline)
            .await
        {
            Ok(Answer::Proposed(outcome)) => Proposed::Done(outcome),
            Ok(Answer::Unknown) | Err(PeerError::Timeout { .. } | PeerError::Lost { .. }) => {
                Proposed::Unknown
            }
            Ok(_) | Err(_) => Proposed::Elsewhere(None),
        }
    }
}
