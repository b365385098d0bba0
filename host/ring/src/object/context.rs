//! Dots and causal contexts: which writes a reader or a replica has seen.
//!
//! Owns the comparison of contexts and the opaque token in which clients carry one. It never hands out dots: a vnode counts
//! its own sequence. Values live in the parent module.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::ObjectError;
use super::codec::{self, Reader};

/// The most actors a context may name when it comes from a client or is about to be written.
pub const CONTEXT_ACTORS_MAX: usize = 1024;

const TOKEN_FORMAT: u8 = 1;
const TOKEN_CHECKSUM_BYTES: usize = 4;

/// One incarnation of one vnode: the source of dots.
///
/// A vnode that lost its store, or came back from a backup, must take a new random actor; else it would give out dots that
/// others believe to have seen already (riak_kv issue 679).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Actor(pub u64);

/// The name of one write: the `seq`-th of an actor, counted over the whole vnode from 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Dot {
    /// The vnode incarnation that took the write.
    pub actor: Actor,
    /// Its sequence number there; never reused, gaps allowed.
    pub seq: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.actor.0, self.seq)
    }
}

/// The set of writes somebody has seen, as the highest sequence number of each actor.
///
/// A context covers a dot when it holds the dot's actor at that sequence number or above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Strictly ascending by actor.
    entries: Vec<(Actor, u64)>,
}

