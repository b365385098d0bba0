//! What is newer than the tables: the layer of one partition that journal and memory have, and tables have not.
//!
//! Writes go to the active rows. A flush freezes them, writes them to the tables, and leaves them readable until the next
//! freeze, so that what was written lately is read from memory. The layer knows nothing of files.

use super::RowKey;
use super::batch::Change;
use super::rows::Rows;
use super::tables::Totals;
use std::sync::Arc;

/// Rows of one partition, newest first.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pub(super) active: Rows,
    frozen: Option<Frozen>,
    /// Of the partition as a whole, tables included.
    pub(super) totals: Totals,
    /// Whether the tables may have rows of this partition.
    pub(super) in_tables: bool,
}

#[derive(Debug)]
struct Frozen {
    rows: Arc<Rows>,
    totals: Totals,
    flushed: bool,
}

impl Overlay {
    pub(super) fn new(totals: Totals) -> Self {
        Self {
            totals,
            in_tables: totals.commit > 0,
            ..Self::default()
        }
    }

    /// What this layer knows of a row: its object, `Some(None)` when it was removed, `None` when the tables decide.
    pub(super) fn get(&self, row: RowKey<'_>) -> Option<Option<&[u8]>> {
        self.active
            .get(row)
            .or_else(|| self.frozen.as_ref()?.rows.get(row))
    }

    /// Makes a change. `elsewhere` gives the bytes of key and object if the row is known outside of this layer.
    pub(super) fn apply(&mut self, change: &Change<'_>, elsewhere: impl FnOnce() -> Option<usize>) {
        let after = change
            .object
            .map(|object| change.row.key.len() + object.len());
        let before = match self.active.put(change.row, change.object) {
            Some(known) => known,
            None => match self
                .frozen
                .as_ref()
                .and_then(|frozen| frozen.rows.get(change.row))
            {
                Some(object) => object.map(|object| change.row.key.len() + object.len()),
                None => elsewhere().or(change.live.before.then_some(after).flatten()),
            },
        };
        let (before, after) = (before.unwrap_or(0) as u64, after.unwrap_or(0) as u64);
        self.totals.bytes = (self.totals.bytes + after).saturating_sub(before);
        self.totals.live = self.totals.live.saturating_add_signed(change.live.delta());
    }

    /// Rows that have to be flushed: those of a flush that failed, or else the active ones, which are set aside.
    pub(super) fn freeze(&mut self) -> Option<(Totals, Arc<Rows>)> {
        match &self.frozen {
            Some(frozen) if !frozen.flushed => Some((frozen.totals, Arc::clone(&frozen.rows))),
            _ if self.active.len() == 0 => {
                // Nothing was written since the last flush, so the memory is better used elsewhere.
                self.frozen = None;
                None
            }
            _ => {
                let rows = Arc::new(std::mem::take(&mut self.active));
                self.frozen = Some(Frozen {
                    rows: Arc::clone(&rows),
                    totals: self.totals,
                    flushed: false,
                });
                Some((self.totals, rows))
            }
        }
    }

    /// The frozen rows are in the tables now.
    pub(super) fn flushed(&mut self) {
        if let Some(frozen) = &mut self.frozen {
            frozen.flushed = true;
            self.in_tables = true;
        }
    }

    /// The frozen rows, for scans.
    pub(super) fn frozen(&self) -> Option<&Rows> {
        self.frozen.as_ref().map(|frozen| &*frozen.rows)
    }
}
