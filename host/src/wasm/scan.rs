//! One page of a guest's scan: the store's rows with the running command's own writes laid over them.

use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use super::refusal::Refusal;
use super::state::{Write, is_live};
use super::values::Values;
use crate::store::{Page, RowKey, Scan, Store};

/// Bytes of a page, keys and values together.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Rows of one hash that a page takes in past its limit.
const TAG_ROWS_MAX: usize = 10_000;

/// Walks over the live rows of one page.
pub(super) struct Rows<'a, W: Iterator<Item = (&'a Vec<u8>, &'a Write)>, V> {
    /// What makes values of rows; none where keys alone are wanted.
    pub(super) values: Option<&'a mut Values>,
    /// The command's own writes after the start of the page, in order.
    pub(super) written: Peekable<W>,
    /// Position of the last row of the store that was seen.
    pub(super) reached: Vec<u8>,
    /// Room for a value.
    pub(super) value: Vec<u8>,
    /// A row that could not be read.
    pub(super) failed: Option<Refusal>,
    /// Gets key and value of each live row.
    pub(super) visit: V,
}

impl<'a, W, V> Rows<'a, W, V>
where
    W: Iterator<Item = (&'a Vec<u8>, &'a Write)>,
    V: FnMut(&[u8], &[u8]),
{
    /// Visits up to `limit` rows with hashes up to `last`. Returns the position of the next page.
    ///
    /// Keys with one tag share a hash. A page ends between two hashes where it can, since that is the only place that
    /// the cursor of a Redis client can name.
    pub(super) fn page(
        &mut self,
        store: &mut dyn Store,
        last: u64,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let next = match self.read(store, last, limit)? {
            Page::Last => None,
            Page::More => {
                let (hash, _) = split_position(&self.reached)?;
                match (self.read(store, hash, TAG_ROWS_MAX)?, hash.checked_add(1)) {
                    (Page::More, _) => Some(self.reached.clone()),
                    (Page::Last, Some(after)) if after <= last => Some(position(after, b"")),
                    (Page::Last, _) => None,
                }
            }
        };
        while let Some((at, write)) = self
            .written
            .next_if(|(at, _)| next.as_ref().is_none_or(|next| *at < next))
        {
            if self.emit(key_of(at), &write.object).is_break() {
                break;
            }
        }
        Ok(next)
    }

    fn read(&mut self, store: &mut dyn Store, last: u64, limit: usize) -> Result<Page, Refusal> {
        let from = self.reached.clone();
        let (hash, key) = split_position(&from)?;
        let row = RowKey { hash, key };
        let scan = Scan {
            // A place without a key is the start of a hash; with one it is the last row seen.
            from: if key.is_empty() {
                Bound::Included(row)
            } else {
                Bound::Excluded(row)
            },
            to_hash: last,
            max_rows: limit,
            max_bytes: PAGE_BYTES_MAX,
        };
        Ok(store.scan(&scan, &mut |row, object| self.row(row, object))?)
    }

    fn row(&mut self, row: RowKey<'_>, object: &[u8]) -> ControlFlow<()> {
        self.reached.clear();
        self.reached.extend_from_slice(&row.hash.to_be_bytes());
        self.reached.extend_from_slice(row.key);
        while let Some((at, write)) = self.written.next_if(|(at, _)| **at < self.reached) {
            self.emit(key_of(at), &write.object)?;
        }
        match self.written.next_if(|(at, _)| **at == self.reached) {
            Some((_, write)) => self.emit(row.key, &write.object),
            None => self.emit(row.key, object),
        }
    }

    fn emit(&mut self, key: &[u8], object: &[u8]) -> ControlFlow<()> {
        self.value.clear();
        let live = match &mut self.values {
            Some(values) => values.read(key, object, &mut self.value),
            None => is_live(Some(object)),
        };
        match live {
            Ok(true) => (self.visit)(key, &self.value),
            Ok(false) => {}
            Err(error) => {
                self.failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

/// Where a row lies in a scan, which is also what a cursor says: 8 bytes of hash, then the key.
pub(super) fn position(hash: u64, key: &[u8]) -> Vec<u8> {
    let mut position = hash.to_be_bytes().to_vec();
    position.extend_from_slice(key);
    position
}

fn split_position(position: &[u8]) -> Result<(u64, &[u8]), Refusal> {
    match position.split_first_chunk::<8>() {
        Some((hash, key)) => Ok((u64::from_be_bytes(*hash), key)),
        None => Err(Refusal::BadCursor),
    }
}

fn key_of(position: &[u8]) -> &[u8] {
    position.get(8..).unwrap_or_default()
}
