//! Threads for what may take long: coverage pages, and commands of a vnode whose guest lately overran.
//!
//! A vnode comes here as a loan, does one piece of work, and goes home with its replies. Meanwhile its mailbox fills at
//! home, so its commands stay serial and nobody else waits.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{Inbox, Message};
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

/// A vnode away from home.
pub struct Loan {
    /// Its seat at home.
    pub seat: usize,
    /// The vnode.
    pub vnode: Box<Vnode>,
    /// Its home.
    pub home: Arc<Inbox>,
    /// Counters of its commands at home.
    pub stats: Arc<Vec<CommandStats>>,
    /// What to do.
    pub work: Work,
}

/// A vnode on its way home.
pub struct Returned {
    /// Its seat.
    pub seat: usize,
    /// The vnode.
    pub vnode: Box<Vnode>,
    /// Replies to the commands that it ran.
    pub replies: Replies,
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

    /// Lends a vnode. It comes home by its inbox.
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
    let Loan {
        seat,
        mut vnode,
        home,
        stats,
        work,
    } = loan;
    let mut replies = Replies::default();
    match work {
        Work::Commands(requests) => {
            let budget = vnode.service().guest.limits().command_budget;
            for request in requests {
                vnode.run_one(request, &mut replies, &stats, budget);
            }
        }
        Work::Page(page) => {
            let answer = vnode.cover(&page.command, page.cursor.as_deref());
            // Nobody waits any more when the client went away.
            drop(page.reply.send(answer));
        }
    }
    home.send(Message::Returned(Box::new(Returned {
        seat,
        vnode,
        replies,
    })));
}
