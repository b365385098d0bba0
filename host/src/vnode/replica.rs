//! What a vnode does as one replica of several: takes in objects of the others, gives its own, and says what it holds.
//!
//! None of this needs the guest: objects are merged by their histories alone.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use vnode_ring::{Leaves, PartitionId};

use super::failure::Failure;

use super::request::{Held, Looked, Replies, ReplyTo, Request, Work};

use super::words::Words;
use super::{Guest, Vnode};
use crate::coordinator::trace::sign;
use crate::store::{Ahead, Changes, RowKey};
use crate::wasm::{Compared, Digests, Refusal, VnodeState};

/// Rows that are merged in one batch, unless a single request has more.
const MERGE_ROWS_MAX: usize = 256;
/// Rows of one request that are fetched in advance: more would push each other out of the cache.
const EXPECTED_MAX: usize = 64;
/// Rows of one leaf that are listed at once.
const LEAF_ROWS_MAX: usize = 16 * 1024;
/// Bytes of rows of one page: what an executor reads or merges without a look at anything else.
const PAGE_BYTES: usize = 64 * 1024;
/// In the answer to a [`Work::Fetch`], in place of a length: the asking replica has what is here.
const SAME: u32 = u32::MAX;
/// What most answers to a [`Work::Fetch`] take: those that say that this replica has the same.
const FETCHED_BYTES: usize = 128;
/// What a replica answers that has done what it was asked; whatever else it says comes after.
pub const DONE: &[u8] = b"+";

/// What another replica answered to a [`Work::Fetch`] about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched<'a> {
    /// It holds the same.
    Same,
    /// It holds nothing.
    Nothing,
    /// It holds this object.
    Object(&'a [u8]),
}

/// The answers of one replica, one for each key; `None` when it failed or what it said is not whole.
pub fn fetched(answer: &[u8], keys: usize) -> Option<SmallVec<[Fetched<'_>; 8]>> {
    let mut rest = is_done(answer)?;
    let mut all = SmallVec::with_capacity(keys);
    for _ in 0..keys {
        let (length, after) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        rest = after;
        if length == SAME {
            all.push(Fetched::Same);
            continue;
        }
        let (object, after) = rest.split_at_checked(length as usize)?;
        all.push(match object {
            [] => Fetched::Nothing,
            object => Fetched::Object(object),
        });
        rest = after;
    }
    rest.is_empty().then_some(all)
}

/// What a replica says of a whole range.
#[derive(Debug)]
pub enum Summed {
    /// It is still counting.
    NotYet,
    /// It has what the asker has.
    Same,
    /// It has this.
    Leaves(Leaves),
}

/// The answer to a [`Work::Leaves`].
pub fn leaves(answer: &[u8]) -> Option<Summed> {
    Some(match is_done(answer)? {
        [] => Summed::NotYet,
        root if root.len() == size_of::<u64>() => Summed::Same,
        leaves => Summed::Leaves(Leaves::decode(leaves).ok()?),
    })
}

/// The answer to a [`Work::Leaf`].
pub fn leaf(answer: &[u8]) -> Option<Digests> {
    listed(is_done(answer)?)
}

/// The answer to a [`Work::Tombstones`]: some of them as in a leaf, and where the next ones begin; empty after the last.
pub fn tombstones(answer: &[u8]) -> Option<(Digests, &[u8])> {
    let (rows, next) = page(answer)?;
    Some((listed(rows)?, next))
}

fn listed(mut rest: &[u8]) -> Option<Digests> {
    let mut rows = Digests::new();
    while !rest.is_empty() {
        let (digest, after) = rest.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        let (place, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rows.insert(place.to_vec(), u64::from_le_bytes(*digest));
        rest = after;
    }
    Some(rows)
}

/// The rows of a [`Work::Page`], and where the next page begins; empty after the last one.
pub fn page(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = is_done(answer)?.split_first_chunk()?;
    let (next, rows) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((rows, next))
}

/// Of rows that go from node to node in bulk: the second word of a [`Work::Merge`], little-endian, which may be left out.
pub fn page_checksum(rows: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(rows)
}

/// What follows if a replica did what it was asked; `None` when it failed.
pub fn is_done(answer: &[u8]) -> Option<&[u8]> {
    answer.strip_prefix(DONE)
}

/// What a replica of that version answers to one who traces that it has done what it was asked; [`DONE`] alone without one.
pub fn done(version: Option<&str>) -> Cow<'static, [u8]> {
    let Some(version) = version else {
        return DONE.into();
    };
    let mut out = Vec::new();
    sign(version, &mut out);
    out.extend_from_slice(DONE);
    out.into()
}

