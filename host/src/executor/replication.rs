//! Quorum requests: a write goes to the other replicas of its range, and what all are to run goes to each.
//!
//! A write runs on one vnode, which commits it; its rows then go to the other replicas as they are (`Merge`). The command's
//! reply waits until enough have them. Reads stand in `reading`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;
use vnode_ring::quorum::{Answer, Outcome, Quorum};
use vnode_ring::{Holder, PartitionId, Role};

use super::flights::{Answered, Purpose, Traced};
use super::{Executor, Parked};
use crate::coordinator::trace::{Step, first_word, steps_of, traced, with_steps};
use crate::descriptor::{CommandKind, CommandSpec};
use crate::store::Verdict;
use crate::vnode::failure::Failure;
use crate::vnode::replica::done;
use crate::vnode::request::{Looked, ReplyTo, Request, Work, Written};
use crate::vnode::words::Words;

/// Replicas that most requests have.
const REPLICAS: usize = 3;

impl Executor {
    /// Takes a command that this node coordinates.
    pub(super) fn coordinate(&mut self, mut request: Request) {
        if request.work == Work::Command {
            if request.trace.is_some() {
                self.trace(&mut request);
            }
            let spec = self.spec_of(&request);
            let looks = spec.is_some_and(CommandSpec::looks) && request.consistency.looks();
            match spec.map(|spec| spec.kind) {
                Some(CommandKind::Each) if request.consistency.n > 1 => {
                    return self.run_on_each(request);
                }
                Some(CommandKind::Read | CommandKind::Write) if looks => request.work = Work::Look,
                _ => {}
            }
        }
        self.stage(request);
    }

    /// Sends what was written here to the other replicas. Its replies wait for enough of them.
    pub(super) fn replicate(&mut self, mut written: Written) {
        let rows = Bytes::from(std::mem::take(&mut written.rows));
        let request = Request {
            service: written.service,
            work: Work::Merge,
            command: 0,
            partition: written.partition,
            range: written.range,
            hash: 0,
            words: Words::one(rows),
            now_ms: 0,
            id: 0,
            alone: false,
            role: Role::Primary,
            consistency: written.consistency,
            trace: None,
            tries: 0,
            arrived: written.arrived,
            reply_to: ReplyTo::Nobody,
        };
        if !self.is_numbered(&request) && self.heirs_of(&request).is_empty() {
            // It is here, and nobody can be told any more where else it should be.
            let node = self.view.me().to_string();
            let failure = Failure::PeerGone { node };
            let replies = &mut self.replies;
            return written.replies.each(|to, _| replies.fail(to, &failure));
        }
        let (commit, on_disk) = (written.commit, written.consistency.dw > 0);
        let version = written
            .trace
            .as_ref()
            .and_then(|trace| trace.version.clone());
        let (me, flight) = self.fly(&request, Purpose::Write(written));
        if let Some(to) = me {
            let done = done(version.as_deref());
            match self.acknowledge.verdict_for(commit, on_disk) {
                Verdict::Now => self.deliver(to, &done),
                Verdict::Wait | Verdict::Failed => self.parked.push_back(Parked {
                    after: commit,
                    on_disk,
                    to,
                    reply: done.into_owned(),
                }),
            }
        }
        self.decide(flight);
    }

    /// Has the reply of a traced command come here first.
    fn trace(&mut self, request: &mut Request) {
        // Those that run alone are told apart.
        request.alone = true;
        let own = Step {
            node: self.view.me().clone(),
            partition: request.partition.number(),
            role: request.role,
            outcome: String::new(),
            took: Duration::ZERO,
            version: None,
            part: None,
        };
        let to = std::mem::replace(&mut request.reply_to, ReplyTo::Nobody);
        let deadline = request.arrived + 2 * request.consistency.within();
        let purpose = Purpose::Trace(Traced { to, own });
        request.reply_to = self.wait_for_one(deadline, purpose);
    }

    /// Waits for one answer of a vnode here.
    pub(super) fn wait_for_one(&mut self, deadline: Instant, purpose: Purpose) -> ReplyTo {
        let flight = self.begin_alone(deadline, purpose);
        self.place_in(flight, 0)
    }

    /// Begins to wait for answers that no quorum counts.
    pub(super) fn begin_alone(&mut self, deadline: Instant, purpose: Purpose) -> u64 {
        let quorum = Quorum {
            n: 1,
            need: 1,
            primaries: 0,
            durable: 0,
            nodes: 0,
            spread: false,
        };
        self.flights
            .begin(&self.view, &[], quorum, deadline, purpose)
    }

    fn hear(&mut self, name: u64, answer: &[u8], version: Option<Arc<str>>) {
        let Some(flight) = self.flights.end(name) else {
            return;
        };
        let took = flight.took();
        if let Purpose::Trace(Traced { to, mut own }) = flight.purpose {
            if let Some(reply) = steps_of(answer) {
                return self.deliver(to, reply);
            }
            own.outcome = match answer.starts_with(b"-") {
                true => first_word(answer),
                false => "ok".into(),
            };
            own.took = took;
            own.version = version;
            self.deliver(to, &traced(answer, &[own]));
        }
    }

