//! C1: sets that only grow. Simple enough to bear any fault, which makes it the main check for lost writes.
//!
//! Jepsen's set workload: clients add elements that are unique, and once the faults are over and replicas agree the set is
//! read. Acknowledged elements must be in it; elements of unknown outcome may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::history::{Action, History, Operation};
use super::{Judgement, Lines, Verdict};

/// What became of the elements of all sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckedSet {
    /// Keys.
    pub keys: usize,
    /// Elements whose addition was acknowledged.
    pub acked: usize,
    /// Elements of unknown outcome.
    pub unknown: usize,
    /// Those of them that are there.
    pub unknown_present: usize,
    /// Elements whose addition was refused.
    pub failed: usize,
    /// Acknowledged elements that are not there.
    pub lost: Vec<Element>,
    /// Elements that are there although nobody ever added them.
    pub phantom: Vec<Element>,
    /// Elements that are there although their addition was refused, which says that it has no effect.
    pub failed_present: Vec<Element>,
    /// Keys that were written to and that nobody read at the end.
    pub unread: Vec<String>,
}

/// An element of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The set's key.
    pub key: String,
    /// The element.
    pub element: u64,
    /// How it came to be added, if it was: the acknowledged attempt if there is one.
    pub added: Option<Operation>,
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.added {
            Some(operation) => write!(f, "{operation}"),
            None => write!(f, "{} of {:?}, which nobody added", self.element, self.key),
        }
    }
}

impl AckedSet {
    /// Judges the [`Action::Add`]s of a history by what each set held at the end, with faults over and replicas converged.
    ///
    /// A key that could not be read must be missing in `end`, and so must keys that are no sets: an empty set means that everything is gone.
    pub fn check(history: &History, end: &BTreeMap<String, BTreeSet<u64>>) -> AckedSet {
        let mut verdict = AckedSet::default();
        let keys = history.with(|action| matches!(action, Action::Add { .. }));
        let known = keys.keys().copied();
        let names: BTreeSet<&str> = known.chain(end.keys().map(String::as_str)).collect();
        for key in names {
            let operations = keys.get(key).map_or(&[][..], Vec::as_slice);
            verdict.keys += 1;
            verdict.judge(key, operations, end.get(key));
        }
        verdict
    }

    fn judge(&mut self, key: &str, operations: &[&Operation], end: Option<&BTreeSet<u64>>) {
        let added = attempts(operations);
        let present = |element: &u64| end.is_some_and(|end| end.contains(element));
        if end.is_none() {
            self.unread.push(key.to_owned());
        }
        for (element, attempt) in &added {
            let case = || Element {
                key: key.to_owned(),
                element: *element,
                added: Some((*attempt).clone()),
            };
            if attempt.is_ok() {
                self.acked += 1;
                if end.is_some() && !present(element) {
                    self.lost.push(case());
                }
            } else if attempt.is_fail() {
                self.failed += 1;
                if present(element) {
                    self.failed_present.push(case());
                }
            } else {
                self.unknown += 1;
                self.unknown_present += usize::from(present(element));
            }
        }
        let strangers = end.into_iter().flatten();
        for element in strangers.filter(|element| !added.contains_key(element)) {
            self.phantom.push(Element {
                key: key.to_owned(),
                element: *element,
                added: None,
            });
        }
    }
}

/// The attempt to add each element that says most: acknowledged before unknown before refused.
fn attempts<'a>(operations: &[&'a Operation]) -> BTreeMap<u64, &'a Operation> {
    let weight = |operation: &Operation| match operation {
        operation if operation.is_ok() => 2,
        operation if operation.is_unknown() => 1,
        _ => 0,
    };
    let mut added: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in operations {
        if let Action::Add { element } = operation.action {
            let best = added.entry(element).or_insert(operation);
            if weight(operation) > weight(best) {
                *best = operation;
            }
        }
    }
    added
}

impl Verdict for AckedSet {
    fn judgement(&self) -> Judgement {
        let wrong = self.lost.len() + self.phantom.len() + self.failed_present.len();
        match wrong {
            1.. => Judgement::Violated,
            0 if self.acked == 0 || !self.unread.is_empty() => Judgement::Undecided,
            0 => Judgement::Holds,
        }
    }

    fn explanation(&self) -> String {
        let mut lines = Lines::default();
        let text = |element: &Element| element.to_string();
        lines.cases("acknowledged and lost", self.lost.iter().map(text));
        lines.cases(
            "there, though nobody added it",
            self.phantom.iter().map(text),
        );
        let surfaced = self.failed_present.iter().map(text);
        lines.cases("there, though its client was told that it failed", surfaced);
        let unread = self.unread.iter().map(|key| format!("{key:?}"));
        lines.cases("not read at the end", unread);
        if self.acked == 0 {
            lines.line("nothing was acknowledged, so nothing could be lost");
        }
        lines.text()
    }
}

