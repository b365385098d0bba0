//! C2: causal registers. What is gone must have been superseded by a write that had read it.
//!
//! Each write carries the ids of the versions that its client had read, as the causal context does in the cluster. At the end
//! an acknowledged id may be absent only if one that is present descends from it. This finds what a set that only grows cannot:
//! last-write-wins, a replica that forgot and numbers its writes anew (riak_kv 679), an old tombstone that eats a new value,
//! and deleted values that come back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::ancestry::Ancestry;
use super::history::{Action, Answer, History, Operation};
use super::{Judgement, Lines, Verdict};

/// What became of the versions of all causal registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Keys.
    pub keys: usize,
    /// Acknowledged writes and deletions.
    pub acked: usize,
    /// Writes and deletions of unknown outcome.
    pub unknown: usize,
    /// Those that were refused.
    pub failed: usize,
    /// Acknowledged writes that are absent, and rightly so.
    pub superseded: usize,
    /// The most siblings that a key had at the end.
    pub siblings_max: usize,
    /// Acknowledged writes that are absent although nothing present, and no deletion, descends from them.
    pub lost: Vec<Version>,
    /// Versions that are there although a write descends from them that was acknowledged or is there itself.
    pub resurrected: Vec<Version>,
    /// Versions that are there or were read, and that nobody ever wrote.
    pub phantom: Vec<Version>,
    /// Versions that are there or were read although their writes were refused.
    pub failed_present: Vec<Version>,
    /// Keys that were written to and that nobody read at the end.
    pub unread: Vec<String>,
}

/// A version of one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The register's key.
    pub key: String,
    /// The version.
    pub id: u64,
    /// The operation that wrote it, if there was one.
    pub written: Option<Operation>,
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Some(operation) => write!(f, "{operation}"),
            None => write!(f, "{} of {:?}, which nobody wrote", self.id, self.key),
        }
    }
}

impl Lineage {
    /// Judges the [`Action::Put`]s and [`Action::Delete`]s of a history by the siblings of each key at the end, with faults
    /// over and replicas converged.
    ///
    /// A key that could not be read must be missing in `end`, and so must keys of other kinds: no siblings mean that everything is gone.
    pub fn check(history: &History, end: &BTreeMap<String, BTreeSet<u64>>) -> Lineage {
        let mut verdict = Lineage::default();
        let keys =
            history.with(|action| matches!(action, Action::Put { .. } | Action::Delete { .. }));
        let known = keys.keys().copied();
        let names: BTreeSet<&str> = known.chain(end.keys().map(String::as_str)).collect();
        for key in names {
            let operations = keys.get(key).map_or(&[][..], Vec::as_slice);
            verdict.keys += 1;
            match end.get(key) {
                Some(end) => verdict.judge(key, operations, end),
                None => verdict.unread.push(key.to_owned()),
            }
        }
        verdict
    }

    fn judge(&mut self, key: &str, operations: &[&Operation], end: &BTreeSet<u64>) {
        let writes = writes(operations);
        let ancestry = Ancestry::of(operations);
        let case = |id: u64| Version {
            key: key.to_owned(),
            id,
            written: writes.get(&id).map(|write| (*write).clone()),
        };
        self.siblings_max = self.siblings_max.max(end.len());

        // A deletion is never seen. One of unknown outcome is the only one that could explain some absences, so it may.
        let deleted = writes
            .iter()
            .filter(|(_, write)| matches!(write.action, Action::Delete { .. }) && !write.is_fail());
        let roots = end.iter().copied().chain(deleted.map(|(id, _)| *id));
        let explained = ancestry.past(roots);
        for (id, write) in &writes {
            self.acked += usize::from(write.is_ok());
            self.unknown += usize::from(write.is_unknown());
            self.failed += usize::from(write.is_fail());
            let visible = matches!(write.action, Action::Put { .. });
            if !write.is_ok() || !visible || end.contains(id) {
                continue;
            }
            match explained.contains(*id) {
                true => self.superseded += 1,
                false => self.lost.push(case(*id)),
            }
        }

        let acked = writes.iter().filter(|(_, write)| write.is_ok());
        let effective = acked.map(|(id, _)| *id).chain(end.iter().copied());
        let over = ancestry.strict_past(effective);
        let back = end.iter().filter(|id| over.contains(**id));
        self.resurrected.extend(back.map(|id| case(*id)));

        let mut seen = end.clone();
        seen.extend(operations.iter().flat_map(|operation| shown(operation)));
        for id in seen {
            match writes.get(&id) {
                None => self.phantom.push(case(id)),
                Some(write) if write.is_fail() => self.failed_present.push(case(id)),
                Some(_) => {}
            }
        }
    }
}

/// The write of each id; of several attempts an acknowledged one, else one that is not refused.
fn writes<'a>(operations: &[&'a Operation]) -> BTreeMap<u64, &'a Operation> {
    let mut writes: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in operations {
        if let Action::Put { id, .. } | Action::Delete { id, .. } = operation.action {
            let best = writes.entry(id).or_insert(operation);
            if operation.is_ok() || (best.is_fail() && !operation.is_fail()) {
                *best = operation;
            }
        }
    }
    writes
}

/// The ids that an operation's client saw.
fn shown(operation: &Operation) -> &[u64] {
    match (&operation.action, operation.answer()) {
        (Action::Read, Some(Answer::Values(values))) => values,
        (Action::Put { read, .. } | Action::Delete { read, .. }, _) => read,
        _ => &[],
    }
}

impl Verdict for Lineage {
    fn judgement(&self) -> Judgement {
        let wrong = self.lost.len()
            + self.resurrected.len()
            + self.phantom.len()
            + self.failed_present.len();
        match wrong {
            1.. => Judgement::Violated,
            0 if self.acked == 0 || !self.unread.is_empty() => Judgement::Undecided,
            0 => Judgement::Holds,
        }
    }

    fn explanation(&self) -> String {
        let mut lines = Lines::default();
        let text = |version: &Version| version.to_string();
        let lost = self.lost.iter().map(text);
        lines.cases("acknowledged, gone, and not superseded", lost);
        let back = self.resurrected.iter().map(text);
        lines.cases("there again, though superseded", back);
        let strangers = self.phantom.iter().map(text);
        lines.cases("seen, though nobody wrote it", strangers);
        let surfaced = self.failed_present.iter().map(text);
        lines.cases("seen, though its client was told that it failed", surfaced);
        let unread = self.unread.iter().map(|key| format!("{key:?}"));
        lines.cases("not read at the end", unread);
        if self.acked == 0 {
            lines.line("nothing was acknowledged, so nothing could be lost");
        }
        lines.text()
    }
}

impl Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "C2 lineage       {:<9}  {} keys, {} acked ({} superseded), {} unknown, {} failed, at most {} siblings: \
             lost {}, resurrected {}, phantom {}, failed yet seen {}, keys not read {}",
            self.judgement(),
            self.keys,
            self.acked,
            self.superseded,
            self.unknown,
            self.failed,
            self.siblings_max,
            self.lost.len(),
            self.resurrected.len(),
            self.phantom.len(),
            self.failed_present.len(),
            self.unread.len(),
        )
    }
}

#[cfg(test)]
mod tests;
