//! Threads for what may take long: coverage pages, and commands of a vnode whose guest lately overran.
//!
//! A vnode comes here as a loan, does one piece of work, and goes back to its seat. Meanwhile its mailbox fills there, so
//! its commands stay serial and nobody else waits.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Message;
use crate::coordinator::Coordinator;
use crate::store::Commit;
use crate::vnode::Vnode;
use crate::vnode::request::{Failure, Replies, Request};
use crate::vnode::service::CommandStats;
use crate::wasm::{CoveragePage, TypedCommand};

/// A page of a coverage command, and who waits for it.
pub struct PageRequest {
    /// The command.
    pub command: TypedCommand,
    /// Where the page starts.
    pub cursor: Option<Vec<u8>>,
    /// Gets the page, and the commit it has to wait for.
    pub reply: oneshot::Sender<Result<(CoveragePage, Option<Commit>), Failure>>,
}

/// What a loaned vnode shall do.
pub enum Work {
    /// Run these, each with the full budget.
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
    jobs: Sender<Loan>,
}

impl Pool {
    /// Starts so many threads.
    pub fn start(threads: usize) -> std::io::Result<Pool> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("slow-{number}"))
                .spawn(move || work(&queue))?;
        }
        Ok(Pool { jobs })
    }

    /// Lends a vnode. It goes back to its seat when it is done.
    pub fn lend(&self, loan: Loan) {
        // The threads live as long as this sender, so the queue is there.
        drop(self.jobs.send(loan));
    }
}

fn work(queue: &Mutex<Receiver<Loan>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(loan) = next else { return };
        run(loan);
    }
}

fn run(loan: Loan) {
    let mut vnode = loan.vnode;
    let mut replies = Replies::default();
    let page = match loan.work {
        Work::Commands(requests) => {
            let budget = vnode.service().guest.limits().command_budget;
            for request in requests {
                vnode.run_one(request, &mut replies, &loan.stats, budget);
            }
            None
        }
        Work::Page(page) => {
            let answer = vnode.cover(&page.command, page.cursor.as_deref());
            Some((page, answer))
        }
    };
    if let Some(mut seat) = loan.coordinator.seats().lock(loan.seat) {
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
