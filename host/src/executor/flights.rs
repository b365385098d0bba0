//! Requests that wait for several replicas, and what each of those has answered so far.
//!
//! A *flight* begins when a vnode here has run a write, or has looked at what a read will need, and ends when every replica
//! has answered or its time is over; its client hears as soon as the quorum is certain. Which answers are enough is decided
//! in the pure core ([`Collector`]). What is done with them stands in `replication`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant;
use vnode_ring::quorum::{Answer, Collector, Outcome, Quorum};
use vnode_ring::{Holder, NodeName, ObjectRef, Role, View};

use crate::coordinator::trace::{Step, first_word, signed};
use crate::store::{Batch, RowKey};
use crate::vnode::replica::{DONE, Fetched, fetched, is_done};
use crate::vnode::request::{Held, Looked, ReplyTo, Request, Written};

/// What a flight is for.
pub(super) enum Purpose {
    /// What was written here goes to the others.
    Write(Written),
    /// What the others hold is merged here before commands run.
    Read(Read),
    /// Every replica runs the command.
    Each {
        to: ReplyTo,
        /// By holder.
        replies: Vec<Vec<u8>>,
        traced: bool,
    },
    /// Somebody wants to hear what each vnode did, besides the reply.
    Trace(Traced),
    /// What replicas lack that have answered a read is sent to them.
    Repair(Repairing),
    /// The rows of one request go to several vnodes, because the ring has been resized.
    Parts {
        to: ReplyTo,
        /// Those that have not answered.
        left: usize,
    },
}

impl Purpose {
    /// Whether somebody wants to hear what each replica did.
    pub(super) fn is_traced(&self) -> bool {
        match self {
            Purpose::Write(written) => written.trace.is_some(),
            Purpose::Read(read) => read.commands.iter().any(|one| one.request.trace.is_some()),
            Purpose::Each { traced, .. } => *traced,
            Purpose::Trace(_) | Purpose::Repair(_) | Purpose::Parts { .. } => false,
        }
    }
}

/// Commands of one vnode that wait for what others hold under their keys.
pub(super) struct Read {
    /// Until they run.
    pub(super) commands: Vec<Looked>,
    /// What the others were asked: a [`Fetch`](crate::vnode::request::Work::Fetch).
    pub(super) asked: Request,
    /// What is held here under each of the keys.
    pub(super) held: Vec<Held>,
    /// What each replica said; empty without an answer.
    pub(super) answers: Vec<Vec<u8>>,
}

impl Read {
    /// What a replica said about each key.
    pub(super) fn said(&self, holder: usize) -> Option<SmallVec<[Fetched<'_>; 8]>> {
        fetched(self.answers.get(holder)?, self.held.len())
    }

    /// What a replica holds that is not here, as the rows of a batch. Empty when there is none.
    pub(super) fn news(&self, holder: usize) -> Batch {
        let mut rows = Batch::new();
        for (nth, said) in self.said(holder).into_iter().flatten().enumerate() {
            if let (Fetched::Object(object), Some(held)) = (said, self.held.get(nth)) {
                let row = RowKey {
                    hash: held.hash,
                    key: self.asked.words.get(2 * nth),
                };
                rows.pass_on(row, object);
            }
        }
        rows
    }

    /// Whether a replica that has answered holds nothing under at least one of the keys.
    pub(super) fn lacks_some(&self, holder: usize) -> bool {
        let nothing = |(said, held): (&Fetched<'_>, &Held)| match said {
            Fetched::Same => held.digest == 0,
            Fetched::Nothing => true,
            Fetched::Object(_) => false,
        };
        match self.said(holder) {
            Some(said) => said.iter().zip(&self.held).any(nothing),
            None if self
                .answers
                .get(holder)
                .is_some_and(|answer| answer == DONE) =>
            {
                // It is the one here.
                self.held.iter().any(|held| held.digest == 0)
            }
            None => true,
        }
    }

    /// The digests of what a replica holds under each key, and whether any differs from what is held here.
    pub(super) fn digests(&self, holder: usize) -> Option<(Vec<u64>, bool)> {
        let said = self.said(holder)?;
        let differs = said.iter().any(|said| *said != Fetched::Same);
        let digests = said.iter().zip(&self.held).map(|(said, held)| match said {
            Fetched::Same => Some(held.digest),
            Fetched::Nothing => Some(0),
            Fetched::Object(object) => Some(ObjectRef::parse(object).ok()?.digest()),
        });
        Some((digests.collect::<Option<_>>()?, differs))
    }
}

