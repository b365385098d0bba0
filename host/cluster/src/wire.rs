//! Frames and messages between nodes. The only file that knows their bytes.
//!
//! A frame is a length (`u32`, little endian) and that many bytes, one message in bincode's standard configuration. Whatever
//! else arrives is an error: an unknown variant, bytes left over, a frame that is too long or ends early. Nothing is guessed,
//! nothing panics, and no memory is taken for a length that was only claimed.

use std::io;

use bincode::config::Config;
use bincode::error::DecodeError;
use bytes::{Buf, BufMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use tokio::io::{AsyncRead, AsyncReadExt};
use vnode_ring::{ClusterId, NodeName};

use super::liveness::Identity;

/// The version of everything in this file. Nodes talk only to nodes with the same.
pub const PROTOCOL: u16 = 1;

/// The longest frame of a hello or its answer, in bytes.
pub const HELLO_BYTES_MAX: usize = 2 * 1024;

/// The longest frame on a control connection, in bytes.
pub const CONTROL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The longest body of a control request, a reply or a message, in bytes: a frame less the message's own fields.
pub const BODY_BYTES_MAX: usize = CONTROL_BYTES_MAX - 64;

/// The longest packet of the liveness protocol, in bytes. Holds 64 members with the longest names.
pub const LIVENESS_BYTES_MAX: usize = 16 * 1024;

/// Memory taken for a frame before its bytes are there.
const FRAME_BYTES_FIRST: usize = 16 * 1024;

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame claims to be longer than its purpose allows.
    #[error(
        "frame of {found} bytes, at most {max} are allowed here; whatever sends it is no node of this protocol"
    )]
    FrameTooLong {
        /// What it claims.
        found: usize,
        /// What is allowed.
        max: usize,
    },
    /// The connection ended inside a frame.
    #[error(
        "connection ended after {found} of {expected} bytes of a frame; it was cut, dial again"
    )]
    FrameCut {
        /// Bytes that came.
        found: usize,
        /// Bytes that were announced.
        expected: usize,
    },
    /// A message does not fit into a frame.
    #[error("message of {found} bytes, at most {max} fit into a frame; send it in parts")]
    MessageTooLong {
        /// Its size in bytes.
        found: usize,
        /// What fits.
        max: usize,
    },
    /// Bytes are no message of this version.
    #[error(
        "bytes are no {what} of protocol {PROTOCOL}: {why}; compare the versions of both nodes"
    )]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What is wrong with them.
        why: String,
    },
    /// The connection broke below this protocol.
    #[error("connection broke: {0}")]
    Broken(io::ErrorKind),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Requests of the control plane and liveness: `link`.
    Control,
    /// Commands and replicas.
    Requests,
    /// Transfers.
    Bulk,
}

/// The first frame of a connection, from the node that dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`]. Always the first field, so that every version can read it.
    pub protocol: u16,
    /// The sender's cluster; none if it belongs to none yet.
    pub cluster: Option<ClusterId>,
    /// Who sends.
    pub node: NodeName,
    /// What the connection is for.
    pub purpose: Purpose,
    /// Who should answer; none to ask who does, as a joiner that knows only an address.
    pub to: Option<NodeName>,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Come in.
    Welcome {
        /// Who answers.
        node: NodeName,
        /// Its cluster; none if it belongs to none yet.
        cluster: Option<ClusterId>,
    },
    /// The connection ends here.
    Refused {
        /// What, where and what next, for people.
        reason: String,
    },
}

/// A frame on a control connection. Requests and messages go from the node that dialled, replies to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// Wants a reply with the same id.
    Request {
        /// Chosen by the caller, not used again on this connection.
        id: u64,
        /// The request.
        #[serde(serialize_with = "as_bytes")]
        body: &'a [u8],
    },
    /// Answers a request.
    Reply {
        /// The request's.
        id: u64,
        /// The reply.
        #[serde(serialize_with = "as_bytes")]
        body: &'a [u8],
    },
    /// The request was not looked at: too many are being served.
    Busy {
        /// The request's.
        id: u64,
    },
    /// Wants no reply.
    Tell {
        /// The message.
        #[serde(serialize_with = "as_bytes")]
        body: &'a [u8],
    },
    /// Are you there?
    Ping,
    /// I am here.
    Pong,
}

/// As one run of bytes: serde would take a slice byte by byte.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Appends a hello as one frame.
///
/// # Errors
/// Only if it does not fit into a frame, which names of legal length never cause. `out` is unchanged then.
pub fn put_hello(hello: &Hello, out: &mut Vec<u8>) -> Result<(), WireError> {
    put(hello, HELLO_BYTES_MAX, out)
}

/// Appends an answer as one frame.
///
/// # Errors
/// If the reason does not fit into a frame. `out` is unchanged then.
pub fn put_answer(answer: &Answer, out: &mut Vec<u8>) -> Result<(), WireError> {
    put(answer, HELLO_BYTES_MAX, out)
}

/// Appends a message as one frame.
///
/// # Errors
/// If its body is longer than [`BODY_BYTES_MAX`]. `out` is unchanged then.
pub fn put_message(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), WireError> {
    put(message, CONTROL_BYTES_MAX, out)
}

/// The version that a hello names. Readable whatever the version is.
///
/// # Errors
/// If the frame is too short for that.
pub fn protocol_of(frame: &[u8]) -> Result<u16, WireError> {
    let read = bincode::serde::decode_from_slice::<u16, _>(frame, standard_hello());
    let (protocol, _) = read.map_err(|error| malformed("hello", &error))?;
    Ok(protocol)
}

