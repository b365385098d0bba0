//! What the host holds for one vnode while its guest runs: rows, the transaction of the running command, and limits.
//!
//! It outlives every instance: when a guest traps, its memory goes and this stays. Reads here see the writes of the
//! running command; nothing reaches the store before `commit`. What the rows are to other replicas stands in [`replica`], and how a
//! guest runs on them that is to leave nothing behind in [`rehearsal`].

mod changed;
mod rehearsal;
mod replica;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use vnode_ring::{
    Actor, Context, Dot, HashId, Hlc, Object, ObjectRef, PartitionId, RingSize, VersionRef,
    encode_successor,
};

pub use self::rehearsal::Written;
pub use self::replica::{Compared, Digests};
use super::engine::Limits;
use super::guest::Guest;
use super::refusal::Refusal;
use super::scan::{Rows, position};
use super::values::Values;
use crate::descriptor::MergePolicy;
use crate::store::{Batch, Commit, KEY_BYTES_MAX, Liveness, Mark, Page, RowKey, Store, StoreError};

/// Memory for encoding objects that a vnode keeps between commands.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// Where keys of one service live. The same on every node of a cluster.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Name of the service, the bucket of the hash.
    pub service: Arc<str>,
    /// How keys are hashed.
    pub hash: HashId,
    /// Replicas of each key.
    pub n: u16,
}

impl Placement {
    /// Hash prefix of a stored key.
    pub fn hash_of(&self, key: &[u8]) -> u64 {
        self.hash.hash(self.service.as_bytes(), key).prefix()
    }
}

/// The part of a command that the transaction has to know.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Part of the ring, named by its first replica, that the command may touch.
    pub range: PartitionId,
    /// Whether it may write.
    pub writes: bool,
    /// Wall clock of the coordinator, milliseconds.
    pub now_ms: u64,
    /// Seed of its chance.
    pub seed: u64,
}

/// One write of the running command: the object as it will stand.
pub(super) struct Write {
    pub(super) object: Vec<u8>,
    was_live: bool,
    is_live: bool,
}

/// One vnode's rows and the command that is running on them.
pub struct VnodeState {
    values: Values,
    placement: Placement,
    ring_size: RingSize,
    partition: PartitionId,
    node: Arc<str>,
    actor: u64,
    /// Whether nothing was written under that name.
    unused: bool,
    store: Box<dyn Store>,
    clock: Hlc,
    scope: Scope,
    random: u64,
    calls: u32,
    /// By position, so that they lie in the order of a scan.
    writes: BTreeMap<Vec<u8>, Write>,
    /// Keys and objects put there by the running command, the replaced ones too.
    written_bytes: usize,
    batch: Batch,
    /// What was committed last.
    committed: Batch,
    last_commit: Option<Commit>,
    /// Of the ranges that other replicas have compared.
    trees: BTreeMap<PartitionId, replica::Growing>,
    changed: changed::Changed,
    scratch: Vec<u8>,
    /// The number of the last write's name, if it is known.
    last_seq: Option<u64>,
    /// Nothing that the guest does is kept.
    rehearses: bool,
    pub(super) memory: super::imports::Allowance,
    pub(super) said: super::imports::Said,
}

impl VnodeState {
    /// The state of the vnode of a guest that serves a partition of a ring of that size on `node` with the rows of `store`.
    pub fn new(
        values: Values,
        placement: Placement,
        (ring_size, partition): (RingSize, PartitionId),
        node: Arc<str>,
        mut store: Box<dyn Store>,
    ) -> Result<VnodeState, StoreError> {
        let dot = store.next_dot()?;
        let memory = super::imports::Allowance::new(values.guest().limits());
        Ok(VnodeState {
            values,
            placement,
            ring_size,
            partition,
            node,
            actor: dot.actor,
            unused: false,
            store,
            clock: Hlc::default(),
            scope: Scope {
                range: partition,
                writes: false,
                now_ms: 0,
                seed: 0,
            },
            random: 0,
            calls: 0,
            writes: BTreeMap::new(),
            written_bytes: 0,
            batch: Batch::default(),
            committed: Batch::default(),
            last_commit: None,
            trees: BTreeMap::new(),
            changed: changed::Changed::default(),
            scratch: Vec::new(),
            last_seq: Some(dot.seq),
            rehearses: false,
            memory,
            said: super::imports::Said::default(),
        })
    }

    pub(super) fn guest(&self) -> &Arc<Guest> {
        self.values.guest()
    }