impl Vnode {
    /// Does what replicas do, from the front of the mailbox, up to the first command.
    pub(super) fn attend(&mut self, mailbox: &mut VecDeque<Request>, replies: &mut Replies) {
        while let Some(front) = mailbox.pop_front_if(|front| !front.work.runs()) {
            match front.work {
                Work::Command | Work::Each => {}
                Work::Merge => {
                    mailbox.push_front(front);
                    self.merge(mailbox, replies);
                }
                Work::Look => self.look(front, replies),
                Work::Fetch => self.fetch(front, replies),
                Work::Page => self.give_page(front, replies),
                Work::Forget => self.forget(front, replies),
                Work::Reap => self.reap(front, replies),
                Work::Leaves | Work::Leaf | Work::Tombstones => self.sum_up(front, replies),
            }
        }
    }

    /// Takes in the objects of the requests at the front of the mailbox, in one batch.
    fn merge(&mut self, mailbox: &mut VecDeque<Request>, replies: &mut Replies) {
        let partition = self.partition;
        let mut merged: SmallVec<[(ReplyTo, bool, bool); 8]> = SmallVec::new();
        let mut hashes: SmallVec<[u64; 32]> = SmallVec::new();
        let mut bulk = false;
        let Some(state) = self.state() else {
            if let Some(request) = mailbox.pop_front() {
                replies.fail(request.reply_to, &Failure::Draining);
            }
            return;
        };
        while let Some(request) = mailbox.pop_front_if(|front| front.work == Work::Merge) {
            if !is_sound(&request.words) {
                replies.fail(request.reply_to, &Refusal::BadRows.into());
                continue;
            }
            let rows = Changes::new(request.words.get(0));
            let again = rows.clone().any(|change| hashes.contains(&change.row.hash));
            if again || hashes.len() >= MERGE_ROWS_MAX {
                // What is read for the merge has to be what was merged before.
                mailbox.push_front(request);
                break;
            }
            bulk |= request.words.len() > 1;
            let before = state.staged();
            match stage(state, rows, &mut hashes) {
                Ok(()) => {
                    let (on_disk, traced) = (request.consistency.dw > 0, request.trace.is_some());
                    merged.push((request.reply_to, on_disk, traced));
                }
                Err(refusal) => {
                    state.unstage(before);
                    replies.fail(request.reply_to, &refusal.into());
                }
            }
        }
        if bulk {
            vnode_cluster::failpoint("page-arrived");
        }
        match state.commit() {
            Ok(commit) => {
                if bulk {
                    vnode_cluster::failpoint("page-merged");
                }
                // What was there already may not be on disk yet.
                let commit = commit.or(state.last_commit());
                for (to, on_disk, traced) in merged {
                    replies.answer(to, commit, on_disk, &self.done(traced));
                }
            }
            Err(error) => {
                let failure = Failure::of_store(&error, partition);
                for (to, ..) in merged {
                    replies.fail(to, &failure);
                }
            }
        }
    }

