//! Rows in memory, ordered by (hash, key): all of the `memory` backend, and what the `disk` backend has not yet put in tables.
//!
//! One sorted list cut into chunks of at most [`CHUNK_ROWS`]. A row is its hash and one allocation with key and object, so
//! that a small row costs little more than its bytes, and most comparisons need the hash alone.

use super::prefetch::prefetch;
use super::{Ahead, RowKey};
use std::cmp::Ordering;
use std::ops::Bound;

/// A row more, and a chunk is split. Larger chunks cost moves, smaller ones memory.
const CHUNK_ROWS: usize = 128;
/// Rows to both sides of where one should be that are fetched with it.
const AROUND: usize = 3;
/// Bytes that a processor fetches at once.
const CACHE_LINE: usize = 64;
/// Of a large row the first lines: what is looked at before it is copied.
const LINES_MAX: usize = 4;
/// In the key's length: the row was removed, which a layer above older rows must remember.
const REMOVED: u16 = 1 << 15;

#[derive(Debug)]
struct Row {
    hash: u64,
    /// Length of the key as u16 with the `REMOVED` bit, key, object.
    bytes: Box<[u8]>,
}

impl Row {
    fn new(row: RowKey<'_>, object: Option<&[u8]>) -> Self {
        let value = object.unwrap_or_default();
        let mut bytes = Vec::with_capacity(2 + row.key.len() + value.len());
        bytes.extend_from_slice(&head(row.key, object).to_ne_bytes());
        bytes.extend_from_slice(row.key);
        bytes.extend_from_slice(value);
        Self {
            hash: row.hash,
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// Key and object. The fallbacks are for rows that `new` cannot make.
    fn parts(&self) -> (&[u8], Option<&[u8]>) {
        let Some((head, rest)) = self.bytes.split_first_chunk() else {
            return (&[], None);
        };
        let head = u16::from_ne_bytes(*head);
        let (key, object) = rest
            .split_at_checked(usize::from(head & !REMOVED))
            .unwrap_or((rest, &[]));
        (key, (head & REMOVED == 0).then_some(object))
    }

    fn key(&self) -> RowKey<'_> {
        RowKey {
            hash: self.hash,
            key: self.parts().0,
        }
    }

    fn order(&self, row: RowKey<'_>) -> Ordering {
        self.hash
            .cmp(&row.hash)
            .then_with(|| self.parts().0.cmp(row.key))
    }

    /// Bytes of key and object.
    fn size(&self) -> usize {
        self.bytes.len().saturating_sub(2)
    }

    /// Overwrites the object in place when the lengths agree, which saves the allocation.
    fn set(&mut self, row: RowKey<'_>, object: Option<&[u8]>) {
        let value = object.unwrap_or_default();
        if self.bytes.len() != 2 + row.key.len() + value.len() {
            *self = Self::new(row, object);
            return;
        }
        let (old_head, rest) = self.bytes.split_at_mut(2);
        old_head.copy_from_slice(&head(row.key, object).to_ne_bytes());
        if let Some(old) = rest.get_mut(row.key.len()..) {
            old.copy_from_slice(value);
        }
    }
}

/// About where a row with that hash lies in a chunk whose hashes are in `bounds`: within a few rows, since hashes are spread
/// evenly.
fn interpolate(rows: usize, bounds: (u64, u64), hash: u64) -> usize {
    let (from, to) = bounds;
    // Without its lowest bits a distance can be multiplied by any place in a chunk.
    let distance = |hash: u64| hash.saturating_sub(from) >> (CHUNK_ROWS.ilog2() + 1);
    let guess = distance(hash) * rows as u64 / distance(to).max(1);
    let last = rows.saturating_sub(1);
    usize::try_from(guess).unwrap_or(last).min(last)
}

/// The place of a row in one chunk whose hashes are in `bounds`, or where it belongs.
///
/// Interpolation touches one or two cache lines, where halving the chunk again and again would touch a new one each time.
fn place(rows: &[Row], bounds: (u64, u64), row: RowKey<'_>) -> Result<usize, usize> {
    let mut at = interpolate(rows.len(), bounds, row.hash);
    while let Some(probe) = rows.get(at) {
        match probe.order(row) {
            Ordering::Equal => return Ok(at),
            Ordering::Greater => match at.checked_sub(1) {
                Some(before) => at = before,
                None => return Err(0),
            },
            Ordering::Less => break,
        }
    }
    // Now the row at `at` comes before the wanted one, if there is one at all.
    at += 1;
    while let Some(probe) = rows.get(at) {
        match probe.order(row) {
            Ordering::Equal => return Ok(at),
            Ordering::Greater => return Err(at),
            Ordering::Less => at += 1,
        }
    }
    Err(at)
}

/// The first row of a hash in one chunk, or where it belongs, searched from a place near by.
fn place_of_hash(rows: &[Row], mut at: usize, hash: u64) -> usize {
    let is_before = |at: usize| rows.get(at).is_some_and(|row| row.hash < hash);
    while at > 0 && !is_before(at - 1) {
        at -= 1;
    }
    while is_before(at) {
        at += 1;
    }
    at
}

/// Keys are at most `KEY_BYTES_MAX` long, which leaves the highest bit free.
#[expect(clippy::cast_possible_truncation, reason = "Batch refuses longer keys")]
fn head(key: &[u8], object: Option<&[u8]>) -> u16 {
    let len = key.len() as u16 & !REMOVED;
    if object.is_some() { len } else { len | REMOVED }
}

/// Ordered rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Hash of each chunk's first row, apart from the chunks so that the search stays in few cache lines.
    firsts: Vec<u64>,
    /// Never empty ones.
    chunks: Vec<Vec<Row>>,
    len: usize,
    bytes: usize,
}

