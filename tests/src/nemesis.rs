//! What goes wrong and when, decided by a seed before the run begins.
//!
//! A schedule is only data: whoever runs it kills processes, drops packets or steps clocks, in a simulation or for real. The
//! same seed and limits give the same schedule, so a failing run is named by them. At the end everything is well again.

mod planning;

use std::fmt::{self, Display};
use std::ops::RangeInclusive;

/// Something that is done to nodes, which are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Ends a node at once, as `kill -9` or a crash does.
    Kill {
        /// The node.
        node: u32,
    },
    /// Starts it again, on the same data.
    Restart {
        /// The node.
        node: u32,
    },
    /// Stops a node from running without ending it, as `kill -STOP` does.
    Pause {
        /// The node.
        node: u32,
    },
    /// Lets it run on.
    Resume {
        /// The node.
        node: u32,
    },
    /// Lets nothing through between two nodes.
    Cut {
        /// The lower one.
        one: u32,
        /// The higher one.
        other: u32,
    },
    /// Lets nothing through from one node to another, but from the other to the one.
    CutOneWay {
        /// Who is not heard.
        from: u32,
        /// Who does not hear.
        to: u32,
    },
    /// Lets everything through between two nodes again, both ways.
    Heal {
        /// The lower one.
        one: u32,
        /// The higher one.
        other: u32,
    },
    /// Moves a node's wall clock; the monotonic one goes on as before.
    ClockStep {
        /// The node.
        node: u32,
        /// By how many milliseconds, from where it is now.
        by_ms: i64,
    },
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { node } => write!(f, "kill {node}"),
            Fault::Restart { node } => write!(f, "restart {node}"),
            Fault::Pause { node } => write!(f, "pause {node}"),
            Fault::Resume { node } => write!(f, "resume {node}"),
            Fault::Cut { one, other } => write!(f, "cut {one} - {other}"),
            Fault::CutOneWay { from, to } => write!(f, "cut {from} > {to}"),
            Fault::Heal { one, other } => write!(f, "heal {one} - {other}"),
            Fault::ClockStep { node, by_ms } => write!(f, "clock {node} {by_ms:+} ms"),
        }
    }
}

/// A kind of trouble. Each has a beginning and an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A node is killed, and started again.
    Kill,
    /// A node is paused, and resumed.
    Pause,
    /// A link is cut, so that two nodes see everybody but each other.
    Cut,
    /// A link is cut one way.
    CutOneWay,
    /// A minority is cut off from the rest; half of the times its links heal one after the other.
    Split,
    /// A clock is moved, and moved back.
    ClockStep,
}

impl Trouble {
    /// All kinds.
    pub const ALL: [Trouble; 6] = [
        Trouble::Kill,
        Trouble::Pause,
        Trouble::Cut,
        Trouble::CutOneWay,
        Trouble::Split,
        Trouble::ClockStep,
    ];
}

/// What a schedule may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many nodes there are; cuts need two, splits three.
    pub nodes: u32,
    /// When everything is well again, in milliseconds from the start.
    pub length_ms: u64,
    /// How long after one trouble began the next one begins, in milliseconds.
    pub gap_ms: RangeInclusive<u64>,
    /// How long a trouble lasts, in milliseconds.
    pub lasts_ms: RangeInclusive<u64>,
    /// The most nodes that are killed or paused at once.
    pub down_max: u32,
    /// The most cuts and splits at once; each counts as one, however many links it has.
    pub cuts_max: usize,
    /// The most that a clock is off, either way, in milliseconds.
    pub clock_step_ms_max: u32,
    /// Which kinds there are; one that stands here twice is twice as likely.
    pub troubles: Vec<Trouble>,
}

impl Limits {
    /// A minute of everything: a trouble every 0.5 to 3 s that lasts 1 to 10 s, at most one node down and two cuts at once,
    /// clocks off by up to an hour.
    pub fn new(nodes: u32) -> Limits {
        Limits {
            nodes,
            length_ms: 60_000,
            gap_ms: 500..=3_000,
            lasts_ms: 1_000..=10_000,
            down_max: 1,
            cuts_max: 2,
            clock_step_ms_max: 3_600_000,
            troubles: Trouble::ALL.to_vec(),
        }
    }
}

/// A fault at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// When, in milliseconds from the start.
    pub at_ms: u64,
    /// Whether it makes well what another step did.
    pub heals: bool,
    /// What is done.
    pub fault: Fault,
}

/// All that goes wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The seed that it was made from.
    pub seed: u64,
    /// The limits that it was made with.
    pub limits: Limits,
    /// The steps, in the order of their times. After the last one everything is well.
    pub steps: Vec<Step>,
}

impl Schedule {
    /// The schedule of this seed within these limits.
    pub fn new(seed: u64, limits: &Limits) -> Schedule {
        Schedule {
            seed,
            limits: limits.clone(),
            steps: planning::steps(seed, limits),
        }
    }

    /// How many steps make something worse.
    pub fn faults(&self) -> usize {
        self.steps.iter().filter(|step| !step.heals).count()
    }
}

/// Seed and limits, and a line for each step.
impl Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "schedule of seed {} within {:?}: {} faults",
            self.seed,
            self.limits,
            self.faults()
        )?;
        for step in &self.steps {
            let (seconds, milliseconds) = (step.at_ms / 1_000, step.at_ms % 1_000);
            writeln!(f, "{seconds:>6}.{milliseconds:03} s  {}", step.fault)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
