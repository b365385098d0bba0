//! RESP, the protocol of Redis clients, without any I/O: bytes in, bytes out.
//!
//! - [`codec`] finds requests in a connection's read buffer.
//! - [`write`] appends replies to its output buffer, [`value`] holds one as a tree, [`wire`] judges and converts the
//!   bytes of replies that guests made.
//! - [`builtin`] answers the commands that no guest provides.
//!
//! Nothing here reads a socket, a clock or the ring: callers bring those as plain data. The listener that does is the
//! parent's business.

pub mod codec;
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
