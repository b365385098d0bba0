//! What vnodes ran, as their stores saw it: a write that ran twice has two names.
//!
//! The elements of bags and the versions of causal registers are written by one command each, so whoever sees two names for one of
//! them has seen its command run twice, even if a crash took one of the writes away again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tests::checkers::{Ledger, Row};
use tests::workload::commands::{BAG, CAUSAL};
use vnode_host::store::Batch;
use vnode_ring::{Dot, ObjectRef};

pub(crate) type Shared = Arc<Mutex<Book>>;

/// The names of all writes, by what they wrote and where.
#[derive(Default)]
pub(crate) struct Book {
    names: BTreeMap<(String, u128), BTreeSet<Dot>>,
}

impl Book {
    /// Takes down what a batch has.
    pub(crate) fn look(&mut self, batch: &Batch) {
        for change in batch.changes() {
            let key = String::from_utf8_lossy(change.row.key);
            let once = key.starts_with(BAG) || key.starts_with(CAUSAL);
            let Some(object) = change.object.filter(|_| once) else {
                continue;
            };
            for version in ObjectRef::parse(object).unwrap().versions() {
                let value = version.value.map(String::from_utf8_lossy);
                if let Some(Ok(number)) = value.map(|value| value.parse()) {
                    let written = (key.clone().into_owned(), number);
                    self.names.entry(written).or_default().insert(version.dot);
                }
            }
        }
    }

    /// Judges it.
    pub(crate) fn ledger(&self) -> Ledger {
        let row = |((key, number), names): (&(String, u128), &BTreeSet<Dot>)| Row {
            vnode: key.clone(),
            command: *number,
            digest: 0,
            generation: 0,
            count: names.len() as u64,
        };
        let rows: Vec<Row> = self.names.iter().map(row).collect();
        Ledger::check(&rows)
    }
}
