//! What a vnode's rows are to the other replicas: compared, merged, listed, and summed up in hash trees.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use vnode_ring::{Leaves, Merged, ObjectRef, PartitionId, RingSize, Tree, TreeRow, merge_encoded};

use super::VnodeState;
use crate::descriptor::MergePolicy;
use crate::store::{Batch, Change, Liveness, Page, RowKey, Scan, Store, StoreError};
use crate::wasm::Refusal;
use crate::wasm::scan::position;

/// Rows that one look at a growing tree adds to it.
const TREE_ROWS: usize = 256;
/// Rows that one look for tombstones goes through.
const TOMBSTONE_ROWS: usize = 4096;

/// Rows by their places, hash (big-endian) and key, with the digest of each.
pub type Digests = BTreeMap<Vec<u8>, u64>;

/// What this replica holds under a key, seen from another one.
pub enum Compared<'a> {
    /// The same.
    Same,
    /// Nothing, where the other has an object.
    Nothing,
    /// Another object.
    Other(&'a [u8]),
}

impl VnodeState {
    /// What is held under a key, as other replicas compare it: 0 without an object.
    pub fn digest(&mut self, row: RowKey<'_>) -> Result<u64, Refusal> {
        match self.store.get(row)? {
            None => Ok(0),
            Some(object) => Ok(ObjectRef::parse(object)?.digest()),
        }
    }

