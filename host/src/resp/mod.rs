//! RESP, the protocol of Redis clients, without any I/O: bytes in, bytes out.
//!
//! - [`codec`] finds requests in a connection's read buffer.
//! - [`catalog`] knows every command by name, [`builtin`] answers those that no guest provides, for a [`session`] and
//!   with [`facts`] that the caller brings.
//! - [`mod@write`] appends replies to the output buffer, [`value`] holds one as a tree, [`wire`] judges and converts the
//!   bytes of replies that guests made.
//!
//! Nothing here reads a socket, a clock or the ring: callers bring those as plain data. The listener that does is the
//! parent's business.

pub mod builtin;
pub mod catalog;
pub mod codec;
mod command_docs;
pub mod facts;
mod glob;
pub mod session;
mod syntax;
pub mod value;
pub mod wire;
pub mod write;

/// What a connection speaks. RESP2 until it says `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The protocol up to Redis 5.
    #[default]
    Resp2,
    /// The protocol since Redis 6, with maps, sets, doubles and a null of its own.
    Resp3,
}
