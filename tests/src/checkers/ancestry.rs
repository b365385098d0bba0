//! Which write of a causal register descends from which, by what each had read.

use std::collections::BTreeMap;

use super::history::{Action, Operation};

/// The writes of one key as a graph; an id that was read and never written is in it, without a past.
pub(crate) struct Ancestry {
    numbers: BTreeMap<u64, usize>,
    /// What each write had read.
    parents: Vec<Vec<usize>>,
}

/// Some writes, and all that they descend from.
pub(crate) struct Past<'a> {
    ancestry: &'a Ancestry,
    reached: Vec<bool>,
}

impl Ancestry {
    pub(crate) fn of(operations: &[&Operation]) -> Ancestry {
        let mut ancestry = Ancestry {
            numbers: BTreeMap::new(),
            parents: Vec::new(),
        };
        for operation in operations {
            if let Action::Put { id, read } | Action::Delete { id, read } = &operation.action {
                let parents: Vec<usize> = read.iter().map(|id| ancestry.number(*id)).collect();
                let number = ancestry.number(*id);
                if let Some(known) = ancestry.parents.get_mut(number) {
                    known.extend(parents);
                }
            }
        }
        ancestry
    }

    fn number(&mut self, id: u64) -> usize {
        *self.numbers.entry(id).or_insert_with(|| {
            self.parents.push(Vec::new());
            self.parents.len() - 1
        })
    }

    /// These writes and what they descend from.
    pub(crate) fn past(&self, of: impl IntoIterator<Item = u64>) -> Past<'_> {
        let numbers = of.into_iter().filter_map(|id| self.numbers.get(&id));
        self.reach(numbers.copied().collect())
    }

    /// What these writes descend from: themselves only if one of the others does.
    pub(crate) fn strict_past(&self, of: impl IntoIterator<Item = u64>) -> Past<'_> {
        let numbers = of.into_iter().filter_map(|id| self.numbers.get(&id));
        let parents = numbers.filter_map(|number| self.parents.get(*number));
        self.reach(parents.flatten().copied().collect())
    }

    fn reach(&self, mut open: Vec<usize>) -> Past<'_> {
        let mut reached = vec![false; self.parents.len()];
        while let Some(number) = open.pop() {
            let (Some(known), Some(parents)) = (reached.get_mut(number), self.parents.get(number))
            else {
                continue;
            };
            if !std::mem::replace(known, true) {
                open.extend(parents);
            }
        }
        Past {
            ancestry: self,
            reached,
        }
    }
}

impl Past<'_> {
    pub(crate) fn contains(&self, id: u64) -> bool {
        let number = self.ancestry.numbers.get(&id);
        number.is_some_and(|number| self.reached.get(*number) == Some(&true))
    }
}
