//! C4: registers that behave as if there were one copy of each.
//!
//! Each key is judged alone, which is enough (linearizability is local: Herlihy and Wing 1990; Horn and Kroening 2015 for what
//! that saves). Per key it is the search of Wing and Gong (1993) with Lowe's memory of configurations (2017), see `search.rs`.
//!
//! Only a mode that promises one copy can be held to it. In the others it shows that the faults bite: where concurrent writes
//! are settled by the wall clock it must find violations.

mod search;

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use self::search::{Call, End, Held, search};
use super::history::{Action, Answer, History, Operation};
use super::{Judgement, Lines, Verdict};

/// Steps after which [`Linearizable::check`] gives a search up, some seconds' worth.
pub const STEPS_MAX: usize = 2_000_000;

/// Whether each register behaved as one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linearizable {
    /// Keys.
    pub keys: usize,
    /// Acknowledged operations, which all had to be explained.
    pub acked: usize,
    /// Writes of unknown outcome, each of which may have taken effect at any time after its invocation.
    pub unknown: usize,
    /// Refused writes, which must not have been seen.
    pub failed: usize,
    /// Steps that the searches took.
    pub steps: usize,
    /// The first violation on each key that has one.
    pub violations: Vec<Violation>,
    /// Keys on which the search was given up.
    pub undecided: Vec<String>,
}

/// What on one key no single copy can explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The register's key.
    pub key: String,
    /// How many operations had been acknowledged when the first contradiction was complete. Up to the one before, all is well.
    pub prefix: usize,
    /// The shortest end of that prefix which is a contradiction whatever happened before; last the one that completes it.
    pub window: Vec<Operation>,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, count, prefix) = (&self.key, self.window.len(), self.prefix);
        write!(
            f,
            "{key:?}: no order of these {count} explains the last (acknowledged as number {prefix} of the key)"
        )?;
        for operation in &self.window {
            write!(f, "\n    {operation}")?;
        }
        Ok(())
    }
}

impl Linearizable {
    /// Judges the keys of a history on which there are [`Action::Write`]s; at first each holds nothing.
    ///
    /// Thousands of operations on a key, dozens of them at once, are quick if each value is written once. Where values come
    /// again and many outcomes are unknown, keys have to be short or they stay undecided.
    pub fn check(history: &History) -> Linearizable {
        Linearizable::check_within(history, STEPS_MAX)
    }

    /// The same with another limit on the steps of one search.
    pub fn check_within(history: &History, steps_max: usize) -> Linearizable {
        let mut verdict = Linearizable::default();
        for (key, operations) in history.with(|action| matches!(action, Action::Write { .. })) {
            verdict.keys += 1;
            verdict.count(&operations);
            let mut register = Register {
                operations: &operations,
                steps_max,
                steps: 0,
            };
            match register.search(ALL) {
                End::Explained => {}
                End::GaveUp => verdict.undecided.push(key.to_owned()),
                End::Contradiction => verdict.violations.push(register.violation(key)),
            }
            verdict.steps += register.steps;
        }
        verdict
    }

    fn count(&mut self, operations: &[&Operation]) {
        for operation in operations {
            let writes = matches!(operation.action, Action::Write { .. });
            self.acked += usize::from(operation.is_ok());
            self.unknown += usize::from(writes && operation.is_unknown());
            self.failed += usize::from(writes && operation.is_fail());
        }
    }
}

struct Register<'a> {
    /// In the order of their invocation.
    operations: &'a [&'a Operation],
    steps_max: usize,
    steps: usize,
}

/// The part of a register's history that is looked at.
#[derive(Clone, Copy)]
struct Part {
    /// What had completed before is left out; what it wrote may be what the register holds at first.
    from: u64,
    /// Later is not known yet: what had not completed until then, with it, may or may not have taken effect.
    to: u64,
}

const ALL: Part = Part {
    from: 0,
    to: u64::MAX - 1,
};

