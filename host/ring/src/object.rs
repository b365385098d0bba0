//! Causal objects: what one key holds, with the history needed to merge any two copies of it.
//!
//! Owns the laws of putting and merging (dotted version vectors with one context for all siblings) and the bytes an object
//! has on disk and on the wire. It never picks dots, reads clocks, or reaps tombstones: a vnode does. Next: `object/encoded.rs`
//! for working on the bytes without building an [`Object`], `object/merging.rs` for merging them, `object/context.rs` for dots and
//! client tokens.

mod clock;
mod codec;
mod context;
mod encoded;
mod merging;

use std::cmp::Ordering;

pub use self::clock::Hlc;
pub use self::context::{Actor, CONTEXT_ACTORS_MAX, Context, Dot};
pub use self::encoded::{ObjectRef, VersionRef, encode_successor};
pub use self::merging::{Merged, merge_encoded};

/// The most siblings an object may have after a client's write.
pub const VERSIONS_MAX: usize = 100;

/// The schema of values that say nothing of theirs.
pub const FIRST_SCHEMA: u32 = 1;

/// Why an object's or a token's bytes, or an object's growth, were refused.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Bytes ended early or hold an impossible integer, length or option.
    #[error(
        "cannot read the {what}: its bytes are damaged or cut short; fetch it from another replica"
    )]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What bincode found.
        #[source]
        source: bincode::error::DecodeError,
    },
    /// The leading format number is not one this build reads.
    #[error(
        "cannot read the {what}: its format is {found}, this build reads {expected}; use a build that knows format {found}"
    )]
    UnknownFormat {
        /// What was being read.
        what: &'static str,
        /// The number found.
        found: u8,
        /// The number this build writes.
        expected: u8,
    },
    /// Bytes are left after the end.
    #[error("cannot read the {what}: {count} bytes follow its end; fetch it from another replica")]
    TrailingBytes {
        /// What was being read.
        what: &'static str,
        /// How many bytes are left.
        count: usize,
    },
    /// Context entries are not in strictly ascending order of actors.
    #[error(
        "context entry of actor {:016x} is out of order; fetch the object from another replica",
        actor.0
    )]
    ContextOrder {
        /// The actor found out of place.
        actor: Actor,
    },
    /// Versions are not in strictly ascending order of dots.
    #[error("version {dot} is out of order; fetch the object from another replica")]
    VersionOrder {
        /// The dot found out of place.
        dot: Dot,
    },
    /// A version's dot is not covered by the object's own context.
    #[error(
        "version {dot} is unknown to its object's context; fetch the object from another replica"
    )]
    UncoveredVersion {
        /// The dot of that version.
        dot: Dot,
    },
    /// A client's context token does not match its checksum.
    #[error("context token is damaged; read the key again and use the context of that reply")]
    TokenChecksum,
    /// A context names too many actors.
    #[error(
        "context names {count} actors, at most {CONTEXT_ACTORS_MAX} are allowed; read the key again and use the context of that reply"
    )]
    TooManyActors {
        /// How many it names.
        count: usize,
    },
    /// An object has too many siblings.
    #[error(
        "object has {count} siblings, at most {VERSIONS_MAX} are allowed; read it and write one value back with its context"
    )]
    TooManyVersions {
        /// How many it has.
        count: usize,
    },
}

/// One value, or one deletion, with the name of the write that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The write's name. Two writes never share one.
    pub dot: Dot,
    /// When it was written; orders siblings, decides nothing else.
    pub hlc: Hlc,
    /// The schema of the value's bytes, as the guest numbers them; [`FIRST_SCHEMA`] for a tombstone.
    pub schema: u32,
    /// The value, or `None` for a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Version {
    /// A view of it.
    #[must_use]
    pub fn as_ref(&self) -> VersionRef<'_> {
        VersionRef {
            dot: self.dot,
            hlc: self.hlc,
            schema: self.schema,
            value: self.value.as_deref(),
        }
    }

    /// What siblings are ordered by: later stamps win, equal stamps are told apart by the dot.
    fn age(&self) -> (Hlc, Dot) {
        (self.hlc, self.dot)
    }

    /// Picks one of two versions that claim the same dot.
    ///
    /// That happens when replicas keep one write in different schemas, of which the later stays, and when an actor reused a
    /// sequence number. Any rule that every replica applies alike lets them converge.
    fn settle(self, other: Version) -> Version {
        debug_assert_eq!(self.dot, other.dot);
        if other.as_ref().strength() > self.as_ref().strength() {
            other
        } else {
            self
        }
    }
}

/// Everything a key holds: what has been seen, and the versions no later write has superseded.
///
/// Every version's dot is covered by the context. A dot that the context covers and that has no version here was superseded,
/// which is how a merge tells "overwritten" from "not arrived yet". The default object has seen nothing and holds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    context: Context,
    /// Strictly ascending by dot, so that equal objects have equal bytes.
    versions: Vec<Version>,
}

