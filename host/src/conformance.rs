//! The conformance kit: whether a guest keeps the contract.
//!
//! It runs a guest in this process, on vnodes in memory, as a node would: a ring of eight partitions with a vnode each.
//! - [`rig`] is such a node, on [`rows`] that outlive its instances.
//! - [`script`] makes calls of everything that a descriptor declares.
//! - [`checks`] and [`merge`] play them and compare.
//!
//! Nothing is known here about what a command means. So every check compares a guest with itself: another door, another
//! instance, another node, another order.

mod checks;
mod merge;
mod rig;
mod rows;
mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Serialize;

use crate::wasm::Guest;

/// One check of the conformance run.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was checked.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// Numbers when it passed, the reason when not.
    pub detail: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Against the contract.
    Failed,
    /// Does not apply to this guest.
    Skipped,
}

/// How a check went, before it has its name.
enum Verdict {
    Passed(String),
    Failed(String),
    Skipped(String),
}

impl Verdict {
    fn named(self, name: &str) -> Finding {
        let (outcome, detail) = match self {
            Verdict::Passed(detail) => (Outcome::Passed, detail),
            Verdict::Failed(detail) => (Outcome::Failed, detail),
            Verdict::Skipped(detail) => (Outcome::Skipped, detail),
        };
        Finding {
            name: name.to_owned(),
            outcome,
            detail,
        }
    }
}

/// Runs every check.
pub fn check(guest: &Arc<Guest>) -> Vec<Finding> {
    let run = match checks::Run::new(guest) {
        Ok(run) => run,
        Err(verdict) => return vec![verdict.named("start")],
    };
    let mut findings = vec![
        run.descriptor().named("descriptor"),
        run.arguments().named("arguments"),
        run.aggregates().named("aggregates"),
    ];
    if run.is_useless() {
        return findings;
    }
    findings.extend([
        run.doors().named("both doors"),
        run.determinism().named("determinism"),
        run.restart().named("restart"),
        run.handoff().named("handoff"),
        run.reads().named("reads do not write"),
        run.many_rows().named("many and large rows"),
        merge::laws(guest, run.commands()).named("merge laws"),
    ]);
    findings
}