    /// What is held under a key, compared with what another replica holds.
    pub fn compare(&mut self, row: RowKey<'_>, digest: u64) -> Result<Compared<'_>, Refusal> {
        Ok(match self.store.get(row)? {
            None if digest == 0 => Compared::Same,
            None => Compared::Nothing,
            Some(object) if ObjectRef::parse(object)?.digest() == digest => Compared::Same,
            Some(object) => Compared::Other(object),
        })
    }

    /// Rows of any range in ring order, from a place on; and the place after them, empty when there are no more. Trees that are
    /// being built take them in.
    pub fn page(&mut self, from: &[u8], max_bytes: usize) -> Result<(Batch, Vec<u8>), Refusal> {
        let behind = (!from.is_empty()).then(|| split(from));
        let scan = Scan {
            from: behind.map_or(Bound::Unbounded, |(hash, key)| {
                Bound::Excluded(RowKey { hash, key })
            }),
            to_hash: u64::MAX,
            max_rows: usize::MAX,
            max_bytes,
        };
        let mut rows = Batch::new();
        let mut last = Vec::new();
        let page = self.store.scan(&scan, &mut |row, object| {
            rows.pass_on(row, object);
            last = position(row.hash, row.key);
            ControlFlow::Continue(())
        })?;
        if page == Page::Last {
            last.clear();
        }
        for growing in self.trees.values_mut() {
            growing.take(behind, &rows, page);
        }
        Ok((rows, last))
    }

    /// Stages the removal of a row if it is the one with that digest. The vnode writes under another name afterwards: others
    /// keep what it has written to that key, and it knows nothing of it any more (riak_kv 679).
    pub fn forget(&mut self, row: RowKey<'_>, digest: u64) -> Result<(), Refusal> {
        if let Some(object) = self.store.get(row)? {
            let object = ObjectRef::parse(object)?;
            if object.digest() == digest {
                self.batch.remove(row, object.is_live())?;
                if !self.unused {
                    self.actor = self.store.change_actor()?;
                    self.last_seq = None;
                    self.unused = true;
                }
            }
        }
        Ok(())
    }

    /// Stages the removal of a tombstone if it is the one with that digest. Unlike after [`forget`](Self::forget) the vnode keeps its
    /// name: its asker has made sure that nobody holds anything under that key which the tombstone had replaced.
    pub fn reap(&mut self, row: RowKey<'_>, digest: u64) -> Result<(), Refusal> {
        if let Some(object) = self.store.get(row)? {
            let object = ObjectRef::parse(object)?;
            if object.is_deleted() && object.digest() == digest {
                self.batch.remove(row, false)?;
            }
        }
        Ok(())
    }

    /// The next tombstones of a range whose newest delete is older than `before_ms`: the place and digest of each; and the place where
    /// to go on, empty after the last.
    pub fn tombstones(
        &mut self,
        range: PartitionId,
        from: &[u8],
        before_ms: u64,
    ) -> Result<(Digests, Vec<u8>), Refusal> {
        let (first, to_hash) = self.ring_size.hash_range(range);
        let scan = Scan {
            from: match from.split_first_chunk::<8>() {
                None => Bound::Included(RowKey {
                    hash: first,
                    key: b"",
                }),
                Some((hash, key)) => Bound::Excluded(RowKey {
                    hash: u64::from_be_bytes(*hash),
                    key,
                }),
            },
            to_hash,
            max_rows: TOMBSTONE_ROWS,
            max_bytes: usize::MAX,
        };
        let (mut found, mut last) = (Digests::new(), Vec::new());
        let page = self.store.scan(&scan, &mut |row, object| {
            last = position(row.hash, row.key);
            // What cannot be read is no tombstone.
            if let Ok(object) = ObjectRef::parse(object)
                && object.is_deleted()
                && object.hlc().millis() < before_ms
            {
                found.insert(last.clone(), object.digest());
            }
            ControlFlow::Continue(())
        })?;
        if page == Page::Last {
            last.clear();
        }
        Ok((found, last))
    }

    /// Stages the merge of what is held under a key with an object of another replica.
    pub fn merge(&mut self, row: RowKey<'_>, object: &[u8]) -> Result<(), Refusal> {
        let theirs = ObjectRef::parse(object)?;
        self.values.came(&theirs);
        let old = self.store.get(row)?.map(ObjectRef::parse).transpose()?;
        let mut merged = theirs;
        let mut bytes = object;
        if let Some(ours) = &old {
            self.scratch.clear();
            match merge_encoded(ours, &theirs, &mut self.scratch) {
                Merged::Ours => return Ok(()),
                Merged::Theirs => {}
                Merged::Both => {
                    bytes = &self.scratch;
                    merged = ObjectRef::parse(bytes)?;
                }
            }
        }
        let live = Liveness {
            before: old.as_ref().is_some_and(ObjectRef::is_live),
            after: merged.is_live(),
        };
        let last_write = self.guest().descriptor().merge == MergePolicy::LastWrite;
        if last_write && merged.versions_len() > 1 {
            let mut latest = merged.to_object();
            latest.keep_latest();
            let mut bytes = Vec::new();
            latest.encode(&mut bytes);
            self.batch.put(row, &bytes, live)?;
        } else {
            self.batch.put(row, bytes, live)?;
        }
        Ok(())
    }
}

/// The hash tree of a range, and how far the scan is that fills it.
pub(super) struct Growing {
    tree: Tree,
    /// The first and the last hash of the range.
    bounds: (u64, u64),
    /// The place of the last row taken in.
    reached: Option<Vec<u8>>,
}

impl Growing {
    fn new(size: RingSize, range: PartitionId) -> Growing {
        Growing {
            tree: Tree::building(size, range),
            bounds: size.hash_range(range),
            reached: None,
        }
    }

