//! The rows of this vnode: durable bytes under keys, kept, replicated, handed off and repaired by the host.
//!
//! A command is a transaction. It sees its own writes at once; they are kept as a whole when it returns `Ok` and
//! forgotten otherwise.
//!
//! A key is stored where it hashes to, so a command may write its own keys, and others with the same `{tag}`
//! (`{user:1}:name` and `{user:1}:mail` live together).
//!
//! In a native build, such as `cargo test`, the same functions work on rows in memory; see
//! [`testing`](crate::testing).

use crate::bytes::integer;
use crate::{Bytes, Error, Result, frame};

#[cfg(target_family = "wasm")]
use crate::imports as rows;
#[cfg(not(target_family = "wasm"))]
use crate::memory as rows;

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty when the scan asked for keys only.
    pub value: Vec<u8>,
}

/// One page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Rows in the order of the ring, not of their keys.
    pub rows: Vec<Row>,
    /// Where the next page starts; none when this was the last. Only this tells whether there are more rows.
    pub next: Option<Vec<u8>>,
}

/// Which part of each row a scan copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Keys alone.
    Keys,
    /// Keys and values.
    Rows,
}

/// All versions of one key that no other version replaces, and the causal context that covers them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Opaque. A write that carries it replaces exactly what was seen here.
    pub context: Vec<u8>,
    /// The values, latest first; more than one when writers did not know of each other.
    pub values: Vec<Vec<u8>>,
}

/// The value of `key`, or none. Of concurrent versions it is what [`MERGE`](crate::Vnode::MERGE) makes of them.
pub fn get(key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
    let key = key.as_ref();
    match frame::with(|frame| frame.get(key)) {
        Some(answer) => answer,
        None => Ok(rows::get(key)?.map(Bytes::from)),
    }
}

/// The value of `key` as a decimal integer; 0 when there is none.
pub fn get_int(key: impl AsRef<[u8]>) -> Result<i64> {
    get(key)?.map_or(Ok(0), |value| integer(&value))
}

/// Stores `value` under `key`, replacing every version that this vnode can see.
pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
    let (key, value) = (key.as_ref(), value.as_ref());
    match frame::with(|frame| frame.put(key, value)) {
        Some(answer) => answer,
        None => rows::put(key, value),
    }
}

/// Removes `key`; says whether it had a value.
pub fn delete(key: impl AsRef<[u8]>) -> Result<bool> {
    let key = key.as_ref();
    match frame::with(|frame| frame.delete(key)) {
        Some(answer) => answer,
        None => rows::delete(key),
    }
}

/// Up to `limit` rows after `cursor` (none is the start). The cursor is opaque and stays good whatever is written
/// meanwhile. In a coverage command only rows of the asked part of the ring appear.
pub fn scan(cursor: Option<&[u8]>, limit: u32, projection: Projection) -> Result<Scan> {
    beyond_frame()?;
    rows::scan(cursor, limit, projection)
}

/// Number of rows; in a coverage command, of the asked part of the ring.
pub fn count() -> Result<u64> {
    beyond_frame()?;
    rows::count()
}

/// Every concurrent version of `key` with its causal context; for a key never written, no values and an empty context.
pub fn get_object(key: impl AsRef<[u8]>) -> Result<Object> {
    beyond_frame()?;
    rows::get_object(key.as_ref())
}

/// Stores `value` so that it replaces the versions that `context` covers and stands beside all others; an empty
/// context covers none. Answers the context that covers the new version.
pub fn put_object(
    key: impl AsRef<[u8]>,
    value: impl AsRef<[u8]>,
    context: impl AsRef<[u8]>,
) -> Result<Vec<u8>> {
    beyond_frame()?;
    rows::put_object(key.as_ref(), value.as_ref(), context.as_ref())
}

/// Defers the command when it runs in the batch door, where only the values of its declared keys are at hand.
fn beyond_frame() -> Result<(), Error> {
    match frame::with(frame::Frame::defer) {
        Some(deferred) => Err(deferred),
        None => Ok(()),
    }
}
