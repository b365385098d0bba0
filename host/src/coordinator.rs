//! From a command to the vnodes that run it, and from their replies to one reply.
//!
//! Routing is pure: the descriptor says where the keys are, the hash says which partition, and the ring says who has it.
//! A command with one key is one request; the connection that read it sends it off and goes on. Everything else (several
//! keys, coverage, HTTP) is a task here that sends several requests and joins the replies as the descriptor says.

mod asks;
pub mod carry;
pub mod coverage;
mod distant;
pub mod entropy;
pub mod front;
pub mod healing;
pub mod hints;
pub mod holdings;
mod hooks;
mod joined;
mod ownership;
mod pace;
pub mod reaping;
pub mod repair;
mod replicas;
pub mod resize;
pub mod rollouts;
mod routing;
pub mod schemas;
mod sending;
pub mod shadows;
pub mod swap;
pub mod trace;
pub mod transfers;
pub mod versions;
pub mod wishes;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use vnode_ring::rollout::gate::Thresholds;
use vnode_ring::{PartitionId, RingSize, Role, View};

use self::carry::Carried;
use self::front::Front;
use self::healing::Healing;
use self::joined::Joined;
use self::resize::{KeepRing, Resizing};
use self::rollouts::Gate;
pub use self::routing::Route;
use self::shadows::Shadows;
use self::swap::Pauses;
use self::trace::{Recorder, Step};
use self::transfers::Transfers;
use self::wishes::Wishes;
use crate::descriptor::CommandSpec;
use crate::executor::seats::Seats;
use crate::executor::{Inbox, Message};
use crate::library::Library;
use crate::resp::catalog::GuestCommand;
use crate::store::{Acknowledge, Engine};
use crate::vnode::failure::Failure;
use crate::vnode::request::{Consistency, ReplyTo, Request, Work};
use crate::vnode::service::Service;
use crate::vnode::words::Words;
use vnode_cluster::Cluster;

/// Keys of one command that are asked for at once, so that no more replies than that wait here.
const KEYS_AT_ONCE: usize = 64;

/// What a task waits longer for an answer than the vnode that gives it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

/// Limits and times that the coordinator and the executors hold to. Each is a setting of the same name.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Commands that wait for one vnode; beyond: `BUSY`.
    pub mailbox_commands_max: usize,
    /// Commands of one connection that are under way; beyond, no more is read from it.
    pub pipeline_commands_max: usize,
    /// Bytes of replies that wait for a client to read them; beyond, no more is read from it.
    pub output_buffer_bytes_max: usize,
    /// Time for half a request to become whole, and for a client to take replies.
    pub request_read_timeout: Duration,
    /// Time for a command's reply.
    pub request_timeout: Duration,
    /// Time for a coverage command's reply.
    pub coverage_timeout: Duration,
    /// Items that a coverage reply may gather; beyond: `TOOBIG`.
    pub coverage_items_max: usize,
    /// Bytes that a coverage reply may gather; beyond: `TOOBIG`.
    pub coverage_bytes_max: usize,
    /// How many transfers there are at once, and how fast they are.
    pub transfers: transfers::Limits,
    /// How long rows stay here after their partition went to another owner.
    pub retention: Duration,
    /// How long the mark of a deleted key is kept at least.
    pub tombstone_grace: Duration,
    /// When a version is too bad to go on with.
    pub gate: Thresholds,
    /// Commands in a thousand that may end otherwise than with the old version.
    pub divergence_per_mille: u64,
    /// Time of a command in a guest, percent of what it takes in the old version, that is too much.
    pub time_percent: u64,
    /// How requests are read.
    pub requests: crate::resp::codec::Limits,
}

