//! Pages of coverage commands that vnodes of other nodes give.
//!
//! Asked over the control links, since they are few and long. What is said is this module's own; the links only carry it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vnode_cluster::Cluster;
use vnode_ring::{NodeName, PartitionId};

use super::asks::{Ask, from_bytes, to_bytes};
use crate::vnode::failure::Failure;
use crate::wasm::{CoveragePage, Scope, TypedCommand};

/// A vnode of another node.
pub(super) struct Distant {
    pub(super) cluster: Arc<Cluster>,
    pub(super) node: NodeName,
    pub(super) service: String,
    pub(super) partition: PartitionId,
    pub(super) command: TypedCommand,
    pub(super) within: Duration,
}

impl Distant {
    pub(super) async fn page(&self, cursor: Option<Vec<u8>>) -> Result<CoveragePage, Failure> {
        let asked = PageAsk::new(self, cursor);
        let deadline = tokio::time::Instant::now() + self.within;
        let request = to_bytes(&Ask::Page(asked));
        match self.cluster.ask_vnodes(&self.node, request, deadline).await {
            Ok(answer) => decode(&answer),
            Err(error) => Err(Failure::Incomplete(error.to_string())),
        }
    }
}

/// A page that a vnode of the asked node is to give.
#[derive(Serialize, Deserialize)]
pub(super) struct PageAsk {
    pub(super) service: String,
    pub(super) partition: PartitionId,
    pub(super) cursor: Option<Vec<u8>>,
    name: String,
    args: Vec<Vec<u8>>,
    request_id: u64,
    range: PartitionId,
    writes: bool,
    now_ms: u64,
    seed: u64,
}

impl PageAsk {
    fn new(distant: &Distant, cursor: Option<Vec<u8>>) -> PageAsk {
        let command = &distant.command;
        PageAsk {
            service: distant.service.clone(),
            partition: distant.partition,
            cursor,
            name: command.name.clone(),
            args: command.args.clone(),
            request_id: command.request_id,
            range: command.scope.range,
            writes: command.scope.writes,
            now_ms: command.scope.now_ms,
            seed: command.scope.seed,
        }
    }

    /// The command as a vnode runs it.
    pub(super) fn command(&self) -> TypedCommand {
        TypedCommand {
            name: self.name.clone(),
            args: self.args.clone(),
            request_id: self.request_id,
            // As it owns the partition.
            fallback: false,
            scope: Scope {
                range: self.range,
                writes: self.writes,
                now_ms: self.now_ms,
                seed: self.seed,
            },
        }
    }
}

/// The answer: a page, or first word and text of its error.
#[derive(Serialize, Deserialize)]
enum Answer {
    Page {
        items: Vec<u8>,
        count: usize,
        next: Option<Vec<u8>>,
        version: String,
    },
    Failed {
        code: String,
        message: String,
    },
}

pub(super) fn encode(page: &Result<CoveragePage, Failure>) -> Vec<u8> {
    to_bytes(&match page {
        Ok(page) => Answer::Page {
            items: page.items.clone(),
            count: page.count,
            next: page.next.clone(),
            version: page.version.clone(),
        },
        Err(failure) => Answer::Failed {
            code: failure.code().to_owned(),
            message: failure.to_string(),
        },
    })
}

fn decode(bytes: &[u8]) -> Result<CoveragePage, Failure> {
    match from_bytes(bytes)? {
        Answer::Page {
            items,
            count,
            next,
            version,
        } => Ok(CoveragePage {
            items,
            count,
            next,
            version,
        }),
        Answer::Failed { code, message } => Err(Failure::Elsewhere { code, message }),
    }
}
