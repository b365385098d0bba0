//! Threads for what may take long: coverage pages, and commands of a vnode whose guest lately overran.
//!
//! A vnode comes here as a loan, does one piece of work, and goes back to its seat. Meanwhile its mailbox fills there, so
//! its commands stay serial and nobody else waits.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Message;
use crate::coordinator::Coordinator;
use crate::store::Commit;
use crate::vital::Vital;
use crate::vnode::failure::Failure;
use crate::vnode::request::{Replies, Request};
use crate::vnode::service::CommandStats;
use crate::vnode::{Vnode, refuse_late};
use crate::wasm::{CoveragePage, TypedCommand};

/// A loan that has lasted so long ends, so that its replies are sent and others have their turn.
const LOAN_FOR: Duration = Duration::from_millis(20);
/// How long a loan takes in the simulator, where guests take no time.
const SIMULATED_LOAN: Duration = Duration::from_millis(2);

/// A page of a coverage command, and who waits for it.
pub struct PageRequest {
    /// The command.
    pub command: TypedCommand,
    /// Where the page starts.
    pub cursor: Option<Vec<u8>>,
    /// Gets the page.
    pub reply: oneshot::Sender<Result<Given, Failure>>,
}

/// A page, the commit that it has to wait for, and, if other replicas have to hear of what it wrote, where it is said that they
/// have: an error, or anything else.
pub type Given = (
    CoveragePage,
    Option<Commit>,
    Option<oneshot::Receiver<Vec<u8>>>,
);

/// What a loaned vnode shall do.
pub enum Work {
    /// Run these, each with the full budget; those for which there is no time go back.
    Commands(Vec<Request>),
    /// Run one page.
    Page(Box<PageRequest>),
}

/// A vnode away from its seat.
pub struct Loan {
    /// Its seat.
    pub seat: usize,
    /// The vnode.
    pub vnode: Box<Vnode>,
    /// The executor that lends it, which gets the replies.
    pub lender: usize,
    /// Has the seat and the executor.
    pub coordinator: Arc<Coordinator>,
    /// The lender's counters of its commands.
    pub stats: Arc<Vec<CommandStats>>,
    /// What to do.
    pub work: Work,
}

/// The threads. They end when the last handle is gone.
#[derive(Clone)]
pub struct Pool {
    open: Arc<Open>,
}

/// While it is there, so are the threads.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.more.notify_all();
    }
}

struct Shared {
    queues: Mutex<Queues>,
    more: Condvar,
    /// Threads that one service may have at once. One is always left for the others.
    most: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loans by the number of their service.
#[derive(Default)]
struct Queues {
    services: BTreeMap<u16, Queue>,
    /// The service that had its turn last.
    last: u16,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Loan>,
    running: usize,
}

impl Queues {
    /// The next loan of the next service that may have another thread.
    fn next(&mut self, most: usize) -> Option<(u16, Loan)> {
        let ready = |queue: &Queue| !queue.waiting.is_empty() && queue.running < most;
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let turn = self
            .services
            .range(behind)
            .chain(self.services.range(..=self.last))
            .find(|(_, queue)| ready(queue))
            .map(|(service, _)| *service)?;
        let queue = self.services.get_mut(&turn)?;
        let loan = queue.waiting.pop_front()?;
        queue.running += 1;
        self.last = turn;
        Some((turn, loan))
    }
}

impl Pool {
    /// Starts two threads or more; none in the simulator.
    pub fn start(threads: usize) -> std::io::Result<Pool> {
        let threads = threads.max(2);
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            more: Condvar::new(),
            most: threads - 1,
        });
        let started = if cfg!(feature = "sim") { 0 } else { threads };
        for number in 0..started {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("slow-{number}"))
                .spawn(move || work(&shared))?;
        }
        Ok(Pool {
            open: Arc::new(Open(shared)),
        })
    }

    /// Lends a vnode. It goes back to its seat when it is done.
    pub fn lend(&self, loan: Loan) {
        if cfg!(feature = "sim") {
            // Its one thread has the loan a moment later.
            drop(tokio::task::spawn_local(async {
                tokio::time::sleep(SIMULATED_LOAN).await;
                run(loan);
            }));
            return;
        }
        let Open(shared) = &*self.open;
        let service = loan.vnode.service().index;
        let mut queues = shared.lock();
        let queue = queues.services.entry(service).or_default();
        queue.waiting.push_back(loan);
        drop(queues);
        shared.more.notify_one();
    }
}

fn work(shared: &Shared) {
    let _vital = Vital("slow");
    let mut queues = shared.lock();
    loop {
        if queues.closed {
            return;
        }
        let Some((service, loan)) = queues.next(shared.most) else {
            let waited = shared.more.wait(queues);
            queues = waited.unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(queues);
        run(loan);
        queues = shared.lock();
        if let Some(queue) = queues.services.get_mut(&service) {
            queue.running -= 1;
        }
        // Its place may be what another thread waits for.
        shared.more.notify_one();
    }
}

fn run(loan: Loan) {
    let mut vnode = loan.vnode;
    let mut replies = Replies::default();
    let mut rest = VecDeque::new();
    let mut page = None;
    match loan.work {
        Work::Commands(requests) => {
            let budget = vnode.edition().guest.limits().command_budget;
            let begun = Instant::now();
            rest.extend(requests);
            while let Some(request) = rest.pop_front() {
                if request.is_late(Instant::now()) {
                    refuse_late(vnode.edition(), request, &mut replies, &loan.stats);
                    continue;
                }
                vnode.run_one(request, &mut replies, &loan.stats, budget);
                if begun.elapsed() > LOAN_FOR {
                    break;
                }
            }
        }
        Work::Page(asked) if asked.reply.is_closed() => {}
        Work::Page(asked) => {
            let answer = vnode.cover(&asked.command, asked.cursor.as_deref(), &mut replies);
            page = Some((asked, answer));
        }
    }
    if let Some(mut seat) = loan.coordinator.seats().lock(loan.seat) {
        seat.unread(&mut rest);
        seat.put_back(vnode);
    }
    if let Some((page, answer)) = page {
        // Nobody waits any more when the client went away.
        drop(page.reply.send(answer));
    }
    if let Some(lender) = loan.coordinator.inboxes().get(loan.lender) {
        lender.send(Message::Returned(loan.seat, replies));
    }
}
