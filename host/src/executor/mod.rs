//! The data world: one thread per core, each with many vnodes and many client connections.
//!
//! - this file is the executor: commands on their way to vnodes, passes, the messages between threads.
//! - [`seats`] is where the vnodes are when nobody runs them.
//! - [`inbox`] is how other threads reach it.
//! - [`load`] says which executor serves which clients.
//! - [`client`] reads a client's requests, [`connection`] puts the replies back in order, [`outbox`] holds them until the
//!   socket takes them.
//! - [`slow`] has the threads for work that may take long.
//! - [`routing`] sends a command to the node that has its partition: [`outbound`] are the links that it goes over, [`inbound`]
//!   those on which other nodes send theirs, [`frame`] is what both sides say.
//! - [`replication`] brings a write to all replicas, [`reading`] hears them before a read; [`flights`] are the requests that
//!   wait for several.
//!
//! A connection parses all that it has read and stages each command for its vnode. Then, after every readable connection
//! had its turn, one *pass* runs the vnodes for which there are commands and writes to each connection once. Any executor
//! may run any vnode, one at a time: a command goes to another thread only when its vnode is busy there. Control work
//! (HTTP, metrics, accepting) runs elsewhere and never waits for a guest.

pub mod about;
mod client;
mod connection;
mod delivery;
mod drive;
mod flights;
mod frame;
mod inbound;
mod inbox;
pub mod load;
mod outbound;
mod outbox;
mod reading;
mod renumber;
mod replication;
mod routing;
pub mod seats;
pub mod slow;
mod staged;
#[cfg(test)]
mod tests;
mod views;

pub use self::connection::Connections;
pub use self::inbox::{Inbox, Message};

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use vnode_cluster::Greeter;
use vnode_cluster::stream::PeerStream;
use vnode_ring::View;

use self::about::About;
use self::delivery::Delivery;
use self::drive::drive;
use self::flights::Flights;
use self::frame::ServiceNames;
use self::inbound::InboundLinks;
use self::inbox::{Parcel, Waiter};
use self::load::Meter;
use self::outbound::OutboundLinks;
use self::routing::Held;
use self::seats::{Errand, NO_SEAT, Seats};
use self::slow::{Loan, PageRequest, Pool, Work};
use self::staged::StagedForAll;
use crate::coordinator::Coordinator;
use crate::coordinator::front::Front;
use crate::net::Detached;
use crate::store::{Acknowledge, Ahead, Commit, Verdict};
use crate::vnode::failure::Failure;
use crate::vnode::request::{Replies, ReplyTo, Request};
use crate::vnode::service::Ended;
use crate::vnode::{Call, Ran, refuse_late};

/// Time that a call of a guest may keep an executor's thread. A command that needs more is run again on a slow thread.
const INLINE_BUDGET: Duration = Duration::from_millis(20);

/// Time for all guests of an executor to end in good order.
const TERMINATE_WITHIN: Duration = Duration::from_secs(2);
/// How often a pass looks for vnodes that have got work by what it did: a replica's, or a command whose replicas were heard.
const ROUNDS: usize = 4;
/// Names of commands that an executor takes at once: one by one they would pass a cache line between the threads.
const IDS: u64 = 1024;

/// A reply that waits for its commit to be durable.
struct Parked {
    after: Commit,
    /// On disk, whatever `sync` says.
    on_disk: bool,
    to: ReplyTo,
    reply: Vec<u8>,
}

/// One executor. Lives on its thread.
pub struct Executor {
    index: usize,
    coordinator: Arc<Coordinator>,
    about: Arc<About>,
    /// Names for commands.
    ids: Range<u64>,
    staged: StagedForAll,
    due: VecDeque<usize>,
    call: Call,
    parcels: Vec<Parcel>,
    replies: Replies,
    parked: VecDeque<Parked>,
    acknowledge: Acknowledge,
    slow: Pool,
    /// What clients may ask for. A copy: it is counted with each command, which threads must not share.
    front: Rc<Front>,
    front_of: Arc<Front>,
    connections: Connections,
    views: watch::Receiver<Arc<View>>,
    view: Arc<View>,
    inbound: InboundLinks,
    outbound: OutboundLinks,
    held: VecDeque<Held>,
    flights: Flights,
    service_names: Vec<ServiceNames>,
    meter: Meter,
    draining: Option<oneshot::Sender<()>>,
    ended: bool,
}

