//! A vnode and those that take over its rows when the ring is resized.

use super::Vnode;
use super::failure::Failure;
use crate::store::{Batch, Changes, Commit, Page};
use crate::wasm::VnodeState;

/// Bytes of rows that are copied at once, without a look at anything else.
const PAGE_BYTES: usize = 64 * 1024;
/// Rows that are removed at once.
const DROPPED_ROWS: usize = 1024;

impl Vnode {
    /// Takes down from now on which of its rows change.
    pub fn watch_changes(&mut self) {
        if let Some(state) = self.state() {
            state.watch_changes();
        }
    }

    /// The rows from a place on, and where the next ones begin; empty after the last.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn rows_from(&mut self, place: &[u8]) -> Result<(Batch, Vec<u8>), Failure> {
        Ok(self.rows_of()?.page(place, PAGE_BYTES)?)
    }

    /// The next rows that have changed, and whether those were all; none if it is not known which have. They come again until they
    /// are [confirmed](Self::confirm_changed).
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn rows_changed(&mut self) -> Result<Option<(Batch, bool)>, Failure> {
        Ok(self.rows_of()?.take_changed(PAGE_BYTES)?)
    }

    /// The heirs have the rows that were taken last.
    pub fn confirm_changed(&mut self) {
        if let Some(state) = self.state() {
            state.confirm_changed();
        }
    }

    /// Merges rows of another vnode of this node into its own. Returns the commit that makes them durable, or the last one before if
    /// they were here already.
    ///
    /// # Errors
    /// When they cannot be read or written; nothing is changed then.
    pub fn take_in(&mut self, rows: &Batch) -> Result<Option<Commit>, Failure> {
        let partition = self.partition;
        let state = self.rows_of()?;
        let before = state.staged();
        let merged = Changes::new(rows.as_bytes()).try_for_each(|change| match change.object {
            Some(object) => state.merge(change.row, object),
            None => Ok(()),
        });
        if let Err(refusal) = merged {
            state.unstage(before);
            return Err(refusal.into());
        }
        let commit = state.commit();
        let commit = commit.map_err(|error| Failure::of_store(&error, partition))?;
        Ok(commit.or(state.last_commit()))
    }

    /// Removes some of its rows for good, whatever they are. True when there are no more.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn drop_rows(&mut self) -> Result<bool, Failure> {
        let partition = self.partition;
        let dropped = self.rows_of()?.drop_rows(DROPPED_ROWS);
        let page = dropped.map_err(|error| Failure::of_store(&error, partition))?;
        Ok(page == Page::Last)
    }

    fn rows_of(&mut self) -> Result<&mut VnodeState, Failure> {
        self.state().ok_or(Failure::Draining)
    }
}
