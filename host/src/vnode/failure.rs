//! Why a command has no reply of its guest.

use std::sync::Arc;
use std::time::Duration;

use vnode_ring::PartitionId;

use super::service::Ended;
use crate::resp::value::Value;
use crate::resp::wire::ReplyLimits;
use crate::store::StoreError;
use crate::wasm::{GuestError, Refusal};

/// Why a command has no reply of its guest. The display is the text after the first word of the error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The guest refused it.
    #[error("{message}")]
    Refused {
        /// First word.
        code: String,
        /// The rest.
        message: String,
    },
    /// The guest trapped or broke the contract.
    #[error("vnode {partition}: {why}; nothing was stored, the instance was rebuilt")]
    Trap {
        /// The vnode.
        partition: PartitionId,
        /// What the guest said, or the trap.
        why: String,
    },
    /// The guest used up its time.
    #[error("guest used {} on '{command}' (command_budget)", humantime::format_duration(*.budget))]
    Deadline {
        /// The command.
        command: String,
        /// The time it had.
        budget: Duration,
    },
    /// Too much is waiting for this vnode.
    #[error(
        "vnode {partition} has {queued} commands queued (mailbox_commands_max); retry with backoff"
    )]
    Busy {
        /// The vnode.
        partition: PartitionId,
        /// What waits there.
        queued: usize,
    },
    /// The vnode's guest does not start.
    #[error("vnode {partition} of {service} does not start: {why}")]
    Down {
        /// The vnode.
        partition: PartitionId,
        /// Its service.
        service: Arc<str>,
        /// What `init` said.
        why: String,
    },
    /// The store refused or failed.
    #[error("vnode {partition}: {why}")]
    Store {
        /// The vnode.
        partition: PartitionId,
        /// What the store said.
        why: String,
    },
    /// A limit on sizes.
    #[error("{0}")]
    TooBig(String),
    /// The caller's mistake.
    #[error("{0}")]
    Usage(String),
    /// The version of the guest that is to run it does not have it, or not everywhere.
    #[error("{0}")]
    NotActive(String),
    /// The disk failed after the write was applied and before it was safe.
    #[error("the write is applied but not on disk, since the disk failed; it may be lost")]
    NotDurable,
    /// The partition is changing its owner, and no node has it for now.
    #[error("partition {partition} is changing owner; retry")]
    Moving {
        /// The partition.
        partition: PartitionId,
    },
    /// The ring was resized while a command wrote all over it.
    #[error(
        "the ring was resized while the command ran, which may have happened in part; run it again if it may happen twice"
    )]
    Resized,
    /// The node that had the command went away.
    #[error("{node} went away before it answered; the command may have happened")]
    PeerGone {
        /// The node.
        node: String,
    },
    /// The node that should have the command does not take it.
    #[error("{node} cannot be reached; retry")]
    Unreachable {
        /// The node.
        node: String,
    },
    /// Nobody can serve the partition.
    #[error("no node that could serve partition {partition} is up")]
    NobodyUp {
        /// The partition.
        partition: PartitionId,
    },
    /// Too few replicas answered.
    #[error("{0}")]
    NoReplicas(String),
    /// Some of the ring cannot be asked.
    #[error("coverage incomplete: {0}")]
    Incomplete(String),
    /// Another node's failure, in its words.
    #[error("{message}")]
    Elsewhere {
        /// First word.
        code: String,
        /// The rest.
        message: String,
    },
    /// Too much is on its way to another node.
    #[error("{waiting} commands wait for {node} already; retry with backoff")]
    PeerBusy {
        /// The node.
        node: String,
        /// What is under way.
        waiting: usize,
    },
    /// The node drains, or its executor is gone.
    #[error("the node is draining; retry at another one")]
    Draining,
    /// No answer in time.
    #[error("no answer within {} ({limit})", humantime::format_duration(*.within))]
    Timeout {
        /// How long the coordinator waited.
        within: Duration,
        /// The setting that says so.
        limit: &'static str,
    },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused {
            code: refusal.code().to_owned(),
            message: refusal.to_string(),
        }
    }
}

impl Failure {
    /// What became of a call of `command` on `partition` that did not come back.
    pub fn of_guest(
        error: GuestError,
        partition: PartitionId,
        command: &str,
        budget: Duration,
    ) -> Failure {
        match error {
            GuestError::Deadline => Failure::Deadline {
                command: command.to_ascii_lowercase(),
                budget,
            },
            GuestError::TooBig(why) => Failure::TooBig(why),
            other => Failure::Trap {
                partition,
                why: other.to_string(),
            },
        }
    }

    /// The error in another vnode's answer.
    pub fn of_answer(answer: &[u8]) -> Failure {
        match Value::parse(answer, &ReplyLimits::default()) {
            Ok(Value::Error { code, message }) => Failure::Elsewhere { code, message },
            _ => Failure::Usage("a replica said something that cannot be understood".into()),
        }
    }

    /// What became of a batch that the store did not take.
    pub fn of_store(error: &StoreError, partition: PartitionId) -> Failure {
        Failure::Store {
            partition,
            why: error.to_string(),
        }
    }

    /// Whether it may be over in a moment, because partitions or nodes come and go.
    pub fn passes(&self) -> bool {
        matches!(self.code(), "TRYAGAIN" | "CLUSTERDOWN") && !matches!(self, Failure::Draining)
    }

    /// How the counters see it.
    pub fn ended(&self) -> Ended {
        match self {
            Failure::Trap { .. } => Ended::Trap,
            Failure::Deadline { .. } | Failure::Timeout { .. } => Ended::Timeout,
            Failure::Busy { .. } | Failure::PeerBusy { .. } => Ended::Busy,
            _ => Ended::Error,
        }
    }

    /// First word of the client's error.
    pub fn code(&self) -> &str {
        match self {
            Failure::Refused { code, .. } | Failure::Elsewhere { code, .. } => code,
            Failure::Trap { .. } => "GUESTTRAP",
            Failure::Deadline { .. } | Failure::Timeout { .. } => "TIMEOUT",
            Failure::Busy { .. } | Failure::PeerBusy { .. } => "BUSY",
            Failure::TooBig(_) => "TOOBIG",
            Failure::Draining
            | Failure::Moving { .. }
            | Failure::Resized
            | Failure::Unreachable { .. }
            | Failure::PeerGone { .. } => "TRYAGAIN",
            Failure::NoReplicas(_) => "NOREPLICAS",
            Failure::NotActive(_) => "NOTACTIVE",
            Failure::NobodyUp { .. } | Failure::Incomplete(_) => "CLUSTERDOWN",
            Failure::Down { .. }
            | Failure::Store { .. }
            | Failure::Usage(_)
            | Failure::NotDurable => "ERR",
        }
    }

    /// Appends it as a RESP error.
    pub fn write(&self, out: &mut Vec<u8>) {
        crate::resp::write::error(out, self.code(), &self.to_string());
    }
}
