//! Clients that go on while nodes die: each asks a random node what a workload says, and takes down what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tests::checkers::{Action, Answer, History, Outcome, Recorder};
use tests::dice::Dice;
use tests::eventually;
use tests::resp::{Client, Reply};
use tests::workload::{Kind, Plan, Request, Workload};

/// Longer than a node lets a client wait: whoever is not answered by then asks a node that is stopped or cut off.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// Between two turns of a client, so that the clients do not keep the nodes from all else on a machine with few processors.
const PACE: Duration = Duration::from_millis(3);

/// The sets each element of which is a key of its own.
pub(super) const BAG: &str = "bag-";
/// The sets each of which is one key.
pub(super) const SET: &str = "set-";
/// The registers with siblings.
pub(super) const CAUSAL: &str = "causal-";
/// The registers that have one value.
pub(super) const REGISTER: &str = "register-";
/// The counters.
pub(super) const COUNTER: &str = "counter-";

/// What all clients of a run share.
pub(super) struct Run {
    recorder: Recorder,
    addresses: Vec<SocketAddr>,
    plans: Vec<Plan>,
    seed: u64,
    begun: Instant,
    stop: AtomicBool,
    /// Acknowledged operations.
    served: AtomicUsize,
}

impl Run {
    /// A run of these workloads.
    pub(super) fn new(addresses: Vec<SocketAddr>, plans: Vec<Plan>, seed: u64) -> Run {
        Run {
            recorder: Recorder::new(),
            addresses,
            plans,
            seed,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            served: AtomicUsize::new(0),
        }
    }

    /// Has so many clients of each workload write while something happens to the cluster. Returns what they saw.
    pub(super) fn meanwhile(&self, clients: u32, note: String, happens: impl FnOnce()) -> History {
        std::thread::scope(|scope| {
            for client in 0..clients {
                for (nth, plan) in (0..).zip(&self.plans) {
                    scope.spawn(move || self.client(plan, nth * clients + client));
                }
            }
            // Clients would write for ever if what happens panicked.
            let _stop = StopAtEnd(self);
            happens();
        });
        self.recorder.history(note)
    }

    /// Waits until so many more operations have been acknowledged.
    pub(super) fn go_on(&self, operations: usize) {
        let served = || self.served.load(Ordering::SeqCst);
        let wanted = served() + operations;
        eventually("clients to be served", || {
            (served() >= wanted).then_some(())
        });
    }

    /// Ends all clients after their turns.
    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.now().as_nanos()).expect("runs are shorter than centuries")
    }

    /// One client of one workload, until the run is stopped.
    fn client(&self, plan: &Plan, number: u32) {
        let mut session = Session {
            run: self,
            dice: Dice::of(self.seed, u64::from(number) + 1_000),
            contexts: BTreeMap::new(),
            connection: None,
        };
        let mut workload = Workload::new(plan, self.seed, number);
        while !self.stop.load(Ordering::SeqCst) {
            // Nobody is asked before somebody listens, so what is unknown was at least sent.
            if session.connect().is_some() {
                let clock = || self.nanos();
                workload.turn(&self.recorder, clock, |request| {
                    let outcome = session.ask(request);
                    let served = usize::from(matches!(outcome, Outcome::Ok(_)));
                    self.served.fetch_add(served, Ordering::SeqCst);
                    outcome
                });
            }
            std::thread::sleep(PACE);
        }
    }
}

/// The workloads of which nothing may be lost, whatever happens.
pub(super) fn kept() -> Vec<Plan> {
    let plan = |kind, prefix: &str, reads_percent| Plan {
        prefix: prefix.into(),
        reads_percent,
        // Deletions have no context in the store's commands, so what they supersede cannot be judged.
        deletes_percent: 0,
        turns_per_round: Some(150),
        ..Plan::new(kind)
    };
    vec![
        plan(Kind::Set, BAG, 0),
        plan(Kind::Set, SET, 10),
        plan(Kind::Causal, CAUSAL, 10),
        plan(Kind::Counter, COUNTER, 10),
    ]
}

struct StopAtEnd<'a>(&'a Run);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Session<'a> {
    run: &'a Run,
    dice: Dice,
    /// What the client read last of each register.
    contexts: BTreeMap<String, String>,
    connection: Option<Client>,
}

