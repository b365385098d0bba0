//! The frozen hash functions by which keys are placed on the ring.
//!
//! They hash explicit bytes only, never a runtime's encoding of a value: whatever changes that encoding would silently move every
//! key. A hash id, once released, never changes meaning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::etf::{self, Term};
use crate::index::IndexError;

/// Bytes of a SHA-1.
pub(crate) const HASH_BYTES: usize = 20;

/// The SHA-1 by which a key is placed on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; HASH_BYTES]);

impl KeyHash {
    /// The first 8 bytes as a big-endian number: what rows are ordered by and ranges are cut in.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which function turns a bucket and a key into a [`KeyHash`]; part of the ring, fixed when the cluster is made.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum HashId {
    /// SHA-1 over bucket and tag, each led by its length as 32 bits big-endian.
    ///
    /// The tag is what stands in the key's first pair of braces, if that is not empty; else the whole key. So keys can be
    /// placed together on purpose, by the rule of Redis Cluster.
    #[default]
    #[serde(rename = "v1")]
    V1,
    /// SHA-1 over the Erlang external term format of `{Bucket, Key}` as binaries: where Erlang's riak_core puts the key.
    #[serde(rename = "etf-sha1")]
    EtfSha1,
}

impl HashId {
    /// Hashes a key of a bucket. Nothing is copied.
    #[must_use]
    pub fn hash(self, bucket: &[u8], key: &[u8]) -> KeyHash {
        match self {
            HashId::V1 => {
                let mut sha1 = Sha1::new();
                for part in [bucket, hash_tag(key)] {
                    sha1.update(etf::length_u32(part).to_be_bytes());
                    sha1.update(part);
                }
                KeyHash(sha1.finalize().into())
            }
            HashId::EtfSha1 => etf::hash_pair(Term::Binary(bucket), Term::Binary(key)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            HashId::V1 => "v1",
            HashId::EtfSha1 => "etf-sha1",
        }
    }
}

impl fmt::Display for HashId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashId {
    type Err = IndexError;

    fn from_str(text: &str) -> Result<HashId, IndexError> {
        [HashId::V1, HashId::EtfSha1]
            .into_iter()
            .find(|id| id.name() == text)
            .ok_or_else(|| IndexError::HashId {
                found: text.to_owned(),
            })
    }
}

/// The part of a key that decides its place: Redis Cluster's hash tag rule.
fn hash_tag(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let after = key.get(open + 1..)?;
        let close = after.iter().position(|&byte| byte == b'}')?;
        after.get(..close).filter(|tag| !tag.is_empty())
    });
    tag.unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_choose_what_is_hashed() {
        let table = [
            ("user:1", "user:1"),
            ("{user}:1", "user"),
            ("a{b}c{d}", "b"),
            ("a{}c{d}", "a{}c{d}"),
            ("a{{b}}", "{b"),
            ("a}b{c", "a}b{c"),
            ("", ""),
        ];
        for (key, tag) in table {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
        let [one, two] = ["{user}:1", "{user}:2"].map(|key| HashId::V1.hash(b"kv", key.as_bytes()));
        assert_eq!(one, two);
    }

    #[test]
    fn v1_is_frozen() {
        // Computed apart from this code: sha1(be32(2) "kv" be32(2) "k1") and so on.
        let table = [
            ("kv", "k1", "e6756b99a1a504fb57d4649d6008c850e03bf6ce"),
            ("", "", "05fe405753166f125559e7c9ac558654f107c7e9"),
            ("kv", "a{user}b", "cc00367a06e0bdbfa59320f1f5f544fb06643a2c"),
        ];
        for (bucket, key, hash) in table {
            let found = HashId::V1.hash(bucket.as_bytes(), key.as_bytes());
            assert_eq!(found.to_string(), hash, "{bucket} {key}");
        }
        assert_ne!(HashId::V1.hash(b"a", b"bc"), HashId::V1.hash(b"ab", b"c"));
    }

    #[test]
    fn hash_ids_have_one_name_each() {
        for id in [HashId::V1, HashId::EtfSha1] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(
            "V1".parse::<HashId>().unwrap_err().to_string(),
            "hash id \"V1\" is unknown; this build knows v1 and etf-sha1"
        );
    }
}