impl Executor {
    /// Runs executor `index` of the coordinator's until it is told to end.
    pub async fn run(
        index: usize,
        coordinator: Arc<Coordinator>,
        about: Arc<About>,
        acknowledge: Acknowledge,
        slow: Pool,
        greeter: Arc<Greeter>,
    ) {
        let Some(inbox) = coordinator.inboxes().get(index).cloned() else {
            return;
        };
        let executors = coordinator.inboxes().len();
        let mut views = coordinator.views();
        views.mark_changed();
        let front_of = coordinator.front();
        let executor = Executor {
            index,
            view: coordinator.view(),
            views,
            inbound: InboundLinks::default(),
            outbound: OutboundLinks::default(),
            held: VecDeque::new(),
            flights: Flights::default(),
            service_names: routing::service_names(&coordinator),
            front: Rc::new(Front::clone(&front_of)),
            front_of,
            connections: Connections::new(Arc::clone(&coordinator), Arc::clone(&inbox), index),
            coordinator,
            about,
            ids: 0..0,
            staged: StagedForAll::default(),
            due: VecDeque::new(),
            call: Call::default(),
            parcels: std::iter::repeat_with(Parcel::default)
                .take(executors)
                .collect(),
            replies: Replies::default(),
            parked: VecDeque::new(),
            acknowledge,
            slow,
            meter: Meter::start(),
            draining: None,
            ended: false,
        };
        drive(Rc::new(RefCell::new(executor)), inbox, greeter).await;
    }

    /// A new name for a command.
    fn next_id(&mut self) -> u64 {
        if self.ids.is_empty() {
            self.ids = self.coordinator.next_ids(IDS);
        }
        self.ids.next().unwrap_or_default()
    }

    /// Takes a command for a vnode of this node. It runs in the next pass.
    fn stage(&mut self, request: Request) {
        let number = self
            .coordinator
            .seat(usize::from(request.service), request.partition);
        if number == NO_SEAT && !self.is_numbered(&request) {
            return self.renumber(request);
        }
        let mailbox_max = self.coordinator.limits().mailbox_commands_max;
        match self.staged.of(number, self.coordinator.seats()) {
            Some(staged) if staged.commands.len() < mailbox_max => {
                staged.commands.push_back(request);
                self.schedule(number);
            }
            Some(_) => self.refuse(request, mailbox_max),
            None => {
                let failure = Failure::Usage(format!("no vnode {} here", request.partition));
                self.replies.fail(request.reply_to, &failure);
            }
        }
    }

    fn schedule(&mut self, number: usize) {
        if let Some(staged) = self.staged.of(number, self.coordinator.seats())
            && !staged.scheduled
        {
            staged.scheduled = true;
            self.due.push_back(number);
        }
    }

    fn refuse_late(&mut self, request: Request) {
        let Some(edition) = self.front.edition(usize::from(request.service)) else {
            let failure = Failure::Usage(format!("no vnode {} here", request.partition));
            return self.replies.fail(request.reply_to, &failure);
        };
        let stats = edition.stats(self.index);
        refuse_late(edition, request, &mut self.replies, &stats);
    }

    fn refuse(&mut self, request: Request, queued: usize) {
        let failure = Failure::Busy {
            partition: request.partition,
            queued,
        };
        let edition = self.front.edition(usize::from(request.service));
        let stats = edition.map(|edition| edition.stats(self.index));
        if let Some(stats) = stats
            .as_ref()
            .and_then(|all| all.get(usize::from(request.command)))
        {
            stats.count(Ended::Busy, request.arrived.elapsed());
        }
        self.replies.fail(request.reply_to, &failure);
    }

    /// The clients of this executor.
    pub fn connections(&mut self) -> &mut Connections {
        &mut self.connections
    }

    /// Handles what other threads sent.
    fn receive(&mut self, inbox: &Inbox, connect: &mut Vec<Arrival>) {
        self.adopt_newest();
        for message in inbox.take() {
            match message {
                Message::Connect(stream) => connect.push(Arrival::Client(stream)),
                Message::Move(moving) => connect.push(Arrival::Moved(moving)),
                Message::Peer(node, stream) => connect.push(Arrival::Peer(node, stream)),
                Message::Look(number) => self.schedule(number),
                Message::Request(request) => self.submit(*request),
                Message::Send(holder, request) => self.send_to(&holder, *request),
                Message::Here(request) => self.stage(*request),
                Message::Replies(parcel) => {
                    let mut start = 0;
                    for (waiter, end) in parcel.entries {
                        let reply = parcel.bytes.get(start..end).unwrap_or_default();
                        match waiter {
                            Waiter::Client(connection, seq) => {
                                self.connections.deliver(connection, seq, reply);
                            }
                            Waiter::Peer(link, id) => self.inbound.deliver(link, id, reply),
                            Waiter::Flight(flight, holder) => {
                                self.flights.take(flight, holder, reply);
                            }
                        }
                        start = end;
                    }
                }
                Message::Returned(number, mut replies) => {
                    self.settle(&mut replies);
                    self.schedule(number);
                }
                Message::Page(number, page) => self.enqueue_page(number, page),
                Message::Inspect(look) => look(self),
                Message::Drain(done) => {
                    self.connections.stop_reading();
                    self.draining = Some(done);
                }
                Message::End => self.ended = true,
            }
        }
    }

