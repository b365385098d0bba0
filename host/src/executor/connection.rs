//! What a client's connection holds: replies in the order of the requests, and what is on its way to the socket.
//!
//! Replies come in any order, since requests with different keys run in parallel; each waits here for its turn. Memory
//! is bounded: no more is read while too many commands are under way or too many replies wait for the client.
//! The task that reads requests is in `client`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::inbox::Inbox;
use super::outbox::Outbox;
use crate::coordinator::Coordinator;
use crate::net::OwnedWriteHalf;
use crate::resp::Protocol;
use crate::resp::session::Session;
use crate::resp::wire;

/// Bytes of requests under way on one connection; beyond, no more is read.
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Memory for replies that a quiet connection keeps.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Replies may weigh more than was expected; beyond so many times the limit the client is dropped.
const OVERSHOOT_MAX: usize = 4;
/// What the replies of a new connection are expected to weigh, until they come.
const FIRST_REPLY_BYTES: usize = 128 * 1024;

/// One place in the order of replies.
pub(super) enum Slot {
    /// The reply is not there yet.
    Waiting {
        /// Bytes of the request.
        bytes: usize,
        /// The client does not want to hear of it.
        silent: bool,
        /// What the client spoke when it asked.
        proto: Protocol,
    },
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
    waits: Cell<bool>,
    /// The task has requests in hand that it has not sent off.
    pub(super) dispatching: Cell<bool>,
    dirty: Cell<bool>,
    /// The executor that this client is to go to.
    pub(super) moves_to: Cell<Option<usize>>,
    /// Of its executor, which counts what is read and written.
    inbox: Arc<Inbox>,
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
    pub(super) looking: Looking,
    pub(super) blocked_since: Option<Instant>,
    pub(super) partial_since: Option<Instant>,
    /// Nothing more is read; the connection ends when everything is written.
    pub(super) closing: bool,
    /// The connection ends now.
    pub(super) dead: bool,
    /// The client broke the protocol, and may not know it yet.
    pub(super) refused: bool,
}

/// Commands of a connection that other replicas are heard for before they run. A command that comes after one of them must not
/// overtake it on the same key.
#[derive(Default)]
pub(super) struct Looking {
    /// By the hash of the key, and whether the command writes.
    keys: BTreeMap<u64, bool>,
    /// One of them has several keys.
    several: bool,
}

impl Looking {
    /// Whether a command on that key has to wait until those before it are answered.
    pub(super) fn blocks(&self, hash: u64, writes: bool, several: bool) -> bool {
        let earlier = self.keys.get(&hash);
        let meets = earlier.is_some_and(|wrote| *wrote || writes);
        meets || self.several || (several && !self.keys.is_empty())
    }

    /// Remembers a command.
    pub(super) fn add(&mut self, hash: u64, writes: bool, several: bool) {
        *self.keys.entry(hash).or_default() |= writes;
        self.several |= several;
    }

    /// Every command has been answered.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.several = false;
    }
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

    /// The connection ends, and what waited for it goes.
    fn drop_replies(&mut self) {
        self.dead = true;
        self.out = Outbox::default();
        self.early = Vec::new();
    }

    /// Puts the reply of the command with that number where it belongs.
    fn fulfil(&mut self, seq: u32, reply: &[u8]) {
        let nth = seq.wrapping_sub(self.first) as usize;
        let Some(slot) = self.slots.get_mut(nth) else {
            return;
        };
        let Slot::Waiting {
            bytes,
            silent,
            proto,
        } = *slot
        else {
            return;
        };
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        let reply = if silent { b"" } else { reply };
        // Falls slowly and rises at once: what is expected had better be too much than too little.
        self.usual_reply = reply.len().max(self.usual_reply - self.usual_reply / 64);
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
        let write = |bytes: &[u8]| {
            let count = self.writer.try_write(bytes)?;
            self.inbox.count_output(count);
            Ok(count)
        };
        match state.out.write(write) {
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

    /// Says whether the task waits for replies rather than for requests. A request that is not whole yet has time from
    /// when it is read again.
    pub(super) fn set_waits(&self, waits: bool) {
        if self.waits.replace(waits) && !waits {
            let mut state = self.state.borrow_mut();
            if state.partial_since.is_some() {
                state.partial_since = Some(Instant::now());
            }
        }
    }

    /// Waits until the executor has done something for this connection, or the client took something.
    pub(super) async fn progressed(&self) {
        self.set_waits(true);
        let blocked = self.state.borrow().blocked_since.is_some();
        tokio::select! {
            () = self.progress.notified() => {}
            _ = self.writer.writable(), if blocked => self.flush(),
        }
        self.set_waits(false);
    }

    /// Whether nothing of it is under way, neither here nor to the client.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state.borrow();
        state.slots.is_empty() && state.out.is_empty() && !self.dirty.get() && !state.closing
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
                looking: Looking::default(),
                blocked_since: None,
                partial_since: None,
                closing: self.stopped,
                dead: false,
                refused: false,
            }),
            progress: Notify::new(),
            waits: Cell::new(false),
            dispatching: Cell::new(false),
            dirty: Cell::new(false),
            moves_to: Cell::new(None),
            inbox: Arc::clone(&self.inbox),
        });
        entry.insert(Rc::clone(&connection));
        connection
    }

    pub(super) fn forget(&mut self, connection: &Connection) {
        if self.get(connection.id).is_some() {
            self.live.remove((connection.id & 0xffff_ffff) as usize);
            self.inbox.gone();
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
        let mut state = connection.state.borrow_mut();
        if state.dead {
            return;
        }
        state.fulfil(seq, reply);
        let held = state.out.len() + state.early.len();
        let held_max = self.coordinator.limits().output_buffer_bytes_max;
        if held > held_max.saturating_mul(OVERSHOOT_MAX) {
            tracing::warn!(
                client = state.session.client.id,
                held,
                "a client was dropped that asked for more than it took (output_buffer_bytes_max)"
            );
            state.drop_replies();
        }
        drop(state);
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
            let partial = state.partial_since.filter(|_| !connection.waits.get());
            let stuck = [partial, state.blocked_since]
                .into_iter()
                .flatten()
                .any(|since| since.elapsed() > patience);
            if stuck {
                state.dead = true;
                connection.progress.notify_one();
            }
        }
    }

    /// Has so many clients move to another executor, each as soon as nothing of it is under way.
    pub(super) fn move_to(&mut self, executor: usize, clients: usize) {
        for (_, connection) in self.live.iter().take(clients) {
            connection.moves_to.set(Some(executor));
            connection.progress.notify_one();
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
            let done = state.slots.is_empty() && state.out.is_empty();
            !connection.dispatching.get() && (done || state.dead)
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
