//! A client's connection: reads requests, sends each to its vnode, puts the replies back in the order of the requests.
//!
//! Requests of one connection run in parallel when they have different keys, as in any sharded store; those for one key
//! stay in order. A command that needs several vnodes waits for all before it, and all after it wait for it.
//! Memory is bounded: no more is read while too many commands are under way or too many replies wait for the client.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use slab::Slab;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use vnode_ring::PartitionId;

use super::about::About;
use super::{Executor, Inbox, Message, views, wake};
use crate::coordinator::{Coordinator, Route, now_ms};
use crate::resp::builtin::{self, After, Next};
use crate::resp::catalog::GuestCommand;
use crate::resp::codec::{self, Args, Progress, ProtocolError};
use crate::resp::session::{ClientInfo, Session};
use crate::resp::wire;
use crate::vnode::request::{Failure, ReplyTo, Request, Words};

/// Room for the first reads; doubled each time it is used up.
const READ_BYTES: usize = 4 * 1024;
/// Most room for one read, unless a single request needs more.
const READ_BYTES_MAX: usize = 64 * 1024;
/// With less room left than this, a read gets a new buffer.
const READ_BYTES_MIN: usize = 1024;
/// Bytes of requests under way on one connection; beyond, no more is read.
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One place in the order of replies.
enum Slot {
    /// The reply is not there yet; the request had so many bytes, and the client may not want to hear of it.
    Waiting { bytes: usize, silent: bool },
    /// The reply lies there in `early`.
    Ready(Range<usize>),
}

/// What the connection's task and the executor share.
pub struct Connection {
    id: u64,
    writer: OwnedWriteHalf,
    state: RefCell<State>,
    /// Something happened that the task may wait for.
    progress: Notify,
    /// The task waits for replies rather than for requests.
    waits: Cell<bool>,
    dirty: Cell<bool>,
}

struct State {
    session: Session,
    /// Replies on their way to the client; so many bytes of them are written.
    out: Vec<u8>,
    written: usize,
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first: u32,
    /// Replies that came before their turn.
    early: Vec<u8>,
    in_flight_bytes: usize,
    blocked_since: Option<Instant>,
    partial_since: Option<Instant>,
    /// Nothing more is read; the connection ends when everything is written.
    closing: bool,
    /// The connection ends now.
    dead: bool,
}

impl State {
    /// Room for one reply in its turn: right away, or in a slot when others come first.
    fn reply(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.slots.is_empty() {
            write(&mut self.out);
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
        if nth > 0 {
            let start = self.early.len();
            wire::transcode(reply, proto, &mut self.early);
            *slot = Slot::Ready(start..self.early.len());
            return;
        }
        wire::transcode(reply, proto, &mut self.out);
        self.slots.pop_front();
        self.first = self.first.wrapping_add(1);
        while let Some(Slot::Ready(range)) = self.slots.front() {
            let early = self.early.get(range.clone()).unwrap_or_default();
            self.out.extend_from_slice(early);
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.slots.is_empty() {
            self.early.clear();
        }
    }
}

impl Connection {
    /// Writes what is there. What the client does not take now is written when it does.
    fn flush(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        while let Some(rest) = state
            .out
            .get(state.written..)
            .filter(|rest| !rest.is_empty())
        {
            match self.writer.try_write(rest) {
                Ok(0) => {
                    state.dead = true;
                    break;
                }
                Ok(count) => state.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    state.blocked_since.get_or_insert_with(Instant::now);
                    return;
                }
                Err(_) => {
                    state.dead = true;
                    break;
                }
            }
        }
        state.blocked_since = None;
        state.written = 0;
        state.out.clear();
        state.out.shrink_to(64 * 1024);
    }

    /// Whether the next command has to wait.
    fn is_full(&self, coordinator: &Coordinator) -> bool {
        let limits = coordinator.limits();
        let state = self.state.borrow();
        !state.dead
            && (state.slots.len() >= limits.pipeline_commands_max
                || state.in_flight_bytes > IN_FLIGHT_BYTES_MAX
                || state.out.len() - state.written > limits.output_buffer_bytes_max)
    }

    /// Whether the task has to look after a flush. Most of the time it waits for requests and is left alone.
    fn wants_to_know(&self) -> bool {
        let state = self.state.borrow();
        self.waits.get() || state.closing || state.dead || state.blocked_since.is_some()
    }

    /// Waits until the executor has done something for this connection.
    async fn progressed(&self) {
        self.waits.set(true);
        self.progress.notified().await;
        self.waits.set(false);
    }

    fn is_over(&self) -> bool {
        let state = self.state.borrow();
        state.dead || (state.closing && state.slots.is_empty() && state.out.len() == state.written)
    }
}

/// The connections of one executor.
pub struct Connections {
    coordinator: Arc<Coordinator>,
    inbox: Arc<Inbox>,
    index: usize,
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

