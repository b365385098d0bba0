//! The data world: one thread per core, each with many vnodes and many client connections.
//!
//! - this file is the executor: seats of vnodes, the passes over them, the messages between threads.
//! - [`inbox`] is how other threads reach it.
//! - [`client`] reads a client's requests, [`connection`] puts the replies back in order.
//! - [`slow`] has the threads for work that may take long.
//!
//! Work crosses threads in batches. A connection parses all that it has read and puts each command into the mailbox of
//! a vnode here, or into the parcel for another executor. Then, after every readable connection had its turn, one *pass*
//! sends the parcels, runs the vnodes that have commands, sends the replies for other executors, and writes to each
//! connection once. Control work (HTTP, metrics, accepting) runs elsewhere and never waits for a guest.

pub mod about;
mod client;
mod connection;
mod inbox;
pub mod slow;
mod views;

pub use self::connection::Connections;
pub use self::inbox::{Inbox, Message};

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::about::About;
use self::inbox::Parcel;
use self::slow::{Loan, PageRequest, Pool, Returned, Work};
use crate::coordinator::Coordinator;
use crate::store::{Acknowledge, Commit, Verdict};
use crate::vnode::request::{Failure, Replies, ReplyTo, Request};
use crate::vnode::service::{CommandStats, Ended};
use crate::vnode::{Ran, Vnode};

/// Time that a call of a guest may keep an executor's thread. A command that needs more is run again on a slow thread.
const INLINE_BUDGET: Duration = Duration::from_millis(20);
/// A vnode that overran stays on the slow threads for so long after.
const SLOW_FOR: Duration = Duration::from_secs(1);
/// Commands of one loan.
const LOAN_COMMANDS_MAX: usize = 64;

/// One vnode's place.
struct Seat {
    /// The vnode; away on loan when there is none.
    vnode: Option<Box<Vnode>>,
    mailbox: VecDeque<Request>,
    pages: VecDeque<Box<PageRequest>>,
    /// Whether it stands in `due`.
    scheduled: bool,
    /// Its guest overran; until then it runs on the slow threads.
    slow_until: Option<Instant>,
}

/// A reply that waits for its commit to be durable.
struct Parked {
    after: Commit,
    to: ReplyTo,
    reply: Vec<u8>,
}

/// One executor. Lives on its thread.
pub struct Executor {
    index: usize,
    coordinator: Arc<Coordinator>,
    about: Arc<About>,
    seats: Vec<Option<Seat>>,
    due: VecDeque<usize>,
    outgoing: Vec<Vec<Request>>,
    parcels: Vec<Parcel>,
    replies: Replies,
    parked: VecDeque<Parked>,
    acknowledge: Acknowledge,
    stats: Vec<Arc<Vec<CommandStats>>>,
    slow: Pool,
    connections: Connections,
    draining: Option<oneshot::Sender<()>>,
}

impl Executor {
    /// Runs executor `index` of the coordinator's until it has drained. `seats` are its vnodes, each with its seat.
    pub async fn run(
        index: usize,
        coordinator: Arc<Coordinator>,
        about: Arc<About>,
        vnodes: Vec<(usize, Vnode)>,
        acknowledge: Acknowledge,
        stats: Vec<Arc<Vec<CommandStats>>>,
        slow: Pool,
    ) {
        let executors = coordinator.inboxes().len();
        let mut seats: Vec<Option<Seat>> = Vec::new();
        seats.resize_with(coordinator.seats(), || None);
        for (seat, vnode) in vnodes {
            if let Some(place) = seats.get_mut(seat) {
                *place = Some(Seat {
                    vnode: Some(Box::new(vnode)),
                    mailbox: VecDeque::new(),
                    pages: VecDeque::new(),
                    scheduled: false,
                    slow_until: None,
                });
            }
        }
        let Some(inbox) = coordinator.inboxes().get(index).cloned() else {
            return;
        };
        let executor = Executor {
            index,
            connections: Connections::new(Arc::clone(&coordinator), Arc::clone(&inbox), index),
            coordinator,
            about,
            seats,
            due: VecDeque::new(),
            outgoing: std::iter::repeat_with(Vec::new).take(executors).collect(),
            parcels: std::iter::repeat_with(Parcel::default)
                .take(executors)
                .collect(),
            replies: Replies::default(),
            parked: VecDeque::new(),
            acknowledge,
            stats,
            slow,
            draining: None,
        };
        drive(Rc::new(RefCell::new(executor)), inbox).await;
    }

    /// Takes a command from a connection here. It runs in the next pass, here or on the executor that has its vnode.
    pub fn submit(&mut self, request: Request) {
        let seat = self
            .coordinator
            .seat(usize::from(request.service), request.partition);
        let executor = self.coordinator.executor_of(seat);
        if executor == self.index {
            self.enqueue(seat, request);
        } else if let Some(parcel) = self.outgoing.get_mut(executor) {
            parcel.push(request);
        }
    }