impl Register<'_> {
    /// What the contradiction in the whole is, in short.
    ///
    /// A contradiction never goes away when more is known, so both ends of the shortest one are found by bisection.
    fn violation(&mut self, key: &str) -> Violation {
        let acked = self.operations.iter().filter(|each| each.is_ok());
        let mut ends: Vec<u64> = acked.filter_map(|each| each.completed).collect();
        ends.sort_unstable();
        let end = |count: usize| ends.get(count - 1).copied().unwrap_or(u64::MAX);

        let (mut well, mut prefix) = (0, ends.len());
        while prefix - well > 1 {
            let middle = well.midpoint(prefix);
            let to = end(middle);
            match self.contradicts(Part { from: 0, to }) {
                false => well = middle,
                true => prefix = middle,
            }
        }
        let to = end(prefix);

        let (mut first, mut well) = (1, prefix + 1);
        let start = |first: usize| if first == 1 { 0 } else { end(first) };
        while well - first > 1 {
            let middle = well.midpoint(first);
            let from = start(middle);
            match self.contradicts(Part { from, to }) {
                false => well = middle,
                true => first = middle,
            }
        }
        let from = start(first);
        let (operations, _, _) = self.calls(Part { from, to });
        let mut window: Vec<Operation> = operations.into_iter().cloned().collect();
        window.sort_by_key(|each| each.is_ok() && each.completed == Some(to));
        Violation {
            key: key.to_owned(),
            prefix,
            window,
        }
    }

    fn contradicts(&mut self, part: Part) -> bool {
        self.search(part) == End::Contradiction
    }

    fn search(&mut self, part: Part) -> End {
        let (_, calls, start) = self.calls(part);
        let mut steps_left = self.steps_max;
        let end = search(&calls, &start, &mut steps_left);
        self.steps += self.steps_max - steps_left;
        end
    }

    /// The operations to be explained, also as the search wants them, and what the register may hold at first.
    ///
    /// What completed before the part begins, and before anything in it was invoked, came before all of it: only what it wrote
    /// matters. A write that completed before but overlaps with the part may have taken effect in its midst, or before.
    fn calls(&self, part: Part) -> (Vec<&Operation>, Vec<Call>, BTreeSet<Held>) {
        let known = self.operations.iter().copied().filter(|each| {
            let relevant = each.action.written().is_some() || each.is_ok();
            relevant && !each.is_fail() && each.invoked <= part.to
        });
        let all: Vec<(&Operation, Call)> = known.map(|each| (each, call(each))).collect();
        let inside = |call: &Call| (part.from..=part.to).contains(&call.completed);
        let reads = all.iter().filter(|(_, call)| !call.write && inside(call));
        let seen: BTreeSet<Held> = reads.map(|(_, call)| call.held).collect();
        let open =
            |call: &Call| call.write && call.completed > part.to && seen.contains(&call.held);
        let within = all.iter().filter(|(_, call)| inside(call) || open(call));
        let begin = within.map(|(_, call)| call.invoked).min();
        let begin = begin.unwrap_or(u64::MAX).min(part.from);

        let mut start = BTreeSet::from([Held::Nothing]);
        let (mut operations, mut calls) = (Vec::new(), Vec::new());
        for (operation, call) in all {
            let before = call.write && call.completed < begin;
            if before {
                start.insert(call.held);
            }
            let overlaps = call.write && !before && !inside(&call) && seen.contains(&call.held);
            if inside(&call) || overlaps {
                let needed = !overlaps && call.needed;
                operations.push(operation);
                calls.push(Call { needed, ..call });
            }
        }
        (operations, calls, start)
    }
}

fn call(operation: &Operation) -> Call {
    let needed = operation.is_ok();
    let completed = operation.completed.filter(|_| needed);
    let written = operation.action.written().map(Held::Value);
    let answered = || operation.answer().map_or(Held::Impossible, held);
    Call {
        write: written.is_some(),
        held: written.unwrap_or_else(answered),
        invoked: operation.invoked,
        completed: completed.unwrap_or(u64::MAX),
        needed,
    }
}

fn held(answer: &Answer) -> Held {
    match answer {
        Answer::Values(values) => match values[..] {
            [] => Held::Nothing,
            [value] => Held::Value(value),
            _ => Held::Impossible,
        },
        Answer::Done | Answer::Count(_) => Held::Impossible,
    }
}

impl Verdict for Linearizable {
    fn judgement(&self) -> Judgement {
        if !self.violations.is_empty() {
            Judgement::Violated
        } else if self.acked == 0 || !self.undecided.is_empty() {
            Judgement::Undecided
        } else {
            Judgement::Holds
        }
    }

    fn explanation(&self) -> String {
        let mut lines = Lines::default();
        let violations = self.violations.iter().map(Violation::to_string);
        lines.cases("keys without an order that explains them", violations);
        let undecided = self.undecided.iter().map(|key| format!("{key:?}"));
        lines.cases("keys given up after too many steps", undecided);
        if self.acked == 0 {
            lines.line("nothing was acknowledged, so there was nothing to explain");
        }
        lines.text()
    }
}

impl Display for Linearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "C4 linearizable  {:<9}  {} keys, {} acked, {} unknown and {} failed writes, {} steps: \
             violated {}, undecided {}",
            self.judgement(),
            self.keys,
            self.acked,
            self.unknown,
            self.failed,
            self.steps,
            self.violations.len(),
            self.undecided.len(),
        )
    }
}

#[cfg(test)]
mod tests;