    /// Has every replica run the command.
    fn run_on_each(&mut self, mut request: Request) {
        request.work = Work::Each;
        let traced = request.trace.is_some();
        let to = std::mem::replace(&mut request.reply_to, ReplyTo::Nobody);
        let replies = vec![Vec::new(); request.consistency.n.into()];
        let (me, flight) = self.fly(
            &request,
            Purpose::Each {
                to,
                replies,
                traced,
            },
        );
        if let Some(to) = me {
            request.reply_to = to;
            self.stage(request);
        }
        self.decide(flight);
    }

    /// Sends a copy of the request to every other replica of its range, and begins to wait for them. Returns where the vnode here
    /// that the request is from has to answer, and the name of the flight.
    pub(super) fn fly(&mut self, request: &Request, purpose: Purpose) -> (Option<ReplyTo>, u64) {
        let numbered = self.is_numbered(request);
        let view = Arc::clone(&self.view);
        // By the partition that each is asked as, which is that of another ring if the request is.
        let asked: SmallVec<[(Holder, PartitionId); REPLICAS]> = match numbered {
            true => {
                let holders = view.holders(request.range, request.consistency.n.into());
                let own = holders.iter().map(|holder| (*holder, holder.partition));
                own.collect()
            }
            false => self.heirs_of(request).into(),
        };
        let holders: SmallVec<[Holder; REPLICAS]> =
            asked.iter().map(|(holder, _)| *holder).collect();
        let quorum = match &purpose {
            Purpose::Read(_) => request.consistency.of_read(),
            _ => request.consistency.of_write(),
        };
        let deadline = request.arrived + request.consistency.within();
        let traced = purpose.is_traced();
        let flight = self
            .flights
            .begin(&view, &holders, quorum, deadline, purpose);
        let mut me = None;
        for (nth, (holder, partition)) in asked.iter().enumerate() {
            let reply_to = self.place_in(flight, nth);
            if view.is_here(holder) && *partition == request.partition {
                me = Some(reply_to);
                continue;
            }
            let copy = Request {
                partition: *partition,
                role: holder.role,
                reply_to,
                trace: traced.then(Box::default),
                ..request.copy()
            };
            match numbered {
                true => self.send_to(holder, copy),
                false => self.renumber(copy),
            }
        }
        (me, flight)
    }

    /// Where the answer of a replica goes.
    pub(super) fn place_in(&self, flight: u64, holder: usize) -> ReplyTo {
        ReplyTo::Flight {
            executor: u16::try_from(self.index).unwrap_or(u16::MAX),
            flight,
            holder: u8::try_from(holder).unwrap_or(u8::MAX),
        }
    }

    /// Looks at what replicas have answered.
    pub(super) fn land(&mut self) {
        while !self.flights.answers.is_empty() {
            let mut answers = std::mem::take(&mut self.flights.answers);
            for answered in answers.drain(..) {
                self.take_answer(answered);
            }
            if self.flights.answers.is_empty() {
                // Its memory is used again.
                self.flights.answers = answers;
            }
        }
    }

    fn take_answer(&mut self, answered: Answered) {
        let name = answered.flight;
        let place = usize::from(answered.holder);
        let Some(flight) = self.flights.get(name) else {
            return;
        };
        let (mut answer, mut word) = answered.verdict();
        if answer == Answer::Failed && answered.answer.starts_with(b"-") {
            flight
                .refusal
                .get_or_insert_with(|| answered.answer.clone());
        }
        let stands_in = flight.is_fallback(place);
        match &mut flight.purpose {
            Purpose::Write(_) => {}
            Purpose::Read(read) => {
                if let Some(said) = read.answers.get_mut(place) {
                    *said = answered.answer;
                }
                if stands_in && answer != Answer::Failed && read.lacks_some(place) {
                    answer = Answer::Absent;
                }
            }
            Purpose::Each { replies, .. } => {
                // What it answers is the guest's reply.
                if !answered.answer.starts_with(b"-") {
                    (answer, word) = (Answer::Durable, "ok".into());
                }
                if let Some(said) = replies.get_mut(place) {
                    *said = answered.answer;
                }
            }
            Purpose::Trace(_) => return self.hear(name, &answered.answer, answered.version),
            Purpose::Repair(_) => return self.repair(name, &answered.answer),
            Purpose::Parts { .. } => return self.hear_part(name, &answered.answer),
        }
        flight.answer(place, answer, word, answered.version);
        self.decide(name);
    }

    /// Ends the flights for which the time is over.
    pub(super) fn end_late_flights(&mut self, now: Instant) {
        for name in self.flights.late(now) {
            if let Some(flight) = self.flights.get(name) {
                match flight.give_up() {
                    _ if flight.decided => {}
                    Outcome::Enough => self.succeed(name),
                    _ => self.fail(name),
                }
            }
            self.finish(name);
        }
    }

