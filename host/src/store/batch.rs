//! The rows that one command changes, packed as they stand in the journal.
//!
//! A batch owns one flat buffer and is meant to be cleared and used again: adding a row allocates nothing once the buffer
//! has grown. The layout of one row, all numbers big-endian:
//!
//! ```text
//! hash u64 | flags u8 | key length u16 | object length u32 | key | object
//! ```

use super::{KEY_BYTES_MAX, OBJECT_BYTES_MAX, RowKey, StoreError};

/// Memory that an empty batch keeps, so that one of huge rows does not hold on to theirs.
const KEPT_BYTES_MAX: usize = 256 * 1024;

const WAS_LIVE: u8 = 1;
const IS_LIVE: u8 = 2;
const REMOVED: u8 = 4;

/// Whether a row counts as live before and after a change. A tombstone is a row that is not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// There was a live row.
    pub before: bool,
    /// There is one now.
    pub after: bool,
}

impl Liveness {
    /// What the change adds to the number of live rows.
    pub fn delta(self) -> i64 {
        i64::from(self.after) - i64::from(self.before)
    }
}

/// One change of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The row.
    pub row: RowKey<'a>,
    /// What it holds from now on; `None` removes the row altogether.
    pub object: Option<&'a [u8]>,
    /// For counting live rows.
    pub live: Liveness,
}

/// Changes that become visible and durable together or not at all. Later changes of a row replace earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    len: u32,
}

/// A place in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    len: u32,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the changes, keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.len = 0;
    }

    /// How much there is, for [`Batch::truncate`].
    pub fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes.len(),
            len: self.len,
        }
    }

    /// Forgets what was added after the mark.
    pub fn truncate(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.len = self.len.min(mark.len);
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores an encoded object, tombstones included.
    pub fn put(
        &mut self,
        row: RowKey<'_>,
        object: &[u8],
        live: Liveness,
    ) -> Result<(), StoreError> {
        self.push(row, Some(object), live)
    }

    /// Adds an object that is on its way to another store, which finds out by itself whether the row lives. It comes out of a
    /// store, so it is not too large for another one.
    pub fn pass_on(&mut self, row: RowKey<'_>, object: &[u8]) {
        let unknown = Liveness {
            before: false,
            after: false,
        };
        let fits = self.put(row, object, unknown);
        debug_assert!(fits.is_ok());
    }

    /// Removes a row for good: a tombstone whose time is over, or a partition that moved away.
    pub fn remove(&mut self, row: RowKey<'_>, was_live: bool) -> Result<(), StoreError> {
        let live = Liveness {
            before: was_live,
            after: false,
        };
        self.push(row, None, live)
    }

    /// The changes in the order they were added.
    pub fn changes(&self) -> Changes<'_> {
        Changes { rest: &self.bytes }
    }

    /// The rows as the journal keeps them, which [`Changes::new`] reads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(
        &mut self,
        row: RowKey<'_>,
        object: Option<&[u8]>,
        live: Liveness,
    ) -> Result<(), StoreError> {
        let bytes = object.unwrap_or_default();
        let key_len = fits("a key", row.key.len(), KEY_BYTES_MAX)?;
        let object_len = fits("an object", bytes.len(), OBJECT_BYTES_MAX)?;
        let mut flags = 0;
        if live.before {
            flags |= WAS_LIVE;
        }
        if live.after {
            flags |= IS_LIVE;
        }
        if object.is_none() {
            flags |= REMOVED;
        }
        self.bytes.reserve(15 + row.key.len() + bytes.len());
        self.bytes.extend_from_slice(&row.hash.to_be_bytes());
        self.bytes.push(flags);
        self.bytes.extend_from_slice(&key_len.to_be_bytes()[2..]);
        self.bytes.extend_from_slice(&object_len.to_be_bytes());
        self.bytes.extend_from_slice(row.key);
        self.bytes.extend_from_slice(bytes);
        self.len += 1;
        Ok(())
    }
}

fn fits(what: &'static str, size: usize, max: usize) -> Result<u32, StoreError> {
    match u32::try_from(size) {
        Ok(len) if size <= max => Ok(len),
        _ => Err(StoreError::TooLarge { what, size, max }),
    }
}

/// Reads packed changes. Ends early when the bytes are not a sequence of rows; [`Changes::is_whole`] tells.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    rest: &'a [u8],
}

impl<'a> Changes<'a> {
    /// The changes in these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether every byte belonged to a row. Asked after the last row.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }

    fn decode(&self) -> Option<(Change<'a>, &'a [u8])> {
        let (hash, rest) = self.rest.split_first_chunk()?;
        let (flags, rest) = rest.split_first()?;
        let (key_len, rest) = rest.split_first_chunk()?;
        let (object_len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*key_len).into())?;
        let object_len = usize::try_from(u32::from_be_bytes(*object_len)).ok()?;
        let (object, rest) = rest.split_at_checked(object_len)?;
        let change = Change {
            row: RowKey {
                hash: u64::from_be_bytes(*hash),
                key,
            },
            object: (flags & REMOVED == 0).then_some(object),
            live: Liveness {
                before: flags & WAS_LIVE != 0,
                after: flags & IS_LIVE != 0,
            },
        };
        Some((change, rest))
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let (change, rest) = self.decode()?;
        self.rest = rest;
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDED: Liveness = Liveness {
        before: false,
        after: true,
    };

    #[test]
    fn changes_come_back_as_they_were_added() {
        let mut batch = Batch::new();
        let row = RowKey { hash: 7, key: b"k" };
        batch.put(row, b"object", ADDED).unwrap();
        batch.put(RowKey { hash: 9, key: b"" }, b"", ADDED).unwrap();
        batch.remove(row, true).unwrap();
        let changes: Vec<_> = batch.changes().collect();
        assert_eq!(changes.len(), batch.len());
        assert_eq!(changes[0].object, Some(b"object".as_slice()));
        assert_eq!(changes[1].object, Some(b"".as_slice()));
        assert_eq!(changes[2].object, None);
        assert_eq!(changes.iter().map(|c| c.live.delta()).sum::<i64>(), 1);
        batch.clear();
        assert_eq!(batch.changes().count(), 0);
    }

    #[test]
    fn cut_bytes_are_noticed() {
        let mut batch = Batch::new();
        batch
            .put(
                RowKey {
                    hash: 7,
                    key: b"key",
                },
                b"object",
                ADDED,
            )
            .unwrap();
        for len in 1..batch.as_bytes().len() {
            let mut changes = Changes::new(&batch.as_bytes()[..len]);
            assert_eq!(changes.next(), None);
            assert!(!changes.is_whole());
        }
    }

    #[test]
    fn a_key_past_the_limit_is_refused() {
        let key = vec![0; KEY_BYTES_MAX + 1];
        let refused = Batch::new().put(RowKey { hash: 0, key: &key }, b"", ADDED);
        assert!(matches!(
            refused,
            Err(StoreError::TooLarge { what: "a key", .. })
        ));
    }
}
