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
/// Before a number of two bytes. A smaller first byte is the number itself.
const U16_FOLLOWS: u8 = 251;
/// Before a number of four bytes.
const U32_FOLLOWS: u8 = 252;
/// Before a number of eight bytes.
const U64_FOLLOWS: u8 = 253;
/// An option's tag when there is a value.
const VALUE_FOLLOWS: u8 = 1;
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
        // A count that no memory could hold is one for which there are too few bytes.
        Ok(usize::try_from(self.integer(what)?).unwrap_or(usize::MAX))
    }

    /// Reads a whole number. Its four layouts are read here, since every look at an object reads several numbers; what is none of
    /// them bincode reads, and says what is wrong.
    #[inline]
    fn integer(&mut self, what: &'static str) -> Result<u64, ObjectError> {
        let [mark, rest @ ..] = self.rest else {
            return self.take(what);
        };
        let read = match *mark {
            U16_FOLLOWS => rest
                .split_first_chunk()
                .map(|(number, rest)| (u16::from_le_bytes(*number).into(), rest)),
            U32_FOLLOWS => rest
                .split_first_chunk()
                .map(|(number, rest)| (u32::from_le_bytes(*number).into(), rest)),
            U64_FOLLOWS => rest
                .split_first_chunk()
                .map(|(number, rest)| (u64::from_le_bytes(*number), rest)),
            number if number < U16_FOLLOWS => Some((number.into(), rest)),
            _ => None,
        };
        let Some((number, rest)) = read else {
            return self.take(what);
        };
        self.rest = rest;
        Ok(number)
    }

    pub(super) fn dot(&mut self, what: &'static str) -> Result<Dot, ObjectError> {
        Ok(Dot {
            actor: Actor(self.integer(what)?),
            seq: self.integer(what)?,
        })
    }

    pub(super) fn hlc(&mut self, what: &'static str) -> Result<Hlc, ObjectError> {
        self.integer(what).map(Hlc)
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
        if let [VALUE_FOLLOWS, rest @ ..] = self.rest {
            let mut reader = Reader { rest };
            let length = reader.count(what)?;
            if let Some((value, rest)) = reader.rest.split_at_checked(length) {
                self.rest = rest;
                return Ok((FIRST_SCHEMA, Some(value)));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![0_u8..4, 248_u8..=255, any::<u8>()];
        let rest = prop::collection::vec(any::<u8>(), 0..20);
        (first, prop_oneof![0_u8..8, 248_u8..=255], rest)
            .prop_map(|(first, second, rest)| [&[first, second][..], &rest].concat())
    }

    proptest! {
        /// Whatever bytes there are, what is read here by hand is what bincode reads, and leaves the same rest.
        #[test]
        fn numbers_and_values_are_those_of_bincode(bytes in bytes()) {
            let mut reader = Reader::new(&bytes);
            let read = reader.integer("object").ok();
            let known = bincode::borrow_decode_from_slice::<u64, _>(&bytes, CONFIG).ok();
            prop_assert_eq!(read, known.map(|(number, _)| number));
            if let Some((_, length)) = known {
                prop_assert_eq!(reader.rest(), &bytes[length..]);
            }
            let mut reader = Reader::new(&bytes);
            let read = reader.value("object").ok();
            let known = bincode::borrow_decode_from_slice::<Option<&[u8]>, _>(&bytes, CONFIG).ok();
            if bytes[0] != SCHEMA_FOLLOWS {
                prop_assert_eq!(read, known.map(|(value, _)| (FIRST_SCHEMA, value)));
                if let Some((_, length)) = known {
                    prop_assert_eq!(reader.rest(), &bytes[length..]);
                }
            }
        }
    }
}
