//! One version of a guest beside another: how often both did the same, when that is too seldom, and what may be spent on finding out.
//!
//! The *running* version answers clients. Its *shadow* gets the same commands over the same rows, and what it does is thrown away.
//! Here it is only counted and judged; nothing is run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::times::Times;

/// Differences of one command that mean something, whatever their part: fewer may be a whim of the machine.
const DIFFERENCES_MIN: u64 = 3;
/// Where two versions are held against each other, percent of their commands, and what is fast enough there whatever the other
/// version takes. The fastest calls tell the versions apart best: the longer ones say more about caches, which the version that
/// serves the smaller part of the cluster finds cold.
const COMPARED_AT: [(u64, Duration); 2] = [
    (5, Duration::from_micros(1)),
    (50, Duration::from_micros(100)),
];
/// Commands of one name before their times mean anything.
const TIMED_MIN: u64 = 500;
/// Failures of a shadow at which it is given up.
const FAILURES_MAX: u8 = 3;
/// Good commands that make one failure forgotten.
const GOOD_FOR_ONE: u32 = 1000;

/// What became of the commands of one name that both versions were given. Grows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Commands that both versions finished.
    pub compared: u64,
    /// Those that did not end alike: another reply, other effects, or both.
    pub differ: u64,
    /// Those with another reply.
    pub replies: u64,
    /// Those with other effects.
    pub effects: u64,
    /// Those that the shadow refused.
    pub errors: u64,
    /// Times that the shadow trapped or broke the contract. Nothing was compared then.
    pub traps: u64,
    /// Times that the shadow ran out of the time that it is given. Nothing was compared then.
    pub overruns: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn and(self, other: &Tally) -> Tally {
        Tally {
            compared: self.compared + other.compared,
            differ: self.differ + other.differ,
            replies: self.replies + other.replies,
            effects: self.effects + other.effects,
            errors: self.errors + other.errors,
            traps: self.traps + other.traps,
            overruns: self.overruns + other.overruns,
        }
    }
}

/// A command that did not end alike, for people: what is foreign in it is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Name of the command.
    pub command: String,
    /// Its first key.
    pub key: String,
    /// Whether it is the reply that differs, or what was written.
    pub what: Side,
    /// What the running version did.
    pub running: String,
    /// What its shadow did.
    pub shadow: String,
}

/// What of a command differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Its reply.
    Reply,
    /// What it writes.
    Effects,
}

/// The commands of one name, and one that differed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// What became of them.
    pub tally: Tally,
    /// Time in the running version of those that both finished.
    pub running: Times,
    /// Time in the shadow of the same.
    pub shadow: Times,
    /// The first that did not end alike.
    pub example: Option<Difference>,
}

impl Compared {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Compared) -> Compared {
        Compared {
            tally: self.tally.and(&other.tally),
            running: self.running.and(&other.running),
            shadow: self.shadow.and(&other.shadow),
            example: self.example.or(other.example),
        }
    }
}

/// Commands of which another version may answer something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// None.
    #[default]
    Nothing,
    /// All.
    Anything,
    /// These, by their names.
    Of(BTreeSet<String>),
}

impl Expected {
    /// Whether the command is one of them.
    #[must_use]
    pub fn has(&self, command: &str) -> bool {
        match self {
            Expected::Nothing => false,
            Expected::Anything => true,
            Expected::Of(commands) => commands
                .iter()
                .any(|name| name.eq_ignore_ascii_case(command)),
        }
    }
}

/// Why a new version that runs beside the old one as its shadow has to go back, if it has: of some command, too many of a thousand
/// did not end alike. Each command is judged by itself, so that one which is seldom asked for is not lost among the others.
#[must_use]
pub fn breach(
    compared: &BTreeMap<String, Compared>,
    expected: &Expected,
    differ_per_mille: u64,
) -> Option<String> {
    let breaches = |(command, Compared { tally, .. }): &(&String, &Compared)| {
        tally.differ >= DIFFERENCES_MIN
            && tally.differ.saturating_mul(1000) > tally.compared.saturating_mul(differ_per_mille)
            && !expected.has(command)
    };
    let (command, found) = compared.iter().find(breaches)?;
    let Tally {
        compared, differ, ..
    } = found.tally;
    let example = found.example.as_ref().map(|example| {
        let what = match example.what {
            Side::Reply => "answers",
            Side::Effects => "writes",
        };
        let Difference {
            key,
            running,
            shadow,
            ..
        } = example;
        format!(" ({command} {key}: {what} {running}, the old version {shadow})")
    });
    Some(format!(
        "{differ} of {compared} {command} did not end as with the old version{}",
        example.unwrap_or_default()
    ))
}

/// Why a new version has to go back that runs with the old one as its shadow, if it is too slow: of some command, the fastest calls
/// or half of all take more than so many percent of the time that they take in the old one. That is time in the guest alone, on the
/// same vnodes, so it does not depend on what else the nodes do.
#[must_use]
pub fn slower(compared: &BTreeMap<String, Compared>, percent: u64) -> Option<String> {
    let timed = compared
        .iter()
        .filter(|(_, seen)| seen.running.count() >= TIMED_MIN);
    let mut pairs = timed.flat_map(|(command, seen)| {
        COMPARED_AT.iter().filter_map(move |(of, fast)| {
            let (new, old) = (seen.running.within(*of)?, seen.shadow.within(*of)?);
            Some((command, of, *fast, new, old))
        })
    });
    let (command, of, _, new, old) = pairs.find(|(_, _, fast, new, old)| {
        new > fast && new.as_nanos() * 100 > old.as_nanos() * u128::from(percent)
    })?;
    let [new, old] = [new, old].map(|time| time.as_nanos() as f64 / 1e3);
    Some(format!(
        "{of} of 100 {command} within {new:.1} us in the guest, and of the same in the old version within {old:.1} us"
    ))
}

/// How many failures of a shadow are still put up with. Each costs a call that a client waits for, and a new instance.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    left: u8,
    good: u32,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            left: FAILURES_MAX,
            good: 0,
        }
    }
}

impl Patience {
    /// The shadow failed.
    pub fn fail(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.good = 0;
    }

    /// The shadow did so many commands.
    pub fn succeed(&mut self, commands: u32) {
        self.good = self.good.saturating_add(commands);
        if self.good >= GOOD_FOR_ONE && !self.is_over() {
            self.good = 0;
            self.left = (self.left + 1).min(FAILURES_MAX);
        }
    }

    /// Whether it has failed too often. It stays so.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// At most so many commands in each second.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: u32,
    /// The second that is counted.
    second: u64,
    left: u32,
}

impl Pace {
    /// So many in a second.
    #[must_use]
    pub fn new(per_second: u32) -> Pace {
        Pace {
            per_second,
            second: 0,
            left: per_second,
        }
    }

    /// How many of so many commands may go on in the second that is given. The others are left out.
    pub fn take(&mut self, second: u64, wanted: usize) -> usize {
        if self.second != second {
            (self.second, self.left) = (second, self.per_second);
        }
        let taken = self.left.min(u32::try_from(wanted).unwrap_or(u32::MAX));
        self.left -= taken;
        usize::try_from(taken).unwrap_or(wanted)
    }
}