/// A traced command.
pub(super) struct Traced {
    pub(super) to: ReplyTo,
    /// Its vnode, unless it says itself who had a part.
    pub(super) own: Step,
}

/// What is held here after a read, on its way to replicas that lack some of it.
pub(super) struct Repairing {
    /// Asked of the vnode here, with no digests.
    pub(super) asked: Request,
    pub(super) held: Vec<Held>,
    pub(super) replicas: Vec<Repair>,
}

/// A replica that may lack something, and the digest of what it holds under each key of a read.
pub(super) struct Repair {
    pub(super) holder: Holder,
    pub(super) digests: Vec<u64>,
}

/// One replica's part in a flight.
struct Part {
    holder: Holder,
    /// When it answered, and what in one word.
    answered: Option<(Duration, Cow<'static, str>)>,
    /// Which version of the guest its vnode has, if it has said so.
    version: Option<Arc<str>>,
}

/// A request that waits for several replicas.
pub(super) struct Flight {
    /// Tells the users of one place apart.
    nth: u32,
    /// The cluster when it began.
    view: Arc<View>,
    parts: SmallVec<[Part; 3]>,
    collector: Collector,
    begun: Instant,
    deadline: Instant,
    /// The client has heard.
    pub(super) decided: bool,
    /// What the first replica said that failed.
    pub(super) refusal: Option<Vec<u8>>,
    pub(super) purpose: Purpose,
}

impl Flight {
    /// Takes an answer down.
    pub(super) fn answer(
        &mut self,
        holder: usize,
        answer: Answer,
        word: Cow<'static, str>,
        version: Option<Arc<str>>,
    ) {
        let took = self.begun.elapsed();
        if let Some(part) = self.parts.get_mut(holder) {
            part.answered.get_or_insert((took, word));
            part.version = part.version.take().or(version);
            self.collector.answer(holder, answer);
        }
    }

    /// What is certain.
    pub(super) fn outcome(&self) -> Outcome {
        self.collector.outcome()
    }

    /// Waits for nobody any longer, and says what is certain now. Who has not answered keeps the time for it in what is told.
    pub(super) fn give_up(&mut self) -> Outcome {
        let silent = (0..self.parts.len()).filter(|part| self.collector.answer_of(*part).is_none());
        for holder in silent.collect::<SmallVec<[usize; 3]>>() {
            self.collector.answer(holder, Answer::Failed);
        }
        self.collector.outcome()
    }

    /// Whether no answer is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.parts.iter().all(|part| part.answered.is_some())
    }

    /// How long it has been.
    pub(super) fn took(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether a replica stands in for a primary.
    pub(super) fn is_fallback(&self, holder: usize) -> bool {
        let part = self.parts.get(holder);
        part.is_some_and(|part| !part.holder.is_primary())
    }

    /// The replicas.
    pub(super) fn holders(&self) -> impl Iterator<Item = Holder> {
        self.parts.iter().map(|part| part.holder)
    }

    fn node(&self, part: &Part) -> &NodeName {
        let node = self.view.nodes().get(usize::from(part.holder.node));
        node.unwrap_or(self.view.me())
    }

    /// What each replica did.
    pub(super) fn steps(&self) -> Vec<Step> {
        let step = |part: &Part| {
            let (took, outcome) = match &part.answered {
                Some((took, word)) => (*took, word.to_string()),
                None => (self.begun.elapsed(), "waiting".into()),
            };
            Step {
                node: self.node(part).clone(),
                partition: part.holder.partition.number(),
                role: part.holder.role,
                outcome,
                took,
                version: part.version.clone(),
                part: None,
            }
        };
        self.parts.iter().map(step).collect()
    }

    /// How many replicas have done what they were asked.
    pub(super) fn done(&self) -> usize {
        let ok = |part: &&Part| matches!(&part.answered, Some((_, word)) if word == "ok");
        self.parts.iter().filter(ok).count()
    }

    /// How many replicas keep a write that did not meet its quorum, and how many may, which were not waited for.
    pub(super) fn keepers(&self) -> String {
        let open = self.parts.iter().filter(|part| part.answered.is_none());
        let keep = match self.done() {
            1 => "1 replica keeps the write".to_owned(),
            count => format!("{count} replicas keep the write"),
        };
        match open.count() {
            0 => keep,
            open => format!("{keep}, {open} more may"),
        }
    }

    /// Why the quorum was not met: `wanted w=2, got 1 in 1000ms: p14 node1 ok, p15 node3 timeout`.
    pub(super) fn shortfall(&self, quorum: &str) -> String {
        let got = self.done();
        let silent = match self.deadline <= Instant::now() {
            true => "timeout",
            false => "waiting",
        };
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|part| {
                let word = part.answered.as_ref().map_or(silent, |(_, word)| word);
                let partition = part.holder.partition;
                let fallback = match part.holder.role {
                    Role::Primary => String::new(),
                    Role::Fallback => {
                        let owner = self.view.ring().owner(partition);
                        format!(" (fallback, {owner} is down)")
                    }
                };
                let node = self.node(part);
                format!("p{partition} {node}{fallback} {word}")
            })
            .collect();
        let ms = self.begun.elapsed().as_millis();
        format!("wanted {quorum}, got {got} in {ms}ms: {}", parts.join(", "))
    }
}