    /// Says that it has done what it was asked, and which version it has if that is asked for, too.
    fn done(&self, traced: bool) -> Cow<'static, [u8]> {
        done(traced.then(|| &**self.edition.version()))
    }

    /// Answers with its objects, one after the other, each behind its length (u32, little-endian); see [`fetched`].
    fn fetch(&mut self, request: Request, replies: &mut Replies) {
        let mut out = SmallVec::from_slice(&self.done(request.trace.is_some()));
        let fetched = match self.state() {
            None => Err(Failure::Draining),
            Some(state) => fetch(state, &request, &mut out).map_err(Failure::from),
        };
        match fetched {
            Ok(()) => {
                let on_disk = request.consistency.dw > 0;
                let last = on_disk.then(|| self.state()?.last_commit()).flatten();
                replies.answer(request.reply_to, last, on_disk, &out);
            }
            Err(failure) => replies.fail(request.reply_to, &failure),
        }
    }

    /// Answers with its next rows.
    fn give_page(&mut self, request: Request, replies: &mut Replies) {
        let from = request.words.get(0);
        let given = match self.state() {
            None => Err(Failure::Draining),
            Some(state) => state.page(from, PAGE_BYTES).map_err(Failure::from),
        };
        match given {
            Ok((rows, next)) => replies.push(request.reply_to, None, |out| {
                out.extend_from_slice(DONE);
                out.extend(u32::try_from(next.len()).unwrap_or(0).to_le_bytes());
                out.extend_from_slice(&next);
                out.extend_from_slice(rows.as_bytes());
            }),
            Err(failure) => replies.fail(request.reply_to, &failure),
        }
    }

    /// Removes rows that are as its asker has seen them.
    fn forget(&mut self, request: Request, replies: &mut Replies) {
        let partition = self.partition;
        let forgotten = match self.state() {
            None => Err(Failure::Draining),
            Some(state) => {
                let actor = state.actor();
                let staged = pairs(&request.words).try_for_each(|pair| {
                    let (row, digest) = pair?;
                    state.forget(row, digest)
                });
                let forgotten = match staged {
                    Ok(()) => state
                        .commit()
                        .map_err(|error| Failure::of_store(&error, partition)),
                    Err(refusal) => Err(refusal.into()),
                };
                if state.actor() != actor {
                    // Its guest was told the old one.
                    self.end();
                }
                forgotten
            }
        };
        match forgotten {
            Ok(commit) => replies.push(request.reply_to, commit, |out| out.extend_from_slice(DONE)),
            Err(failure) => replies.fail(request.reply_to, &failure),
        }
    }

    /// Removes tombstones that are as its asker has seen them.
    fn reap(&mut self, request: Request, replies: &mut Replies) {
        let partition = self.partition;
        let reaped = match self.state() {
            None => Err(Failure::Draining),
            Some(state) => {
                let staged = pairs(&request.words).try_for_each(|pair| {
                    let (row, digest) = pair?;
                    state.reap(row, digest)
                });
                match staged {
                    Ok(()) => state
                        .commit()
                        .map_err(|error| Failure::of_store(&error, partition)),
                    Err(refusal) => Err(refusal.into()),
                }
            }
        };
        match reaped {
            Ok(commit) => replies.push(request.reply_to, commit, |out| out.extend_from_slice(DONE)),
            Err(failure) => replies.fail(request.reply_to, &failure),
        }
    }

    /// Answers with the leaves of a range, the rows of one of them, or its tombstones.
    fn sum_up(&mut self, request: Request, replies: &mut Replies) {
        let mut out = DONE.to_vec();
        let word = request.words.get(0);
        let summed = match self.state() {
            None => Err(Failure::Draining),
            Some(state) => match request.work {
                Work::Leaves => give_leaves(state, request.range, word, &mut out),
                Work::Tombstones => give_tombstones(state, &request, &mut out),
                _ => give_leaf(state, request.range, word, &mut out),
            }
            .map_err(Failure::from),
        };
        match summed {
            Ok(()) => replies.push(request.reply_to, None, |reply| {
                reply.extend_from_slice(&out)
            }),
            Err(failure) => replies.fail(request.reply_to, &failure),
        }
    }

    /// Says what is held under the keys of a command that is to run once others have been heard.
    fn look(&mut self, mut request: Request, replies: &mut Replies) {
        self.note_version(&mut request);
        let mut held = SmallVec::new();
        let looked = match self.state() {
            None => Err(Failure::Draining),
            Some(_) => self.digests(&request, &mut held).map_err(Failure::from),
        };
        match looked {
            Ok(()) => replies.looked.push(Looked { request, held }),
            Err(failure) => replies.fail(request.reply_to, &failure),
        }
    }

    fn digests(
        &mut self,
        request: &Request,
        held: &mut SmallVec<[Held; 1]>,
    ) -> Result<(), Refusal> {
        let (service, edition) = (Arc::clone(&self.service), Arc::clone(&self.edition));
        let (Some(spec), Some(state)) = (edition.command(request.command), self.state()) else {
            return Ok(());
        };
        for (nth, position) in spec.key_positions(request.words.len()).enumerate() {
            let key = request.words.get(position);
            let hash = request.hash_of(nth, key, &service.placement);
            let digest = state.digest(RowKey { hash, key })?;
            held.push(Held { hash, digest });
        }
        Ok(())
    }

    /// Has the rows come nearer that these commands want.
    pub fn expect(&self, commands: &VecDeque<Request>, ahead: Ahead) {
        let store = match &self.guest {
            Guest::Running(instance) => instance.rows(),
            // It has to start first.
            Guest::Ended(_) | Guest::Down { .. } => return,
        };
        for request in commands {
            match request.work {
                Work::Command | Work::Each | Work::Look => store.expect(request.hash, ahead),
                Work::Merge => Changes::new(request.words.get(0))
                    .take(EXPECTED_MAX)
                    .for_each(|change| store.expect(change.row.hash, ahead)),
                Work::Fetch => pairs(&request.words)
                    .take(EXPECTED_MAX)
                    .flatten()
                    .for_each(|(row, _)| store.expect(row.hash, ahead)),
                _ => {}
            }
        }
    }

    /// The rows, unless the vnode is on its way out.
    pub(super) fn state(&mut self) -> Option<&mut VnodeState> {
        match &mut self.guest {
            Guest::Running(instance) => Some(instance.state()),
            Guest::Ended(state) => Some(state),
            Guest::Down { state, .. } => state.as_deref_mut(),
        }
    }
}