    /// Takes in those rows that come next, of a page of any rows of the vnode. The page has all that there are between the place
    /// `behind`, or the first one, and its own last row; as the last page it has all.
    fn take(&mut self, behind: Option<(u64, &[u8])>, rows: &Batch, page: Page) {
        let (first, last) = self.bounds;
        let reached = self.reached.as_deref().map(split);
        let follows = match reached {
            None => behind < Some((first, b"")),
            Some(_) => behind <= reached,
        };
        if self.tree.is_complete() || !follows {
            return;
        }
        let (mut upto, mut through) = (None, page == Page::Last);
        for Change { row, object, .. } in rows.changes() {
            let at = Some((row.hash, row.key));
            if row.hash > last {
                through = true;
                break;
            }
            if row.hash < first || at <= reached {
                continue;
            }
            // One that cannot be read ends this, and who asks for the leaves is told why.
            let Some(object) = object.and_then(|object| ObjectRef::parse(object).ok()) else {
                through = false;
                break;
            };
            self.tree.scanned(row.hash, row.key, TreeRow::from(&object));
            upto = at;
        }
        if let Some((hash, key)) = upto {
            self.tree.advance(hash, Some(key));
            self.reached = Some(position(hash, key));
        }
        if through {
            self.tree.finish();
        }
    }
}

impl VnodeState {
    /// The leaves of a range's tree; `None` while it is being built, which each call brings forward.
    pub fn leaves(&mut self, range: PartitionId) -> Result<Option<&Leaves>, Refusal> {
        let size = self.ring_size;
        let growing = self.trees.entry(range);
        let growing = growing.or_insert_with(|| Growing::new(size, range));
        if !growing.tree.is_complete() {
            let (first, last) = growing.bounds;
            let from = match growing.reached.as_deref().map(split) {
                None => Bound::Included(RowKey {
                    hash: first,
                    key: b"",
                }),
                Some((hash, key)) => Bound::Excluded(RowKey { hash, key }),
            };
            let (rows, page) = rows_from(self.store.as_mut(), from, last, TREE_ROWS)?;
            if let Some((place, ..)) = rows.last() {
                let (hash, key) = split(place);
                growing.tree.advance(hash, Some(key));
                growing.reached = Some(place.clone());
            }
            for (place, row) in &rows {
                let (hash, key) = split(place);
                growing.tree.scanned(hash, key, *row);
            }
            if page == Page::Last {
                growing.tree.finish();
            }
        }
        Ok(growing.tree.leaves())
    }

    /// The keys of one leaf of a range: place and digest of each.
    pub fn leaf(
        &mut self,
        range: PartitionId,
        leaf: u16,
        max_rows: usize,
    ) -> Result<Digests, Refusal> {
        let tree = Tree::new(self.ring_size, range);
        let Some((first, last)) = tree.leaf_range(leaf) else {
            return Ok(Digests::new());
        };
        let from = Bound::Included(RowKey {
            hash: first,
            key: b"",
        });
        let (rows, _) = rows_from(self.store.as_mut(), from, last, max_rows)?;
        let digests = rows.into_iter().map(|(place, row)| (place, row.digest));
        Ok(digests.collect())
    }

    /// Live rows of a range, if its tree knows.
    pub(super) fn live_of(&self, range: PartitionId) -> Option<u64> {
        self.trees.get(&range)?.tree.live()
    }