impl Rows {
    /// Number of rows, removed ones included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of keys and objects.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// About what the rows occupy.
    pub(super) fn footprint(&self) -> usize {
        self.bytes + self.len * 48
    }

    /// The row's object; `Some(None)` when it was removed, `None` when nothing is known of it.
    pub(super) fn get(&self, row: RowKey<'_>) -> Option<Option<&[u8]>> {
        let (chunk, at) = self.find(row);
        let at = at.ok()?;
        Some(self.chunks.get(chunk)?.get(at)?.parts().1)
    }

    /// Sets a row; `None` leaves the mark of a removed row. Returns what was known of it before: the bytes of key and object,
    /// or `Some(None)` when it was removed.
    pub(super) fn put(&mut self, row: RowKey<'_>, object: Option<&[u8]>) -> Option<Option<usize>> {
        let (chunk, at) = self.find(row);
        self.put_at(chunk, at, row, object)
    }

    /// Takes a row out. Returns the bytes of key and object it had.
    pub(super) fn remove(&mut self, row: RowKey<'_>) -> Option<usize> {
        let (chunk, at) = self.find(row);
        let at = at.ok()?;
        let rows = self.chunks.get_mut(chunk)?;
        let size = rows.remove(at).size();
        match rows.first() {
            Some(first) if at == 0 => {
                let hash = first.hash;
                if let Some(slot) = self.firsts.get_mut(chunk) {
                    *slot = hash;
                }
            }
            Some(_) => {}
            None => {
                self.chunks.remove(chunk);
                self.firsts.remove(chunk);
            }
        }
        self.len -= 1;
        self.bytes -= size;
        Some(size)
    }

