//! C5: what one client may expect from one moment to the next, and how stale its reads are.
//!
//! Read-your-writes and monotonic reads, as Terry and others named them (1994). A read reflects a write when it shows it, shows
//! what descends from it, or cannot be older. For registers, whose order of writes nobody knows, a value is older for certain
//! only if its write had completed before the other's began. Where the cluster does not promise these, the rates and the
//! staleness are what to report, as Bailis and others do (probabilistically bounded staleness, 2012).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::ancestry::{Ancestry, Past};
use super::history::{Action, Answer, History, Operation};
use super::{Judgement, Lines, Verdict};

/// What sessions saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Pairs of a client and a key.
    pub sessions: usize,
    /// Answered reads.
    pub reads: usize,
    /// Reads that had a write of their own client's to show.
    pub reads_after_write: usize,
    /// Those of them that did not show it.
    pub own_write_missing: Vec<Regression>,
    /// Reads that had an earlier read of their own client's to keep up with.
    pub reads_after_read: usize,
    /// Those of them that showed less.
    pub went_back: Vec<Regression>,
    /// For each read of values, by its size: how long before the read began the oldest write that it missed had been
    /// acknowledged, 0 if it missed none. In the history's unit of time.
    pub staleness: Vec<u64>,
}

/// A read that showed less than its client could expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regression {
    /// The read.
    pub read: Operation,
    /// The client's earlier operation that promised more.
    pub after: Operation,
}

impl Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    after {}", self.read, self.after)
    }
}

impl Sessions {
    /// Judges all reads of a history.
    pub fn check(history: &History) -> Sessions {
        let mut verdict = Sessions::default();
        for operations in history.by_key().values() {
            let key = Key::new(operations);
            let mut clients: BTreeMap<u32, Session> = BTreeMap::new();
            for operation in operations {
                let session = clients.entry(operation.client).or_default();
                if operation.is_ok() && operation.action != Action::Read {
                    session.writes.push(operation);
                }
                if let (Action::Read, Some(answer)) = (&operation.action, operation.answer()) {
                    let read = Read::new(&key, operation, answer);
                    verdict.judge(&key, session, &read);
                    session.reads.push(operation);
                }
            }
            verdict.sessions += clients.len();
        }
        verdict.staleness.sort_unstable();
        verdict
    }

    fn judge(&mut self, key: &Key, session: &Session, read: &Read) {
        self.reads += 1;
        let before = |each: &&&Operation| each.completed <= Some(read.operation.invoked);
        let regression = |after: &Operation| Regression {
            read: read.operation.clone(),
            after: after.clone(),
        };
        let mut own = session.writes.iter().filter(before).peekable();
        if own.peek().is_some() {
            self.reads_after_write += 1;
        }
        let missing = match read.count {
            Some(count) => {
                let own: Vec<_> = own.collect();
                let sum: u64 = own.iter().map(|each| increment(each)).sum();
                own.last().copied().filter(|_| count < sum)
            }
            None => own.find(|write| !read.reflects(key, write)),
        };
        self.own_write_missing
            .extend(missing.map(|write| regression(write)));

        if let Some(earlier) = session.reads.iter().rfind(before) {
            self.reads_after_read += 1;
            let went_back = match earlier.answer() {
                Some(Answer::Count(count)) => read.count.is_some_and(|now| now < *count),
                Some(Answer::Values(values)) => !values.iter().all(|value| read.shows(key, *value)),
                _ => false,
            };
            self.went_back
                .extend(went_back.then(|| regression(earlier)));
        }
        if read.count.is_none() {
            self.staleness.push(key.staleness(read));
        }
    }

    /// The staleness that this share of the reads does not exceed, `0.99` for the 99th percentile; 0 without reads.
    pub fn staleness_at(&self, share: f64) -> u64 {
        let last = self.staleness.len().saturating_sub(1);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length is no longer than it"
        )]
        let rank = (self.staleness.len() as f64 * share).ceil() as usize;
        let at = rank.saturating_sub(1).min(last);
        self.staleness.get(at).copied().unwrap_or(0)
    }

    /// Share of the reads after a write of the same client that did not show it.
    pub fn own_write_missing_rate(&self) -> f64 {
        rate(self.own_write_missing.len(), self.reads_after_write)
    }

    /// Share of the reads after a read of the same client that showed less.
    pub fn went_back_rate(&self) -> f64 {
        rate(self.went_back.len(), self.reads_after_read)
    }
}

fn rate(bad: usize, all: usize) -> f64 {
    bad as f64 / all.max(1) as f64
}

fn increment(operation: &Operation) -> u64 {
    match operation.action {
        Action::Increment { by } => by,
        _ => 0,
    }
}

/// What a client did with a key so far, and was answered.
#[derive(Default)]
struct Session<'a> {
    writes: Vec<&'a Operation>,
    reads: Vec<&'a Operation>,
}

