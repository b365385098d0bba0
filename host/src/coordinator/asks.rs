//! What the coordinators of two nodes ask each other over the control links: it is seldom, and not about the rows of one vnode.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use vnode_ring::{NodeName, PartitionId};

use super::Coordinator;
use super::distant::PageAsk;
use super::sending::Receive;
use super::versions::PartAsk;
use crate::vnode::failure::Failure;

/// A request. The words are those of one version; a node of another answers that it does not understand them.
#[derive(Serialize, Deserialize)]
pub(super) enum Ask {
    /// For a page of a coverage command.
    Page(PageAsk),
    /// For leave to send rows, or to go on sending them.
    Receive(Receive),
    /// To fill a partition again from its other replicas.
    Repair(PartitionId),
    /// How much each partition holds that the node owns.
    Holdings,
    /// For a part of a component.
    Component(PartAsk),
    /// What two versions of a service, by their digests, have done.
    Samples(String, [String; 2]),
    /// What the claimant thinks of the rollout of a service.
    Gate(String),
    /// How the versions of a rollout of a service, by its number, have compared.
    Compared(String, u64),
}

impl Coordinator {
    /// Answers another node.
    pub(super) async fn answer_ask(&self, request: &[u8]) -> Vec<u8> {
        match from_bytes(request) {
            Ok(Ask::Page(asked)) => self.answer_page(asked).await,
            Ok(Ask::Receive(receive)) => to_bytes(&self.receive(receive)),
            Ok(Ask::Repair(partition)) => to_bytes(&self.repair_here(partition)),
            Ok(Ask::Holdings) => to_bytes(&self.holdings_here()),
            Ok(Ask::Samples(service, digests)) => to_bytes(&self.samples_here(&service, &digests)),
            Ok(Ask::Gate(service)) => to_bytes(&self.gate_here(&service)),
            Ok(Ask::Compared(service, id)) => to_bytes(&self.compared_here(&service, id)),
            Ok(Ask::Component(ask)) => to_bytes(&self.component_part(ask).await),
            Err(failure) => to_bytes(&Err::<(), String>(failure.to_string())),
        }
    }

    /// Asks another node for something that it does or says why not.
    pub(super) async fn ask_node(
        &self,
        node: &NodeName,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Result<(), String>, Failure> {
        match self.cluster.ask_vnodes(node, to_bytes(ask), deadline).await {
            Ok(answer) => from_bytes(&answer),
            Err(error) => Err(Failure::Incomplete(error.to_string())),
        }
    }
}

/// As it goes over the link.
pub(super) fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // No bytes are refused by whoever reads them.
    bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap_or_default()
}

/// From what came over the link.
pub(super) fn from_bytes<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, Failure> {
    /// Far above any page; a length inside foreign bytes must not make room for what is not there.
    const BYTES_MAX: usize = 64 * 1024 * 1024;
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    match bincode::serde::decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        _ => Err(Failure::Incomplete(
            "a node said something that this one does not understand; do both run the same version?".into(),
        )),
    }
}
