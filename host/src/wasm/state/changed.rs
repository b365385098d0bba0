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
    /// The rows at these places have changed.
    Rows {
        /// Those that nobody has taken since.
        waiting: BTreeSet<Vec<u8>>,
        /// Those that somebody has taken and not confirmed: he may have failed to store them.
        taken: Vec<Vec<u8>>,
    },
}

impl Changed {
    /// Nothing has changed yet.
    fn watch() -> Changed {
        Changed::Rows {
            waiting: BTreeSet::new(),
            taken: Vec::new(),
        }
    }

    /// The rows at these places change now.
    fn note(&mut self, places: impl Iterator<Item = Vec<u8>>) {
        let Changed::Rows { waiting, .. } = self else {
            return;
        };
        waiting.extend(places);
        if waiting.len() > ROWS_MAX {
            *self = Changed::Unknown;
        }
    }

    /// Takes the next places as long as `wants` does, those first that were taken before and not confirmed. Whether these are all;
    /// none if it is not known.
    ///
    /// # Errors
    /// Those of `wants`. Nothing is taken then.
    fn take<E>(
        &mut self,
        mut wants: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<Option<bool>, E> {
        let Changed::Rows { waiting, taken } = self else {
            return Ok(None);
        };
        waiting.extend(mem::take(taken));
        let mut wanted = 0;
        for place in waiting.iter() {
            if !wants(place)? {
                break;
            }
            wanted += 1;
        }
        while taken.len() < wanted
            && let Some(place) = waiting.pop_first()
        {
            taken.push(place);
        }
        Ok(Some(waiting.is_empty()))
    }

    /// What was taken last is stored where it belongs.
    fn confirm(&mut self) {
        if let Changed::Rows { taken, .. } = self {
            taken.clear();
        }
    }
}

impl VnodeState {
    /// Takes down from now on which rows change.
    pub fn watch_changes(&mut self) {
        self.changed = Changed::watch();
    }

    /// The next rows that have changed since they were asked for, about so many bytes of them, and whether that was all. None if it is
    /// not known which have. They come again unless they are [confirmed](Self::confirm_changed).
    ///
    /// # Errors
    /// When the store cannot be read. Nothing is forgotten then.
    pub fn take_changed(&mut self, max_bytes: usize) -> Result<Option<(Batch, bool)>, Refusal> {
        let mut rows = Batch::new();
        let store = &mut self.store;
        let all = self.changed.take(|place| {
            if rows.as_bytes().len() >= max_bytes {
                return Ok::<_, Refusal>(false);
            }
            let row = row_at(place);
            // What was removed is nobody's to have.
            if let Some(object) = store.get(row)? {
                rows.pass_on(row, object);
            }
            Ok(true)
        })?;
        Ok(all.map(|all| (rows, all)))
    }

    /// The rows that were taken last are where they belong. What has changed of them since comes all the same.
    pub fn confirm_changed(&mut self) {
        self.changed.confirm();
    }

    /// Takes down what the batch is about to change.
    pub(super) fn note_changes(&mut self) {
        let changes = self.batch.changes();
        self.changed
            .note(changes.map(|change| position(change.row.hash, change.row.key)));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// A row gets another value.
        Write(u8),
        /// So many rows are taken; then some are written; then they are stored, or that fails.
        Copy(usize, Vec<u8>, bool),
        /// They cannot be read after so many.
        Unread(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u8>().prop_map(Step::Write),
            (
                0_usize..9,
                prop::collection::vec(any::<u8>(), 0..4),
                any::<bool>()
            )
                .prop_map(|(most, writes, stored)| Step::Copy(most, writes, stored)),
            (0_usize..4).prop_map(Step::Unread),
        ]
    }

    /// A vnode and its heir, with the number of each row's last write.
    struct Pair {
        changed: Changed,
        own: BTreeMap<Vec<u8>, u32>,
        heir: BTreeMap<Vec<u8>, u32>,
        writes: u32,
    }

    impl Pair {
        fn write(&mut self, row: u8) {
            self.writes += 1;
            self.changed.note([vec![row]].into_iter());
            self.own.insert(vec![row], self.writes);
        }

        /// Returns whether all was taken.
        fn copy(&mut self, most: usize, writes: &[u8], stored: bool) -> bool {
            let mut rows = BTreeMap::new();
            let all = self.changed.take(|place| {
                if rows.len() == most {
                    return Ok::<_, ()>(false);
                }
                rows.insert(place.to_vec(), self.own[place]);
                Ok(true)
            });
            writes.iter().for_each(|row| self.write(*row));
            if stored {
                self.heir.extend(rows);
                self.changed.confirm();
            }
            all.unwrap().unwrap()
        }
    }

    proptest! {
        /// Whatever fails on the way, and whatever is written meanwhile, the heir has all rows as they are when all were copied.
        #[test]
        fn what_was_taken_and_not_stored_comes_again(steps in prop::collection::vec(step(), 0..80)) {
            let mut pair = Pair {
                changed: Changed::watch(),
                own: BTreeMap::new(),
                heir: BTreeMap::new(),
                writes: 0,
            };
            for step in steps {
                match step {
                    Step::Write(row) => pair.write(row),
                    Step::Copy(most, writes, stored) => {
                        pair.copy(most, &writes, stored);
                    }
                    Step::Unread(after) => {
                        let mut read = 0;
                        let failed = pair.changed.take(|_| {
                            read += 1;
                            if read > after { Err(()) } else { Ok(true) }
                        });
                        prop_assert!(failed.is_ok() || read == after + 1);
                    }
                }
            }
            while !pair.copy(3, &[], true) {}
            prop_assert_eq!(pair.heir, pair.own);
        }
    }

    #[test]
    fn beyond_a_limit_nothing_is_known() {
        let place = |n: usize| n.to_be_bytes().to_vec();
        let mut changed = Changed::watch();
        changed.note((0..ROWS_MAX).map(place));
        assert_eq!(changed.take(|_| Ok::<_, ()>(false)), Ok(Some(false)));
        changed.note((0..=ROWS_MAX).map(place));
        assert_eq!(changed.take(|_| Ok::<_, ()>(true)), Ok(None));
    }
}