/// What is known of a key from the whole history.
struct Key<'a> {
    /// Acknowledged writes, by their completion.
    acked: Vec<&'a Operation>,
    /// The span in which each value was written, of a register.
    spans: BTreeMap<u64, (u64, u64)>,
    ancestry: Ancestry,
    /// Deletions that may have taken effect, by their invocation.
    deletions: Vec<(u64, u64)>,
    register: bool,
}

impl<'a> Key<'a> {
    fn new(operations: &[&'a Operation]) -> Key<'a> {
        let acked = operations.iter().copied();
        let acked = acked.filter(|each| each.is_ok() && each.action.written().is_some());
        let mut acked: Vec<&Operation> = acked.collect();
        acked.sort_by_key(|each| each.completed);
        let mut key = Key {
            acked,
            spans: BTreeMap::new(),
            ancestry: Ancestry::of(operations),
            deletions: Vec::new(),
            register: false,
        };
        for operation in operations.iter().filter(|each| !each.is_fail()) {
            match operation.action {
                Action::Write { value } => {
                    let end = operation.completed.filter(|_| operation.is_ok());
                    let end = end.unwrap_or(u64::MAX);
                    let begin = operation.invoked;
                    let span = key.spans.entry(value).or_insert((begin, end));
                    *span = (span.0.min(begin), span.1.max(end));
                    key.register = true;
                }
                Action::Delete { id, .. } => key.deletions.push((operation.invoked, id)),
                _ => {}
            }
        }
        key
    }

    fn staleness(&self, read: &Read) -> u64 {
        let begun = read.operation.invoked;
        let before = self
            .acked
            .iter()
            .filter(|write| write.completed < Some(begun));
        let missed = before.into_iter().find(|write| !read.reflects(self, write));
        let since = missed.and_then(|write| write.completed);
        since.map_or(0, |since| begun - since)
    }
}

/// A read, and all that it reflects.
struct Read<'a> {
    operation: &'a Operation,
    values: BTreeSet<u64>,
    count: Option<u64>,
    past: Past<'a>,
}

impl<'a> Read<'a> {
    fn new(key: &'a Key, operation: &'a Operation, answer: &'a Answer) -> Read<'a> {
        let values: BTreeSet<u64> = match answer {
            Answer::Values(values) => values.iter().copied().collect(),
            Answer::Done | Answer::Count(_) => BTreeSet::new(),
        };
        let count = match answer {
            Answer::Count(count) => Some(*count),
            Answer::Done | Answer::Values(_) => None,
        };
        // A deletion is never seen, so whatever one that had begun descends from may rightly be gone.
        let begun = |(invoked, _): &&(u64, u64)| Some(*invoked) <= operation.completed;
        let deletions = key.deletions.iter().filter(begun).map(|(_, id)| *id);
        let past = key.ancestry.past(values.iter().copied().chain(deletions));
        Read {
            operation,
            values,
            count,
            past,
        }
    }

    fn reflects(&self, key: &Key, write: &Operation) -> bool {
        write
            .action
            .written()
            .is_none_or(|value| self.shows(key, value))
    }

    fn shows(&self, key: &Key, value: u64) -> bool {
        if key.register {
            let begin = key.spans.get(&value).map_or(0, |(begin, _)| *begin);
            let may_be_newer = |shown: &u64| {
                let end = key.spans.get(shown).map_or(0, |(_, end)| *end);
                *shown == value || end >= begin
            };
            return self.values.iter().any(may_be_newer);
        }
        self.values.contains(&value) || self.past.contains(value)
    }
}

impl Verdict for Sessions {
    /// By whether there was a violation at all; where only the rates matter, ask for those.
    fn judgement(&self) -> Judgement {
        if !self.own_write_missing.is_empty() || !self.went_back.is_empty() {
            Judgement::Violated
        } else if self.reads_after_write + self.reads_after_read == 0 {
            Judgement::Undecided
        } else {
            Judgement::Holds
        }
    }

    fn explanation(&self) -> String {
        let mut lines = Lines::default();
        let missing = self.own_write_missing.iter().map(Regression::to_string);
        lines.cases("reads without the client's own write", missing);
        let back = self.went_back.iter().map(Regression::to_string);
        lines.cases("reads that went back in time", back);
        if self.reads_after_write + self.reads_after_read == 0 {
            lines.line("no client read after it had written or read");
        }
        lines.text()
    }
}

impl Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "C5 sessions      {:<9}  {} sessions, {} reads: own write missing {} of {} ({:.3} %), \
             went back {} of {} ({:.3} %), staleness p99 {} max {}",
            self.judgement(),
            self.sessions,
            self.reads,
            self.own_write_missing.len(),
            self.reads_after_write,
            100.0 * self.own_write_missing_rate(),
            self.went_back.len(),
            self.reads_after_read,
            100.0 * self.went_back_rate(),
            self.staleness_at(0.99),
            self.staleness_at(1.0),
        )
    }
}

#[cfg(test)]
mod tests;
