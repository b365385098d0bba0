//! Two copies of an object as bytes: whether they differ, which is newer, and what they are together.
//!
//! Owns [`Object::merge`](super::Object::merge) on bytes and the digest by which replicas compare what they hold. Nothing here
//! allocates but the output.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::encoded::{Entries, FORMAT, Seen};
use super::{Dot, ObjectRef, VersionRef, codec};

/// What [`merge_encoded`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The merge is our copy: theirs has nothing new. Also if both are equal.
    Ours,
    /// The merge is their copy: ours has nothing that theirs has not.
    Theirs,
    /// Each has something the other has not; their merge has been written.
    Both,
}

/// Merges two copies of a key's object without building either.
///
/// Equal to [`Object::merge`](super::Object::merge) followed by [`Object::encode`](super::Object::encode). Only for
/// [`Merged::Both`] bytes are appended to `out`; otherwise the caller has them already.
pub fn merge_encoded(ours: &ObjectRef<'_>, theirs: &ObjectRef<'_>, out: &mut Vec<u8>) -> Merged {
    if ours.has_bytes_of(theirs) || ours.supersedes(theirs) {
        return Merged::Ours;
    }
    if theirs.supersedes(ours) {
        return Merged::Theirs;
    }
    out.reserve(ours.len() + theirs.len());
    codec::put_format(out, FORMAT);
    codec::put_count(out, joined(ours.context, theirs.context).count());
    for entry in joined(ours.context, theirs.context) {
        codec::put_dot(out, entry);
    }
    codec::put_count(out, kept(ours, theirs).count());
    for version in kept(ours, theirs) {
        codec::put_version(out, version);
    }
    Merged::Both
}

impl ObjectRef<'_> {
    /// Whether merging `other` into this object would change nothing.
    ///
    /// With it a replica can keep or replace stored bytes without decoding either side, and a reader can tell a stale replica.
    #[must_use]
    pub fn supersedes(&self, other: &ObjectRef<'_>) -> bool {
        let mut ours = Seen::new(self.context);
        if !other.context.into_iter().all(|entry| ours.covers(entry)) {
            return false;
        }
        // Their remaining versions are now known to be seen here. What could still change is a version of ours they superseded.
        let mut seen_there = Seen::new(other.context);
        let mut theirs = other.versions.peekable();
        self.versions.into_iter().all(|our| {
            while theirs.next_if(|version| version.dot < our.dot).is_some() {}
            match theirs.next_if(|version| version.dot == our.dot) {
                Some(their) => their.strength() <= our.strength(),
                None => !seen_there.covers(our.dot),
            }
        })
    }

    /// A number by which replicas tell whether they hold the same object.
    ///
    /// Equal for objects with the same context and the same versions by dot and stamp; else different, but for one chance in
    /// 2^64. So objects that a merge would change differ. Values are left out, as a dot names one write only;
    /// so replicas that keep the same write in different schemas hold the same object. Part of what
    /// nodes tell each other: the same on every machine, and frozen.
    #[must_use]
    pub fn digest(&self) -> u64 {
        // Xxh3 of each entry and version, seeded with what came before. It takes in the length, which keeps the two apart.
        let of_context = self.context.fold(0, |before, entry| {
            let words = [entry.actor.0, entry.seq].map(u64::to_le_bytes);
            xxh3_64_with_seed(words.as_flattened(), before)
        });
        self.versions
            .fold(of_context, |before, VersionRef { dot, hlc, .. }| {
                let words = [dot.actor.0, dot.seq, hlc.0].map(u64::to_le_bytes);
                xxh3_64_with_seed(words.as_flattened(), before)
            })
    }

    fn has_bytes_of(&self, other: &ObjectRef<'_>) -> bool {
        self.context.bytes == other.context.bytes && self.versions.bytes == other.versions.bytes
    }

    /// How many bytes the entries and versions take.
    fn len(&self) -> usize {
        self.context.bytes.len() + self.versions.bytes.len()
    }
}

/// The pointwise maximum of two contexts, ascending by actor.
fn joined<'a>(ours: Entries<'a>, theirs: Entries<'a>) -> impl Iterator<Item = Dot> + use<'a> {
    let (mut ours, mut theirs) = (ours.peekable(), theirs.peekable());
    std::iter::from_fn(move || {
        let order = order(ours.peek(), theirs.peek(), |entry| entry.actor)?;
        let our = ours.next_if(|_| order.is_le());
        let their = theirs.next_if(|_| order.is_ge());
        our.max(their)
    })
}