/// Whether rows are as they were sent, as far as their sender has said.
fn is_sound(words: &Words) -> bool {
    let checksum = words.get(1);
    checksum.is_empty() || *checksum == page_checksum(words.get(0)).to_le_bytes()
}

/// Nothing while the tree is being built; its root if the asker has the same; otherwise its leaves.
fn give_leaves(
    state: &mut VnodeState,
    range: PartitionId,
    root: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    if let Some(leaves) = state.leaves(range)? {
        let own = leaves.root().to_le_bytes();
        match root == own {
            true => out.extend(own),
            false => leaves.encode(out),
        }
    }
    Ok(())
}

/// For each row its digest, the length of its place (u32) and its place.
fn give_leaf(
    state: &mut VnodeState,
    range: PartitionId,
    number: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let number = number.try_into().map_err(|_| Refusal::BadRows)?;
    let rows = state.leaf(range, u16::from_le_bytes(number), LEAF_ROWS_MAX)?;
    list(rows, out);
    Ok(())
}

/// The length of the next place (u32), the next place, and each tombstone as in a leaf.
fn give_tombstones(
    state: &mut VnodeState,
    request: &Request,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let before = request.words.get(1);
    let before = u64::from_le_bytes(before.try_into().map_err(|_| Refusal::BadRows)?);
    let (rows, next) = state.tombstones(request.range, request.words.get(0), before)?;
    out.extend(u32::try_from(next.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&next);
    list(rows, out);
    Ok(())
}

fn list(rows: Digests, out: &mut Vec<u8>) {
    for (place, digest) in rows {
        out.extend(digest.to_le_bytes());
        out.extend(u32::try_from(place.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&place);
    }
}

/// Stages a merge with each row, and notes their hashes.
fn stage(
    state: &mut VnodeState,
    mut rows: Changes<'_>,
    hashes: &mut SmallVec<[u64; 32]>,
) -> Result<(), Refusal> {
    for change in rows.by_ref() {
        if let Some(object) = change.object {
            state.merge(change.row, object)?;
            hashes.push(change.row.hash);
        }
    }
    match rows.is_whole() {
        true => Ok(()),
        false => Err(Refusal::BadRows),
    }
}

/// The rows that pairs of words name, each with a digest.
fn pairs(words: &Words) -> impl Iterator<Item = Result<(RowKey<'_>, u64), Refusal>> {
    (0..words.len() / 2).map(|nth| {
        let held = Held::from_bytes(words.get(2 * nth + 1)).ok_or(Refusal::BadRows)?;
        let row = RowKey {
            hash: held.hash,
            key: words.get(2 * nth),
        };
        Ok((row, held.digest))
    })
}

fn fetch(
    state: &mut VnodeState,
    request: &Request,
    out: &mut SmallVec<[u8; FETCHED_BYTES]>,
) -> Result<(), Refusal> {
    for pair in pairs(&request.words) {
        let (row, digest) = pair?;
        match state.compare(row, digest)? {
            Compared::Same => out.extend_from_slice(&SAME.to_le_bytes()),
            Compared::Nothing => out.extend_from_slice(&[0; 4]),
            Compared::Other(object) => {
                let length = u32::try_from(object.len()).unwrap_or(SAME);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(object);
            }
        }
    }
    Ok(())
}