impl Session<'_> {
    /// A connection to a random node, if that takes clients: now and then another one.
    fn connect(&mut self) -> Option<()> {
        if self.connection.is_none() || self.dice.percent(2) {
            self.connection = None;
            let addresses = &self.run.addresses;
            let address = addresses[self.dice.index(addresses.len())];
            let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
            stream.set_nodelay(true).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            self.connection = Some(Client::new(stream));
        }
        Some(())
    }

    fn ask(&mut self, request: &Request) -> Outcome {
        let key = request.key.as_str();
        let asked = match &request.action {
            Action::Add { element } if key.starts_with(BAG) => self
                .write(&["SET", &format!("{key}:{element}"), &element.to_string()])
                .map(|_| Answer::Done),
            Action::Add { element } => self.add(key, *element),
            Action::Put { id, read } => {
                let context = self.contexts.get(key).filter(|_| !read.is_empty());
                let context = context.cloned().unwrap_or_default();
                self.write(&["VPUT", key, &id.to_string(), &context])
                    .map(|_| Answer::Done)
            }
            Action::Write { value } => self
                .write(&["SET", key, &value.to_string()])
                .map(|_| Answer::Done),
            Action::Increment { .. } => self.write(&["INCR", key]).map(|reply| count(&reply)),
            Action::Read if key.starts_with(COUNTER) => {
                self.read(&["COUNT", key]).map(|reply| count(&reply))
            }
            Action::Read if key.starts_with(REGISTER) => self.read(&["GET", key]).map(|reply| {
                let value = match reply {
                    Reply::Nil => None,
                    value => Some(value.text().parse().expect("a number")),
                };
                Answer::Values(value.into_iter().collect())
            }),
            Action::Read => self.read(&["VGET", key]).map(|reply| {
                let (context, values) = versions(reply);
                self.contexts.insert(key.to_owned(), context);
                Answer::Values(values.into_iter().flatten().collect())
            }),
            other => panic!("no workload has {other}"),
        };
        match asked {
            Ok(answer) => Outcome::Ok(answer),
            Err(outcome) => outcome,
        }
    }

    /// Adds to a set that is one key: all that is there and the element take the place of what is there.
    fn add(&mut self, key: &str, element: u64) -> Result<Answer, Outcome> {
        let (context, mut values) = versions(self.read(&["VGET", key])?);
        values.push(BTreeSet::from([element]));
        let all: BTreeSet<u64> = values.into_iter().flatten().collect();
        let all: Vec<String> = all.iter().map(u64::to_string).collect();
        self.write(&["VPUT", key, &all.join(" "), &context])?;
        Ok(Answer::Done)
    }

    /// Something that changes nothing, so whatever goes wrong it failed.
    fn read(&mut self, words: &[&str]) -> Result<Reply, Outcome> {
        self.call(words).map_err(|outcome| match outcome {
            Outcome::Unknown(why) => Outcome::Fail(why),
            other => other,
        })
    }

    fn write(&mut self, words: &[&str]) -> Result<Reply, Outcome> {
        self.call(words)
    }

    fn call(&mut self, words: &[&str]) -> Result<Reply, Outcome> {
        let connection = self.connection.as_mut().expect("it is connected");
        match connection.attempt(words) {
            Ok(Reply::Error(text)) if has_no_effect(&text) => Err(Outcome::Fail(text)),
            Ok(Reply::Error(text)) => Err(Outcome::Unknown(text)),
            Ok(reply) => Ok(reply),
            Err(error) => {
                self.connection = None;
                Err(Outcome::Unknown(error.to_string()))
            }
        }
    }
}

/// Whether an error says that nothing was written: nobody ran the command, or too few answered before it would have.
fn has_no_effect(error: &str) -> bool {
    let says = |words: &str| error.contains(words);
    says("cannot be reached; retry") || says("NOREPLICAS wanted r=") || error.starts_with("BUSY")
}

fn count(reply: &Reply) -> Answer {
    Answer::Count(u64::try_from(reply.int()).expect("nobody counts down"))
}

/// What VGET returns: the context, and the numbers in each of the values.
pub(super) fn versions(reply: Reply) -> (String, Vec<BTreeSet<u64>>) {
    let parts = reply.items();
    let numbers = |value: &Reply| {
        let text = value.text();
        let numbers = text.split(' ').map(|number| number.parse::<u64>());
        numbers.map(|number| number.expect("a number")).collect()
    };
    let values = parts[1].clone().items().iter().map(numbers).collect();
    (parts[0].text(), values)
}