    /// Brings the trees to what the rows will be after the batch.
    pub(super) fn update_trees(&mut self) -> Result<(), StoreError> {
        if self.trees.is_empty() {
            return Ok(());
        }
        let row = |object: &[u8]| {
            ObjectRef::parse(object)
                .ok()
                .map(|object| TreeRow::from(&object))
        };
        for change in self.batch.changes() {
            let RowKey { hash, key } = change.row;
            let range = self.ring_size.range_of(hash);
            if let Some(growing) = self.trees.get_mut(&range) {
                let old = self.store.get(change.row)?.and_then(row);
                let new = change.object.and_then(row);
                growing.tree.update(hash, key, old, new);
            }
        }
        Ok(())
    }
}

fn split(place: &[u8]) -> (u64, &[u8]) {
    match place.split_first_chunk::<8>() {
        Some((hash, key)) => (u64::from_be_bytes(*hash), key),
        None => (0, place),
    }
}

type Rows = Vec<(Vec<u8>, TreeRow)>;

/// The rows from a place on, up to a hash.
fn rows_from(
    store: &mut dyn Store,
    from: Bound<RowKey<'_>>,
    to_hash: u64,
    max_rows: usize,
) -> Result<(Rows, Page), Refusal> {
    let scan = Scan {
        from,
        to_hash,
        max_rows,
        max_bytes: usize::MAX,
    };
    let mut rows = Vec::new();
    let mut failed = None;
    let page = store.scan(&scan, &mut |row, object| match ObjectRef::parse(object) {
        Ok(object) => {
            rows.push((position(row.hash, row.key), TreeRow::from(&object)));
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok((rows, page)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vnode_ring::{Actor, Dot, FIRST_SCHEMA, Hlc, VersionRef, encode_successor};

    use super::*;

    /// A page of rows, each with an object of its own.
    fn page(rows: &[(u64, u8)]) -> Batch {
        let mut batch = Batch::new();
        for (hash, key) in rows {
            let actor = Actor(hash ^ u64::from(*key));
            let version = VersionRef {
                dot: Dot { actor, seq: 1 },
                hlc: Hlc(1),
                schema: FIRST_SCHEMA,
                value: Some(b"v"),
            };
            let mut object = Vec::new();
            encode_successor(None, version, &mut object);
            let key = &[*key];
            batch.pass_on(RowKey { hash: *hash, key }, &object);
        }
        batch
    }

    /// Hashes of a few ranges, among them the first and last ones of a range.
    fn row() -> impl Strategy<Value = (u64, u8)> {
        let size = RingSize::new(8).unwrap();
        let (first, last) = size.hash_range(PartitionId::from_id(2));
        let hash = prop_oneof![
            0..3_u64,
            first - 3..first + 3,
            last - 3..=last,
            last + 1..last + 3
        ];
        (hash, 0..3_u8)
    }

    proptest! {
        /// Whatever the pages are, and wherever a scan of the tree's own had come to, the tree is complete after the last page and
        /// has each row once.
        #[test]
        fn a_tree_grows_by_the_pages_that_are_read_for_others(
            rows in prop::collection::btree_set(row(), 0..40),
            page_rows in 1..10_usize,
            scanned in prop::option::of(0..40_usize),
        ) {
            let (size, range) = (RingSize::new(8).unwrap(), PartitionId::from_id(2));
            let rows: Vec<_> = rows.into_iter().collect();
            let mut expected = Growing::new(size, range);
            expected.take(None, &page(&rows), Page::Last);

            let mut growing = Growing::new(size, range);
            if let Some(scanned) = scanned {
                let own: Vec<_> = rows.iter().copied().take(scanned).collect();
                growing.take(None, &page(&own), Page::More);
            }
            let mut behind = None;
            for chunk in rows.chunks(page_rows) {
                growing.take(behind.as_ref().map(|place: &Vec<u8>| split(place)), &page(chunk), Page::More);
                behind = chunk.last().map(|(hash, key)| position(*hash, &[*key]));
            }
            growing.take(behind.as_deref().map(split), &Batch::new(), Page::Last);
            prop_assert!(growing.tree.is_complete());
            prop_assert_eq!(growing.tree.root(), expected.tree.root());
            prop_assert_eq!(growing.tree.live(), expected.tree.live());
            let inside = rows.iter().filter(|(hash, _)| (growing.bounds.0..=growing.bounds.1).contains(hash));
            prop_assert_eq!(growing.tree.live(), Some(inside.count() as u64));
        }

        /// A page that leaves rows out before it is not taken for what comes next.
        #[test]
        fn a_page_from_further_on_is_left_alone(rows in prop::collection::btree_set(row(), 2..40)) {
            let (size, range) = (RingSize::new(8).unwrap(), PartitionId::from_id(2));
            let rows: Vec<_> = rows.into_iter().collect();
            let mut growing = Growing::new(size, range);
            let (hash, key) = rows[0];
            if hash >= growing.bounds.0 {
                let place = position(hash, &[key]);
                growing.take(Some(split(&place)), &page(&rows[1..]), Page::Last);
                prop_assert!(!growing.tree.is_complete());
            }
        }
    }
}