/// The versions that both have, and those of either that the other has not seen, ascending by dot.
fn kept<'a>(
    ours: &ObjectRef<'a>,
    theirs: &ObjectRef<'a>,
) -> impl Iterator<Item = VersionRef<'a>> + use<'a> {
    let (mut seen_here, mut seen_there) = (Seen::new(ours.context), Seen::new(theirs.context));
    let (mut ours, mut theirs) = (ours.versions.peekable(), theirs.versions.peekable());
    std::iter::from_fn(move || {
        loop {
            let order = order(ours.peek(), theirs.peek(), |version| version.dot)?;
            let our = ours.next_if(|_| order.is_le());
            let their = theirs.next_if(|_| order.is_ge());
            let kept = match order {
                Ordering::Less => our.filter(|version| !seen_there.covers(version.dot)),
                Ordering::Greater => their.filter(|version| !seen_here.covers(version.dot)),
                Ordering::Equal => our
                    .into_iter()
                    .chain(their)
                    .max_by_key(VersionRef::strength),
            };
            if kept.is_some() {
                return kept;
            }
        }
    })
}

/// Which of two ascending lists goes on; `None` at the end of both.
fn order<T, K: Ord>(our: Option<&T>, their: Option<&T>, key: impl Fn(&T) -> K) -> Option<Ordering> {
    match (our, their) {
        (Some(our), Some(their)) => Some(key(our).cmp(&key(their))),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, Context, FIRST_SCHEMA, Hlc, Object};
    use super::*;

    fn object(seen: &[(u64, u64)], versions: &[(u64, u64, Option<&str>)]) -> Vec<u8> {
        let dot = |(actor, seq)| Dot {
            actor: Actor(actor),
            seq,
        };
        let mut object = Object::default();
        let seen: Context = seen.iter().copied().map(dot).collect();
        for &(actor, seq, value) in versions {
            let value = value.map(|value| value.as_bytes().to_vec());
            object
                .put(&seen, dot((actor, seq)), Hlc(seq), (FIRST_SCHEMA, value))
                .unwrap();
        }
        let mut bytes = Vec::new();
        object.encode(&mut bytes);
        bytes
    }

    fn merge(ours: &[u8], theirs: &[u8]) -> (Merged, Vec<u8>) {
        let mut out = Vec::new();
        let ours = ObjectRef::parse(ours).unwrap();
        let theirs = ObjectRef::parse(theirs).unwrap();
        let merged = merge_encoded(&ours, &theirs, &mut out);
        // The common cases must not even reserve.
        assert_eq!(out.capacity() > 0, merged == Merged::Both);
        (merged, out)
    }

    #[test]
    fn a_newer_copy_is_taken_as_it_is() {
        let old = object(&[(1, 4), (2, 2)], &[(1, 5, Some("old"))]);
        let new = object(&[(1, 5), (2, 2)], &[(2, 3, Some("new"))]);
        assert_eq!(merge(&old, &new), (Merged::Theirs, Vec::new()));
        assert_eq!(merge(&new, &old), (Merged::Ours, Vec::new()));
        assert_eq!(merge(&new, &new), (Merged::Ours, Vec::new()));
    }

    #[test]
    fn concurrent_copies_are_written_as_siblings() {
        let ours = object(&[(1, 4)], &[(1, 5, Some("one"))]);
        let theirs = object(&[(1, 4)], &[(2, 3, None)]);
        let both = object(&[(1, 4)], &[(1, 5, Some("one")), (2, 3, None)]);
        assert_eq!(merge(&ours, &theirs), (Merged::Both, both.clone()));
        assert_eq!(merge(&theirs, &ours), (Merged::Both, both));
    }

    #[test]
    fn the_same_write_in_two_schemas_is_the_same_object() {
        let write = |schema| {
            let version = VersionRef {
                dot: Dot {
                    actor: Actor(1),
                    seq: 1,
                },
                hlc: Hlc(1),
                schema,
                // The bytes of the later schema come earlier, and decide nothing.
                value: Some(if schema == 1 { b"one" } else { b"int" }),
            };
            let mut bytes = Vec::new();
            super::super::encode_successor(None, version, &mut bytes);
            bytes
        };
        let (first, second) = (write(1), write(2));
        let digest = |bytes: &[u8]| ObjectRef::parse(bytes).unwrap().digest();
        assert_eq!(digest(&first), digest(&second));
        assert_eq!(merge(&first, &second), (Merged::Theirs, Vec::new()));
        assert_eq!(merge(&second, &first), (Merged::Ours, Vec::new()));
        let mut owned = Object::decode(&second).unwrap();
        owned.merge(Object::decode(&first).unwrap());
        assert_eq!(owned, Object::decode(&second).unwrap());
    }

    #[test]
    fn digests_are_frozen() {
        // Nodes of different builds compare them. Computed apart from this code.
        let table = [
            (object(&[], &[]), 0),
            (
                object(&[(1, 4)], &[(1, 5, Some("one"))]),
                0x404a_0332_19e2_62c5,
            ),
            (
                object(&[(1, 4)], &[(1, 5, None), (2, 3, Some("two"))]),
                0xa56a_da2e_ffff_3f2c,
            ),
        ];
        for (bytes, digest) in table {
            let object = ObjectRef::parse(&bytes).unwrap();
            assert_eq!(object.digest(), digest, "{:016x}", object.digest());
        }
    }
}