    fn enqueue_page(&mut self, number: usize, page: Box<PageRequest>) {
        let coordinator = Arc::clone(&self.coordinator);
        match coordinator.seats().lock(number) {
            Some(mut seat) => {
                if let Err(page) = seat.add_page(page) {
                    drop(page.reply.send(Err(Failure::Moving {
                        partition: page.command.scope.range,
                    })));
                    return;
                }
            }
            None => {
                let failure = Failure::Usage("no such vnode here".into());
                return drop(page.reply.send(Err(failure)));
            }
        }
        self.schedule(number);
    }

    /// One pass: each due vnode once, replies out, each connection written once.
    fn pass(&mut self) {
        let coordinator = Arc::clone(&self.coordinator);
        let now = Instant::now();
        for _ in 0..ROUNDS {
            for _ in 0..self.due.len() {
                let Some(number) = self.due.pop_front() else {
                    break;
                };
                self.look_ahead(coordinator.seats());
                self.run_seat(&coordinator, number, now);
                // Now, not at the end: what all vnodes of a pass answer may be a lot.
                self.settle_own();
            }
            self.settle_own();
            self.release();
            self.land();
            // What was refused at once, because its node cannot be reached, answers a flight, too.
            self.settle_own();
            if self.is_through() {
                break;
            }
        }
        for (executor, parcel) in self.parcels.iter_mut().enumerate() {
            if !parcel.entries.is_empty()
                && let Some(inbox) = self.coordinator.inboxes().get(executor)
            {
                let next = parcel.alike();
                inbox.send(Message::Replies(std::mem::replace(parcel, next)));
            }
        }
        self.connections.flush();
        self.inbound.flush();
        self.outbound.flush();
        self.share(now);
    }

    /// Has the rows that the next vnodes want come nearer while another one runs.
    fn look_ahead(&mut self, seats: &Seats) {
        for (nth, ahead) in [(0, Ahead::Near), (1, Ahead::Far)] {
            if let Some(number) = self.due.get(nth)
                && let Some(staged) = self.staged.of(*number, seats)
                && let Some(seat) = seats.lock(*number)
            {
                seat.expect(&staged.commands, ahead);
            }
        }
    }

    /// Whether another pass would find nothing to do.
    fn is_through(&self) -> bool {
        self.due.is_empty() && self.flights.answers.is_empty()
    }

    /// Hands in what is here for a vnode, and runs it if nobody else has it.
    fn run_seat(&mut self, coordinator: &Arc<Coordinator>, number: usize, now: Instant) {
        let mailbox_max = coordinator.limits().mailbox_commands_max;
        let (Some(staged), Some(mut seat)) = (
            self.staged.of(number, coordinator.seats()),
            coordinator.seats().lock(number),
        ) else {
            return;
        };
        staged.scheduled = false;
        let rejected = seat.hand_in(&mut staged.commands, mailbox_max);
        let late = seat.take_late(now);
        let taken = seat.take();
        drop(seat);
        for request in late {
            self.refuse_late(request);
        }
        for request in rejected.too_many {
            self.refuse(request, mailbox_max);
        }
        for request in rejected.elsewhere {
            self.reroute(request);
        }
        let Some((mut vnode, errand)) = taken else {
            return;
        };
        let stats = &vnode.edition().stats(self.index);
        let work = match errand {
            Errand::Lend(work) => work,
            Errand::Run(mut commands) => {
                while let Some(late) = commands.pop_front_if(|first| first.is_late(now)) {
                    refuse_late(vnode.edition(), late, &mut self.replies, stats);
                }
                let ran = vnode.run(
                    &mut self.call,
                    &mut commands,
                    &mut self.replies,
                    stats,
                    INLINE_BUDGET,
                );
                let Some(mut seat) = coordinator.seats().lock(number) else {
                    return;
                };
                seat.unread(&mut commands);
                if let Some(staged) = self.staged.of(number, coordinator.seats()) {
                    // Its memory is used again.
                    staged.commands = commands;
                }
                match ran {
                    Ran::All => {
                        seat.put_back(vnode);
                        let again = seat.has_work();
                        drop(seat);
                        if again {
                            self.schedule(number);
                        }
                        return;
                    }
                    Ran::Left(requests) => {
                        seat.lend();
                        Work::Commands(requests)
                    }
                    Ran::Overran(requests) => {
                        seat.lend();
                        seat.keep_apart();
                        Work::Commands(requests)
                    }
                }
            }
        };
        self.slow.lend(Loan {
            seat: number,
            vnode,
            lender: self.index,
            coordinator: Arc::clone(coordinator),
            stats: Arc::clone(stats),
            work,
        });
    }

