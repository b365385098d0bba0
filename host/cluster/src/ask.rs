//! What nodes ask each other over control links, and what they answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vnode_ring::{ClusterMap, MapError, MapEvent};

use super::raft::encoding::{EncodingError, decode, encode};

/// A request. New kinds are added at the end; a node refuses kinds that it does not know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Something of the consensus, for the membership of that number.
    Raft(u64, Vec<u8>),
    /// To propose an event of the map. A node that does not lead refuses, but for those who want to join.
    Propose(MapEvent),
    /// What a node has to know before it joins, or when it hears nothing of its cluster.
    About,
    /// Something of the vnodes, in the words of the node around this.
    Vnodes(Vec<u8>),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Of the consensus.
    Raft(Vec<u8>),
    /// The event was agreed on, or the map does not allow it.
    Proposed(Result<u64, MapError>),
    /// The event may have been agreed on, or be yet.
    Unknown,
    /// The cluster as the node that was asked knows it.
    About(About),
    /// Of the vnodes.
    Vnodes(Vec<u8>),
    /// It cannot be done here, and why.
    Failed(String),
}

/// A cluster, for nodes outside of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) map: Arc<ClusterMap>,
    /// The numbers of those who vote.
    pub(crate) voters: BTreeSet<u64>,
}

impl Ask {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // No bytes are no request: the other side says that it cannot decode them.
        encode("request", self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Ask, EncodingError> {
        decode("request", bytes)
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode("answer", self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Answer {
        decode("answer", bytes).unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }
}
