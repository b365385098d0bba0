//! `host bench`: load for a cluster, and what came of it in numbers and pictures.
//!
//! A client, and nothing of a node: it speaks RESP over TCP and runs no guest. `run` makes the load; `report` is what is kept
//! of it, `csv`, `markdown` and `graphs` are its other forms, `compare` puts two side by side. What is decided is decided without
//! I/O (`workload`, `own`, `values`, `pace`, `windows`, `reply`, `worker`); `generator`, `client` and `faults` touch the world.

mod client;
pub(crate) mod compare;
pub(crate) mod csv;
mod draw;
mod faults;
pub(crate) mod figures;
mod generator;
pub(crate) mod graphs;
mod machine;
mod markdown;
mod own;
mod pace;
mod plot;
mod reply;
pub(crate) mod report;
mod run;
mod ticker;
mod values;
mod windows;
mod worker;
mod workload;

use std::net::SocketAddr;

pub use faults::Fault;
pub(crate) use markdown::markdown;
pub(crate) use run::{Progress, Settings, run};
pub(crate) use windows::Window;
pub(crate) use workload::Workload;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// Nobody takes the connection.
    #[error(
        "no node answers Redis clients\n  in: {node}\n  next: is it running? name another with --node ADDR, or the cluster's HTTP address with -e URL"
    )]
    Connect {
        /// Where it was tried.
        node: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// It answers something else than what is needed to begin.
    #[error(
        "the node does not do what a run begins with: {words}\n  in: {node}\n  next: `host status` says what is wrong with a node; --timeout waits longer"
    )]
    Refused {
        /// Which node.
        node: SocketAddr,
        /// What it says.
        words: String,
    },
    /// No node to connect to.
    #[error("there is no node to connect to\n  next: name one with --node ADDR")]
    NoNode,
    /// Keys cannot be drawn like that.
    #[error("{0}\n  next: --zipf takes an exponent such as 0.99")]
    Keys(String),
    /// A fault that could not be done when its time comes.
    #[error(
        "cannot {label:?}: {why}\n  next: `host cluster status` has the names of nodes; signals reach those of this machine alone"
    )]
    Fault {
        /// In a few words.
        label: String,
        /// What stands against it.
        why: String,
    },
    /// The system does not give what a thread needs.
    #[error("cannot wait for connections")]
    System(#[source] std::io::Error),
    /// A thread panicked; its message is on standard error.
    #[error("a thread of the generator ended early")]
    Thread,
    /// The library refuses to make a histogram.
    #[error("cannot keep latencies: {0}")]
    Histogram(String),
}

impl BenchError {
    fn histogram(error: hdrhistogram::CreationError) -> Self {
        Self::Histogram(error.to_string())
    }
}