    /// Calls `each` with every vnode that is at home and what waits for it.
    pub fn vnodes(&mut self, mut each: impl FnMut(usize, Option<&mut Vnode>, usize)) {
        for (number, seat) in self.seats.iter_mut().enumerate() {
            if let Some(seat) = seat {
                each(number, seat.vnode.as_deref_mut(), seat.mailbox.len());
            }
        }
    }

    /// The clients of this executor.
    pub fn connections(&mut self) -> &mut Connections {
        &mut self.connections
    }

    fn enqueue(&mut self, number: usize, request: Request) {
        let mailbox_max = self.coordinator.limits().mailbox_commands_max;
        let Some(seat) = self.seats.get_mut(number).and_then(Option::as_mut) else {
            let failure = Failure::Usage(format!("no vnode {} here", request.partition));
            self.replies.fail(request.reply_to, &failure);
            return;
        };
        if seat.mailbox.len() >= mailbox_max {
            let failure = Failure::Busy {
                partition: request.partition,
                queued: seat.mailbox.len(),
            };
            if let Some(stats) = command_stats(&self.stats, &request) {
                stats.count(Ended::Busy, request.arrived.elapsed());
            }
            self.replies.fail(request.reply_to, &failure);
            return;
        }
        seat.mailbox.push_back(request);
        schedule(&mut self.due, number, seat);
    }

    /// Handles what other threads sent.
    fn receive(&mut self, inbox: &Inbox, connect: &mut Vec<std::net::TcpStream>) {
        for message in inbox.take() {
            match message {
                Message::Connect(stream) => connect.push(stream),
                Message::Requests(requests) => {
                    for request in requests {
                        let seat = self
                            .coordinator
                            .seat(usize::from(request.service), request.partition);
                        self.enqueue(seat, request);
                    }
                }
                Message::Replies(parcel) => {
                    let mut start = 0;
                    for (connection, seq, end) in parcel.entries {
                        let reply = parcel.bytes.get(start..end).unwrap_or_default();
                        self.connections.deliver(connection, seq, reply);
                        start = end;
                    }
                }
                Message::Returned(returned) => self.take_home(*returned),
                Message::Page(number, page) => self.enqueue_page(number, page),
                Message::Inspect(look) => look(self),
                Message::Drain(done) => {
                    self.connections.stop_reading();
                    self.draining = Some(done);
                }
            }
        }
    }

    fn enqueue_page(&mut self, number: usize, page: Box<PageRequest>) {
        let Some(seat) = self.seats.get_mut(number).and_then(Option::as_mut) else {
            let failure = Failure::Usage("no such vnode here".into());
            drop(page.reply.send(Err(failure)));
            return;
        };
        seat.pages.push_back(page);
        schedule(&mut self.due, number, seat);
    }

    fn take_home(&mut self, mut returned: Returned) {
        self.settle(&mut returned.replies);
        if let Some(seat) = self.seats.get_mut(returned.seat).and_then(Option::as_mut) {
            seat.vnode = Some(returned.vnode);
            if !seat.mailbox.is_empty() || !seat.pages.is_empty() {
                schedule(&mut self.due, returned.seat, seat);
            }
        }
    }

    /// One pass: parcels out, each due vnode once, replies out, each connection written once.
    fn pass(&mut self) {
        for (executor, parcel) in self.outgoing.iter_mut().enumerate() {
            if !parcel.is_empty()
                && let Some(inbox) = self.coordinator.inboxes().get(executor)
            {
                // The next parcel will be about as large.
                let next = Vec::with_capacity(parcel.len());
                inbox.send(Message::Requests(std::mem::replace(parcel, next)));
            }
        }
        for _ in 0..self.due.len() {
            let Some(number) = self.due.pop_front() else {
                break;
            };
            self.run_seat(number);
        }
        let mut replies = std::mem::take(&mut self.replies);
        self.settle(&mut replies);
        self.replies = replies;
        self.release();
        for (executor, parcel) in self.parcels.iter_mut().enumerate() {
            if !parcel.entries.is_empty()
                && let Some(inbox) = self.coordinator.inboxes().get(executor)
            {
                let next = parcel.alike();
                inbox.send(Message::Replies(std::mem::replace(parcel, next)));
            }
        }
        self.connections.flush();
    }

