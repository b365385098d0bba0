//! C7: what each vnode ran. Exact where counters (C3) are not: unknown outcomes hide nothing here.
//!
//! The rows come from builds that keep such a book, simulations above all. A vnode's line goes on through restarts and swaps of
//! its guest, so rows of different generations add up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::{Judgement, Lines, Verdict};

/// How often a vnode ran a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The vnode: service, partition and node, or however else it is told from all others.
    pub vnode: String,
    /// The request id.
    pub command: u128,
    /// Digest of the command, to find two that share an id.
    pub digest: u64,
    /// Generation of the guest that ran it.
    pub generation: u64,
    /// How often it ran there.
    pub count: u64,
}

/// Whether every vnode ran every command once at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Vnodes.
    pub vnodes: usize,
    /// Different commands.
    pub commands: usize,
    /// Runs of all commands on all vnodes.
    pub runs: u64,
    /// Commands that a vnode ran more than once.
    pub twice: Vec<Twice>,
    /// Ids under which different commands ran.
    pub shared_ids: Vec<u128>,
}

/// A command that a vnode ran more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// The vnode.
    pub vnode: String,
    /// The request id.
    pub command: u128,
    /// How often each generation ran it.
    pub runs: BTreeMap<u64, u64>,
}

impl Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ran {:x}", self.vnode, self.command)?;
        for (generation, count) in &self.runs {
            write!(f, ", {count} times in generation {generation}")?;
        }
        Ok(())
    }
}

impl Ledger {
    /// Judges the rows of all vnodes.
    pub fn check(rows: &[Row]) -> Ledger {
        let mut lines: BTreeMap<(&str, u128), BTreeMap<u64, u64>> = BTreeMap::new();
        let mut digests: BTreeMap<u128, BTreeSet<u64>> = BTreeMap::new();
        for row in rows {
            let line = lines.entry((&row.vnode, row.command)).or_default();
            *line.entry(row.generation).or_default() += row.count;
            digests.entry(row.command).or_default().insert(row.digest);
        }
        let vnodes: BTreeSet<&str> = lines.keys().map(|(vnode, _)| *vnode).collect();
        let shared = digests.iter().filter(|(_, digests)| digests.len() > 1);
        let mut verdict = Ledger {
            vnodes: vnodes.len(),
            commands: digests.len(),
            shared_ids: shared.map(|(command, _)| *command).collect(),
            ..Ledger::default()
        };
        for ((vnode, command), runs) in lines {
            let count: u64 = runs.values().sum();
            verdict.runs += count;
            if count > 1 {
                verdict.twice.push(Twice {
                    vnode: vnode.to_owned(),
                    command,
                    runs,
                });
            }
        }
        verdict
    }
}

impl Verdict for Ledger {
    fn judgement(&self) -> Judgement {
        if !self.twice.is_empty() || !self.shared_ids.is_empty() {
            Judgement::Violated
        } else if self.runs == 0 {
            Judgement::Undecided
        } else {
            Judgement::Holds
        }
    }

    fn explanation(&self) -> String {
        let mut lines = Lines::default();
        let twice = self.twice.iter().map(Twice::to_string);
        lines.cases("commands that a vnode ran more than once", twice);
        let shared = self.shared_ids.iter().map(|id| format!("{id:x}"));
        lines.cases("ids under which different commands ran", shared);
        if self.runs == 0 {
            lines.line("no vnode ran anything");
        }
        lines.text()
    }
}

impl Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "C7 ledger        {:<9}  {} vnodes, {} commands, {} runs: ran twice {}, shared ids {}",
            self.judgement(),
            self.vnodes,
            self.commands,
            self.runs,
            self.twice.len(),
            self.shared_ids.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(vnode: &str, command: u128, generation: u64, count: u64) -> Row {
        Row {
            vnode: vnode.into(),
            command,
            digest: 7,
            generation,
            count,
        }
    }

    #[test]
    fn a_command_runs_once_on_each_replica() {
        let verdict = Ledger::check(&[
            row("kv/3@a", 0xbeef, 1, 1),
            row("kv/4@b", 0xbeef, 1, 1),
            row("kv/4@b", 0xcafe, 2, 1),
        ]);
        assert_eq!(
            verdict.to_string(),
            "C7 ledger        ok         2 vnodes, 2 commands, 3 runs: ran twice 0, shared ids 0"
        );
    }

    #[test]
    fn a_run_on_either_side_of_a_swap_is_a_second_one() {
        let verdict = Ledger::check(&[row("kv/3@a", 0xbeef, 1, 1), row("kv/3@a", 0xbeef, 2, 1)]);
        assert_eq!(verdict.judgement(), Judgement::Violated);
        assert_eq!(
            verdict.explanation(),
            "commands that a vnode ran more than once: 1\n  \
             kv/3@a ran beef, 1 times in generation 1, 1 times in generation 2\n"
        );
    }

    #[test]
    fn two_commands_under_one_id_are_found() {
        let mut other = row("kv/4@b", 1, 1, 1);
        other.digest = 8;
        let verdict = Ledger::check(&[row("kv/3@a", 1, 1, 1), other]);
        assert_eq!(verdict.judgement(), Judgement::Violated);
        assert_eq!(verdict.shared_ids, [1]);
    }

    #[test]
    fn an_empty_book_proves_nothing() {
        assert_eq!(Ledger::check(&[]).judgement(), Judgement::Undecided);
    }

    proptest! {
        #[test]
        fn one_more_run_of_anything_is_found(
            ran in prop::collection::btree_set((0..5_u32, 0..50_u128), 1..80),
            at in any::<prop::sample::Index>(),
            generation in 0..3_u64,
        ) {
            let rows = ran.iter().map(|(vnode, command)| row(&vnode.to_string(), *command, 1, 1));
            let mut rows: Vec<Row> = rows.collect();
            prop_assert_eq!(Ledger::check(&rows).judgement(), Judgement::Holds);
            let again = Row { generation, ..at.get(&rows).clone() };
            rows.push(again.clone());
            let verdict = Ledger::check(&rows);
            prop_assert_eq!(verdict.twice.len(), 1);
            prop_assert_eq!(&verdict.twice[0].vnode, &again.vnode);
        }
    }
}
