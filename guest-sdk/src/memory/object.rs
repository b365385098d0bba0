//! One key's versions and what happened to it: a dotted version set, as small as tests need it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Error, Result};

/// One write: who, and the writer's how-manieth for this key.
type Dot = (u64, u64);

/// First byte of every context that is not empty, so that other bytes are refused.
const CONTEXT_MARK: u8 = 0xc1;

#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    /// Of each writer, how many of its writes this object has seen.
    clock: BTreeMap<u64, u64>,
    /// Latest first.
    versions: Vec<Version>,
}

#[derive(Clone, Debug)]
struct Version {
    dot: Dot,
    stamp: u64,
    value: Vec<u8>,
}

/// What a context covers: of each writer all writes up to a number, and single ones beyond.
#[derive(Clone, Debug, Default)]
struct Seen {
    clock: BTreeMap<u64, u64>,
    dots: BTreeSet<Dot>,
}

impl Object {
    pub(super) fn values(&self) -> impl ExactSizeIterator<Item = &Vec<u8>> {
        self.versions.iter().map(|version| &version.value)
    }

    pub(super) fn is_live(&self) -> bool {
        !self.versions.is_empty()
    }

    /// Covers every version here; empty for a key never written.
    pub(super) fn context(&self) -> Vec<u8> {
        let seen = Seen {
            clock: self.clock.clone(),
            dots: BTreeSet::new(),
        };
        seen.encode()
    }

    /// Replaces every version.
    pub(super) fn put(&mut self, actor: u64, stamp: u64, value: &[u8]) {
        self.versions.clear();
        self.insert(actor, stamp, value);
    }

    /// Replaces the versions that `context` covers; the context that covers the new one too.
    pub(super) fn put_seen(
        &mut self,
        actor: u64,
        stamp: u64,
        value: &[u8],
        context: &[u8],
    ) -> Result<Vec<u8>> {
        let mut seen = Seen::decode(context)?;
        self.versions.retain(|version| !seen.covers(version.dot));
        join(&mut self.clock, &seen.clock);
        seen.add(self.insert(actor, stamp, value));
        Ok(seen.encode())
    }

    /// Removes every version; the clock stays as the tombstone.
    pub(super) fn delete(&mut self) {
        self.versions.clear();
    }

    /// Takes in what another replica of the key has.
    pub(super) fn merge(&mut self, other: &Self) {
        let has = |object: &Self, dot| object.versions.iter().any(|version| version.dot == dot);
        self.versions
            .retain(|version| has(other, version.dot) || !covers(&other.clock, version.dot));
        let news = other
            .versions
            .iter()
            .filter(|version| !covers(&self.clock, version.dot));
        self.versions.extend(news.cloned());
        self.versions
            .sort_by_key(|version| std::cmp::Reverse(version.stamp));
        join(&mut self.clock, &other.clock);
    }

    /// Loses all versions but the latest.
    pub(super) fn keep_latest(&mut self) {
        self.versions.truncate(1);
    }

    fn insert(&mut self, actor: u64, stamp: u64, value: &[u8]) -> Dot {
        let count = self.clock.entry(actor).or_default();
        *count += 1;
        let dot = (actor, *count);
        let value = value.to_vec();
        self.versions.insert(0, Version { dot, stamp, value });
        dot
    }
}

impl Seen {
    fn covers(&self, dot: Dot) -> bool {
        covers(&self.clock, dot) || self.dots.contains(&dot)
    }

    fn add(&mut self, dot: Dot) {
        let count = self.clock.entry(dot.0).or_default();
        if dot.1 == *count + 1 {
            *count = dot.1;
        } else {
            self.dots.insert(dot);
        }
    }

    fn encode(&self) -> Vec<u8> {
        if self.clock.is_empty() {
            return Vec::new();
        }
        let mut bytes = vec![CONTEXT_MARK];
        bytes.extend((self.clock.len() as u64).to_le_bytes());
        let clock = self.clock.iter().map(|(actor, count)| (*actor, *count));
        for (actor, count) in clock.chain(self.dots.iter().copied()) {
            bytes.extend(actor.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        bytes
    }

    fn decode(context: &[u8]) -> Result<Self> {
        let mut seen = Self::default();
        if context.is_empty() {
            return Ok(seen);
        }
        let foreign = || Error::err("the context is not one of this host's");
        let rest = context.strip_prefix(&[CONTEXT_MARK]).ok_or_else(foreign)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(foreign)?;
        let length = u64::from_le_bytes(*length);
        for (at, pair) in (0..).zip(rest.chunks(16)) {
            let (actor, count) = pair.split_first_chunk().ok_or_else(foreign)?;
            let count = count.try_into().map_err(|_| foreign())?;
            let dot = (u64::from_le_bytes(*actor), u64::from_le_bytes(count));
            if at < length {
                seen.clock.insert(dot.0, dot.1);
            } else {
                seen.dots.insert(dot);
            }
        }
        Ok(seen)
    }
}

fn covers(clock: &BTreeMap<u64, u64>, dot: Dot) -> bool {
    clock.get(&dot.0).is_some_and(|count| dot.1 <= *count)
}

fn join(mine: &mut BTreeMap<u64, u64>, other: &BTreeMap<u64, u64>) {
    for (actor, count) in other {
        let entry = mine.entry(*actor).or_default();
        *entry = (*entry).max(*count);
    }
}
