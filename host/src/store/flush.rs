//! The thread that moves rows from journal and memory into tables.
//!
//! It seals the journal's segment, sets every partition's new rows aside, writes them all as one sorted run, and only then
//! deletes the segments that held them. Whatever fails is tried again with the same rows, so that no segment
//! goes before its rows are safe.

use super::StoreError;
use super::catalog::Place;
use super::disk::{Shared, Slot};
use super::journal::STALL_MAX;
use super::recovery;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two tries, and between two looks at a merge that is behind.
const RETRY: Duration = Duration::from_secs(1);
const MERGE_LOOK: Duration = Duration::from_millis(10);

/// What writers and the flush thread share.
#[derive(Debug, Default)]
pub(super) struct Flush {
    state: Mutex<FlushState>,
    wake: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct FlushState {
    wanted: bool,
    stop: bool,
    failure: Option<String>,
}

impl Flush {
    /// Asks for a flush soon.
    pub(super) fn want(&self) {
        let mut state = self.lock();
        if !state.wanted {
            state.wanted = true;
            self.wake.notify_one();
        }
    }

    /// Has the thread flush once more and end.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Why rows do not get into the tables, if they do not.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Waits until a flush has made room.
    pub(super) fn wait_for_room(&self, shared: &Shared) -> Result<(), StoreError> {
        let start = Instant::now();
        let mut state = self.lock();
        while shared.is_full() {
            if let Some(why) = &state.failure {
                return Err(StoreError::Failed {
                    path: shared.tables_path(),
                    why: why.clone(),
                });
            }
            let waited = start.elapsed();
            if waited >= STALL_MAX || state.stop {
                return Err(StoreError::Busy {
                    path: shared.tables_path(),
                    waited,
                });
            }
            state = self
                .done
                .wait_timeout(state, Duration::from_millis(50))
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, FlushState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until it is told to stop.
pub(super) fn run(shared: &Shared) {
    let flush = &shared.flush;
    let mut owed = None;
    let mut failed = false;
    loop {
        let stop = wait(flush, failed);
        let result = cycle(shared, &mut owed);
        let failure = result.err().map(describe);
        failed = failure.is_some();
        let mut state = flush.lock();
        if state.failure != failure {
            if let Some(why) = &failure {
                tracing::error!(why, "rows cannot be moved from the journal into tables");
            }
            state.failure = failure;
            shared.set_flush_failed(failed);
        }
        flush.done.notify_all();
        if stop {
            return;
        }
    }
}

fn describe(error: StoreError) -> String {
    match error {
        StoreError::Failed { why, .. } => why,
        error => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        }
    }
}

/// Waits for something to do; tells whether it is the last time.
fn wait(flush: &Flush, retry: bool) -> bool {
    let mut state = flush.lock();
    while !state.wanted && !state.stop {
        state = if retry {
            let (state, timeout) = flush
                .wake
                .wait_timeout(state, RETRY)
                .unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return state.stop;
            }
            state
        } else {
            flush
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner)
        };
    }
    state.wanted = false;
    state.stop
}

/// One flush. `owed` is the segment up to which a failed one was to delete.
fn cycle(shared: &Shared, owed: &mut Option<u64>) -> Result<(), StoreError> {
    shared.tables.mend()?;
    while shared.tables.is_behind() && !shared.flush.lock().stop {
        shared.tables.check()?;
        std::thread::sleep(MERGE_LOOK);
    }
    let sealed = match *owed {
        Some(sealed) => sealed,
        None => *owed.insert(shared.journal.seal()?),
    };
    let slots = shared.slots();
    let frozen: Vec<_> = slots
        .iter()
        .filter_map(|(place, slot)| {
            let (totals, rows) = freeze(shared, slot)?;
            Some((*place, Arc::clone(slot), totals, rows))
        })
        .collect();
    if !frozen.is_empty() {
        shared.tables.ingest(
            frozen
                .iter()
                .map(|(place, _, totals, rows)| (*place, *totals, &**rows)),
        )?;
    }
    for (_, slot, _, _) in &frozen {
        slot.lock().flushed();
    }
    shared.flush.done.notify_all();
    let freed = recovery::delete(&shared.journal.directory, sealed)?;
    // A segment that a crash has left may be longer than what was read of it.
    let left = |bytes: u64| Some(bytes.saturating_sub(freed));
    let _ = (shared.journal.file_bytes).fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    *owed = None;
    Ok(())
}

fn freeze(shared: &Shared, slot: &Slot) -> Option<(super::tables::Totals, Arc<super::rows::Rows>)> {
    let mut overlay = slot.lock();
    let before = overlay.active.footprint() as u64;
    let frozen = overlay.freeze();
    let after = overlay.active.footprint() as u64;
    shared.dirty.fetch_sub(before - after, Ordering::Relaxed);
    frozen
}

/// The registry of partitions, in the order of their rows in the tables.
pub(super) type Slots = std::collections::BTreeMap<Place, Arc<Slot>>;
