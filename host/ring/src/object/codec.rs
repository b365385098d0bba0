//! The byte format's smallest pieces, shared by objects and context tokens.
//!
//! All integers, lengths and options are bincode 2 with its standard configuration (little endian, variable-length integers);
//! only this file calls bincode. Reading borrows and never allocates, so a forged length costs nothing.

use bincode::BorrowDecode;
use bincode::config::{self, Configuration};
use bincode::enc::Encode;
use bincode::enc::write::Writer;
use bincode::error::EncodeError;

use super::encoded::VersionRef;
use super::{Actor, Dot, FIRST_SCHEMA, Hlc, ObjectError};

const CONFIG: Configuration = config::standard();
/// In the place of an option's tag: a value follows, behind its schema. Values of the first schema need no mark.
const SCHEMA_FOLLOWS: u8 = 2;

/// A cursor over encoded bytes.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The bytes not yet read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes read since `earlier`, a copy of this reader from before.
    pub(super) fn since(&self, earlier: Reader<'a>) -> &'a [u8] {
        let read = earlier.rest.len().saturating_sub(self.rest.len());
        earlier.rest.get(..read).unwrap_or_default()
    }

    /// Reads the leading format number and refuses any but `expected`.
    pub(super) fn format(&mut self, what: &'static str, expected: u8) -> Result<(), ObjectError> {
        let found = self.take(what)?;
        if found == expected {
            Ok(())
        } else {
            Err(ObjectError::UnknownFormat {
                what,
                found,
                expected,
            })
        }
    }

    pub(super) fn count(&mut self, what: &'static str) -> Result<usize, ObjectError> {
        self.take(what)
    }

    pub(super) fn dot(&mut self, what: &'static str) -> Result<Dot, ObjectError> {
        let (actor, seq) = self.take(what)?;
        Ok(Dot {
            actor: Actor(actor),
            seq,
        })
    }

    pub(super) fn hlc(&mut self, what: &'static str) -> Result<Hlc, ObjectError> {
        self.take(what).map(Hlc)
    }

    /// Reads a value and the schema of its bytes.
    pub(super) fn value(
        &mut self,
        what: &'static str,
    ) -> Result<(u32, Option<&'a [u8]>), ObjectError> {
        if self.rest.first() == Some(&SCHEMA_FOLLOWS) {
            let (_, schema, value): (u8, u32, &[u8]) = self.take(what)?;
            return Ok((schema, Some(value)));
        }
        Ok((FIRST_SCHEMA, self.take(what)?))
    }

    /// Checks that everything has been read.
    pub(super) fn finish(self, what: &'static str) -> Result<(), ObjectError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(ObjectError::TrailingBytes { what, count }),
        }
    }

    fn take<T: BorrowDecode<'a, ()>>(&mut self, what: &'static str) -> Result<T, ObjectError> {
        let (taken, read) = bincode::borrow_decode_from_slice(self.rest, CONFIG)
            .map_err(|source| ObjectError::Malformed { what, source })?;
        self.rest = self.rest.get(read..).unwrap_or_default();
        Ok(taken)
    }
}

pub(super) fn put_format(out: &mut Vec<u8>, format: u8) {
    out.push(format);
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    put(out, count);
}

pub(super) fn put_dot(out: &mut Vec<u8>, dot: Dot) {
    put(out, (dot.actor.0, dot.seq));
}

/// Appends one version's dot, stamp and value.
pub(super) fn put_version(out: &mut Vec<u8>, version: VersionRef<'_>) {
    put_dot(out, version.dot);
    put(out, version.hlc.0);
    match version.value {
        Some(value) if version.schema != FIRST_SCHEMA => {
            put(out, (SCHEMA_FOLLOWS, version.schema, value));
        }
        value => put(out, value),
    }
}

fn put<T: Encode>(out: &mut Vec<u8>, item: T) {
    let written = bincode::encode_into_writer(item, Sink(out), CONFIG);
    assert!(written.is_ok(), "integers and byte strings always encode");
}

/// Lets bincode append to a vector.
struct Sink<'a>(&'a mut Vec<u8>);

impl Writer for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