    /// Rows from `from` on.
    pub(super) fn range(&self, from: Bound<RowKey<'_>>) -> Range<'_> {
        let (chunk, at) = match from {
            Bound::Unbounded => (0, 0),
            Bound::Included(row) => match self.find(row) {
                (chunk, Ok(at) | Err(at)) => (chunk, at),
            },
            Bound::Excluded(row) => match self.find(row) {
                (chunk, Ok(at)) => (chunk, at + 1),
                (chunk, Err(at)) => (chunk, at),
            },
        };
        Range {
            rows: self,
            chunk,
            at,
        }
    }

    /// First hash of a chunk, and one that none of its rows passes.
    fn bounds(&self, chunk: usize) -> (u64, u64) {
        let from = self.firsts.get(chunk).copied().unwrap_or(0);
        // The chunk's own last row is asked only where there is no next chunk: it costs a cache line.
        let to = self.firsts.get(chunk + 1).copied().or_else(|| {
            let last = self.chunks.get(chunk)?.last()?;
            Some(last.hash.saturating_add(1))
        });
        (from, to.unwrap_or(u64::MAX))
    }

    /// Brings what [`find`](Rows::find) is going to look at into the processor's cache: first the entries around the place where
    /// the row should be, then the bytes of the row.
    pub(super) fn expect(&self, hash: u64, ahead: Ahead) {
        let after = self.firsts.partition_point(|first| *first <= hash);
        let chunk = after.saturating_sub(1);
        let Some(rows) = self.chunks.get(chunk) else {
            return;
        };
        let at = interpolate(rows.len(), self.bounds(chunk), hash);
        match ahead {
            Ahead::Far => {
                let around = [at.saturating_sub(AROUND), at, at + AROUND];
                around
                    .into_iter()
                    .filter_map(|at| rows.get(at))
                    .for_each(prefetch);
            }
            Ahead::Near => {
                let row = rows.get(place_of_hash(rows, at, hash));
                let lines = row
                    .filter(|row| row.hash == hash)
                    .map(|row| row.bytes.chunks(CACHE_LINE));
                lines
                    .into_iter()
                    .flatten()
                    .take(LINES_MAX)
                    .filter_map(<[u8]>::first)
                    .for_each(prefetch);
            }
        }
    }

    /// The chunk where the row is or belongs, and its place in it.
    fn find(&self, row: RowKey<'_>) -> (usize, Result<usize, usize>) {
        let mut after = self.firsts.partition_point(|first| *first < row.hash);
        // Chunks that start with this very hash are told apart by key.
        if self.firsts.get(after) == Some(&row.hash) {
            let same = self.chunks.get(after..).unwrap_or_default();
            after += same
                .partition_point(|rows| rows.first().is_some_and(|first| first.order(row).is_le()));
        }
        let chunk = after.saturating_sub(1);
        let at = match self.chunks.get(chunk) {
            Some(rows) => place(rows, self.bounds(chunk), row),
            None => Err(0),
        };
        (chunk, at)
    }

    fn put_at(
        &mut self,
        chunk: usize,
        at: Result<usize, usize>,
        row: RowKey<'_>,
        object: Option<&[u8]>,
    ) -> Option<Option<usize>> {
        let size = row.key.len() + object.map_or(0, <[u8]>::len);
        self.bytes += size;
        if self.chunks.is_empty() {
            self.chunks.push(Vec::with_capacity(4));
            self.firsts.push(row.hash);
        }
        let rows = self.chunks.get_mut(chunk)?;
        let at = match at {
            Ok(at) => {
                let old = rows.get_mut(at)?;
                let size = old.size();
                let known = old.parts().1.is_some().then_some(size);
                old.set(row, object);
                self.bytes -= size;
                return Some(known);
            }
            Err(at) => at,
        };
        rows.insert(at, Row::new(row, object));
        self.len += 1;
        if at == 0
            && let Some(first) = self.firsts.get_mut(chunk)
        {
            *first = row.hash;
        }
        if rows.len() > CHUNK_ROWS {
            // Rows that come in order fill their chunks, others halve them.
            let cut = if at + 1 == rows.len() {
                at
            } else {
                CHUNK_ROWS / 2
            };
            let tail = rows.split_off(cut);
            let first = tail.first().map_or(row.hash, |first| first.hash);
            self.chunks.insert(chunk + 1, tail);
            self.firsts.insert(chunk + 1, first);
        }
        None
    }
}

/// Rows in order.
#[derive(Clone, Debug)]
pub(super) struct Range<'a> {
    rows: &'a Rows,
    chunk: usize,
    at: usize,
}

impl<'a> Iterator for Range<'a> {
    type Item = (RowKey<'a>, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rows = self.rows.chunks.get(self.chunk)?;
            if let Some(row) = rows.get(self.at) {
                self.at += 1;
                return Some((row.key(), row.parts().1));
            }
            self.chunk += 1;
            self.at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn hashes() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..5, any::<u64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Few hashes and many keys: chunks that start with the same hash are the hard case. Others are spread over the ring.
        #[test]
        fn rows_behave_as_an_ordered_map(
            steps in prop::collection::vec((hashes(), 0_u16..400, 0_u8..5), 1..1500),
            from in (hashes(), 0_u16..400),
        ) {
            let mut rows = Rows::default();
            let mut model = BTreeMap::new();
            for (hash, key, what) in steps {
                let key = key.to_be_bytes();
                let row = RowKey { hash, key: &key };
                let object = vec![what; usize::from(what)];
                match what {
                    0 => prop_assert_eq!(rows.remove(row).is_some(), model.remove(&(hash, key)).is_some()),
                    1 => prop_assert_eq!(rows.put(row, None).is_some(), model.insert((hash, key), None).is_some()),
                    _ => prop_assert_eq!(
                        rows.put(row, Some(&object)).is_some(),
                        model.insert((hash, key), Some(object)).is_some()
                    ),
                }
            }
            prop_assert_eq!(rows.len(), model.len());
            let bytes: usize = model.values().map(|object| 2 + object.as_ref().map_or(0, Vec::len)).sum();
            prop_assert_eq!(rows.bytes(), bytes);
            for ((hash, key), object) in &model {
                prop_assert_eq!(rows.get(RowKey { hash: *hash, key }), Some(object.as_deref()));
            }
            let start = (from.0, from.1.to_be_bytes());
            let row = RowKey { hash: start.0, key: &start.1 };
            for (bound, model_bound) in [
                (Bound::Included(row), Bound::Included(start)),
                (Bound::Excluded(row), Bound::Excluded(start)),
                (Bound::Unbounded, Bound::Unbounded),
            ] {
                let seen: Vec<_> = rows.range(bound).map(|(row, object)| (row.hash, row.key.to_vec(), object)).collect();
                let want: Vec<_> = model
                    .range((model_bound, Bound::Unbounded))
                    .map(|((hash, key), object)| (*hash, key.to_vec(), object.as_deref()))
                    .collect();
                prop_assert_eq!(seen, want);
            }
        }
    }
}
