//! Clients that go on while nodes die: each asks a random node what a workload says, and takes down what came of it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tests::checkers::{History, Outcome, Recorder};
use tests::dice::Dice;
use tests::eventually;
use tests::resp::Client;
use tests::workload::commands::{Session, plans};
use tests::workload::{Plan, Request, Workload};

/// Longer than a node lets a client wait: whoever is not answered by then asks a node that is stopped or cut off.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// Between two turns of a client, so that the clients do not keep the nodes from all else on a machine with few processors.
const PACE: Duration = Duration::from_millis(3);

/// Turns after which clients go on to other keys.
const TURNS_PER_ROUND: u64 = 150;

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
        let mut client = Connected {
            run: self,
            dice: Dice::of(self.seed, u64::from(number) + 1_000),
            session: Session::default(),
            connection: None,
        };
        let mut workload = Workload::new(plan, self.seed, number);
        while !self.stop.load(Ordering::SeqCst) {
            // Nobody is asked before somebody listens, so what is unknown was at least sent.
            if client.connect().is_some() {
                let clock = || self.nanos();
                workload.turn(&self.recorder, clock, |request| {
                    let outcome = client.ask(request);
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
    plans(TURNS_PER_ROUND).into()
}

struct StopAtEnd<'a>(&'a Run);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Connected<'a> {
    run: &'a Run,
    dice: Dice,
    session: Session,
    connection: Option<Client>,
}

impl Connected<'_> {
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
        let mut connection = self.connection.take().expect("it is connected");
        let mut broken = None;
        let call = async |words: &[&str]| {
            let reply = connection.attempt(words);
            broken = reply.as_ref().err().map(io::Error::kind);
            reply
        };
        let outcome = {
            let asked = pin!(self.session.ask(request, call));
            // What is called waits itself.
            match asked.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => panic!("a reply that is not there was not waited for"),
            }
        };
        self.connection = broken.is_none().then_some(connection);
        outcome
    }
}