    /// Lets the client hear when it is certain what to say, and ends the flight when all have answered.
    pub(super) fn decide(&mut self, name: u64) {
        let Some(flight) = self.flights.get(name) else {
            return;
        };
        let (outcome, complete) = (flight.outcome(), flight.is_complete());
        if !flight.decided {
            match outcome {
                Outcome::Waiting => {}
                // Who wants to hear what each did waits for each.
                Outcome::Enough if flight.purpose.is_traced() && !complete => {}
                Outcome::Enough => self.succeed(name),
                Outcome::Impossible => self.fail(name),
            }
        }
        if complete {
            self.finish(name);
        }
    }

    /// Enough replicas have answered.
    fn succeed(&mut self, name: u64) {
        let Some(flight) = self.flights.get(name) else {
            return;
        };
        flight.decided = true;
        match &mut flight.purpose {
            Purpose::Write(written) => {
                let replies = std::mem::take(&mut written.replies);
                let steps = written.trace.take().map(|trace| {
                    let mut steps = trace.steps;
                    steps.extend(flight.steps());
                    steps
                });
                replies.each(|to, reply| match &steps {
                    Some(steps) => self.deliver(to, &with_steps(reply, steps)),
                    None => self.deliver(to, reply),
                });
            }
            Purpose::Read(_) => self.run_commands(name),
            Purpose::Each {
                to,
                replies,
                traced,
            } => {
                let to = std::mem::replace(to, ReplyTo::Nobody);
                let good = |reply: &&mut Vec<u8>| reply.first().is_some_and(|sign| *sign != b'-');
                let reply = replies.iter_mut().find(good).map(std::mem::take);
                let reply = reply.unwrap_or_default();
                let reply = match traced {
                    true => with_steps(&reply, &flight.steps()),
                    false => reply,
                };
                self.deliver(to, &reply);
            }
            Purpose::Trace(_) | Purpose::Repair(_) | Purpose::Parts { .. } => {}
        }
    }

    /// Too few replicas have answered, and no more can or are waited for.
    fn fail(&mut self, name: u64) {
        let Some(flight) = self.flights.get(name) else {
            return;
        };
        flight.decided = true;
        if let Purpose::Read(read) = &mut flight.purpose
            && !self.view.ring().size().contains(read.asked.range)
        {
            // It was the resize that kept them apart: they begin anew by the new numbers.
            for Looked { request, .. } in std::mem::take(&mut read.commands) {
                self.reroute(request);
            }
            return;
        }
        let (waiting, why) = match &mut flight.purpose {
            Purpose::Write(written) => {
                let wanted = written.consistency.write_words();
                let mut waiting = Vec::new();
                let traced = written.trace.is_some();
                std::mem::take(&mut written.replies).each(|to, _| waiting.push((to, traced)));
                // It is here at least, whatever the others say.
                flight.refusal = None;
                let why = format!("{}; {}", flight.shortfall(&wanted), flight.keepers());
                (waiting, why)
            }
            Purpose::Read(read) => {
                let wanted = read.asked.consistency.read_words();
                let commands = std::mem::take(&mut read.commands).into_iter();
                let waiting = commands.map(|looked| {
                    let Request {
                        reply_to, trace, ..
                    } = looked.request;
                    (reply_to, trace.is_some())
                });
                let waiting = waiting.collect();
                (waiting, flight.shortfall(&wanted))
            }
            Purpose::Each { to, traced, .. } => {
                let to = std::mem::replace(to, ReplyTo::Nobody);
                let traced = *traced;
                (vec![(to, traced)], flight.shortfall("w"))
            }
            Purpose::Trace(Traced { to, .. }) | Purpose::Parts { to, .. } => {
                let to = std::mem::replace(to, ReplyTo::Nobody);
                let why = format!("no answer in {}ms", flight.took().as_millis());
                (vec![(to, false)], why)
            }
            Purpose::Repair(_) => return,
        };
        let steps = flight.steps();
        // If nobody did anything, the reason itself says more than how many did not.
        let refusal = flight.refusal.take().filter(|_| flight.done() == 0);
        let error = refusal.unwrap_or_else(|| {
            let mut error = Vec::new();
            Failure::NoReplicas(why).write(&mut error);
            error
        });
        for (to, traced) in waiting {
            match traced {
                true => self.deliver(to, &with_steps(&error, &steps)),
                false => self.deliver(to, &error),
            }
        }
    }

    /// Ends a flight; a read that found a difference goes on to mend it.
    fn finish(&mut self, name: u64) {
        if let Some(flight) = self.flights.end(name) {
            let holders: Vec<Holder> = flight.holders().collect();
            if let Purpose::Read(read) = flight.purpose {
                self.mend(read, &holders);
            }
        }
    }
}