/// What commands are stamped with.
pub struct Stamps {
    /// The name of the first one; each further one has the next.
    pub first_id: u64,
    /// The node's wall clock, milliseconds since 1970. It may be wrong and jump.
    pub clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// How a command is to be run.
struct Call {
    wishes: Wishes,
    /// Takes down who had a part, if somebody wants to hear.
    recorder: Option<Recorder>,
}

/// The part of a node that knows all services and executors. Shared by everything that sends commands.
pub struct Coordinator {
    services: Vec<Arc<Service>>,
    front: RwLock<Arc<Front>>,
    views: watch::Sender<Arc<View>>,
    inboxes: Vec<Arc<Inbox>>,
    seats: Seats,
    limits: Limits,
    acknowledge: Acknowledge,
    next_id: AtomicU64,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// When the node began, and what its wall clock said then.
    began: (Instant, u64),
    draining: AtomicBool,
    /// Calls under way.
    calls: AtomicUsize,
    cluster: Arc<Cluster>,
    library: Arc<Library>,
    engine: Arc<Engine>,
    /// What this node thinks of the rollouts that it drives, by service.
    gates: Mutex<BTreeMap<String, Gate>>,
    /// What `hints` has found out about seats that seem to hold something.
    emptied: Mutex<BTreeMap<usize, u64>>,
    shadows: Shadows,
    healing: Healing,
    resizing: Mutex<Resizing>,
    keep_ring: KeepRing,
    pauses: Pauses,
    carried: Mutex<Carried>,
    /// Another partition has been carried.
    carried_one: Notify,
    transfers: Mutex<Transfers>,
    /// For tasks that outlive a call.
    me: Weak<Coordinator>,
}

impl Coordinator {
    /// A coordinator of `services` on `executors` executors.
    pub fn new(
        services: Vec<Arc<Service>>,
        view: View,
        executors: usize,
        limits: Limits,
        acknowledge: Acknowledge,
        stamps: Stamps,
        (cluster, library, engine, keep_ring): (Arc<Cluster>, Arc<Library>, Arc<Engine>, KeepRing),
    ) -> Arc<Coordinator> {
        let front = Front::new(&services, view.map());
        let coordinator = Arc::new_cyclic(|me| Coordinator {
            me: Weak::clone(me),
            seats: Seats::new(services.len(), view.ring().size()),
            services,
            front: RwLock::new(Arc::new(front)),
            views: watch::Sender::new(Arc::new(view)),
            inboxes: std::iter::repeat_with(Arc::default)
                .take(executors)
                .collect(),
            transfers: Mutex::new(Transfers::new(limits.transfers)),
            limits,
            acknowledge,
            next_id: AtomicU64::new(stamps.first_id),
            began: (Instant::now(), (stamps.clock)()),
            clock: stamps.clock,
            draining: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            cluster,
            library,
            engine,
            gates: Mutex::default(),
            emptied: Mutex::default(),
            shadows: Shadows::default(),
            healing: Healing::default(),
            resizing: Mutex::default(),
            keep_ring,
            pauses: Pauses::default(),
            carried: Mutex::default(),
            carried_one: Notify::new(),
        });
        coordinator.take_up_ownership();
        coordinator
    }

    /// The services, in the order of their positions.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The service of a name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services
            .iter()
            .find(|service| service.name().eq_ignore_ascii_case(name))
    }

    /// The number of partitions, as this node knows the ring now.
    pub fn ring_size(&self) -> RingSize {
        self.views.borrow().ring().size()
    }