impl Display for AckedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "C1 acked-set     {:<9}  {} keys, {} acked, {} unknown ({} present), {} failed: \
             lost {}, phantom {}, failed yet present {}, keys not read {}",
            self.judgement(),
            self.keys,
            self.acked,
            self.unknown,
            self.unknown_present,
            self.failed,
            self.lost.len(),
            self.phantom.len(),
            self.failed_present.len(),
            self.unread.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkers::history::made::{add, done, fail, history, unknown};

    fn end(elements: &[u64]) -> BTreeMap<String, BTreeSet<u64>> {
        BTreeMap::from([("k".into(), elements.iter().copied().collect())])
    }

    #[test]
    fn acknowledged_elements_are_there_and_unknown_ones_may_be() {
        let history = history([
            done(1, add(1), 0..2),
            unknown(2, add(2), 1..5),
            unknown(1, add(3), 3..5),
            fail(2, add(4), 6..8),
        ]);
        let verdict = AckedSet::check(&history, &end(&[1, 2]));
        assert_eq!(verdict.judgement(), Judgement::Holds);
        assert_eq!(verdict.explanation(), "");
        assert_eq!(
            verdict.to_string(),
            "C1 acked-set     ok         1 keys, 1 acked, 2 unknown (1 present), 1 failed: \
             lost 0, phantom 0, failed yet present 0, keys not read 0"
        );
    }

    #[test]
    fn lost_phantom_and_failed_yet_present_are_told_apart() {
        let history = history([
            done(1, add(1), 0..2),
            done(1, add(2), 3..4),
            fail(2, add(3), 6..8),
        ]);
        let verdict = AckedSet::check(&history, &end(&[1, 3, 9]));
        assert_eq!(verdict.judgement(), Judgement::Violated);
        assert_eq!(
            verdict.explanation(),
            "acknowledged and lost: 1\n  client 1: \"k\" add 2  [3..4] ok\n\
             there, though nobody added it: 1\n  9 of \"k\", which nobody added\n\
             there, though its client was told that it failed: 1\n  client 2: \"k\" add 3  [6..8] fail: refused\n"
        );
    }

    #[test]
    fn a_retry_that_was_acknowledged_counts_once() {
        let history = history([
            unknown(1, add(1), 0..2),
            done(1, add(1), 3..4),
            fail(1, add(1), 5..6),
        ]);
        let verdict = AckedSet::check(&history, &end(&[1]));
        assert_eq!((verdict.acked, verdict.unknown, verdict.failed), (1, 0, 0));
        let verdict = AckedSet::check(&history, &end(&[]));
        assert_eq!(verdict.lost.len(), 1);
    }

    #[test]
    fn without_evidence_nothing_holds() {
        let one = history([done(1, add(1), 0..2)]);
        let unread = AckedSet::check(&one, &BTreeMap::new());
        assert_eq!(unread.judgement(), Judgement::Undecided);
        assert_eq!(unread.explanation(), "not read at the end: 1\n  \"k\"\n");

        let idle = AckedSet::check(&history([]), &BTreeMap::new());
        assert_eq!(idle.judgement(), Judgement::Undecided);
    }

    #[test]
    fn a_long_list_is_cut_in_the_explanation_and_not_in_the_figures() {
        let history = history((0..25).map(|element| done(1, add(element), 0..2)));
        let verdict = AckedSet::check(&history, &end(&[]));
        assert_eq!(verdict.lost.len(), 25);
        let text = verdict.explanation();
        assert_eq!(text.lines().count(), 12);
        assert!(text.ends_with("  and 15 more\n"), "{text}");
    }

    proptest! {
        /// A store that keeps what it acknowledges passes, whatever it does with the rest, until it drops one.
        #[test]
        fn a_lossy_set_is_caught(
            fates in prop::collection::vec((0..4_u8, any::<bool>()), 1..60),
            dropped in any::<prop::sample::Index>(),
        ) {
            let mut held = BTreeSet::new();
            let mut acked = Vec::new();
            let operations = fates.iter().zip(0_u64..).map(|((fate, kept), element)| {
                let time = element..element + 3;
                match fate {
                    0 => fail(1, add(element), time),
                    1 => {
                        if *kept {
                            held.insert(element);
                        }
                        unknown(1, add(element), time)
                    }
                    _ => {
                        acked.push(element);
                        held.insert(element);
                        done(1, add(element), time)
                    }
                }
            });
            let history = history(operations);
            if acked.is_empty() {
                return Ok(());
            }
            let mut end = BTreeMap::from([("k".to_owned(), held)]);
            prop_assert_eq!(AckedSet::check(&history, &end).judgement(), Judgement::Holds);

            let dropped = *dropped.get(&acked);
            end.get_mut("k").unwrap().remove(&dropped);
            let verdict = AckedSet::check(&history, &end);
            prop_assert_eq!(verdict.judgement(), Judgement::Violated);
            prop_assert_eq!(verdict.lost.len(), 1);
            prop_assert_eq!(verdict.lost[0].element, dropped);
        }
    }
}
