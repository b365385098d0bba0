//! Where messages for an executor arrive: the only way in from other threads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use vnode_cluster::stream::PeerStream;
use vnode_ring::Holder;

use super::Executor;
use super::client::Moving;
use super::load::Load;
use super::slow::PageRequest;
use crate::net::Detached;
use crate::vnode::request::{Replies, Request};

/// What executors tell each other, and what the control world asks of them.
pub enum Message {
    /// Serve this client.
    Connect(Detached),
    /// Serve this client of another executor.
    Move(Box<Moving>),
    /// Serve this link from another node, which has been greeted.
    Peer(String, PeerStream<Detached>),
    /// Run this command, here or where its partition is.
    Request(Box<Request>),
    /// Have that vnode do this, whoever owns the partition.
    Send(Holder, Box<Request>),
    /// Have the vnode here do this, whoever owns the partition.
    Here(Box<Request>),
    /// Look at the vnode of a seat, for which there may be something to do again.
    Look(usize),
    /// Replies for connections and links here.
    Replies(Parcel),
    /// The vnode of a seat is back from a slow thread, with these replies.
    Returned(usize, Replies),
    /// A page of a coverage command for the vnode of a seat.
    Page(usize, Box<PageRequest>),
    /// Look at the executor from its own thread.
    Inspect(Box<dyn FnOnce(&mut Executor) + Send>),
    /// Read no more requests and finish what is under way; then say so.
    Drain(oneshot::Sender<()>),
    /// End the guests and the thread.
    End,
}

#[derive(Default)]
struct Messages {
    list: Vec<Message>,
    /// When the first of them came.
    since: Option<Instant>,
}

/// Where messages for one executor arrive.
#[derive(Default)]
pub struct Inbox {
    messages: Mutex<Messages>,
    wake: Notify,
    /// How busy the executor is.
    pub(super) load: Load,
    /// Clients connected to this executor, or on their way to it.
    pub(super) connections: AtomicUsize,
    traffic: Traffic,
}

/// Bytes that clients of one executor and the node have sent each other.
#[derive(Default)]
struct Traffic {
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
}

impl Inbox {
    /// Clients of this executor.
    pub fn connected(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes that its clients have sent, and bytes that were sent to them.
    pub fn traffic(&self) -> (u64, u64) {
        let Traffic {
            input_bytes,
            output_bytes,
        } = &self.traffic;
        (
            input_bytes.load(Ordering::Relaxed),
            output_bytes.load(Ordering::Relaxed),
        )
    }

    /// Counts what was read from a client.
    pub(super) fn count_input(&self, bytes: usize) {
        let input = &self.traffic.input_bytes;
        input.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts what was written to a client.
    pub(super) fn count_output(&self, bytes: usize) {
        let output = &self.traffic.output_bytes;
        output.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Gives it one more client.
    pub fn connect(&self, stream: Detached) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Connect(stream));
    }

    /// Gives it a client of another executor.
    pub(super) fn take_over(&self, moving: Box<Moving>) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Move(moving));
    }

    /// One client less.
    pub(super) fn gone(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it has left messages of others unread for that long.
    pub(super) fn is_stuck(&self, patience: Duration) -> bool {
        let since = self.messages().since;
        since.is_some_and(|since| since.elapsed() > patience)
    }

    /// Leaves a message.
    pub fn send(&self, message: Message) {
        let mut messages = self.messages();
        if messages.list.is_empty() {
            messages.since = Some(Instant::now());
        }
        messages.list.push(message);
        drop(messages);
        self.wake.notify_one();
    }

    /// Has the executor make a pass, which sees what was submitted.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until there is something to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn take(&self) -> Vec<Message> {
        let mut messages = self.messages();
        messages.since = None;
        std::mem::take(&mut messages.list)
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits on an executor for a reply.
#[derive(Clone, Copy)]
pub(super) enum Waiter {
    /// A place in the pipeline of a client's connection.
    Client(u64, u32),
    /// A command of another node, by its link.
    Peer(u64, u64),
    /// A request for several replicas, and the position of the one that answers.
    Flight(u64, u8),
}

/// Replies for another executor's clients and links: RESP3 values in one buffer.
#[derive(Default)]
pub struct Parcel {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<(Waiter, usize)>,
}

impl Parcel {
    /// An empty one with as much room.
    pub(super) fn alike(&self) -> Parcel {
        Parcel {
            bytes: Vec::with_capacity(self.bytes.len()),
            entries: Vec::with_capacity(self.entries.len()),
        }
    }

    pub(super) fn push(&mut self, waiter: Waiter, reply: &[u8]) {
        self.bytes.extend_from_slice(reply);
        self.entries.push((waiter, self.bytes.len()));
    }
}
