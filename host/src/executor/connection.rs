//! What a client's connection holds: replies in the order of the requests, and what is on its way to the socket.
//!
//! Replies come in any order, since requests with different keys run in parallel; each waits here for its turn. Memory
//! is bounded: no more is read while too many commands are under way or too many replies wait for the client.
//! The task that reads requests is in `client`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use slab::Slab;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use super::inbox::Inbox;
use super::outbox::Outbox;
use crate::coordinator::Coordinator;
use crate::resp::session::Session;
use crate::resp::wire;

/// Bytes of requests under way on one connection; beyond, no more is read.
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Memory for replies that a quiet connection keeps.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// What the replies of a new connection are expected to weigh, until they come.
const FIRST_REPLY_BYTES: usize = 128 * 1024;

/// One place in the order of replies.
pub(super) enum Slot {
    /// The reply is not there yet; the request had so many bytes, and the client may not want to hear of it.
    Waiting { bytes: usize, silent: bool },
    /// The reply lies there in `early`.
    Ready(Range<usize>),
}

/// What the connection's task and the executor share.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) writer: OwnedWriteHalf,
    pub(super) state: RefCell<State>,
    /// Something happened that the task may wait for.
    pub(super) progress: Notify,
    /// The task waits for replies rather than for requests.
    pub(super) waits: Cell<bool>,
    dirty: Cell<bool>,
}

pub(super) struct State {
    pub(super) session: Session,
    out: Outbox,
    pub(super) slots: VecDeque<Slot>,
    /// Number of the first slot.
    pub(super) first: u32,
    /// Replies that came before their turn.
    early: Vec<u8>,
    /// Bytes of a recent large reply.
    usual_reply: usize,
    pub(super) in_flight_bytes: usize,
    pub(super) blocked_since: Option<Instant>,
    pub(super) partial_since: Option<Instant>,
    /// Nothing more is read; the connection ends when everything is written.
    pub(super) closing: bool,
    /// The connection ends now.
    pub(super) dead: bool,
    /// The client broke the protocol, and may not know it yet.
    pub(super) refused: bool,
}

impl State {
    /// Bytes of replies that are to be expected of what is under way.
    fn expected(&self) -> usize {
        self.slots.len().saturating_mul(self.usual_reply)
    }

    /// Room for one reply in its turn: right away, or in a slot when others come first.
    pub(super) fn reply(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.slots.is_empty() {
            write(self.out.tail());
        } else {
            let start = self.early.len();
            write(&mut self.early);
            self.slots.push_back(Slot::Ready(start..self.early.len()));
        }
    }

    /// Puts the reply of the command with that number where it belongs.
    fn fulfil(&mut self, seq: u32, reply: &[u8]) {
        let nth = seq.wrapping_sub(self.first) as usize;
        let Some(slot) = self.slots.get_mut(nth) else {
            return;
        };
        let proto = self.session.protocol();
        let Slot::Waiting { bytes, silent } = *slot else {
            return;
        };
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        let reply = if silent { b"" } else { reply };
        // Falls slowly and rises at once: what is expected had better be too much than too little.
        self.usual_reply = reply.len().max(self.usual_reply - self.usual_reply / 8);
        if nth > 0 {
            let start = self.early.len();
            wire::transcode(reply, proto, &mut self.early);
            *slot = Slot::Ready(start..self.early.len());
            return;
        }
        wire::transcode(reply, proto, self.out.tail());
        self.slots.pop_front();
        self.first = self.first.wrapping_add(1);
        while let Some(Slot::Ready(range)) = self.slots.front() {
            let early = self.early.get(range.clone()).unwrap_or_default();
            self.out.tail().extend_from_slice(early);
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.slots.is_empty() {
            self.early.clear();
            self.early.shrink_to(KEPT_BYTES_MAX);
        }
    }
}

impl Connection {
    /// Writes what is there. What the client does not take now is written when it does.
    pub(super) fn flush(&self) {
        let mut state = self.state.borrow_mut();
        match state.out.write(|bytes| self.writer.try_write(bytes)) {
            Ok(_) if state.out.is_empty() => state.blocked_since = None,
            Ok(true) => state.blocked_since = Some(Instant::now()),
            Ok(false) => {
                state.blocked_since.get_or_insert_with(Instant::now);
            }
            Err(_) => state.dead = true,
        }
    }

    /// Whether the next command has to wait.
    pub(super) fn is_full(&self, coordinator: &Coordinator) -> bool {
        let limits = coordinator.limits();
        let state = self.state.borrow();
        !state.dead
            && (state.slots.len() >= limits.pipeline_commands_max
                || state.in_flight_bytes > IN_FLIGHT_BYTES_MAX
                || state.out.len() + state.early.len() + state.expected()
                    > limits.output_buffer_bytes_max)
    }

    /// Whether the task has to look after a flush. Most of the time it waits for requests and is left alone.
    fn wants_to_know(&self) -> bool {
        let state = self.state.borrow();
        self.waits.get() || state.closing || state.dead || state.blocked_since.is_some()
    }