    fn settle_own(&mut self) {
        while !self.replies.is_empty() {
            let mut replies = std::mem::take(&mut self.replies);
            self.settle(&mut replies);
            // To send what was written may have been refused meanwhile, and that is a reply, too.
            if self.replies.is_empty() {
                self.replies = replies;
            }
        }
    }

    /// Sends replies on, or keeps those whose commit is not durable yet.
    fn settle(&mut self, replies: &mut Replies) {
        let mut delivery = Delivery {
            index: self.index,
            connections: &mut self.connections,
            inbound: &mut self.inbound,
            flights: &mut self.flights,
            parcels: &mut self.parcels,
        };
        let acknowledge = &self.acknowledge;
        let waits = |after, on_disk| acknowledge.verdict_for(after, on_disk) != Verdict::Now;
        replies.drain(|reply, bytes| match reply.after {
            Some(after) if waits(after, reply.on_disk) => self.parked.push_back(Parked {
                after,
                on_disk: reply.on_disk,
                to: reply.to,
                reply: bytes.to_vec(),
            }),
            _ => delivery.deliver(reply.to, bytes),
        });
        for written in std::mem::take(&mut replies.written) {
            self.replicate(written);
        }
        if !replies.looked.is_empty() {
            self.look_around(std::mem::take(&mut replies.looked));
        }
    }

    /// Sends the parked replies whose commit has become durable.
    fn release(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let mut delivery = Delivery {
            index: self.index,
            connections: &mut self.connections,
            inbound: &mut self.inbound,
            flights: &mut self.flights,
            parcels: &mut self.parcels,
        };
        // Commits of several vnodes are parked in the order of their commits, but for those that came home late.
        let mut rest = VecDeque::new();
        for parked in self.parked.drain(..) {
            match self.acknowledge.verdict_for(parked.after, parked.on_disk) {
                Verdict::Now => delivery.deliver(parked.to, &parked.reply),
                Verdict::Wait => rest.push_back(parked),
                Verdict::Failed => {
                    let mut error = Vec::new();
                    Failure::NotDurable.write(&mut error);
                    delivery.deliver(parked.to, &error);
                }
            }
        }
        self.parked = rest;
    }

    /// Sends a reply on that came from another node.
    fn deliver(&mut self, to: ReplyTo, reply: &[u8]) {
        let mut delivery = Delivery {
            index: self.index,
            connections: &mut self.connections,
            inbound: &mut self.inbound,
            flights: &mut self.flights,
            parcels: &mut self.parcels,
        };
        delivery.deliver(to, reply);
    }

    fn idle(&self) -> bool {
        self.parked.is_empty()
            && self.due.is_empty()
            && !self.waits_for_others()
            && self.connections.idle()
            && self.inbound.idle()
    }

    /// Gives half of the clients to another executor when this one has had no time left.
    fn share(&mut self, now: Instant) {
        let inboxes = self.coordinator.inboxes();
        if let Some(own) = inboxes.get(self.index)
            && self.meter.look(now, own)
            && let Some(other) = load::with_half_its_time(inboxes, self.index)
        {
            self.connections.move_to(other, own.connected() / 2);
        }
    }

    /// Ends the guests of this executor's share of the seats, in a bounded time.
    fn terminate(&mut self) {
        let seats = self.coordinator.seats();
        let until = Instant::now() + TERMINATE_WITHIN;
        for number in seats.numbers() {
            if self.coordinator.executor_of(number) == self.index {
                let left = until.saturating_duration_since(Instant::now());
                seats.terminate(number, "the node drains", left);
            }
        }
    }
}

/// A connection that is to be served.
enum Arrival {
    Client(Detached),
    /// From another executor.
    Moved(Box<client::Moving>),
    /// With the name of the node.
    Peer(String, PeerStream<Detached>),
}
