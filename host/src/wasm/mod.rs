//! The guest boundary: compile a component, check it, make instances, call them, survive whatever they do.
//!
//! Owns everything that touches wasmtime. Knows nothing of connections, routing or the ring beyond one partition.
//! A guest is an adversary here: each value that comes back from it is checked before it goes anywhere.
//! Read `guest` for what is accepted at load, `instance` for the calls, `imports` for what a guest may ask.

mod cache;
mod doors;
mod engine;
mod frames;
mod guest;
mod imports;
mod instance;
mod migration;
mod packed;
mod refusal;
mod reply;
mod scan;
mod state;
mod values;
mod wasi;

pub use cache::CompileCache;
pub use engine::{Engine, Limits};
pub use frames::Frames;
pub use guest::{Guest, LoadError, interface};
pub use instance::{CoveragePage, Done, Hook, Instance, TypedCommand};
pub use packed::{Answer, Answers, Effect, Effects, FrameHead, FrameWriter};
pub use refusal::Refusal;
pub use state::{Compared, Digests, Placement, Scope, VnodeState, Written};
pub use values::{Schemas, Values};

use crate::descriptor::{
    Aggregate, CommandKind, CommandSpec, Descriptor, KeyRange, MergePolicy, Quorum,
};

/// Types and traits generated from `wit/`. Nothing outside this module names them.
#[allow(
    missing_docs,
    reason = "generated from wit/, which documents every item"
)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "guest",
        imports: { default: trappable },
    });
}

use bindings::exports::vnode::host::vnode as exported;

/// Why a call into a guest did not come back with an answer. The instance is gone; what it had not committed as well.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum GuestError {
    /// The guest trapped: a panic, an unreachable, memory out of bounds, no memory left.
    #[error("{why}")]
    Trap {
        /// What the guest said, or the trap.
        why: String,
        /// Where it was; not for clients.
        frames: Frames,
    },
    /// The guest used up its time.
    #[error("guest used its budget")]
    Deadline,
    /// The guest's reply is larger than the node passes on.
    #[error("{0}")]
    TooBig(String),
    /// The guest answered with something that the contract does not allow.
    #[error("guest broke the contract: {0}")]
    Contract(String),
}

impl GuestError {
    /// Sorts a wasmtime error; `said` is the last that the guest wrote to stderr, usually its panic message.
    fn from_wasmtime(error: &wasmtime::Error, said: Option<String>) -> GuestError {
        let trap = error.downcast_ref::<wasmtime::Trap>();
        if trap == Some(&wasmtime::Trap::Interrupt) {
            return GuestError::Deadline;
        }
        let why = said.unwrap_or_else(|| match trap {
            Some(trap) => trap.to_string(),
            None => one_line(&error.root_cause().to_string()),
        });
        GuestError::Trap {
            why,
            frames: Frames::of(error),
        }
    }

    /// Where in the guest it happened, if that is known.
    pub fn backtrace(&self) -> Option<&Frames> {
        match self {
            GuestError::Trap { frames, .. } => frames.shown(),
            _ => None,
        }
    }
}

/// The text without line breaks, so that it fits an error reply.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// First words at which client libraries connect elsewhere or log in again. No guest may have them do that.
const ACTED_ON: [&str; 3] = ["MOVED", "ASK", "NOAUTH"];

/// The guest's own refusal, made to fit the first line of an error reply: a word of capitals, then one line.
pub fn sanitize_refusal(code: &str, message: &str) -> (String, String) {
    let fits = (1..=32).contains(&code.len())
        && code.starts_with(|c: char| c.is_ascii_uppercase())
        && code
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        && !ACTED_ON.contains(&code);
    let code = if fits { code } else { "ERR" };
    let message: String = one_line(message).chars().take(1024).collect();
    (code.to_owned(), message)
}

impl From<exported::Descriptor> for Descriptor {
    fn from(d: exported::Descriptor) -> Descriptor {
        Descriptor {
            name: d.name,
            version: d.version,
            schema_reads_from: d.schema_reads_from,
            schema_writes: d.schema_writes,
            merge: match d.merge {
                exported::MergePolicy::LastWrite => MergePolicy::LastWrite,
                exported::MergePolicy::Siblings => MergePolicy::Siblings,
                exported::MergePolicy::Custom => MergePolicy::Custom,
            },
            commands: d.commands.into_iter().map(CommandSpec::from).collect(),
            quorum: Quorum {
                n: d.n,
                r: d.r,
                w: d.w,
            },
        }
    }
}

impl From<exported::CommandSpec> for CommandSpec {
    fn from(c: exported::CommandSpec) -> CommandSpec {
        CommandSpec {
            name: c.name,
            summary: c.summary,
            syntax: c.syntax,
            arity: c.arity,
            kind: match c.kind {
                exported::CommandKind::Read => CommandKind::Read,
                exported::CommandKind::Write => CommandKind::Write,
                exported::CommandKind::Each => CommandKind::Each,
                exported::CommandKind::Coverage => CommandKind::Coverage,
                exported::CommandKind::CoverageWrite => CommandKind::CoverageWrite,
                exported::CommandKind::Any => CommandKind::Any,
            },
            keys: c.keys.map(|k| KeyRange {
                first: k.first,
                last: k.last,
                step: k.step,
                prefix: k.prefix,
            }),
            blind: c.blind,
            aggregate: match c.aggregate {
                exported::Aggregate::Single => Aggregate::Single,
                exported::Aggregate::Sum => Aggregate::Sum,
                exported::Aggregate::Concat => Aggregate::Concat,
                exported::Aggregate::AllOk => Aggregate::AllOk,
                exported::Aggregate::Cursor => Aggregate::Cursor,
            },
            quorum: Quorum {
                n: c.n,
                r: c.r,
                w: c.w,
            },
        }
    }
}
