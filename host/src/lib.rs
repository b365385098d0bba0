//! A host for vnodes whose logic is a WebAssembly component.

pub mod descriptor;
pub mod resp;
pub mod store;
pub mod vnode;
pub mod wasm;

pub use vnode_ring as ring;
