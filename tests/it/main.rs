//! One node as its users meet it: Redis clients, HTTP, the command line, and whoever pulls the plug.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bench;
mod cli;
mod cluster;
mod config;
mod counter;
mod coverage;
mod dev;
mod disk_full;
mod drain;
mod durability;
mod harness;
mod hostile;
mod http;
mod http_commands;
mod introspection;
mod kv;
mod ping;
mod pipeline;
mod protocol;
mod replication;
mod start;
mod swap;
mod tools;
mod tutorials;
