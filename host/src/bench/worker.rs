//! One worker: what it asks on its connection and what it makes of the answers. Bytes in, bytes out; no socket, no clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::draw::{Dice, Keys};
use super::own::{self, Asker, Known, Own};
use super::reply::{self, Malformed, Reply};
use super::values::{LOADER, Stamp, Values};
use super::windows::{Failures, Windows};
use super::workload::{Check, Filling, Workload};

/// Keys that all workers together remember to judge answers by.
const REMEMBERED_MAX: usize = 2_000_000;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) workload: Workload,
    pub(super) values: Values,
    pub(super) keys: Keys,
    /// Chance of the whole run.
    pub(super) seed: u64,
    /// How many workers there are.
    pub(super) workers: u16,
}

impl Shared {
    /// What is put under a key before the run.
    pub(super) fn load(&self, key: u64, out: &mut Vec<u8>) {
        let stamp = Stamp {
            worker: LOADER,
            turn: 0,
        };
        if let Some(template) = &self.workload.load {
            template.write(
                &Filling {
                    key,
                    stamp,
                    values: &self.values,
                    cursor: b"0",
                },
                out,
            );
        }
    }
}

/// Where answers are counted.
pub(super) struct Tally {
    pub(super) windows: Windows,
    pub(super) failures: Failures,
}

impl Tally {
    fn fail(&mut self, operation: usize, kind: &str, words: impl FnOnce() -> String) {
        self.windows.fail(operation);
        self.failures.add(operation, kind, words);
    }
}

/// An operation that has no answer yet.
struct Asked {
    operation: usize,
    check: Check,
    key: u64,
    turn: u64,
    known: Known,
    /// Latency counts from here, from the start of the run.
    since: Duration,
    /// When it was really asked.
    at: Duration,
}

/// One worker.
pub(super) struct Worker {
    number: u16,
    dice: Dice,
    turn: u64,
    own: Option<Own>,
    cursor: Vec<u8>,
    in_flight: VecDeque<Asked>,
    /// What is to be sent.
    pub(super) output: Vec<u8>,
}

impl Worker {
    /// The worker of that number.
    pub(super) fn new(number: u16, shared: &Shared) -> Self {
        let share = REMEMBERED_MAX / usize::from(shared.workers.max(1));
        Self {
            number,
            dice: Dice::of(shared.seed, number.into()),
            turn: 0,
            own: shared.workload.remembers().then(|| Own::new(share)),
            cursor: b"0".to_vec(),
            in_flight: VecDeque::new(),
            output: Vec::new(),
        }
    }

    /// How many answers it waits for.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the answer that it has waited for longest was asked for.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        self.in_flight.front().map(|asked| asked.at)
    }

    /// Asks for one more operation at `now`; latency counts from `since`.
    pub(super) fn ask(&mut self, shared: &Shared, since: Duration, now: Duration) {
        let (number, key) = self.draw(shared);
        let Some(operation) = shared.workload.operations.get(number) else {
            return;
        };
        self.turn += 1;
        let stamp = Stamp {
            worker: self.number,
            turn: self.turn,
        };
        let filling = Filling {
            key,
            stamp,
            values: &shared.values,
            cursor: &self.cursor,
        };
        operation.template.write(&filling, &mut self.output);
        let known = match self.own.as_ref().and_then(|own| own.of(key)) {
            Some(number) => Known::Seen(number),
            None if shared.workload.load.is_some() => Known::Loaded,
            None => Known::Nothing,
        };
        let check = operation.check;
        self.in_flight.push_back(Asked {
            operation: number,
            check,
            key,
            turn: self.turn,
            known,
            since,
            at: now,
        });
    }

    /// An operation and its key. Who has put nothing yet cannot read own puts: the dice are cast again, so the mix begins later.
    fn draw(&mut self, shared: &Shared) -> (usize, u64) {
        loop {
            let number = shared.workload.draw(&mut self.dice);
            let check = shared
                .workload
                .operations
                .get(number)
                .map(|operation| operation.check);
            if check != Some(Check::GetOwnPut) {
                return (number, shared.keys.draw(&mut self.dice));
            }
            if let Some(key) = self.own.as_ref().and_then(|own| own.any(&mut self.dice)) {
                return (number, key);
            }
        }
    }

    /// Judges the answers that have arrived, and returns how many bytes they took.
    ///
    /// # Errors
    /// The bytes are no answers; the connection is of no more use, and [`Self::lose`] has to be called.
    pub(super) fn hear(
        &mut self,
        bytes: &[u8],
        now: Duration,
        shared: &Shared,
        tally: &mut Tally,
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some((reply, length)) = reply::parse(bytes.get(at..).unwrap_or_default())? {
            at += length;
            // An answer that nobody asked for: not in step any more.
            let asked = self.in_flight.pop_front().ok_or(Malformed)?;
            self.judge(&asked, reply, now, shared, tally);
        }
        Ok(at)
    }

    fn judge(
        &mut self,
        asked: &Asked,
        reply: Reply<'_>,
        now: Duration,
        shared: &Shared,
        tally: &mut Tally,
    ) {
        if let Reply::Error(words) = reply {
            let words = String::from_utf8_lossy(words);
            let code = words.split(' ').next().unwrap_or_default();
            return tally.fail(asked.operation, code, || words.to_string());
        }
        if let (Check::Scan, Reply::Array(members)) = (asked.check, reply) {
            match reply::parse(members) {
                Ok(Some((Reply::Bulk(cursor), _))) => cursor.clone_into(&mut self.cursor),
                _ => {
                    return tally.fail(asked.operation, own::Lie::Unexpected.word(), || {
                        "a page without a cursor".into()
                    });
                }
            }
        }
        let asker = Asker {
            worker: self.number,
            turn: asked.turn,
            key: asked.key,
            values: &shared.values,
        };
        match own::judge(asked.check, asked.known, &asker, reply) {
            Ok(number) => {
                tally
                    .windows
                    .succeed(asked.operation, now.saturating_sub(asked.since));
                if let (Some(number), Some(own)) = (number, &mut self.own) {
                    own.learn(asked.key, number, &mut self.dice);
                }
            }
            Err(lie) => tally.fail(asked.operation, lie.word(), || explain(asked, reply)),
        }
    }

    /// Gives up what has no answer: whether it happened is not known. The next connection begins with nothing in flight.
    pub(super) fn lose(&mut self, kind: &str, words: &str, tally: &mut Tally) {
        for asked in self.in_flight.drain(..) {
            tally.fail(asked.operation, kind, || words.to_owned());
        }
        self.output.clear();
    }
}

/// The words of a wrong answer: enough to look at the key.
fn explain(asked: &Asked, reply: Reply<'_>) -> String {
    let known = match asked.known {
        Known::Nothing => "nothing was known of it".into(),
        Known::Loaded => "it was filled before the run".into(),
        Known::Seen(number) => format!("{number} was acknowledged"),
    };
    let shown = match reply {
        Reply::Bulk(value) | Reply::Simple(value) => {
            let start = value.get(..value.len().min(24)).unwrap_or_default();
            format!(
                "{:?} ({} bytes)",
                String::from_utf8_lossy(start),
                value.len()
            )
        }
        Reply::Nil => "nil".into(),
        Reply::Int(number) => number.to_string(),
        Reply::Array(_) => "an array".into(),
        Reply::Error(_) | Reply::Other => "something else".into(),
    };
    format!("key {}: {known}, the answer is {shown}", asked.key)
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
