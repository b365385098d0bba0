//! Real control planes on a simulated network: whatever breaks, no rule of the cluster map is broken, and in the end all is well.
//!
//! `board` says what must hold after every step, `world` what "well" means. Each run is a function of its seed: `SIM_SEEDS` says
//! how many there are, `SIM_FROM` the first one. Seeds that once failed are in `seeds.txt` and run first, without `SIM_FROM`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test ends where it fails"
)]

mod board;
mod moments;
mod node;
mod same;
mod scenarios;
mod storm;
mod vnodes;
mod world;

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
