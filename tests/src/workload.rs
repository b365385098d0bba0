//! What clients ask for, decided by a seed: one generator for each kind of key that the checkers judge.
//!
//! A client takes turns. In each the workload says what to ask, a closure of the test's asks the cluster and says what came of
//! it, and the recorder takes both down. All the rest is the test's: how many clients, when they stop, what a timeout is.

pub mod commands;

use std::collections::BTreeMap;

use crate::checkers::{Action, Answer, Outcome, Recorder, Ticket};
use crate::dice::Dice;

/// How many turns a client may have before the numbers of its writes run into those of the next client.
pub const TURNS_MAX: u64 = 1_000_000_000;

/// Share of the causal writes that carry no context at all, as a client that never reads.
const BLIND_PERCENT: u8 = 5;
/// Share of the causal writes after which the client goes on with the context that it has just used: its next write is a
/// sibling of this one.
const STALE_PERCENT: u8 = 10;

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A set that only grows, for C1 and C5.
    Set,
    /// A register with siblings whose writes carry what they read, for C2 and C5.
    Causal,
    /// A counter, for C3, C5 and C7.
    Counter,
    /// A register, for C4 and C5.
    Register,
}

/// The shape of a workload; all clients of a run share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the keys are.
    pub kind: Kind,
    /// What all keys begin with; a number follows.
    pub prefix: String,
    /// How many keys are in use at a time.
    pub keys: usize,
    /// After so many turns each client leaves its keys for as many new ones; never if none.
    pub turns_per_round: Option<u64>,
    /// Share of reads among the turns. A causal client reads besides whenever it has no context to write with.
    pub reads_percent: u8,
    /// Share of deletions among the causal writes that have read something.
    pub deletes_percent: u8,
}

impl Plan {
    /// Eight keys for ever: a tenth of the turns read (half of them for registers, which only reads can judge), and a tenth of
    /// the causal writes delete.
    pub fn new(kind: Kind) -> Plan {
        let (prefix, reads_percent) = match kind {
            Kind::Set => ("set-", 10),
            Kind::Causal => ("causal-", 10),
            Kind::Counter => ("counter-", 10),
            Kind::Register => ("register-", 50),
        };
        Plan {
            kind,
            prefix: prefix.into(),
            keys: 8,
            turns_per_round: None,
            reads_percent,
            deletes_percent: 10,
        }
    }
}

/// What a client is to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client.
    pub client: u32,
    /// The key.
    pub key: String,
    /// What to ask. A [`Action::Put`] or [`Action::Delete`] that has read something goes with the context of this client's
    /// last successful read of the key; one that has read nothing goes without a context.
    pub action: Action,
}

/// One client's workload.
#[derive(Clone, Debug)]
pub struct Workload {
    plan: Plan,
    client: u32,
    dice: Dice,
    turns: u64,
    /// What a causal client read last of each key and may write with.
    contexts: BTreeMap<String, Vec<u64>>,
}

impl Workload {
    /// The workload of one client. Equal arguments, and equal outcomes of reads, give equal requests.
    pub fn new(plan: &Plan, seed: u64, client: u32) -> Workload {
        Workload {
            plan: plan.clone(),
            client,
            dice: Dice::of(seed, client.into()),
            turns: 0,
            contexts: BTreeMap::new(),
        }
    }

    /// What to ask next. A number that it writes is the client's, times [`TURNS_MAX`], plus the turn's: unique among all clients.
    ///
    /// # Panics
    /// After [`TURNS_MAX`] turns.
    pub fn request(&mut self) -> Request {
        let round = self
            .plan
            .turns_per_round
            .map_or(0, |turns| self.turns / turns.max(1));
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "the workload is used up");
        let place = self.dice.index(self.plan.keys) as u64;
        let number = round * self.plan.keys as u64 + place;
        let key = format!("{}{number}", self.plan.prefix);
        let unique = u64::from(self.client) * TURNS_MAX + self.turns;
        let reads = self.dice.percent(self.plan.reads_percent);
        let action = match self.plan.kind {
            Kind::Causal => self.causal(&key, unique, reads),
            _ if reads => Action::Read,
            Kind::Set => Action::Add { element: unique },
            Kind::Counter => Action::Increment { by: 1 },
            Kind::Register => Action::Write { value: unique },
        };
        Request {
            client: self.client,
            key,
            action,
        }
    }

    fn causal(&mut self, key: &str, id: u64, reads: bool) -> Action {
        if self.dice.percent(BLIND_PERCENT) {
            return Action::Put { id, read: vec![] };
        }
        let Some(read) = self.contexts.get(key).filter(|_| !reads) else {
            return Action::Read;
        };
        let read = read.clone();
        if !self.dice.percent(STALE_PERCENT) {
            self.contexts.remove(key);
        }
        match !read.is_empty() && self.dice.percent(self.plan.deletes_percent) {
            true => Action::Delete { id, read },
            false => Action::Put { id, read },
        }
    }

    /// Tells it what came of a request.
    pub fn learn(&mut self, request: &Request, outcome: &Outcome) {
        let causal_read = self.plan.kind == Kind::Causal && request.action == Action::Read;
        if let (true, Outcome::Ok(Answer::Values(values))) = (causal_read, outcome) {
            self.contexts.insert(request.key.clone(), values.clone());
        }
    }

    /// One turn: asks and records. `now` is the clock that all clients share, see [`crate::checkers::Operation::invoked`].
    pub fn turn(
        &mut self,
        recorder: &Recorder,
        now: impl Fn() -> u64,
        ask: impl FnOnce(&Request) -> Outcome,
    ) {
        let (request, ticket) = self.begin(recorder, now());
        let outcome = ask(&request);
        self.learn(&request, &outcome);
        recorder.complete(now(), ticket, outcome);
    }

    /// The same for a client that is a task. One that is dropped in the middle leaves an operation of unknown outcome.
    pub async fn turn_async(
        &mut self,
        recorder: &Recorder,
        now: impl Fn() -> u64,
        ask: impl AsyncFnOnce(&Request) -> Outcome,
    ) {
        let (request, ticket) = self.begin(recorder, now());
        let outcome = ask(&request).await;
        self.learn(&request, &outcome);
        recorder.complete(now(), ticket, outcome);
    }

    fn begin(&mut self, recorder: &Recorder, now: u64) -> (Request, Ticket) {
        let request = self.request();
        let action = request.action.clone();
        let ticket = recorder.invoke(now, request.client, &request.key, action);
        (request, ticket)
    }
}

#[cfg(test)]
mod tests;
