//! C3: counters. An increment cannot be repeated without harm, so the sum tells whether one was.
//!
//! At the end `acked ≤ final ≤ acked + unknown`: below is lost, above ran twice. The upper bound is weak when many outcomes are
//! unknown, because those hide what ran twice; the ledger (C7) is exact and belongs beside it. Every count that a client saw on
//! the way has an upper bound too, by what was begun until then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::history::{Action, Answer, History, Operation};
use super::{Judgement, Lines, Verdict};

/// What all counters came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Keys.
    pub keys: usize,
    /// Sum of the acknowledged increments.
    pub acked: u64,
    /// Sum of those of unknown outcome.
    pub unknown: u64,
    /// Sum of those refused.
    pub failed: u64,
    /// Sum of the counters at the end.
    pub end: u64,
    /// Counters that came to less than was acknowledged: increments were lost.
    pub low: Vec<OutOfBounds>,
    /// Counters that came to more than was ever tried: increments ran twice, or failed ones took effect.
    pub high: Vec<OutOfBounds>,
    /// Counts that a client saw before so much could have been counted.
    pub too_high: Vec<TooHigh>,
    /// Keys that were written to and that nobody read at the end.
    pub unread: Vec<String>,
}

/// A counter that came to what it cannot have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// The counter's key.
    pub key: String,
    /// What it came to.
    pub end: u64,
    /// The least that it must have come to: all that was acknowledged.
    pub least: u64,
    /// The most that it can have come to: all of that and what is unknown.
    pub most: u64,
}

/// An answer above all increments that had begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooHigh {
    /// The operation that was answered so.
    pub operation: Operation,
    /// The most that can have been counted when the answer came.
    pub most: u64,
}

impl Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (end, least, most) = (self.end, self.least, self.most);
        write!(f, "{:?} came to {end}, not {least}..={most}", self.key)
    }
}

impl Display for TooHigh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at most {} by then)", self.operation, self.most)
    }
}

impl Counter {
    /// Judges the [`Action::Increment`]s of a history by what each counter came to, with faults over and replicas converged.
    ///
    /// A counter that could not be read must be missing in `end`, and so must keys of other kinds; one that does not exist is 0.
    pub fn check(history: &History, end: &BTreeMap<String, u64>) -> Counter {
        let mut verdict = Counter::default();
        let keys = history.with(|action| matches!(action, Action::Increment { .. }));
        let known = keys.keys().copied();
        let names: BTreeSet<&str> = known.chain(end.keys().map(String::as_str)).collect();
        for key in names {
            let operations = keys.get(key).map_or(&[][..], Vec::as_slice);
            verdict.keys += 1;
            verdict.judge(key, operations, end.get(key));
        }
        verdict
    }

    fn judge(&mut self, key: &str, operations: &[&Operation], end: Option<&u64>) {
        let sum = |is: fn(&Operation) -> bool| -> u64 {
            let counted = operations.iter().filter(|each| is(each));
            counted.map(|each| amount(each)).sum()
        };
        let (acked, unknown) = (sum(Operation::is_ok), sum(Operation::is_unknown));
        self.acked += acked;
        self.unknown += unknown;
        self.failed += sum(Operation::is_fail);
        self.judge_answers(operations);
        let Some(end) = end.copied() else {
            self.unread.push(key.to_owned());
            return;
        };
        self.end += end;
        let case = || OutOfBounds {
            key: key.to_owned(),
            end,
            least: acked,
            most: acked + unknown,
        };
        if end < acked {
            self.low.push(case());
        }
        if end > acked + unknown {
            self.high.push(case());
        }
    }

    fn judge_answers(&mut self, operations: &[&Operation]) {
        let mut begun: Vec<(u64, u64)> = Vec::new();
        let mut sum = 0;
        for operation in operations.iter().filter(|each| !each.is_fail()) {
            sum += amount(operation);
            begun.push((operation.invoked, sum));
        }
        for operation in operations {
            let (Some(Answer::Count(count)), Some(completed)) =
                (operation.answer(), operation.completed)
            else {
                continue;
            };
            let until = begun.partition_point(|(invoked, _)| *invoked <= completed);
            let last = begun.get(..until).and_then(<[_]>::last);
            let most = last.map_or(0, |(_, sum)| *sum);
            if *count > most {
                let operation = (*operation).clone();
                self.too_high.push(TooHigh { operation, most });
            }
        }
    }
}

fn amount(operation: &Operation) -> u64 {
    match operation.action {
        Action::Increment { by } => by,
        _ => 0,
    }
}

