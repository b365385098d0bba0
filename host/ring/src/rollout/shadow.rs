//! One version of a guest beside another: how often both did the same, when that is too seldom, and what may be spent on finding out.
//!
//! The *running* version answers clients. Its *shadow* gets the same commands over the same rows, and what it does is thrown away.
//! Here it is only counted and judged; nothing is run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Differences of one command that mean something, whatever their part: fewer may be a whim of the machine.
const DIFFERENCES_MIN: u64 = 3;
/// How much longer a command takes in one version than in the other, percent; the last bucket has no bound.
const LONGER_PERCENT: [u64; 7] = [100, 150, 200, 300, 500, 1_000, 2_000];
/// What takes no longer than this is fast enough, whatever the other version takes: its time says more about the machine.
const FAST: Duration = Duration::from_micros(20);
/// Commands of one name before their times mean anything. The first ones of an instance that has just started are slow: of an equal
/// version 54 of the first 57 took more than one and a half times as long as in the old one.
const TIMED_MIN: u64 = 200;
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
    /// Of those that both versions finished: how much longer the running one took, in steps from "no longer" to "more than twenty
    /// times as long".
    pub longer: [u64; LONGER_PERCENT.len() + 1],
}

impl Tally {
    /// Takes down how long both versions took for a command.
    pub fn took(&mut self, running: Duration, shadow: Duration) {
        let percent = match running <= FAST {
            true => 0,
            false => running.as_nanos() * 100 / shadow.as_nanos().max(1),
        };
        let bucket = LONGER_PERCENT
            .iter()
            .position(|bound| percent <= u128::from(*bound));
        if let Some(count) = self.longer.get_mut(bucket.unwrap_or(LONGER_PERCENT.len())) {
            *count += 1;
        }
    }

    /// How many certainly took longer than so many percent of the shadow's time.
    fn longer_than(&self, percent: u64) -> u64 {
        let bounds = LONGER_PERCENT.iter().zip(self.longer.iter().skip(1));
        let beyond = bounds.filter(|(from, _)| **from >= percent);
        beyond.map(|(_, count)| count).sum()
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: &Tally) -> Tally {
        let mut longer = self.longer;
        for (all, more) in longer.iter_mut().zip(other.longer) {
            *all += more;
        }
        Tally {
            compared: self.compared + other.compared,
            differ: self.differ + other.differ,
            replies: self.replies + other.replies,
            effects: self.effects + other.effects,
            errors: self.errors + other.errors,
            traps: self.traps + other.traps,
            overruns: self.overruns + other.overruns,
            longer,
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
    /// The first that did not end alike.
    pub example: Option<Difference>,
}

impl Compared {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Compared) -> Compared {
        Compared {
            tally: self.tally.and(&other.tally),
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

/// Why a new version has to go back that runs with the old one as its shadow, if it is too slow: more than half of some command took
/// more than so many percent of the time that they take in the old one. That is time in the guest alone, on one vnode, so it does
/// not depend on what else the node does.
#[must_use]
pub fn slower(compared: &BTreeMap<String, Compared>, percent: u64) -> Option<String> {
    compared.iter().find_map(|(command, Compared { tally, .. })| {
        let timed: u64 = tally.longer.iter().sum();
        let longer = tally.longer_than(percent);
        (timed >= TIMED_MIN && longer.saturating_mul(2) > timed).then(|| {
            format!("{longer} of {timed} {command} took more than {percent} % of the time that the old version takes for the same")
        })
    })
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
