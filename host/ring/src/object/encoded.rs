//! Objects as bytes: the format, a borrowed view of it, and the write that needs no [`Object`].
//!
//! Format 1: the number 1; the context (count, then actor and sequence number of each entry, ascending by actor); the versions
//! (count, then dot, stamp and optional value of each, ascending by dot; in front of a value of another schema than the first a mark
//! and its schema). [`ObjectRef::parse`] is the only way in: it checks
//! everything once, so what follows it never fails. Nothing here allocates but the output.

use std::iter::Peekable;

use super::codec::{self, Reader};
use super::{Actor, Context, Dot, Hlc, Object, ObjectError, Version};

pub(super) const FORMAT: u8 = 1;
const WHAT: &str = "object";

/// A checked view of an object's bytes.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRef<'a> {
    pub(super) context: Entries<'a>,
    pub(super) versions: Versions<'a>,
}

/// One version inside an [`ObjectRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRef<'a> {
    /// The write's name.
    pub dot: Dot,
    /// When it was written.
    pub hlc: Hlc,
    /// The schema of the value's bytes; [`FIRST_SCHEMA`](super::FIRST_SCHEMA) for a tombstone.
    pub schema: u32,
    /// The value, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> VersionRef<'a> {
    fn age(&self) -> (Hlc, Dot) {
        (self.hlc, self.dot)
    }

    /// What decides between two versions that claim the same dot, as it does for objects.
    pub(super) fn strength(&self) -> (Hlc, u32, Option<&'a [u8]>) {
        (self.hlc, self.schema, self.value)
    }
}

impl<'a> ObjectRef<'a> {
    /// Checks an object's bytes and borrows them.
    ///
    /// # Errors
    /// As [`Object::decode`].
    pub fn parse(bytes: &'a [u8]) -> Result<ObjectRef<'a>, ObjectError> {
        let mut reader = Reader::new(bytes);
        reader.format(WHAT, FORMAT)?;
        let context = Entries::parse(&mut reader)?;
        let versions = Versions::parse(&mut reader, context)?;
        reader.finish(WHAT)?;
        Ok(ObjectRef { context, versions })
    }

    /// How many versions there are, tombstones included.
    #[must_use]
    pub fn versions_len(&self) -> usize {
        self.versions.left
    }

    /// All versions, ascending by dot.
    pub fn versions(&self) -> impl Iterator<Item = VersionRef<'a>> + use<'a> {
        self.versions
    }

    /// The version, be it a tombstone, if there is exactly one: the common case, an object without siblings.
    #[must_use]
    pub fn single(&self) -> Option<VersionRef<'a>> {
        let mut versions = self.versions;
        let first = versions.next()?;
        (versions.left == 0).then_some(first)
    }

    /// The latest live value, as [`Object::latest`].
    #[must_use]
    pub fn latest(&self) -> Option<&'a [u8]> {
        let live = self.versions.filter(|version| version.value.is_some());
        live.max_by_key(VersionRef::age)
            .and_then(|version| version.value)
    }

    /// The stamp of the latest version, tombstones included; zero without versions. The next write's stamp must exceed it.
    #[must_use]
    pub fn hlc(&self) -> Hlc {
        self.versions
            .map(|version| version.hlc)
            .max()
            .unwrap_or_default()
    }

    /// Whether no live value is left, as [`Object::is_deleted`].
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        let mut versions = self.versions;
        versions.all(|version| version.value.is_none())
    }

    /// Whether there is a live value.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.is_deleted()
    }

    /// Whether the object has seen the write named by `dot`.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.seq(dot.actor).is_some_and(|seq| seq >= dot.seq)
    }

    /// The highest sequence number of `actor` the object has seen.
    #[must_use]
    pub fn seq(&self, actor: Actor) -> Option<u64> {
        let mut entries = self.context;
        entries
            .find(|entry| entry.actor >= actor)
            .filter(|entry| entry.actor == actor)
            .map(|entry| entry.seq)
    }

    /// A copy of the context.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.collect()
    }

    /// Builds the owned object.
    #[must_use]
    pub fn to_object(&self) -> Object {
        let versions = self.versions.map(|version| Version {
            dot: version.dot,
            hlc: version.hlc,
            schema: version.schema,
            value: version.value.map(<[u8]>::to_vec),
        });
        Object {
            context: self.context(),
            versions: versions.collect(),
        }
    }
}