impl Object {
    /// Everything this object has seen, for a reader to hand back with its next write.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// All versions, tombstones included, ascending by dot.
    #[must_use]
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Applies one write: a value in its schema, or a deletion for `None`, by a writer who had seen `seen`.
    ///
    /// Versions covered by `seen` are superseded, the others stay as siblings. `dot` must be fresh: covered neither by this
    /// object's context nor by `seen` (if it is, the vnode lost its counter and needs a new [`Actor`], because other replicas
    /// would take the write for a superseded one). Repeating the same write changes nothing.
    ///
    /// # Errors
    /// More than [`VERSIONS_MAX`] siblings would be left, or `seen` would bring the context above [`CONTEXT_ACTORS_MAX`]
    /// actors. The object is unchanged. Only writes are limited: what replicas merge must never be refused.
    pub fn put(
        &mut self,
        seen: &Context,
        dot: Dot,
        hlc: Hlc,
        (schema, value): (u32, Option<Vec<u8>>),
    ) -> Result<(), ObjectError> {
        let stays = |version: &Version| version.dot != dot && !seen.covers(version.dot);
        let count = self.versions.iter().filter(|v| stays(v)).count() + 1;
        if count > VERSIONS_MAX {
            return Err(ObjectError::TooManyVersions { count });
        }
        let mut context = self.context.clone();
        context.join(seen);
        let actors = context.len();
        if actors > CONTEXT_ACTORS_MAX && actors > self.context.len() {
            return Err(ObjectError::TooManyActors { count: actors });
        }
        context.insert(dot);
        self.context = context;
        self.versions.retain(stays);
        let at = self.versions.partition_point(|version| version.dot < dot);
        let version = Version {
            dot,
            hlc,
            schema: value.as_ref().map_or(FIRST_SCHEMA, |_| schema),
            value,
        };
        self.versions.insert(at, version);
        Ok(())
    }

    /// Takes in another copy of the same key's object.
    ///
    /// Keeps the versions both have, and those of either side that the other has not seen. Commutative, associative and
    /// idempotent, so copies may be merged in any order and any number of times (handoff, hints, read repair, retries).
    pub fn merge(&mut self, other: Object) {
        let mut kept = Vec::with_capacity(self.versions.len().max(other.versions.len()));
        let mut ours = std::mem::take(&mut self.versions).into_iter().peekable();
        let mut theirs = other.versions.into_iter().peekable();
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some(our), Some(their)) => our.dot.cmp(&their.dot),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            match order {
                Ordering::Less => kept.extend(ours.next().filter(|v| !other.context.covers(v.dot))),
                Ordering::Greater => {
                    kept.extend(theirs.next().filter(|v| !self.context.covers(v.dot)));
                }
                Ordering::Equal => {
                    let both = ours.next().zip(theirs.next());
                    kept.extend(both.map(|(our, their)| our.settle(their)));
                }
            }
        }
        self.versions = kept;
        self.context.join(&other.context);
    }

    /// The live values, latest first.
    pub fn live(&self) -> impl Iterator<Item = &[u8]> {
        let live = self.live_versions();
        live.filter_map(|version| version.value.as_deref())
    }

    /// The versions that have a value, latest first.
    pub fn live_versions(&self) -> impl Iterator<Item = &Version> {
        let mut live: Vec<&Version> = self.versions.iter().filter(|v| v.value.is_some()).collect();
        live.sort_unstable_by_key(|version| std::cmp::Reverse(version.age()));
        live.into_iter()
    }

    /// The latest live value; a deletion concurrent with it does not hide it.
    #[must_use]
    pub fn latest(&self) -> Option<&[u8]> {
        let live = self.versions.iter().filter(|v| v.value.is_some());
        live.max_by_key(|version| version.age())
            .and_then(|version| version.value.as_deref())
    }

    /// Whether no live value is left (or there never was one).
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.versions.iter().all(|version| version.value.is_none())
    }

    /// Drops all siblings but the latest, be it a value or a tombstone.
    ///
    /// This is the last-write policy. It loses concurrent writes on purpose; the context still covers them, so they do not
    /// come back from other replicas.
    pub fn keep_latest(&mut self) {
        if let Some(latest) = self.versions.iter().map(Version::age).max() {
            self.versions.retain(|version| version.age() == latest);
        }
    }

    /// The same object with its values in other schemas: each is replaced by what `map` makes of its schema and bytes.
    #[must_use]
    pub fn map_values(mut self, mut map: impl FnMut(u32, Vec<u8>) -> (u32, Vec<u8>)) -> Object {
        for version in &mut self.versions {
            if let Some(value) = version.value.take() {
                let (schema, value) = map(version.schema, value);
                version.schema = schema;
                version.value = Some(value);
            }
        }
        self
    }

    /// Appends the object's bytes to `out`. Equal objects give equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encoded::encode(self, out);
    }

    /// Reads bytes made by [`Object::encode`] or [`encode_successor`].
    ///
    /// # Errors
    /// Refuses everything else: damage, other formats, and content that breaks an object's invariants. Nothing is allocated
    /// beyond the size of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Object, ObjectError> {
        ObjectRef::parse(bytes).map(|object| object.to_object())
    }
}

#[cfg(test)]
mod tests;