impl Context {
    /// Whether the write named by `dot` has been seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.seq(dot.actor).is_some_and(|seq| seq >= dot.seq)
    }

    /// The highest sequence number seen of `actor`, if any was.
    ///
    /// A vnode that finds itself here with a number above its own counter has lost writes, and needs a new actor.
    #[must_use]
    pub fn seq(&self, actor: Actor) -> Option<u64> {
        let at = self.entries.binary_search_by_key(&actor, |entry| entry.0);
        at.ok()
            .and_then(|at| self.entries.get(at))
            .map(|entry| entry.1)
    }

    /// Adds one write, and with it all earlier ones of the same actor.
    pub fn insert(&mut self, dot: Dot) {
        match self
            .entries
            .binary_search_by_key(&dot.actor, |entry| entry.0)
        {
            Ok(at) => {
                if let Some((_, seq)) = self.entries.get_mut(at) {
                    *seq = dot.seq.max(*seq);
                }
            }
            Err(at) => self.entries.insert(at, (dot.actor, dot.seq)),
        }
    }

    /// Adds everything `other` has seen: the pointwise maximum.
    pub fn join(&mut self, other: &Context) {
        for &(actor, seq) in &other.entries {
            self.insert(Dot { actor, seq });
        }
    }

    /// Whether everything in `other` has been seen here too.
    #[must_use]
    pub fn descends(&self, other: &Context) -> bool {
        let mut dots = other.dots();
        dots.all(|dot| self.covers(dot))
    }

    /// Whether nothing has been seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many actors it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The latest dot of each actor, ascending by actor.
    pub fn dots(&self) -> impl ExactSizeIterator<Item = Dot> {
        self.entries.iter().map(|&(actor, seq)| Dot { actor, seq })
    }

    /// The context as opaque bytes for a client to hand back with its next write.
    ///
    /// The bytes begin with a format number and end with a checksum. The checksum catches damage, it does not authenticate.
    #[must_use]
    pub fn to_token(&self) -> Vec<u8> {
        let mut token = vec![TOKEN_FORMAT];
        self.encode(&mut token);
        let checksum = token_checksum(&token);
        token.extend_from_slice(&checksum);
        token
    }

    /// Reads a token made by [`Context::to_token`].
    ///
    /// # Errors
    /// Refuses what is damaged, of another format, or names more than [`CONTEXT_ACTORS_MAX`] actors. The client should read
    /// the key again and use the token it gets then.
    pub fn from_token(token: &[u8]) -> Result<Context, ObjectError> {
        let body_bytes = token.len().saturating_sub(TOKEN_CHECKSUM_BYTES);
        let (body, checksum) = token.split_at(body_bytes);
        if checksum != token_checksum(body) {
            return Err(ObjectError::TokenChecksum);
        }
        let mut reader = Reader::new(body);
        reader.format("context token", TOKEN_FORMAT)?;
        let count = reader.count("context token")?;
        if count > CONTEXT_ACTORS_MAX {
            return Err(ObjectError::TooManyActors { count });
        }
        let mut context = Context::default();
        for _ in 0..count {
            context.push_ascending(reader.dot("context token")?)?;
        }
        reader.finish("context token")?;
        Ok(context)
    }

    /// Appends the number of entries and the entries, as an object's bytes hold them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        codec::put_count(out, self.entries.len());
        for dot in self.dots() {
            codec::put_dot(out, dot);
        }
    }

    /// Adds an entry that must lie after all others, as encoded contexts have them.
    pub(super) fn push_ascending(&mut self, dot: Dot) -> Result<(), ObjectError> {
        if self.entries.last().is_some_and(|last| last.0 >= dot.actor) {
            return Err(ObjectError::ContextOrder { actor: dot.actor });
        }
        self.entries.push((dot.actor, dot.seq));
        Ok(())
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Context {
        let mut context = Context::default();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

/// The first bytes of the body's SHA-1.
fn token_checksum(body: &[u8]) -> [u8; TOKEN_CHECKSUM_BYTES] {
    let [a, b, c, d, ..]: [u8; 20] = Sha1::digest(body).into();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(actor: u64, seq: u64) -> Dot {
        Dot {
            actor: Actor(actor),
            seq,
        }
    }

    fn context(dots: &[(u64, u64)]) -> Context {
        dots.iter().map(|&(actor, seq)| dot(actor, seq)).collect()
    }

    #[test]
    fn a_context_covers_its_dots_and_all_earlier_ones() {
        let context = context(&[(7, 3), (2, 9)]);
        let table = [
            (dot(2, 9), true),
            (dot(2, 10), false),
            (dot(7, 1), true),
            (dot(7, 4), false),
            (dot(5, 0), false),
        ];
        for (dot, covered) in table {
            assert_eq!(context.covers(dot), covered, "{dot}");
        }
        assert!(!Context::default().covers(dot(0, 0)));
    }

    #[test]
    fn join_is_the_pointwise_maximum() {
        let mut joined = context(&[(1, 5), (3, 1)]);
        joined.join(&context(&[(1, 2), (2, 4), (3, 8)]));
        assert_eq!(joined, context(&[(1, 5), (2, 4), (3, 8)]));
        assert!(joined.descends(&context(&[(3, 8)])));
        assert!(!joined.descends(&context(&[(4, 1)])));
    }

    #[test]
    fn tokens_come_back_as_the_same_context() {
        for seen in [
            Context::default(),
            context(&[(1, 1)]),
            context(&[(u64::MAX, u64::MAX), (0, 250), (4, 70_000)]),
        ] {
            assert_eq!(Context::from_token(&seen.to_token()).unwrap(), seen);
        }
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let token = context(&[(1, 5), (3, 1)]).to_token();
        for at in 0..token.len() {
            let mut damaged = token.clone();
            damaged[at] ^= 0x10;
            assert!(Context::from_token(&damaged).is_err(), "byte {at} flipped");
            assert!(
                Context::from_token(&token[..at]).is_err(),
                "cut to {at} bytes"
            );
        }
        let mut longer = token;
        longer.push(0);
        assert!(Context::from_token(&longer).is_err());
    }

    #[test]
    fn well_formed_tokens_with_bad_content_are_refused() {
        let sealed = |body: &[u8]| {
            let mut token = body.to_vec();
            token.extend_from_slice(&token_checksum(body));
            Context::from_token(&token)
        };
        assert!(matches!(
            sealed(&[9, 0]),
            Err(ObjectError::UnknownFormat { found: 9, .. })
        ));
        assert!(matches!(
            sealed(&[1, 2, 5, 1, 5, 2]),
            Err(ObjectError::ContextOrder { actor: Actor(5) })
        ));
        assert!(matches!(
            sealed(&[1, 0, 0]),
            Err(ObjectError::TrailingBytes { count: 1, .. })
        ));
        let crowd: Context = (0..=1024).map(|actor| dot(actor, 1)).collect();
        assert!(matches!(
            Context::from_token(&crowd.to_token()),
            Err(ObjectError::TooManyActors { count: 1025 })
        ));
    }
}