    fn open(&mut self, writer: OwnedWriteHalf, session: Session) -> Rc<Connection> {
        self.opened = self.opened.wrapping_add(1);
        let entry = self.live.vacant_entry();
        // A place is used again; the number of the opening tells its users apart.
        let id = (u64::from(self.opened) << 32) | entry.key() as u64;
        let connection = Rc::new(Connection {
            id,
            writer,
            state: RefCell::new(State {
                session,
                out: Vec::new(),
                written: 0,
                slots: VecDeque::new(),
                first: 0,
                early: Vec::new(),
                in_flight_bytes: 0,
                blocked_since: None,
                partial_since: None,
                closing: self.stopped,
                dead: false,
            }),
            progress: Notify::new(),
            waits: Cell::new(false),
            dirty: Cell::new(false),
        });
        entry.insert(Rc::clone(&connection));
        connection
    }

    fn forget(&mut self, connection: &Connection) {
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
    fn touch(&mut self, connection: &Rc<Connection>) {
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
            state.slots.is_empty() && (state.out.len() == state.written || state.dead)
        })
    }

    pub(super) fn close_all(&mut self) {
        self.end(|_, _| true);
    }

    /// Ends the connections that `which` picks.
    pub fn end(&mut self, mut which: impl FnMut(u64, &Session) -> bool) {
        for (_, connection) in &self.live {
            let mut state = connection.state.borrow_mut();
            if which(connection.id, &state.session) {
                state.dead = true;
                connection.progress.notify_one();
            }
        }
    }

    /// Looks at every session.
    pub fn sessions(&self, mut each: impl FnMut(&Session)) {
        for (_, connection) in &self.live {
            each(&connection.state.borrow().session);
        }
    }
}

/// Takes a new client in and starts its task.
pub(super) fn accept(
    executor: &Rc<RefCell<Executor>>,
    inbox: &Arc<Inbox>,
    stream: std::net::TcpStream,
) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "a client's connection could not be taken");
            return;
        }
    };
    let addresses = stream.peer_addr().ok().zip(stream.local_addr().ok());
    let (reader, writer) = stream.into_split();
    let mut now = executor.borrow_mut();
    let coordinator = Arc::clone(&now.coordinator);
    let text = |address: std::net::SocketAddr| address.to_string();
    let (peer, own) =
        addresses.map_or_else(Default::default, |(peer, own)| (text(peer), text(own)));
    let about = Arc::clone(&now.about);
    let session = Session::new(about.next_client(), peer, own, now_ms());
    let connection = now.connections.open(writer, session);
    drop(now);
    let task = Task {
        executor: Rc::clone(executor),
        inbox: Arc::clone(inbox),
        coordinator,
        about,
        connection,
    };
    tokio::task::spawn_local(async move {
        task.serve(reader).await;
        task.executor
            .borrow_mut()
            .connections
            .forget(&task.connection);
        wake(&task.inbox);
    });
}

struct Task {
    executor: Rc<RefCell<Executor>>,
    inbox: Arc<Inbox>,
    coordinator: Arc<Coordinator>,
    about: Arc<About>,
    connection: Rc<Connection>,
}

/// When the commands of one read arrived.
#[derive(Clone, Copy)]
struct Time {
    arrived: Instant,
    /// Wall clock, milliseconds.
    now_ms: u64,
}

/// Whether the command is one that shows all clients.
fn shows_clients(words: codec::Words<'_>) -> bool {
    let is = |position: usize, text: &[u8]| {
        words
            .get(position)
            .is_some_and(|word| word.eq_ignore_ascii_case(text))
    };
    is(0, b"client") && (is(1, b"list") || is(1, b"kill"))
}

/// Where a command runs.
struct Place {
    partition: PartitionId,
    /// Hash prefix of its first key.
    hash: u64,
}

/// One request found in the buffer.
enum Parsed {
    /// Its words are these of the collected ranges.
    Multibulk(Range<usize>),
    /// It came inline, where quoting may make words differ from what was sent: a buffer of its own.
    Inline(Bytes, Vec<Range<usize>>),
}

