//! Links over real sockets. Nothing here sleeps: each test waits for what it wants to see, and fails after a while.
#![cfg(not(feature = "sim"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

mod calls;
mod certificates;
mod failures;
mod hellos;
mod joining;
mod nodes;
mod rejoining;