/// An answer of a replica that has not been looked at.
pub(super) struct Answered {
    pub(super) flight: u64,
    pub(super) holder: u8,
    pub(super) answer: Vec<u8>,
    /// Which version of the guest it is from, if the replica was to say so.
    pub(super) version: Option<Arc<str>>,
}

impl Answered {
    /// The answer as a quorum counts it, and in one word.
    pub(super) fn verdict(&self) -> (Answer, Cow<'static, str>) {
        match is_done(&self.answer) {
            Some(_) => (Answer::Durable, "ok".into()),
            None => (Answer::Failed, first_word(&self.answer).into()),
        }
    }
}

/// The flights of one executor.
#[derive(Default)]
pub(super) struct Flights {
    live: Slab<Flight>,
    begun: u32,
    /// In the order in which they came.
    pub(super) answers: Vec<Answered>,
}

impl Flights {
    /// Begins to wait for these replicas. Returns the name of the flight.
    pub(super) fn begin(
        &mut self,
        view: &Arc<View>,
        holders: &[Holder],
        quorum: Quorum,
        deadline: Instant,
        purpose: Purpose,
    ) -> u64 {
        self.begun = self.begun.wrapping_add(1);
        let entry = self.live.vacant_entry();
        let name = (u64::from(self.begun) << 32) | entry.key() as u64;
        let part = |holder: &Holder| Part {
            holder: *holder,
            answered: None,
            version: None,
        };
        entry.insert(Flight {
            nth: self.begun,
            view: Arc::clone(view),
            parts: holders.iter().map(part).collect(),
            collector: Collector::new(quorum, holders),
            begun: Instant::now(),
            deadline,
            decided: false,
            refusal: None,
            purpose,
        });
        name
    }

    /// The flight of that name, if it has not ended.
    pub(super) fn get(&mut self, name: u64) -> Option<&mut Flight> {
        let place = usize::try_from(name & 0xffff_ffff).ok()?;
        let flight = self.live.get_mut(place)?;
        (u64::from(flight.nth) == name >> 32).then_some(flight)
    }

    /// Takes an answer in.
    pub(super) fn take(&mut self, flight: u64, holder: u8, answer: &[u8]) {
        let (version, answer) = signed(answer);
        self.answers.push(Answered {
            flight,
            holder,
            answer: answer.to_vec(),
            version: version.map(Arc::from),
        });
    }

    /// Ends a flight.
    pub(super) fn end(&mut self, name: u64) -> Option<Flight> {
        self.get(name)?;
        let place = usize::try_from(name & 0xffff_ffff).ok()?;
        self.live.try_remove(place)
    }

    /// The flights for which the time is over.
    pub(super) fn late(&self, now: Instant) -> Vec<u64> {
        let late = self
            .live
            .iter()
            .filter(|(_, flight)| flight.deadline <= now);
        late.map(|(place, flight)| (u64::from(flight.nth) << 32) | place as u64)
            .collect()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.answers.is_empty()
    }
}
