//! Judges of what a cluster did: one recorded history of client operations, and seven checks over it.
//!
//! Nothing here knows a host, a socket or a runtime, so simulations and real processes are judged alike. A run is recorded
//! with a [`Recorder`]; the [`History`] it leaves is judged, and written to a file when a judgement is bad, for each checker
//! works as well on a history that was read back.
//!
//! | | checker | promise |
//! | --- | --- | --- |
//! | C1 | [`AckedSet`] | what was acknowledged is there at the end, and nothing that nobody added |
//! | C2 | [`Lineage`] | a write that is gone was superseded by one that read it |
//! | C3 | [`Counter`] | each increment ran once |
//! | C4 | [`Linearizable`] | a register behaves as if it had one copy |
//! | C5 | [`Sessions`] | a client sees its own writes, and never goes back in time |
//! | C6 | [`Convergence`] | replicas and maps are equal, and no hint is left |
//! | C7 | [`Ledger`] | no vnode ran a command twice |
//!
//! Read next: `history.rs` for what is recorded, `acked_set.rs` for the shape that all checkers have.

mod acked_set;
mod ancestry;
mod convergence;
mod counter;
mod history;
mod ledger;
mod lineage;
mod linearizable;
mod recorder;
mod sessions;

use std::fmt::{self, Display};

pub use self::acked_set::{AckedSet, Element};
pub use self::convergence::{Convergence, Expected, NodeState, Replica};
pub use self::counter::{Counter, OutOfBounds, TooHigh};
pub use self::history::{Action, Answer, History, Operation, Outcome};
pub use self::ledger::{Ledger, Row, Twice};
pub use self::lineage::{Lineage, Version};
pub use self::linearizable::{Linearizable, STEPS_MAX, Violation};
pub use self::recorder::{Recorder, Ticket};
pub use self::sessions::{Regression, Sessions};

/// How many cases of one kind an explanation spells out; the figures count all.
pub const EXPLAINED_MAX: usize = 10;

/// What a checker concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// All that was seen fits the promise, and something was seen.
    Holds,
    /// Something that was seen contradicts the promise.
    Violated,
    /// Nothing contradicts the promise, but evidence is missing or the search gave up. Never to be taken for a pass.
    Undecided,
}

impl Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Judgement::Holds => "ok",
            Judgement::Violated => "VIOLATED",
            Judgement::Undecided => "undecided",
        })
    }
}

/// What every checker returns. `Display` is the one line for a closing report: name, judgement, figures.
pub trait Verdict: Display {
    /// The conclusion.
    fn judgement(&self) -> Judgement;

    /// What is wrong or missing, a line for each case, at most [`EXPLAINED_MAX`] of a kind; empty when it holds.
    fn explanation(&self) -> String;

    /// Fails the test, with the explanation, unless the promise holds.
    #[track_caller]
    fn require(&self) {
        let holds = self.judgement() == Judgement::Holds;
        assert!(holds, "{self}\n{}", self.explanation());
    }
}

/// An explanation in the making.
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// The cases of one kind, the first of them in words.
    fn cases(&mut self, what: &str, cases: impl ExactSizeIterator<Item = String>) {
        let count = cases.len();
        if count == 0 {
            return;
        }
        self.line(&format!("{what}: {count}"));
        for case in cases.take(EXPLAINED_MAX) {
            self.line(&format!("  {case}"));
        }
        if count > EXPLAINED_MAX {
            self.line(&format!("  and {} more", count - EXPLAINED_MAX));
        }
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn text(self) -> String {
        self.0
    }
}