    /// The cluster as this node knows it now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Every view from now on.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.subscribe()
    }

    /// The components of guests that are here.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Limits of commands.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where the executors get their messages.
    pub fn inboxes(&self) -> &[Arc<Inbox>] {
        &self.inboxes
    }

    /// The places of the vnodes: one for each partition of each service.
    pub fn seats(&self) -> &Seats {
        &self.seats
    }

    /// The seat of a vnode.
    pub fn seat(&self, service: usize, partition: PartitionId) -> usize {
        self.seats.number(service, partition)
    }

    /// The executor that starts the vnode of a seat, ends it, and gets what comes for it from outside.
    pub fn executor_of(&self, seat: usize) -> usize {
        seat % self.inboxes.len().max(1)
    }

    /// From now on commands are refused with `TRYAGAIN`.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the node drains.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What clients may ask for now.
    pub fn front(&self) -> Arc<Front> {
        let front = self.front.read();
        Arc::clone(&front.unwrap_or_else(PoisonError::into_inner))
    }

    /// How many replicas a command has and waits for, unless its client wishes otherwise.
    pub fn consistency(&self, front: &Front, target: GuestCommand) -> Consistency {
        let own = front.consistency(target);
        own.unwrap_or_else(|| Consistency::single(self.limits.request_timeout))
    }

    /// How replicas have been brought together again.
    pub fn healing(&self) -> &Healing {
        &self.healing
    }

    /// For how long commands waited because their vnode got another version.
    pub fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    /// A new name for a command.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// So many new names.
    pub fn next_ids(&self, count: u64) -> Range<u64> {
        let first = self.next_id.fetch_add(count, Ordering::Relaxed);
        first..first.saturating_add(count)
    }

    /// The node's wall clock, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Milliseconds since 1970 by a clock that does not jump: the wall clock as it was when the node began, and the time since.
    pub fn steady_ms(&self) -> u64 {
        let since = u64::try_from(self.began.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began.1.saturating_add(since)
    }

    /// Whether no call is under way.
    pub fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Acquire) == 0
    }

    /// Runs a command to its end: one RESP3 value, errors included.
    pub async fn call(&self, target: GuestCommand, words: Words, wishes: Wishes) -> Vec<u8> {
        let call = Call {
            wishes,
            recorder: None,
        };
        self.run(target, words, &call).await
    }

    /// The same, with what each vnode did.
    pub async fn call_traced(
        &self,
        target: GuestCommand,
        words: Words,
        wishes: Wishes,
    ) -> (Vec<u8>, Vec<Step>) {
        let call = Call {
            wishes,
            recorder: Some(Recorder::default()),
        };
        let reply = self.run(target, words, &call).await;
        let steps = call.recorder.map(Recorder::into_steps);
        (reply, steps.unwrap_or_default())
    }

    async fn run(&self, target: GuestCommand, words: Words, call: &Call) -> Vec<u8> {
        let _under_way = UnderWay::new(&self.calls);
        let front = self.front();
        let answer = match front.spec(target) {
            None => Err(Failure::Usage("no such command".into())),
            Some(spec) if !spec.takes(words.len()) => Err(Failure::Usage(format!(
                "wrong number of arguments for '{}' command",
                spec.name.to_ascii_lowercase()
            ))),
            Some(_) if self.is_draining() => Err(Failure::Draining),
            Some(spec) => match self.route(&front, target, &words) {
                Err(failure) => Err(failure),
                Ok(Route::One { partition, hash }) => {
                    self.ask(&front, target, (partition, hash), words, call)
                        .await
                }
                Ok(Route::EachKey) => self.each_key(&front, target, spec, &words, call).await,
                Ok(Route::Coverage) => {
                    let begun = Instant::now();
                    let answer = self.cover(target, spec, &words, call).await;
                    self.count_coverage(target, answer.as_ref().err(), begun);
                    answer
                }
            },
        };
        answer.unwrap_or_else(|failure| {
            let mut out = Vec::new();
            failure.write(&mut out);
            out
        })
    }

    /// Sends one request and waits for its reply.
    async fn ask(
        &self,
        front: &Front,
        target: GuestCommand,
        (partition, hash): (PartitionId, u64),
        words: Words,
        call: &Call,
    ) -> Result<Vec<u8>, Failure> {
        let begun = Instant::now();
        let consistency = call.wishes.over(self.consistency(front, target))?;
        let answer = self
            .ask_vnode(target, (partition, hash), words, consistency, call)
            .await;
        match &call.recorder {
            Some(recorder) => self.record_answer(recorder, partition, begun, answer),
            None => answer,
        }
    }

    async fn ask_vnode(
        &self,
        target: GuestCommand,
        (partition, hash): (PartitionId, u64),
        words: Words,
        consistency: Consistency,
        call: &Call,
    ) -> Result<Vec<u8>, Failure> {
        let (reply_to, reply) = oneshot::channel();
        let request = Request {
            service: u16::try_from(target.service).unwrap_or(u16::MAX),
            command: u16::try_from(target.command).unwrap_or(u16::MAX),
            partition,
            range: partition,
            hash,
            words,
            now_ms: self.now_ms(),
            id: self.next_id(),
            alone: false,
            role: Role::Primary,
            work: Work::Command,
            consistency,
            trace: call.recorder.as_ref().map(|_| Box::default()),
            tries: 0,
            arrived: Instant::now(),
            reply_to: ReplyTo::Task(reply_to),
        };
        let executor = self.executor_of(self.seat(target.service, partition));
        let Some(inbox) = self.inboxes.get(executor) else {
            return Err(Failure::Draining);
        };
        inbox.send(Message::Request(Box::new(request)));
        // The vnode's own node gives up first, and knows more of why.
        let within = consistency.within();
        match tokio::time::timeout(within + PATIENCE, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Failure::Draining),
            Err(_) => Err(Failure::Timeout {
                within,
                limit: "request_timeout",
            }),
        }
    }

    /// Runs a command once for each of its keys, many at once, and joins the replies in the order of the keys.
    async fn each_key(
        &self,
        front: &Front,
        target: GuestCommand,
        spec: &CommandSpec,
        words: &Words,
        call: &Call,
    ) -> Result<Vec<u8>, Failure> {
        let mut joined = Joined::new(spec.aggregate, &self.limits);
        let mut positions = spec.key_positions(words.len()).peekable();
        while positions.peek().is_some() {
            let mut asked = Vec::new();
            for position in positions.by_ref().take(KEYS_AT_ONCE) {
                // What stands between this key and the next belongs to this key, as the values of an MSET.
                let step = spec.keys.as_ref().map_or(1, |keys| keys.step as usize);
                let own = (position..position + step).map(|at| words.get(at));
                let one = Words::copy(std::iter::once(words.get(0)).chain(own));
                let Route::One { partition, hash } = self.route(front, target, &one)? else {
                    return Err(Failure::Usage("the command needs its keys".into()));
                };
                asked.push(self.ask(front, target, (partition, hash), one, call));
            }
            // Sending happens when a future is first polled: `join_all` polls every one before it waits for any.
            for reply in join_all(asked).await {
                joined.add(&reply?)?;
            }
        }
        Ok(joined.finish())
    }
}

/// One call under way, as long as it lives.
struct UnderWay<'a>(&'a AtomicUsize);

impl UnderWay<'_> {
    fn new(calls: &AtomicUsize) -> UnderWay<'_> {
        calls.fetch_add(1, Ordering::AcqRel);
        UnderWay(calls)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits for all of them at once.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

/// The machine's wall clock, milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
