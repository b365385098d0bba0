//! Reads that hear other replicas first, and repair what they find.
//!
//! A command that reads looks at what is held here under its keys and shows the others the digests (`Fetch`); whatever they
//! hold that is not here is merged here, and then the guest runs on its own vnode as if it were alone. So there is one way to
//! run a command, and one way to bring two replicas together. When all have answered, or the time is over, replicas that
//! lack something are sent what is held here by then; the client has long been answered.

use smallvec::SmallVec;
use tokio::time::Instant;
use vnode_ring::{Holder, ObjectRef};

use super::Executor;
use super::flights::{Purpose, Read, Repair, Repairing};
use crate::store::{Batch, RowKey};
use crate::vnode::replica::{Fetched, done, fetched};
use crate::vnode::request::{Held, Looked, Request, Work};
use crate::vnode::words::Words;

impl Executor {
    /// Asks the other replicas what they hold under the keys of these commands, all that go to the same ones at once.
    pub(super) fn look_around(&mut self, looked: Vec<Looked>) {
        let place = |looked: &Looked| {
            let request = &looked.request;
            let place = (request.service, request.partition, request.range);
            (place, request.consistency, request.trace.is_some())
        };
        let mut group: Vec<Looked> = Vec::new();
        for one in looked {
            if group
                .first()
                .is_some_and(|first| place(first) != place(&one))
            {
                self.ask_others(std::mem::take(&mut group));
            }
            group.push(one);
        }
        self.ask_others(group);
    }

    fn ask_others(&mut self, commands: Vec<Looked>) {
        let Some(first) = commands.first().map(|looked| &looked.request) else {
            return;
        };
        if !self.is_numbered(first) {
            // The others' numbers are different by now, and so may be the others.
            for Looked { request, .. } in commands {
                self.reroute(request);
            }
            return;
        }
        let held: Vec<Held> = commands
            .iter()
            .flat_map(|looked| looked.held.iter().copied())
            .collect();
        let asked = Request {
            work: Work::Fetch,
            words: self.words_of(&commands),
            ..first.copy()
        };
        let version = first.trace.as_ref().and_then(|trace| trace.version.clone());
        let read = Purpose::Read(Read {
            held,
            answers: vec![Vec::new(); asked.consistency.n.into()],
            asked: asked.copy(),
            commands,
        });
        let (me, flight) = self.fly(&asked, read);
        if let Some(to) = me {
            // It holds what it holds.
            self.deliver(to, &done(version.as_deref()));
        }
        self.decide(flight);
    }

    /// Each key of the commands, followed by what is held under it.
    fn words_of(&self, commands: &[Looked]) -> Words {
        let mut pairs: SmallVec<[_; 16]> = SmallVec::with_capacity(commands.len());
        for Looked { request, held } in commands {
            let spec = self.spec_of(request);
            let positions = spec.map(|spec| spec.key_positions(request.words.len()));
            for (position, held) in positions.into_iter().flatten().zip(held) {
                pairs.push((request.words.get(position), held.to_bytes()));
            }
        }
        Words::copy(pairs.iter().flat_map(|(key, held)| [*key, held.as_slice()]))
    }

    /// Runs the commands of a read on what is held here and what enough others have said.
    pub(super) fn run_commands(&mut self, name: u64) {
        let Some(Purpose::Read(read)) = self.flights.get(name).map(|flight| &mut flight.purpose)
        else {
            return;
        };
        let commands = std::mem::take(&mut read.commands);
        let merges = merges(read);
        let traced = commands.iter().any(|looked| looked.request.trace.is_some());
        let steps = traced.then(|| self.flights.get(name).map(|flight| flight.steps()));
        for merge in merges {
            self.stage(merge);
        }
        for Looked { mut request, .. } in commands {
            request.work = Work::Command;
            if let (Some(trace), Some(Some(steps))) = (&mut request.trace, &steps) {
                trace.steps.extend(steps.iter().cloned());
            }
            self.stage(request);
        }
    }

    /// After a read: takes in what came late, and begins to repair the replicas if any two differ.
    pub(super) fn mend(&mut self, read: Read, holders: &[Holder]) {
        let mut differs = false;
        let mut replicas = Vec::new();
        for (nth, holder) in holders.iter().enumerate() {
            let Some((digests, other)) = read.digests(nth) else {
                continue;
            };
            differs |= other;
            // What a fallback lacks goes to the primary that it stands for.
            if holder.is_primary() {
                let holder = *holder;
                replicas.push(Repair { holder, digests });
            }
        }
        if !differs {
            return;
        }
        for merge in merges(&read) {
            self.stage(merge);
        }
        let nothing = |hash| Held { hash, digest: 0 };
        let held = read.held.iter().map(|held| nothing(held.hash).to_bytes());
        let words: Vec<Vec<u8>> = held
            .enumerate()
            .flat_map(|(nth, held)| [read.asked.words.get(2 * nth).to_vec(), held.to_vec()])
            .collect();
        let mut asked = Request {
            words: Words::copy(words.iter().map(Vec::as_slice)),
            ..read.asked.copy()
        };
        let copy = Request {
            words: asked.words.clone(),
            ..asked.copy()
        };
        let repairing = Repairing {
            asked: copy,
            held: read.held,
            replicas,
        };
        if !self.is_numbered(&asked) {
            return;
        }
        let deadline = Instant::now() + repairing.asked.consistency.within();
        asked.reply_to = self.wait_for_one(deadline, Purpose::Repair(repairing));
        self.stage(asked);
    }

    /// Sends what is held here to the replicas that hold something else.
    pub(super) fn repair(&mut self, name: u64, answer: &[u8]) {
        let Some(Purpose::Repair(repairing)) = self.flights.end(name).map(|ended| ended.purpose)
        else {
            return;
        };
        let Some(all) = fetched(answer, repairing.held.len()) else {
            return;
        };
        for Repair { holder, digests } in &repairing.replicas {
            let rows = lacking(&repairing, &all, digests);
            if rows.is_empty() {
                continue;
            }
            if !self.is_numbered(&repairing.asked) {
                return;
            }
            self.coordinator.healing().read_repaired(rows.len());
            let merge = Request {
                work: Work::Merge,
                partition: holder.partition,
                role: holder.role,
                words: Words::copy([rows.as_bytes()]),
                ..repairing.asked.copy()
            };
            self.send_to(holder, merge);
        }
    }
}

/// What each replica holds that is not here, to be merged here.
fn merges(read: &Read) -> Vec<Request> {
    let news = (0..read.answers.len()).map(|holder| read.news(holder));
    news.filter(|rows| !rows.is_empty())
        .map(|rows| Request {
            work: Work::Merge,
            words: Words::copy([rows.as_bytes()]),
            ..read.asked.copy()
        })
        .collect()
}

/// The objects held here of which a replica with these digests holds something else.
fn lacking(repairing: &Repairing, all: &[Fetched<'_>], digests: &[u64]) -> Batch {
    let mut rows = Batch::new();
    let known = repairing.held.iter().zip(digests);
    for (nth, (said, (held, theirs))) in all.iter().zip(known).enumerate() {
        let Fetched::Object(object) = said else {
            continue;
        };
        let row = RowKey {
            hash: held.hash,
            key: repairing.asked.words.get(2 * nth),
        };
        if ObjectRef::parse(object).is_ok_and(|object| object.digest() != *theirs) {
            rows.pass_on(row, object);
        }
    }
    rows
}