impl Verdict for Counter {
    fn judgement(&self) -> Judgement {
        let wrong = self.low.len() + self.high.len() + self.too_high.len();
        match wrong {
            1.. => Judgement::Violated,
            0 if self.acked == 0 || !self.unread.is_empty() => Judgement::Undecided,
            0 => Judgement::Holds,
        }
    }

    fn explanation(&self) -> String {
        let mut lines = Lines::default();
        let low = self.low.iter().map(OutOfBounds::to_string);
        lines.cases("less than was acknowledged", low);
        let high = self.high.iter().map(OutOfBounds::to_string);
        lines.cases("more than was tried", high);
        let too_high = self.too_high.iter().map(TooHigh::to_string);
        lines.cases("more than was tried by then", too_high);
        let unread = self.unread.iter().map(|key| format!("{key:?}"));
        lines.cases("not read at the end", unread);
        if self.acked == 0 {
            lines.line("nothing was acknowledged, so nothing could be lost");
        }
        lines.text()
    }
}

impl Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "C3 counter       {:<9}  {} keys, acked {} ≤ final {} ≤ {} (unknown {}, failed {}): \
             too low {}, too high {}, seen too high {}, keys not read {}",
            self.judgement(),
            self.keys,
            self.acked,
            self.end,
            self.acked + self.unknown,
            self.unknown,
            self.failed,
            self.low.len(),
            self.high.len(),
            self.too_high.len(),
            self.unread.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkers::history::made::{count, done, fail, history, unknown};

    const ONE: Action = Action::Increment { by: 1 };

    fn end(count: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("k".into(), count)])
    }

    #[test]
    fn the_end_lies_between_what_was_acknowledged_and_what_was_tried() {
        let history = history([
            done(1, ONE, 0..2),
            done(2, Action::Increment { by: 5 }, 1..3),
            unknown(1, ONE, 4..6),
            fail(2, ONE, 5..7),
        ]);
        let judged = |count| Counter::check(&history, &end(count)).judgement();
        use Judgement::{Holds, Violated};
        assert_eq!([5, 6, 7, 8].map(judged), [Violated, Holds, Holds, Violated]);
        let high = Counter::check(&history, &end(8));
        assert_eq!(
            high.explanation(),
            "more than was tried: 1\n  \"k\" came to 8, not 6..=7\n"
        );
        assert_eq!(
            high.to_string(),
            "C3 counter       VIOLATED   1 keys, acked 6 ≤ final 8 ≤ 7 (unknown 1, failed 1): \
             too low 0, too high 1, seen too high 0, keys not read 0"
        );
    }

    #[test]
    fn unknown_increments_cannot_hide_a_double_one_that_was_seen_before_them() {
        let history = history([
            count(1, ONE, 2, 0..2),
            count(2, Action::Read, 2, 1..4),
            unknown(1, ONE, 3..6),
        ]);
        let verdict = Counter::check(&history, &end(2));
        assert_eq!(verdict.judgement(), Judgement::Violated);
        // The read may have seen the increment of unknown outcome; the first answer cannot.
        assert_eq!(
            verdict.explanation(),
            "more than was tried by then: 1\n  client 1: \"k\" increment by 1 -> 2  [0..2] ok (at most 1 by then)\n"
        );
    }

    #[test]
    fn without_evidence_nothing_holds() {
        let one = history([done(1, ONE, 0..2)]);
        let unread = Counter::check(&one, &BTreeMap::new());
        assert_eq!(unread.judgement(), Judgement::Undecided);
        let idle = Counter::check(&history([]), &end(0));
        assert_eq!(idle.judgement(), Judgement::Undecided);
        let phantom = Counter::check(&history([]), &end(1));
        assert_eq!(phantom.judgement(), Judgement::Violated);
    }

    proptest! {
        #[test]
        fn an_increment_that_runs_not_at_all_or_twice_is_caught(
            unknown_applied in prop::collection::vec(any::<bool>(), 0..10),
            acked in 1..50_u64,
        ) {
            let done = (0..acked).map(|time| done(1, ONE, time..time + 2));
            let lost = unknown_applied.iter().map(|_| unknown(2, ONE, 0..2));
            let applied = unknown_applied.iter().filter(|applied| **applied).count() as u64;
            let history = history(done.chain(lost));
            let judged = |count| Counter::check(&history, &end(count)).judgement();
            prop_assert_eq!(judged(acked + applied), Judgement::Holds);
            prop_assert_eq!(judged(acked - 1), Judgement::Violated);
            let tried = acked + unknown_applied.len() as u64;
            prop_assert_eq!(judged(tried + 1), Judgement::Violated);
        }
    }
}
