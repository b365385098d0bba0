//! Which rows have changed since somebody began to copy them.

use std::collections::BTreeSet;
use std::mem;

use super::VnodeState;
use crate::store::{Batch, RowKey};
use crate::wasm::Refusal;
use crate::wasm::scan::position;

/// Rows that are taken down. Beyond, all count as changed.
const ROWS_MAX: usize = 64 * 1024;

/// What is known of changes.
#[derive(Default)]
pub(super) enum Changed {
    /// Nothing: nobody asked, or too much has changed.
    #[default]
    Unknown,
    /// These have changed, by their places.
    Rows(BTreeSet<Vec<u8>>),
}

impl VnodeState {
    /// Takes down from now on which rows change.
    pub fn watch_changes(&mut self) {
        self.changed = Changed::Rows(BTreeSet::new());
    }

    /// The next rows that have changed since they were asked for, about so many bytes of them, and whether that was all. None if it is
    /// not known which have.
    ///
    /// # Errors
    /// When the store cannot be read. Nothing is forgotten then.
    pub fn take_changed(&mut self, max_bytes: usize) -> Result<Option<(Batch, bool)>, Refusal> {
        let Changed::Rows(places) = &mut self.changed else {
            return Ok(None);
        };
        let mut rows = Batch::new();
        let mut taken = Vec::new();
        for place in places.iter() {
            if rows.as_bytes().len() >= max_bytes {
                break;
            }
            let row = row_at(place);
            // What was removed is nobody's to have.
            if let Some(object) = self.store.get(row)? {
                rows.pass_on(row, object);
            }
            taken.push(place.clone());
        }
        for place in &taken {
            places.remove(place);
        }
        let all = places.is_empty();
        Ok(Some((rows, all)))
    }

    /// Takes down what the batch is about to change.
    pub(super) fn note_changes(&mut self) {
        let Changed::Rows(mut places) = mem::take(&mut self.changed) else {
            return;
        };
        let changes = self.batch.changes();
        places.extend(changes.map(|change| position(change.row.hash, change.row.key)));
        if places.len() <= ROWS_MAX {
            self.changed = Changed::Rows(places);
        }
    }
}

fn row_at(place: &[u8]) -> RowKey<'_> {
    match place.split_first_chunk::<8>() {
        Some((hash, key)) => RowKey {
            hash: u64::from_be_bytes(*hash),
            key,
        },
        None => RowKey {
            hash: 0,
            key: place,
        },
    }
}