    /// Serves another version of the guest from now on. No command is running.
    pub fn set_guest(&mut self, guest: Arc<Guest>) {
        self.values.set_guest(guest);
    }

    /// No instance runs around it for now.
    pub(super) fn rest(&mut self) {
        self.values.rest();
    }

    /// Where this service's keys live.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Size of the ring of which it serves a partition.
    pub fn ring_size(&self) -> RingSize {
        self.ring_size
    }

    /// The partition served.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The rows.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The name under which this vnode writes; see `identity.actor` of the contract.
    pub fn actor(&self) -> u64 {
        self.actor
    }

    pub(super) fn limits(&self) -> &Limits {
        self.guest().limits()
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The next 64 bits of the command's chance (SplitMix64).
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Gives the next call so much time, which it shares with the merges and migrations that its reads and writes need.
    pub fn allow(&mut self, budget: Duration) {
        self.values.allow(budget);
    }

    /// Starts a command. Whatever an earlier one left behind is forgotten.
    pub fn begin(&mut self, scope: Scope) {
        self.scope = scope;
        self.random = scope.seed;
        self.calls = 0;
        self.writes.clear();
        self.written_bytes = 0;
        self.batch.clear();
    }

    /// Says which command of a batch is looked at; what others have staged stays.
    pub fn set_scope(&mut self, scope: Scope) {
        self.scope = scope;
    }

    /// Counts one call from the guest.
    pub(super) fn count_call(&mut self) -> Result<(), Refusal> {
        let max = self.limits().host_calls_max;
        self.calls = self.calls.saturating_add(1);
        if self.calls > max {
            return Err(Refusal::TooManyCalls { max });
        }
        Ok(())
    }

    /// What `store.get` answers, appended to `out`; false when there is no value. Sees no write of the running command.
    pub fn read_committed(
        &mut self,
        hash: u64,
        key: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        match self.store.get(RowKey { hash, key })? {
            None => Ok(false),
            Some(object) => self.values.read(key, object, out),
        }
    }

    /// The value of `key` as the running command sees it. What no store takes is not hashed either, however long it is.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let hash = self.placement.hash_of(key);
        let mut value = Vec::new();
        let object = match self.writes.get(&position(hash, key)) {
            Some(write) => Some(write.object.as_slice()),
            None => self.store.get(RowKey { hash, key })?,
        };
        match object {
            Some(object) if self.values.read(key, object, &mut value)? => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    /// Stores or, without a value, deletes `key`, replacing what this vnode sees. Says whether it had a value.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, Refusal> {
        self.check_sizes(key, value)?;
        let hash = self.placement.hash_of(key);
        self.check_place(hash, key)?;
        let dot = self.next_dot()?;
        let (schema, value) = self.values.stored(key, value)?;
        let old = match self.writes.get(&position(hash, key)) {
            Some(write) => Some(write.object.as_slice()),
            None => self.store.get(RowKey { hash, key })?,
        };
        let old = old.map(ObjectRef::parse).transpose()?;
        let was_live = old.as_ref().is_some_and(ObjectRef::is_live);
        if value.is_none() && !was_live {
            // Nothing is here, so there is nothing to bury.
            return Ok(false);
        }
        let seen = old.as_ref().map(ObjectRef::hlc);
        let version = VersionRef {
            dot,
            hlc: tick(&mut self.clock, seen, self.scope.now_ms),
            schema,
            value: value.as_deref(),
        };
        let mut object = Vec::new();
        encode_successor(old.as_ref(), version, &mut object);
        self.write(hash, key, object, was_live, value.is_some())?;
        Ok(was_live)
    }

    /// All live values of `key` as the running command sees them, latest first, and the context that covers them.
    pub(super) fn get_object(&mut self, key: &[u8]) -> Result<(Context, Vec<Vec<u8>>), Refusal> {
        let object = self.object(key)?;
        let values = self.values.read_all(key, &object)?;
        Ok((object.context().clone(), values))
    }

    fn object(&mut self, key: &[u8]) -> Result<Object, Refusal> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(Object::default());
        }
        let hash = self.placement.hash_of(key);
        let object = match self.writes.get(&position(hash, key)) {
            Some(write) => Some(write.object.as_slice()),
            None => self.store.get(RowKey { hash, key })?,
        };
        Ok(object.map(Object::decode).transpose()?.unwrap_or_default())
    }

    /// Stores `value` beside whatever `seen` does not cover; returns the context for the caller's next write.
    pub(super) fn put_object(
        &mut self,
        key: &[u8],
        value: &[u8],
        seen: &Context,
    ) -> Result<Context, Refusal> {
        self.check_sizes(key, Some(value))?;
        let hash = self.placement.hash_of(key);
        self.check_place(hash, key)?;
        let dot = self.next_dot()?;
        if seen.covers(dot) {
            return Err(Refusal::FutureContext);
        }
        let (schema, value) = self.values.stored(key, Some(value))?;
        let mut object = self.object(key)?;
        let was_live = !object.is_deleted();
        let latest = object.versions().iter().map(|version| version.hlc).max();
        let hlc = tick(&mut self.clock, latest, self.scope.now_ms);
        object.put(seen, dot, hlc, (schema, value.map(Cow::into_owned)))?;
        if self.guest().descriptor().merge == MergePolicy::LastWrite {
            object.keep_latest();
        }
        let mut bytes = Vec::new();
        object.encode(&mut bytes);
        self.write(hash, key, bytes, was_live, true)?;
        // A context says "everything of this actor up to here". Beside versions that the caller has not seen it must not name
        // the new one, or it would cover those too and the caller's next write would lose them.
        Ok(match object.versions() {
            [_] => object.context().clone(),
            _ => seen.clone(),
        })
    }

    /// Live rows of the command's range in ring order, from `cursor` on; `visit` gets key and, if `values`, value.
    /// Returns where to go on.
    pub(super) fn scan(
        &mut self,
        cursor: Option<&[u8]>,
        limit: usize,
        values: bool,
        visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let (first, last) = self.ring_size.hash_range(self.scope.range);
        let start = position(first, b"");
        let from = cursor.unwrap_or(&start);
        let end = position(last, b"");
        let written = self
            .writes
            .range::<[u8], _>((Bound::Excluded(from), Bound::Unbounded))
            .take_while(|(at, _)| at.get(..8) <= Some(end.as_slice()));
        let mut rows = Rows {
            values: values.then_some(&mut self.values),
            written: written.peekable(),
            reached: from.to_vec(),
            value: Vec::new(),
            failed: None,
            visit,
        };
        let next = rows.page(self.store.as_mut(), last, limit)?;
        match rows.failed {
            Some(error) => Err(error),
            None => Ok(next),
        }
    }

    /// Live rows of the command's range.
    pub(super) fn count(&mut self) -> Result<u64, Refusal> {
        // With one replica of each key a vnode keeps no rows of other ranges.
        if self.writes.is_empty() && self.placement.n == 1 && self.scope.range == self.partition {
            return Ok(self.store.stats().live);
        }
        if self.writes.is_empty()
            && let Some(live) = self.live_of(self.scope.range)
        {
            return Ok(live);
        }
        let mut live = 0;
        let mut cursor = None;
        loop {
            let next = self.scan(cursor.as_deref(), usize::MAX, false, |_, _| live += 1)?;
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(live),
            }
        }
    }

    /// What is staged so far, for [`unstage`](Self::unstage).
    pub fn staged(&self) -> Mark {
        self.batch.mark()
    }

    /// Forgets what was staged since.
    pub fn unstage(&mut self, mark: Mark) {
        self.batch.truncate(mark);
    }

    /// Adds one effect of the packed door to the batch: the same as `put`, without a transaction of its own.
    pub fn stage(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) -> Result<(), Refusal> {
        let dot = self.next_dot()?;
        let (schema, value) = self.values.stored(key, value)?;
        let old = self.store.get(RowKey { hash, key })?;
        let old = old.map(ObjectRef::parse).transpose()?;
        let was_live = old.as_ref().is_some_and(ObjectRef::is_live);
        if value.is_none() && !was_live {
            return Ok(());
        }
        let seen = old.as_ref().map(ObjectRef::hlc);
        let version = VersionRef {
            dot,
            hlc: tick(&mut self.clock, seen, self.scope.now_ms),
            schema,
            value: value.as_deref(),
        };
        self.scratch.clear();
        encode_successor(old.as_ref(), version, &mut self.scratch);
        let live = Liveness {
            before: was_live,
            after: value.is_some(),
        };
        self.batch.put(RowKey { hash, key }, &self.scratch, live)?;
        Ok(())
    }

    /// Makes the writes of the finished command durable as one batch; none when there are none.
    pub fn commit(&mut self) -> Result<Option<Commit>, StoreError> {
        if self.rehearses {
            return Ok(None);
        }
        for (position, write) in std::mem::take(&mut self.writes) {
            let (hash, key) = position
                .split_first_chunk::<8>()
                .map_or((0, position.as_slice()), |(hash, key)| {
                    (u64::from_be_bytes(*hash), key)
                });
            let live = Liveness {
                before: write.was_live,
                after: write.is_live,
            };
            self.batch.put(RowKey { hash, key }, &write.object, live)?;
        }
        if self.batch.is_empty() {
            return Ok(None);
        }
        self.update_trees()?;
        self.note_changes();
        let commit = self.store.apply(&self.batch);
        std::mem::swap(&mut self.batch, &mut self.committed);
        self.batch.clear();
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES_MAX);
        self.last_commit = commit.as_ref().ok().copied().or(self.last_commit);
        commit.map(Some)
    }

    /// Removes up to so many rows for good.
    pub fn drop_rows(&mut self, max_rows: usize) -> Result<Page, StoreError> {
        self.trees.clear();
        self.store.drop_rows(max_rows)
    }

    /// The last commit since the vnode was started, if there was one. What was there before is on disk.
    pub fn last_commit(&self) -> Option<Commit> {
        self.last_commit
    }

    /// The batch of the last commit.
    pub fn committed(&self) -> &Batch {
        &self.committed
    }

    /// A new name for a write.
    fn next_dot(&mut self) -> Result<Dot, StoreError> {
        if self.rehearses {
            return Ok(self.rehearsed_dot());
        }
        self.unused = false;
        let dot = self.store.next_dot()?;
        self.last_seq = Some(dot.seq);
        Ok(Dot {
            actor: Actor(dot.actor),
            seq: dot.seq,
        })
    }

    /// Refuses a write that the contract does not allow. `hash` is that of the key.
    pub fn check_write(&self, hash: u64, key: &[u8], value: Option<&[u8]>) -> Result<(), Refusal> {
        self.check_sizes(key, value)?;
        self.check_place(hash, key)
    }

    /// The part that has to come before a key of any length is hashed.
    fn check_sizes(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), Refusal> {
        let limits = self.limits();
        if !self.scope.writes {
            return Err(Refusal::ReadOnly);
        }
        if key.len() > limits.key_bytes_max {
            return Err(Refusal::KeyTooBig {
                bytes: key.len(),
                max: limits.key_bytes_max,
            });
        }
        let bytes = value.map_or(0, <[u8]>::len);
        if bytes > limits.value_bytes_max {
            return Err(Refusal::ValueTooBig {
                bytes,
                max: limits.value_bytes_max,
            });
        }
        Ok(())
    }

    fn check_place(&self, hash: u64, key: &[u8]) -> Result<(), Refusal> {
        let there = self.ring_size.range_of(hash);
        if there != self.scope.range {
            return Err(Refusal::OtherPlace {
                key: String::from_utf8_lossy(key).into_owned(),
                here: self.scope.range,
                there,
            });
        }
        Ok(())
    }

    /// Keeps a write of the running command. What a command writes waits here until it is done, so it may not weigh more than
    /// the guest's own memory.
    fn write(
        &mut self,
        hash: u64,
        key: &[u8],
        object: Vec<u8>,
        was_live: bool,
        is_live: bool,
    ) -> Result<(), Refusal> {
        self.written_bytes += key.len() + object.len();
        let max = self.limits().memory_bytes_max;
        if self.written_bytes > max {
            return Err(Refusal::WritesTooBig { max });
        }
        match self.writes.entry(position(hash, key)) {
            Entry::Occupied(mut earlier) => {
                let earlier = earlier.get_mut();
                earlier.object = object;
                earlier.is_live = is_live;
            }
            Entry::Vacant(first) => {
                first.insert(Write {
                    object,
                    was_live,
                    is_live,
                });
            }
        }
        Ok(())
    }
}

/// The stamp of a write that has seen `seen`: later than it and than every write of this vnode.
fn tick(clock: &mut Hlc, seen: Option<Hlc>, now_ms: u64) -> Hlc {
    let last = seen.map_or(*clock, |seen| seen.max(*clock));
    *clock = Hlc::next(last, now_ms);
    *clock
}

pub(super) fn is_live(object: Option<&[u8]>) -> Result<bool, Refusal> {
    match object {
        None => Ok(false),
        Some(object) => Ok(ObjectRef::parse(object)?.is_live()),
    }
}