    fn run_seat(&mut self, number: usize) {
        let Some(seat) = self.seats.get_mut(number).and_then(Option::as_mut) else {
            return;
        };
        seat.scheduled = false;
        let Some(mut vnode) = seat.vnode.take() else {
            // It is scheduled again when it comes home.
            return;
        };
        let stats = self
            .stats
            .get(usize::from(vnode.service().index))
            .cloned()
            .unwrap_or_default();
        let work = if let Some(page) = seat.pages.pop_front() {
            Work::Page(page)
        } else if seat.slow_until.is_some_and(|until| Instant::now() < until) {
            let count = seat.mailbox.len().min(LOAN_COMMANDS_MAX);
            Work::Commands(seat.mailbox.drain(..count).collect())
        } else {
            seat.slow_until = None;
            match vnode.run(&mut seat.mailbox, &mut self.replies, &stats, INLINE_BUDGET) {
                Ran::All => {
                    seat.vnode = Some(vnode);
                    if !seat.mailbox.is_empty() {
                        schedule(&mut self.due, number, seat);
                    }
                    return;
                }
                Ran::Left(requests) => {
                    seat.slow_until = Some(Instant::now() + SLOW_FOR);
                    Work::Commands(requests)
                }
            }
        };
        if let Some(home) = self.coordinator.inboxes().get(self.index) {
            self.slow.lend(Loan {
                seat: number,
                vnode,
                home: Arc::clone(home),
                stats,
                work,
            });
        }
    }

    /// Sends replies on, or keeps those whose commit is not durable yet.
    fn settle(&mut self, replies: &mut Replies) {
        let mut delivery = Delivery {
            index: self.index,
            connections: &mut self.connections,
            parcels: &mut self.parcels,
        };
        let acknowledge = &self.acknowledge;
        replies.drain(|reply, bytes| match reply.after {
            Some(after) if acknowledge.verdict(after) != Verdict::Now => {
                self.parked.push_back(Parked {
                    after,
                    to: reply.to,
                    reply: bytes.to_vec(),
                })
            }
            _ => delivery.deliver(reply.to, bytes),
        });
    }

    /// Sends the parked replies whose commit has become durable.
    fn release(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let mut delivery = Delivery {
            index: self.index,
            connections: &mut self.connections,
            parcels: &mut self.parcels,
        };
        // Commits of several vnodes are parked in the order of their commits, but for those that came home late.
        let mut rest = VecDeque::new();
        for parked in self.parked.drain(..) {
            match self.acknowledge.verdict(parked.after) {
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

    fn idle(&self) -> bool {
        self.parked.is_empty()
            && self.connections.idle()
            && self.seats.iter().flatten().all(|seat| {
                seat.vnode.is_some() && seat.mailbox.is_empty() && seat.pages.is_empty()
            })
    }

    fn terminate(&mut self) {
        for seat in self.seats.iter_mut().flatten() {
            if let Some(vnode) = &mut seat.vnode {
                vnode.terminate("the node drains");
            }
            seat.vnode = None;
        }
    }
}

/// Puts a reply where it belongs.
struct Delivery<'a> {
    index: usize,
    connections: &'a mut Connections,
    parcels: &'a mut [Parcel],
}

impl Delivery<'_> {
    fn deliver(&mut self, to: ReplyTo, reply: &[u8]) {
        match to {
            // A task that went away does not want its reply.
            ReplyTo::Task(task) => drop(task.send(reply.to_vec())),
            ReplyTo::Connection {
                executor,
                connection,
                seq,
            } => {
                let executor = usize::from(executor);
                if executor == self.index {
                    self.connections.deliver(connection, seq, reply);
                } else if let Some(parcel) = self.parcels.get_mut(executor) {
                    parcel.push(connection, seq, reply);
                }
            }
        }
    }
}

fn schedule(due: &mut VecDeque<usize>, number: usize, seat: &mut Seat) {
    if !seat.scheduled && seat.vnode.is_some() {
        seat.scheduled = true;
        due.push_back(number);
    }
}

fn command_stats<'a>(
    stats: &'a [Arc<Vec<CommandStats>>],
    request: &Request,
) -> Option<&'a CommandStats> {
    stats
        .get(usize::from(request.service))?
        .get(usize::from(request.command))
}

/// The executor's own task: waits for something to do, then makes passes until nothing is due.
async fn drive(executor: Rc<RefCell<Executor>>, inbox: Arc<Inbox>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut acknowledge = executor.borrow().acknowledge.clone();
    let mut connect = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = inbox.woken() => {}
            () = acknowledge.changed() => {}
            _ = second.tick() => executor.borrow_mut().connections.check_timeouts(),
        }
        loop {
            executor.borrow_mut().receive(&inbox, &mut connect);
            for stream in connect.drain(..) {
                client::accept(&executor, &inbox, stream);
            }
            executor.borrow_mut().pass();
            if executor.borrow().due.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut now = executor.borrow_mut();
        if now.draining.is_some() && now.idle() {
            now.terminate();
            now.connections.close_all();
            if let Some(done) = now.draining.take() {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
            inbox.connections.store(0, Ordering::Relaxed);
            return;
        }
    }
}
