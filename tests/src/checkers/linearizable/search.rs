//! Looks for an order of a register's operations that explains all answers.
//!
//! Lowe's just-in-time graph search ("Testing for linearizability", 2017) on top of Wing and Gong's (1993): events are taken in
//! the order of time, and only when an operation completes must it, and what it needs before it, have found its place. All
//! places so far are kept as a set of configurations: what the register holds, and which of the open operations are in place.
//! Equal ones meet in the set, which is the memory. Five facts about registers keep the set small:
//!
//! - A read goes into place as soon as the register holds what it answered: it changes nothing, so waiting gains nothing.
//! - A write that nobody read may go just before any other one, where nobody sees it.
//! - If only one write could make a value, the register must not leave that value while reads of it are still to come.
//! - A write of unknown outcome that nobody read may be left out; if only it could make a value, then it had taken effect by the
//!   time that the first read of the value completed.
//! - Of writes of one value that may all come at any time or never, it does not matter which comes.

use std::collections::{BTreeMap, BTreeSet};

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    /// No value.
    Nothing,
    /// A value.
    Value(u64),
    /// What no register holds, such as two values at once.
    Impossible,
}

/// An operation to be explained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) write: bool,
    /// What was written, or answered to a read.
    pub(super) held: Held,
    pub(super) invoked: u64,
    /// The time until which it must have taken effect, or must have been left out; `u64::MAX` for never.
    pub(super) completed: u64,
    /// Whether it must not be left out.
    pub(super) needed: bool,
}

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Explained,
    Contradiction,
    /// Too many steps, or more than [`OPEN_MAX`] operations open at once.
    GaveUp,
}

/// As many as there are bits in a [`Configuration`]. More at once would take too many steps anyway.
const OPEN_MAX: usize = 128;

/// What the register holds, and which open operations are in place.
type Configuration = (Held, u128);

/// Whether there is an order of these calls, from a register that holds one of `start`. Takes its steps off `steps_left`.
pub(super) fn search(calls: &[Call], start: &BTreeSet<Held>, steps_left: &mut usize) -> End {
    let (calls, values) = prepared(calls, start);
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        // At equal times the invocation comes first: what might be concurrent is.
        events.push((call.invoked, false, number));
        if call.completed != u64::MAX {
            events.push((call.completed, true, number));
        }
    }
    events.sort_unstable();
    let mut search = Search {
        values,
        open: [None; OPEN_MAX],
        configurations: start.iter().map(|held| (*held, 0)).collect(),
        steps_left,
    };
    let mut bits = vec![0; calls.len()];
    for (_, completes, number) in events {
        let (Some(call), Some(bit)) = (calls.get(number), bits.get_mut(number)) else {
            continue;
        };
        let end = match completes {
            false => search.invoke(*call, bit),
            true => search.complete(*bit, call.needed),
        };
        if end != End::Explained {
            return end;
        }
    }
    End::Explained
}

/// How a value comes and goes.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    /// Writes of it, and 1 if the register may hold it at first.
    sources: usize,
    /// Reads of it.
    reads: usize,
    /// Those of them that have not been invoked yet.
    reads_to_come: usize,
    /// When the first of them completes.
    first_read: u64,
}

/// Leaves out what need not be explained and bounds what is open without end, as the head of this file says.
fn prepared(calls: &[Call], start: &BTreeSet<Held>) -> (Vec<Call>, BTreeMap<Held, Traffic>) {
    let mut values: BTreeMap<Held, Traffic> = BTreeMap::new();
    let none = Traffic {
        sources: 0,
        reads: 0,
        reads_to_come: 0,
        first_read: u64::MAX,
    };
    for held in start {
        values.entry(*held).or_insert(none).sources += 1;
    }
    for call in calls {
        let value = values.entry(call.held).or_insert(none);
        if call.write {
            value.sources += 1;
        } else {
            value.reads += 1;
            value.reads_to_come += 1;
            value.first_read = value.first_read.min(call.completed);
        }
    }
    let bounded = calls.iter().filter_map(|call| {
        let value = values.get(&call.held)?;
        match call.needed {
            false if value.reads == 0 => None,
            // A read that completes before its only source begins is found to be a contradiction at its own completion.
            false if value.sources == 1 => Some(Call {
                completed: value.first_read.min(call.completed).max(call.invoked),
                needed: true,
                ..*call
            }),
            _ => Some(*call),
        }
    });
    (bounded.collect(), values)
}