    /// Waits until the executor has done something for this connection.
    pub(super) async fn progressed(&self) {
        self.waits.set(true);
        self.progress.notified().await;
        self.waits.set(false);
    }

    pub(super) fn is_over(&self) -> bool {
        let state = self.state.borrow();
        state.dead || (state.closing && state.slots.is_empty() && state.out.is_empty())
    }
}

/// The connections of one executor.
pub struct Connections {
    coordinator: Arc<Coordinator>,
    inbox: Arc<Inbox>,
    pub(super) index: usize,
    live: Slab<Rc<Connection>>,
    dirty: Vec<Rc<Connection>>,
    opened: u32,
    stopped: bool,
}

impl Connections {
    pub(super) fn new(
        coordinator: Arc<Coordinator>,
        inbox: Arc<Inbox>,
        index: usize,
    ) -> Connections {
        Connections {
            coordinator,
            inbox,
            index,
            live: Slab::new(),
            dirty: Vec::new(),
            opened: 0,
            stopped: false,
        }
    }

    pub(super) fn open(&mut self, writer: OwnedWriteHalf, session: Session) -> Rc<Connection> {
        self.opened = self.opened.wrapping_add(1);
        let entry = self.live.vacant_entry();
        // A place is used again; the number of the opening tells its users apart.
        let id = (u64::from(self.opened) << 32) | entry.key() as u64;
        let connection = Rc::new(Connection {
            id,
            writer,
            state: RefCell::new(State {
                session,
                out: Outbox::default(),
                slots: VecDeque::new(),
                first: 0,
                early: Vec::new(),
                usual_reply: FIRST_REPLY_BYTES,
                in_flight_bytes: 0,
                blocked_since: None,
                partial_since: None,
                closing: self.stopped,
                dead: false,
                refused: false,
            }),
            progress: Notify::new(),
            waits: Cell::new(false),
            dirty: Cell::new(false),
        });
        entry.insert(Rc::clone(&connection));
        connection
    }

    pub(super) fn forget(&mut self, connection: &Connection) {
        if self.get(connection.id).is_some() {
            self.live.remove((connection.id & 0xffff_ffff) as usize);
            self.inbox.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn get(&self, id: u64) -> Option<&Rc<Connection>> {
        self.live
            .get((id & 0xffff_ffff) as usize)
            .filter(|connection| connection.id == id)
    }

    /// Puts a reply into the order of its connection, if that is still there.
    pub(super) fn deliver(&mut self, id: u64, seq: u32, reply: &[u8]) {
        let Some(connection) = self.get(id).cloned() else {
            return;
        };
        connection.state.borrow_mut().fulfil(seq, reply);
        self.touch(&connection);
    }

    /// The connection has something to write at the end of this pass.
    pub(super) fn touch(&mut self, connection: &Rc<Connection>) {
        if !connection.dirty.replace(true) {
            self.dirty.push(Rc::clone(connection));
        }
    }

    /// Writes to every connection that got something.
    pub(super) fn flush(&mut self) {
        for connection in self.dirty.drain(..) {
            connection.dirty.set(false);
            connection.flush();
            if connection.wants_to_know() {
                connection.progress.notify_one();
            }
        }
    }

    /// Ends connections whose client neither finishes its request nor takes its replies.
    pub(super) fn check_timeouts(&mut self) {
        let patience = self.coordinator.limits().request_read_timeout;
        for (_, connection) in &self.live {
            let mut state = connection.state.borrow_mut();
            let stuck = [state.partial_since, state.blocked_since]
                .into_iter()
                .flatten()
                .any(|since| since.elapsed() > patience);
            if stuck {
                state.dead = true;
                connection.progress.notify_one();
            }
        }
    }

    /// Reads no more requests; those under way are answered.
    pub(super) fn stop_reading(&mut self) {
        self.stopped = true;
        for (_, connection) in &self.live {
            connection.state.borrow_mut().closing = true;
            connection.progress.notify_one();
        }
    }

    /// Whether nothing is under way and every reply is written.
    pub(super) fn idle(&self) -> bool {
        self.live.iter().all(|(_, connection)| {
            let state = connection.state.borrow();
            state.slots.is_empty() && (state.out.is_empty() || state.dead)
        })
    }

    pub(super) fn close_all(&mut self) {
        self.end(|_| true);
    }

    /// Ends the connections that `which` picks.
    pub fn end(&mut self, mut which: impl FnMut(&Session) -> bool) {
        for (_, connection) in &self.live {
            let mut state = connection.state.borrow_mut();
            if which(&state.session) {
                state.dead = true;
                connection.progress.notify_one();
            }
        }
    }

    /// Looks at every session.
    pub fn sessions(&self, mut each: impl FnMut(&Session)) {
        for (_, connection) in &self.live {
            let state = connection.state.borrow();
            // One that was ended is gone for everybody else, even before its task has noticed.
            if !state.dead {
                each(&state.session);
            }
        }
    }
}