impl Task {
    async fn serve(&self, mut reader: OwnedReadHalf) {
        let connection = &self.connection;
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut args = Args::default();
        let mut needed = 0;
        let mut room = READ_BYTES;
        loop {
            if connection.is_over() {
                return;
            }
            let (closing, blocked) = {
                let state = connection.state.borrow();
                (state.closing, state.blocked_since.is_some())
            };
            let waits = closing || connection.is_full(&self.coordinator);
            connection.waits.set(waits);
            let spare = buffer.capacity() - buffer.len();
            if spare < READ_BYTES_MIN.max(needed) {
                // The read that left so little room may have filled it.
                room = (room * 2).min(READ_BYTES_MAX);
                buffer.reserve(room.max(needed));
            }
            tokio::select! {
                biased;
                read = reader.read_buf(&mut buffer), if !waits => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) if count < needed => needed -= count,
                    Ok(_) => match self.parse(&mut buffer, &mut args).await {
                        Some(more) => needed = more.saturating_sub(buffer.len()),
                        None => connection.state.borrow_mut().closing = true,
                    },
                },
                _ = connection.writer.writable(), if blocked => connection.flush(),
                () = connection.progress.notified() => {}
            }
        }
    }

    /// Takes every whole request out of the buffer and sends it off. Returns how many bytes the buffer must have before
    /// another look is worth it; none when the client broke the protocol or said goodbye.
    async fn parse(&self, buffer: &mut BytesMut, args: &mut Args) -> Option<usize> {
        let limits = &self.coordinator.limits().requests;
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut requests = Vec::new();
        let mut consumed = 0;
        let mut broken = None;
        let mut needed = 0;
        while let Some(rest) = buffer.get(consumed..).filter(|rest| !rest.is_empty()) {
            match codec::parse(rest, limits, args) {
                Ok(Progress::Complete { consumed: length }) => {
                    if let Some(spans) = args.spans() {
                        let start = ranges.len();
                        let moved =
                            |span: &Range<usize>| consumed + span.start..consumed + span.end;
                        ranges.extend(spans.iter().map(moved));
                        requests.push(Parsed::Multibulk(start..ranges.len()));
                    } else {
                        let (mut buffer, mut ranges) = (Vec::new(), Vec::new());
                        for word in args.of(rest).iter() {
                            let start = buffer.len();
                            buffer.extend_from_slice(word);
                            ranges.push(start..buffer.len());
                        }
                        requests.push(Parsed::Inline(buffer.into(), ranges));
                    }
                    consumed += length;
                }
                Ok(Progress::Incomplete { needed: more }) => {
                    needed = more;
                    break;
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        let chunk = buffer.split_to(consumed).freeze();
        {
            let mut state = self.connection.state.borrow_mut();
            state.partial_since = (!buffer.is_empty() && broken.is_none()).then(|| {
                state
                    .partial_since
                    .filter(|_| consumed == 0)
                    .unwrap_or_else(Instant::now)
            });
        }
        let open = self.dispatch_all(&chunk, &ranges, requests).await;
        if let Some(error) = broken {
            self.refuse(&error);
            return None;
        }
        self.finish_batch();
        open.then_some(needed)
    }

    /// Sends requests off in order; false when the client said goodbye.
    async fn dispatch_all(
        &self,
        chunk: &Bytes,
        ranges: &[Range<usize>],
        requests: Vec<Parsed>,
    ) -> bool {
        let arrived = Instant::now();
        let now_ms = now_ms();
        for request in requests {
            let (buffer, ranges) = match &request {
                Parsed::Multibulk(of) => (chunk, ranges.get(of.clone()).unwrap_or_default()),
                Parsed::Inline(buffer, ranges) => (buffer, ranges.as_slice()),
            };
            if ranges.is_empty() {
                continue;
            }
            while self.connection.is_full(&self.coordinator) {
                self.finish_batch();
                self.connection.progressed().await;
            }
            if self.connection.state.borrow().dead {
                return false;
            }
            let time = Time { arrived, now_ms };
            if !self.dispatch(buffer, ranges, time).await {
                return false;
            }
        }
        true
    }

    /// Sends one command off, or answers it; false when the client said goodbye.
    async fn dispatch(&self, buffer: &Bytes, ranges: &[Range<usize>], time: Time) -> bool {
        let view = codec::Words::new(ranges, buffer);
        let clients = match shows_clients(view) {
            true => self.clients().await,
            false => Vec::new(),
        };
        let mut reply = Vec::new();
        let (next, silent) = {
            let mut state = self.connection.state.borrow_mut();
            let about = &self.about;
            about.with_facts(self.coordinator.catalog(), time.now_ms, &clients, |facts| {
                let next = builtin::dispatch(view, &mut state.session, facts, &mut reply);
                (next, !state.session.sends_reply())
            })
        };
        match next {
            Next::Replied(after) => {
                let mut state = self.connection.state.borrow_mut();
                if !silent {
                    state.reply(|out| out.extend_from_slice(&reply));
                }
                drop(state);
                self.after(after)
            }
            Next::Node(command) => {
                let words = Words::new(buffer.clone(), ranges);
                let reply = views::run(&self.coordinator, command, &words);
                self.answer(&reply, silent);
                true
            }
            Next::Guest(target) => {
                let words = Words::new(buffer.clone(), ranges);
                match self.route(target, &words) {
                    Ok(Route::One { partition, hash }) => {
                        let place = Place { partition, hash };
                        self.submit(target, place, words, time, silent);
                    }
                    Ok(Route::EachKey | Route::Coverage) => {
                        self.settled().await;
                        let reply = self.coordinator.call(target, words).await;
                        self.answer(&reply, silent);
                    }
                    Err(failure) => {
                        failure.write(&mut reply);
                        self.answer(&reply, silent);
                    }
                }
                true
            }
        }
    }

    /// Puts a reply that is at hand into its turn.
    fn answer(&self, reply: &[u8], silent: bool) {
        if silent {
            return;
        }
        let mut state = self.connection.state.borrow_mut();
        let proto = state.session.protocol();
        state.reply(|out| wire::transcode(reply, proto, out));
    }

    fn route(&self, target: GuestCommand, words: &Words) -> Result<Route, Failure> {
        if self.coordinator.is_draining() {
            return Err(Failure::Draining);
        }
        self.coordinator.route(target, words)
    }

    /// Does what a built-in left to do; false when this connection ends.
    fn after(&self, after: After) -> bool {
        match after {
            After::Continue => true,
            After::Close => {
                self.finish_batch();
                false
            }
            After::Kill(ids) => {
                let ends_itself = ids.contains(&self.connection.state.borrow().session.client.id);
                let ids: Arc<[u64]> = ids.into();
                for inbox in self.coordinator.inboxes() {
                    let ids = Arc::clone(&ids);
                    let own = self.connection.id;
                    inbox.send(Message::Inspect(Box::new(move |executor| {
                        executor.connections().end(|connection, session| {
                            connection != own && ids.contains(&session.client.id)
                        });
                    })));
                }
                !ends_itself
            }
        }
    }

    /// All clients of the node.
    async fn clients(&self) -> Vec<ClientInfo> {
        let mut clients = Vec::new();
        for inbox in self.coordinator.inboxes() {
            let (answer, answered) = oneshot::channel();
            inbox.send(Message::Inspect(Box::new(move |executor| {
                let mut here = Vec::new();
                executor
                    .connections()
                    .sessions(|session| here.push(session.client.clone()));
                drop(answer.send(here));
            })));
            clients.extend(answered.await.unwrap_or_default());
        }
        clients.sort_by_key(|client| client.id);
        clients
    }

    fn submit(&self, target: GuestCommand, place: Place, words: Words, time: Time, silent: bool) {
        let mut executor = self.executor.borrow_mut();
        let index = u16::try_from(executor.connections.index).unwrap_or(u16::MAX);
        let seq = {
            let mut state = self.connection.state.borrow_mut();
            let bytes = words.bytes();
            let nth = u32::try_from(state.slots.len()).unwrap_or(u32::MAX);
            state.in_flight_bytes += bytes;
            state.slots.push_back(Slot::Waiting { bytes, silent });
            state.first.wrapping_add(nth)
        };
        executor.submit(Request {
            service: u16::try_from(target.service).unwrap_or(u16::MAX),
            command: u16::try_from(target.command).unwrap_or(u16::MAX),
            partition: place.partition,
            range: place.partition,
            hash: place.hash,
            words,
            now_ms: time.now_ms,
            id: self.coordinator.next_id(),
            arrived: time.arrived,
            reply_to: ReplyTo::Connection {
                executor: index,
                connection: self.connection.id,
                seq,
            },
        });
    }

    /// Waits until every command before this one is answered.
    async fn settled(&self) {
        while !self.connection.state.borrow().slots.is_empty()
            && !self.connection.state.borrow().dead
        {
            self.finish_batch();
            self.connection.progressed().await;
        }
    }

    /// Lets the executor make a pass, which also writes what is there for this client.
    fn finish_batch(&self) {
        self.executor
            .borrow_mut()
            .connections
            .touch(&self.connection);
        wake(&self.inbox);
    }

    fn refuse(&self, error: &ProtocolError) {
        let mut state = self.connection.state.borrow_mut();
        state.reply(|out| error.reply(out));
        state.closing = true;
        drop(state);
        self.finish_batch();
    }
}
