//! The two pieces of Erlang's external term format that place keys on an Erlang ring.
//!
//! Owns the byte layout of binaries and of atoms as Erlang/OTP wrote them up to release 25 (tag 100, 16-bit length); from 26 on
//! atoms are written otherwise, which moved the keys hashed over them. Atoms exist here to reproduce numbers printed by Erlang
//! programs; [`crate::HashId::EtfSha1`] uses binaries only. It never reads terms. Layout: the ERTS user's guide, "External Term
//! Format".

use sha1::{Digest, Sha1};

use crate::hash::KeyHash;

const VERSION: u8 = 131;
const SMALL_TUPLE: u8 = 104;
const BINARY: u8 = 109;
const ATOM: u8 = 100;

/// An Erlang term, as far as keys and buckets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term<'a> {
    /// An atom; Erlang allows 255 characters.
    Atom(&'a str),
    /// A binary.
    Binary(&'a [u8]),
}

impl Term<'_> {
    /// Hands the term's bytes to `sink`, piece by piece.
    fn encode(self, mut sink: impl FnMut(&[u8])) {
        match self {
            Term::Atom(text) => {
                sink(&[ATOM]);
                let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
                sink(&length.to_be_bytes());
                sink(text.as_bytes());
            }
            Term::Binary(bytes) => {
                sink(&[BINARY]);
                sink(&length_u32(bytes).to_be_bytes());
                sink(bytes);
            }
        }
    }
}

/// The bytes of `term_to_binary(Term)`.
#[must_use]
pub fn term_to_binary(term: Term<'_>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    term.encode(|piece| bytes.extend_from_slice(piece));
    bytes
}

/// The hash of `{Bucket, Key}` as `chash:key_of` computes it.
#[must_use]
pub fn hash_pair(bucket: Term<'_>, key: Term<'_>) -> KeyHash {
    let mut sha1 = Sha1::new();
    sha1.update([VERSION, SMALL_TUPLE, 2]);
    for term in [bucket, key] {
        term.encode(|piece| sha1.update(piece));
    }
    KeyHash(sha1.finalize().into())
}

/// A length as formats with 32 bits write it; no key or bucket comes near the bound.
pub(crate) fn length_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashId;
    use crate::index::{PartitionId, RingSize};

    #[test]
    fn terms_have_the_bytes_erlang_gives_them() {
        assert_eq!(term_to_binary(Term::Atom("k1")), b"\x83\x64\x00\x02k1");
        assert_eq!(
            term_to_binary(Term::Binary(b"rkv")),
            b"\x83\x6d\x00\x00\x00\x03rkv"
        );
    }

    /// The partitions that riak_core tutorials print for keys given as atoms.
    #[test]
    fn keys_land_where_the_tutorials_print_them() {
        let rkv = |key| hash_pair(Term::Binary(b"rkv"), Term::Atom(key));
        let example = |key| {
            let key = term_to_binary(Term::Atom(key));
            HashId::EtfSha1.hash(b"rc_example", &key)
        };
        let table = [
            // hash, ring size, partition
            (rkv("k1"), 64, 28),
            (rkv("k2"), 64, 30),
            (rkv("k1"), 16, 7),
            (example("k1"), 64, 50),
            (example("k100"), 64, 59),
            (example("k101"), 64, 31),
            (example("k444"), 64, 39),
            (example("k4445"), 64, 43),
        ];
        for (hash, size, partition) in table {
            let found = RingSize::new(size).unwrap().first_replica(&hash);
            assert_eq!(found, PartitionId::from_id(partition), "{hash} on {size}");
        }
    }

    #[test]
    fn printed_indices_belong_to_the_keys() {
        let size = RingSize::new(64).unwrap();
        let index = |bucket: &[u8], key| {
            let hash = hash_pair(Term::Binary(bucket), key);
            size.index_decimal(size.first_replica(&hash))
        };
        assert_eq!(
            index(b"rkv", Term::Atom("k1")),
            "639406966332270026714112114313373821099470487552"
        );
        assert_eq!(
            index(b"rkv", Term::Atom("k2")),
            "685078892498860742907977265335757665463718379520"
        );
        let key = term_to_binary(Term::Atom("k1"));
        assert_eq!(
            index(b"rc_example", Term::Binary(&key)),
            "1141798154164767904846628775559596109106197299200"
        );
    }
}