/// Reads a frame as a hello.
///
/// # Errors
/// If it is anything else.
pub fn hello(frame: &[u8]) -> Result<Hello, WireError> {
    whole("hello", frame, standard_hello())
}

/// Reads a frame as an answer to a hello.
///
/// # Errors
/// If it is anything else.
pub fn answer(frame: &[u8]) -> Result<Answer, WireError> {
    whole("answer to a hello", frame, standard_hello())
}

/// Reads a frame of a control connection. The body stays in the frame.
///
/// # Errors
/// If it is no message.
pub fn message(frame: &[u8]) -> Result<Message<'_>, WireError> {
    whole("message", frame, standard())
}

/// Reads one frame into `frame`, whose former content is dropped. False: the connection ended before a frame began.
///
/// # Errors
/// If the frame is longer than `bytes_max`, or the connection ends or breaks inside it. The connection is of no use then.
pub async fn read_frame<R: AsyncRead + Unpin>(
    from: &mut R,
    bytes_max: usize,
    frame: &mut Vec<u8>,
) -> Result<bool, WireError> {
    let mut head = [0; 4];
    let found = read_some(from, &mut head).await?;
    if found == 0 {
        return Ok(false);
    }
    if found < head.len() {
        return Err(WireError::FrameCut {
            found,
            expected: head.len(),
        });
    }
    let expected = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if expected > bytes_max {
        return Err(WireError::FrameTooLong {
            found: expected,
            max: bytes_max,
        });
    }
    frame.clear();
    frame.reserve(expected.min(FRAME_BYTES_FIRST));
    // Grows with what arrives, not with what was claimed.
    let mut body = from.take(u64::from(u32::from_le_bytes(head)));
    body.read_to_end(frame).await.map_err(broken)?;
    if frame.len() < expected {
        return Err(WireError::FrameCut {
            found: frame.len(),
            expected,
        });
    }
    Ok(true)
}

/// Fills `into` as far as the connection has bytes.
async fn read_some<R: AsyncRead + Unpin>(
    from: &mut R,
    into: &mut [u8],
) -> Result<usize, WireError> {
    let mut found = 0;
    while let Some(rest) = into.get_mut(found..).filter(|rest| !rest.is_empty()) {
        match from.read(rest).await.map_err(broken)? {
            0 => break,
            more => found += more,
        }
    }
    Ok(found)
}

fn broken(error: io::Error) -> WireError {
    WireError::Broken(error.kind())
}

/// How everything is written: little endian, small numbers short. Read with it, a message borrows its body from the frame, so
/// that no claimed length takes memory.
fn standard() -> impl Config {
    bincode::config::standard()
}

/// The same, for what is owned when read: no string may claim more than a hello holds.
fn standard_hello() -> impl Config {
    bincode::config::standard().with_limit::<HELLO_BYTES_MAX>()
}

/// The same for packets of liveness.
fn standard_packet() -> impl Config {
    bincode::config::standard().with_limit::<LIVENESS_BYTES_MAX>()
}

fn put(value: &impl Serialize, bytes_max: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let written = bincode::serde::encode_into_std_write(value, out, standard());
    let length = out.len() - start - 4;
    let fits = u32::try_from(length)
        .ok()
        .filter(|_| written.is_ok() && length <= bytes_max);
    match (fits, out.get_mut(start..start + 4)) {
        (Some(length), Some(head)) => {
            head.copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(WireError::MessageTooLong {
                found: length,
                max: bytes_max,
            })
        }
    }
}

fn whole<'a, T: Deserialize<'a>>(
    what: &'static str,
    frame: &'a [u8],
    config: impl Config,
) -> Result<T, WireError> {
    let read = bincode::serde::borrow_decode_from_slice(frame, config);
    let (value, length) = read.map_err(|error| malformed(what, &error))?;
    if length < frame.len() {
        let why = format!("{} bytes are left over", frame.len() - length);
        return Err(WireError::Malformed { what, why });
    }
    Ok(value)
}

fn malformed(what: &'static str, error: &DecodeError) -> WireError {
    WireError::Malformed {
        what,
        why: error.to_string(),
    }
}

/// How the liveness protocol writes its packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacketCodec;

impl foca::Codec<Identity> for PacketCodec {
    type Error = WireError;

    fn encode_header(
        &mut self,
        header: &foca::Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), WireError> {
        put_part(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<foca::Header<Identity>, WireError> {
        take_part("liveness packet", buf)
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), WireError> {
        put_part(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Identity>, WireError> {
        take_part("member in a liveness packet", buf)
    }
}

/// Writes all or nothing: what does not fit must leave no trace in the packet.
fn put_part(part: &impl Serialize, mut packet: impl BufMut) -> Result<(), WireError> {
    let too_long = |found| WireError::MessageTooLong {
        found,
        max: packet.remaining_mut(),
    };
    let bytes = bincode::serde::encode_to_vec(part, standard()).map_err(|_| too_long(0))?;
    if bytes.len() > packet.remaining_mut() {
        return Err(too_long(bytes.len()));
    }
    packet.put_slice(&bytes);
    Ok(())
}

fn take_part<T: DeserializeOwned>(
    what: &'static str,
    mut packet: impl Buf,
) -> Result<T, WireError> {
    let read = bincode::serde::decode_from_slice(packet.chunk(), standard_packet());
    let (part, length) = read.map_err(|error| malformed(what, &error))?;
    packet.advance(length);
    Ok(part)
}

#[cfg(test)]
mod tests;