struct Search<'a> {
    values: BTreeMap<Held, Traffic>,
    /// Open calls, by the bit that stands for them.
    open: [Option<Call>; OPEN_MAX],
    configurations: BTreeSet<Configuration>,
    steps_left: &'a mut usize,
}

impl Search<'_> {
    fn invoke(&mut self, call: Call, bit: &mut usize) -> End {
        let free = self.open.iter_mut().enumerate();
        let Some((number, slot)) = free.into_iter().find(|(_, slot)| slot.is_none()) else {
            return End::GaveUp;
        };
        *slot = Some(call);
        *bit = number;
        if call.write {
            return End::Explained;
        }
        if let Some(value) = self.values.get_mut(&call.held) {
            value.reads_to_come -= 1;
        }
        let all = std::mem::take(&mut self.configurations);
        let placed = all
            .into_iter()
            .map(|(held, placed)| match held == call.held {
                true => (held, placed | 1 << number),
                false => (held, placed),
            });
        self.configurations = placed.collect();
        End::Explained
    }

    /// Keeps the configurations in which the call is in place, or can be brought there, or need not be.
    fn complete(&mut self, bit: usize, needed: bool) -> End {
        let this = 1 << bit;
        let mut kept = BTreeSet::new();
        let mut met = BTreeSet::new();
        let mut pending: Vec<Configuration> = Vec::new();
        for (held, placed) in std::mem::take(&mut self.configurations) {
            match placed & this {
                0 => pending.push((held, placed)),
                _ => drop(kept.insert((held, placed & !this))),
            }
        }
        if !needed {
            kept.extend(pending.iter().copied());
        }
        while let Some(configuration) = pending.pop() {
            for (held, placed) in self.successors(configuration) {
                if *self.steps_left == 0 {
                    return End::GaveUp;
                }
                *self.steps_left -= 1;
                if placed & this != 0 {
                    kept.insert((held, placed & !this));
                } else if met.insert((held, placed)) {
                    pending.push((held, placed));
                }
            }
        }
        if let Some(slot) = self.open.get_mut(bit) {
            *slot = None;
        }
        self.configurations = kept;
        match self.configurations.is_empty() {
            true => End::Contradiction,
            false => End::Explained,
        }
    }

    /// What can come of a configuration by putting one more write in place, with the reads that then go there too.
    fn successors(&self, (held, placed): Configuration) -> Vec<Configuration> {
        let value = self.values.get(&held);
        if value.is_some_and(|value| value.sources == 1 && value.reads_to_come > 0) {
            return Vec::new();
        }
        let open = || {
            let calls = self.open.iter().zip(0_u32..);
            let calls = calls.filter_map(|(call, bit)| Some((call.as_ref()?, 1_u128 << bit)));
            calls.filter(move |(_, bit)| placed & bit == 0)
        };
        let unread = |call: &Call| {
            call.write
                && self
                    .values
                    .get(&call.held)
                    .is_some_and(|value| value.reads == 0)
        };
        let hidden = open().filter(|(call, _)| unread(call));
        let hidden = hidden.fold(0, |bits, (_, bit)| bits | bit);
        let mut endless = BTreeSet::new();
        let writes = open().filter(|(call, _)| {
            let mut first = || endless.insert(call.held);
            call.write && (call.completed != u64::MAX || first())
        });
        let successor = |write: &Call, bit: u128| {
            let seen = open().filter(|(call, _)| !call.write && call.held == write.held);
            let seen = seen.fold(0, |bits, (_, bit)| bits | bit);
            (write.held, placed | bit | hidden | seen)
        };
        writes.map(|(write, bit)| successor(write, bit)).collect()
    }
}
