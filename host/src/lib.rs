//! A host for vnodes whose logic is a WebAssembly component.

pub mod bench;
pub mod cli;
pub mod config;
pub mod conformance;
pub mod coordinator;
pub mod data_dir;
pub mod descriptor;
pub mod executor;
pub mod http;
pub mod library;
pub mod metrics;
pub mod net;
pub mod node;
pub mod resp;
pub mod stats;
pub mod store;
mod vital;
pub mod vnode;
pub mod wasm;

pub use vnode_cluster as cluster;
pub use vnode_ring as ring;