/// Appends the object after a write that has seen all of `old` and superseded it: its context plus `dot`, one version.
///
/// Equal to putting on `old` with its full context and encoding, without building an [`Object`]. `old` is `None` for a key
/// without an object; the value is `None` for a deletion. The version's dot must be fresh, as for [`Object::put`].
pub fn encode_successor(old: Option<&ObjectRef<'_>>, version: VersionRef<'_>, out: &mut Vec<u8>) {
    let (dot, value) = (version.dot, version.value);
    let context = old.map_or(Entries::EMPTY, |object| object.context);
    let mut entries = context;
    let known = entries.any(|entry| entry.actor == dot.actor);
    out.reserve(context.bytes.len() + value.map_or(0, <[u8]>::len) + FRAME_BYTES);
    codec::put_format(out, FORMAT);
    codec::put_count(out, context.left + usize::from(!known));
    let mut pending = Some(dot);
    for entry in context {
        let mut entry = entry;
        if let Some(dot) = pending.take_if(|dot| dot.actor <= entry.actor) {
            if dot.actor == entry.actor {
                entry.seq = entry.seq.max(dot.seq);
            } else {
                codec::put_dot(out, dot);
            }
        }
        codec::put_dot(out, entry);
    }
    if let Some(dot) = pending {
        codec::put_dot(out, dot);
    }
    codec::put_count(out, 1);
    codec::put_version(out, version);
}

/// Room for all a one-version object needs besides its old context and its value: ten integers and tags of at most 9 bytes.
const FRAME_BYTES: usize = 90;

pub(super) fn encode(object: &Object, out: &mut Vec<u8>) {
    codec::put_format(out, FORMAT);
    object.context.encode(out);
    codec::put_count(out, object.versions.len());
    for version in &object.versions {
        codec::put_version(out, version.as_ref());
    }
}

/// Checked context entries, and the iterator over them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) left: usize,
}

impl<'a> Entries<'a> {
    const EMPTY: Entries<'static> = Entries {
        bytes: &[],
        left: 0,
    };

    fn parse(reader: &mut Reader<'a>) -> Result<Self, ObjectError> {
        let left = reader.count(WHAT)?;
        let start = *reader;
        let mut last: Option<Actor> = None;
        for _ in 0..left {
            let actor = reader.dot(WHAT)?.actor;
            if last.is_some_and(|last| last >= actor) {
                return Err(ObjectError::ContextOrder { actor });
            }
            last = Some(actor);
        }
        let bytes = reader.since(start);
        Ok(Entries { bytes, left })
    }
}

impl Iterator for Entries<'_> {
    type Item = Dot;

    fn next(&mut self) -> Option<Dot> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes);
        let dot = reader.dot(WHAT).ok()?;
        self.bytes = reader.rest();
        Some(dot)
    }
}

/// What a context covers, asked for dots in ascending order: then one pass over it is enough for all of them.
pub(super) struct Seen<'a>(Peekable<Entries<'a>>);

impl<'a> Seen<'a> {
    pub(super) fn new(context: Entries<'a>) -> Seen<'a> {
        Seen(context.peekable())
    }

    pub(super) fn covers(&mut self, dot: Dot) -> bool {
        while self.0.next_if(|entry| entry.actor < dot.actor).is_some() {}
        let covers = |entry: &Dot| entry.actor == dot.actor && entry.seq >= dot.seq;
        self.0.peek().is_some_and(covers)
    }
}

/// Checked versions, and the iterator over them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) left: usize,
}

impl<'a> Versions<'a> {
    fn parse(reader: &mut Reader<'a>, context: Entries<'a>) -> Result<Self, ObjectError> {
        let left = reader.count(WHAT)?;
        let start = *reader;
        let mut seen = Seen::new(context);
        let mut last: Option<Dot> = None;
        for _ in 0..left {
            let VersionRef { dot, .. } = read_version(reader)?;
            if last.is_some_and(|last| last >= dot) {
                return Err(ObjectError::VersionOrder { dot });
            }
            last = Some(dot);
            if !seen.covers(dot) {
                return Err(ObjectError::UncoveredVersion { dot });
            }
        }
        let bytes = reader.since(start);
        Ok(Versions { bytes, left })
    }
}

impl<'a> Iterator for Versions<'a> {
    type Item = VersionRef<'a>;

    fn next(&mut self) -> Option<VersionRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes);
        let version = read_version(&mut reader).ok()?;
        self.bytes = reader.rest();
        Some(version)
    }
}

