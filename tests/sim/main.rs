//! Whole nodes on a simulated network: real control and data planes, real guests, and clients that write down what they saw.
//!
//! Whatever breaks, nothing that was acknowledged is lost, no command runs twice, and replicas become equal again. Each run is a
//! function of its seed: `SIM_SEEDS` says how many there are, `SIM_FROM` the first one. Seeds that once failed are in `seeds.txt`
//! and run first, without `SIM_FROM`. `SIM_LOG=vnode_host=debug` shows what the nodes log.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test ends where it fails"
)]

mod board;
mod book;
mod client;
mod deaths;
mod disk;
mod end;
mod failpoints;
mod judge;
mod links;
mod node;
mod same;
mod storm;
mod world;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Shows the log of the nodes, if the environment asks for it.
fn log() {
    if let Ok(filter) = std::env::var("SIM_LOG") {
        let log = tracing_subscriber::fmt().with_env_filter(filter);
        // Another test of the process may have begun it.
        drop(log.with_timer(SimulatedTime).with_ansi(false).try_init());
    }
}

/// Milliseconds since the beginning of a run.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        write!(writer, "{}", now.as_millis())
    }
}

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