fn read_version<'a>(reader: &mut Reader<'a>) -> Result<VersionRef<'a>, ObjectError> {
    let (dot, hlc) = (reader.dot(WHAT)?, reader.hlc(WHAT)?);
    let (schema, value) = reader.value(WHAT)?;
    Ok(VersionRef {
        dot,
        hlc,
        schema,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::super::FIRST_SCHEMA;
    use super::*;

    fn dot(actor: u64, seq: u64) -> Dot {
        Dot {
            actor: Actor(actor),
            seq,
        }
    }

    fn object(seen: &[(u64, u64)], versions: &[(u64, u64, Option<&str>)]) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        codec::put_count(&mut bytes, seen.len());
        for &(actor, seq) in seen {
            codec::put_dot(&mut bytes, dot(actor, seq));
        }
        codec::put_count(&mut bytes, versions.len());
        for &(actor, seq, value) in versions {
            let value = value.map(str::as_bytes);
            let version = VersionRef {
                dot: dot(actor, seq),
                hlc: Hlc(seq),
                schema: FIRST_SCHEMA,
                value,
            };
            codec::put_version(&mut bytes, version);
        }
        bytes
    }

    #[test]
    fn the_format_is_bincode_of_plain_pairs_and_tuples() {
        let mut written = Object::default();
        let nothing = Context::default();
        let value = Some(b"v".to_vec());
        written
            .put(&nothing, dot(300, 1), Hlc(70_000), (FIRST_SCHEMA, value))
            .unwrap();
        let nothing_left = (FIRST_SCHEMA, None);
        written
            .put(&nothing, dot(7, 9), Hlc(5), nothing_left)
            .unwrap();
        let mut bytes = Vec::new();
        written.encode(&mut bytes);
        type Row = (u64, u64, u64, Option<Vec<u8>>);
        let plain: (u8, Vec<(u64, u64)>, Vec<Row>) = (
            1,
            vec![(7, 9), (300, 1)],
            vec![(7, 9, 5, None), (300, 1, 70_000, Some(b"v".to_vec()))],
        );
        let expected = bincode::encode_to_vec(plain, bincode::config::standard()).unwrap();
        assert_eq!(bytes, expected);
        assert_eq!(&bytes[..4], [1, 2, 7, 9]);
    }

    #[test]
    fn only_a_value_of_another_schema_than_the_first_is_marked() {
        let write = |schema, value: Option<&[u8]>| {
            let version = VersionRef {
                dot: dot(1, 1),
                hlc: Hlc(1),
                schema,
                value,
            };
            let mut bytes = Vec::new();
            encode_successor(None, version, &mut bytes);
            let read = ObjectRef::parse(&bytes).unwrap().single();
            assert_eq!(read, Some(version));
            let mut again = Vec::new();
            Object::decode(&bytes).unwrap().encode(&mut again);
            assert_eq!(again, bytes);
            bytes
        };
        let head = [1, 1, 1, 1, 1, 1, 1, 1];
        assert_eq!(write(1, Some(b"v")), [&head[..], &[1, 1, b'v']].concat());
        assert_eq!(write(1, None), [&head[..], &[0]].concat());
        assert_eq!(write(7, Some(b"v")), [&head[..], &[2, 7, 1, b'v']].concat());
    }

    #[test]
    fn objects_that_break_an_invariant_are_refused() {
        let parse = |bytes: &[u8]| ObjectRef::parse(bytes).map(|_| ());
        assert!(matches!(
            parse(&[]),
            Err(ObjectError::Malformed { what: "object", .. })
        ));
        assert!(matches!(
            parse(&[2, 0, 0]),
            Err(ObjectError::UnknownFormat { found: 2, .. })
        ));
        assert!(matches!(
            parse(&[1, 0, 0, 0]),
            Err(ObjectError::TrailingBytes { count: 1, .. })
        ));
        assert!(matches!(
            parse(&object(&[(2, 1), (1, 1)], &[])),
            Err(ObjectError::ContextOrder { .. })
        ));
        assert!(matches!(
            parse(&object(&[(1, 4)], &[(1, 2, None), (1, 2, None)])),
            Err(ObjectError::VersionOrder { .. })
        ));
        for stranger in [(0, 1, None), (1, 5, None), (2, 1, None)] {
            assert!(matches!(
                parse(&object(&[(1, 4)], &[stranger])),
                Err(ObjectError::UncoveredVersion { .. })
            ));
        }
    }

    #[test]
    fn forged_lengths_cost_nothing() {
        let huge = [253, 255, 255, 255, 255, 255, 255, 255, 127];
        let mut context = vec![FORMAT];
        context.extend_from_slice(&huge);
        let mut value = object(&[(1, 1)], &[(1, 1, Some(""))]);
        value.pop();
        value.extend_from_slice(&huge);
        for bytes in [context, value] {
            assert!(matches!(
                Object::decode(&bytes),
                Err(ObjectError::Malformed { .. })
            ));
        }
    }

    #[test]
    fn single_is_for_objects_without_siblings() {
        let single = |bytes: &[u8]| {
            let object = ObjectRef::parse(bytes).unwrap();
            let single = object.single();
            single.map(|version| version.value.map(<[u8]>::to_vec))
        };
        let seen = [(1, 4)];
        assert_eq!(single(&object(&seen, &[])), None);
        assert_eq!(
            single(&object(&seen, &[(1, 2, Some("v"))])),
            Some(Some(b"v".to_vec()))
        );
        assert_eq!(single(&object(&seen, &[(1, 2, None)])), Some(None));
        assert_eq!(single(&object(&seen, &[(1, 2, None), (1, 3, None)])), None);
    }
}
