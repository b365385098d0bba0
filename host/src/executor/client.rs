//! A client's task: reads requests, sends each to its vnode, and waits only where the client's order asks for it.
//!
//! Requests of one connection run in parallel when they have different keys, as in any sharded store; those for one key
//! stay in order. A command that needs several vnodes waits for all before it, and all after it wait for it.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use vnode_ring::{PartitionId, Role};

use super::about::About;
use super::connection::{Connection, Slot};
use super::inbox::{Inbox, Message};
use super::{Executor, views};
use crate::coordinator::front::Front;
use crate::coordinator::wishes::Wishes;
use crate::coordinator::{Coordinator, Route};
use crate::net::{self, Detached, OwnedReadHalf};
use crate::resp::builtin::{self, After, Next};
use crate::resp::catalog::GuestCommand;
use crate::resp::codec::{self, Args, Progress, ProtocolError};
use crate::resp::session::{ClientInfo, Session};
use crate::resp::wire;
use crate::vnode::request::{Consistency, Failure, ReplyTo, Request, Words, Work};

/// Room for the first reads; doubled each time it is used up.
const READ_BYTES: usize = 4 * 1024;
/// Most room for one read, unless a single request needs more.
const READ_BYTES_MAX: usize = 64 * 1024;
/// How long a client that was refused is heard out.
const LINGER: Duration = Duration::from_secs(1);
/// With less room left than this, a read gets a new buffer.
const READ_BYTES_MIN: usize = 1024;

/// A client on its way from one executor to another.
pub struct Moving {
    stream: Detached,
    session: Session,
    /// What was read of its next request.
    unread: BytesMut,
}

/// Takes a new client in and starts its task.
pub(super) fn accept(executor: &Rc<RefCell<Executor>>, inbox: &Arc<Inbox>, stream: Detached) {
    let addresses = stream.peer_addr().ok().zip(stream.local_addr().ok());
    let text = |address: std::net::SocketAddr| address.to_string();
    let (peer, own) =
        addresses.map_or_else(Default::default, |(peer, own)| (text(peer), text(own)));
    let now = executor.borrow();
    let (id, now_ms) = (now.about.next_client(), now.coordinator.now_ms());
    drop(now);
    let moving = Moving {
        stream,
        session: Session::new(id, peer, own, now_ms),
        unread: BytesMut::with_capacity(READ_BYTES),
    };
    start(executor, inbox, moving);
}

/// Starts the task of a client that comes from elsewhere.
pub(super) fn start(executor: &Rc<RefCell<Executor>>, inbox: &Arc<Inbox>, moving: Moving) {
    let stream = match net::attach(moving.stream) {
        Ok(stream) => stream,
        Err(error) => {
            inbox.gone();
            tracing::warn!(%error, "a client's connection could not be taken");
            return;
        }
    };
    let (reader, writer) = net::split(stream);
    let mut now = executor.borrow_mut();
    let task = Task {
        executor: Rc::clone(executor),
        inbox: Arc::clone(inbox),
        coordinator: Arc::clone(&now.coordinator),
        about: Arc::clone(&now.about),
        connection: now.connections.open(writer, moving.session),
    };
    drop(now);
    if !moving.unread.is_empty() {
        task.connection.state.borrow_mut().partial_since = Some(Instant::now());
    }
    tokio::task::spawn_local(task.run(reader, moving.unread));
}

struct Task {
    executor: Rc<RefCell<Executor>>,
    inbox: Arc<Inbox>,
    coordinator: Arc<Coordinator>,
    about: Arc<About>,
    connection: Rc<Connection>,
}

/// When commands arrived.
#[derive(Clone, Copy)]
struct Time {
    arrived: Instant,
    /// Wall clock, milliseconds.
    now_ms: u64,
}

impl Time {
    fn now(coordinator: &Coordinator) -> Time {
        Time {
            arrived: Instant::now(),
            now_ms: coordinator.now_ms(),
        }
    }
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
    consistency: Consistency,
}

/// What became of a buffer.
enum Parse {
    /// It needs so many bytes before another look is worth it.
    Wait(usize),
    /// The request at its front is too big and has been refused; this passes over it.
    Skip(codec::Skip),
    /// The client broke the protocol or said goodbye.
    End,
}

/// One request found in the buffer.
enum Parsed {
    /// Its words are these of the collected ranges.
    Multibulk(Range<usize>),
    /// It came inline, where quoting may make words differ from what was sent: a buffer of its own.
    Inline(Bytes, Vec<Range<usize>>),
}

impl Task {
    async fn run(self, mut reader: OwnedReadHalf, mut buffer: BytesMut) {
        let moves_to = self.serve(&mut reader, &mut buffer).await;
        let mut executor = self.executor.borrow_mut();
        executor.connections.forget(&self.connection);
        drop(executor);
        self.inbox.wake();
        if let Some(inbox) = moves_to.and_then(|index| self.coordinator.inboxes().get(index))
            && let Some(connection) = Rc::into_inner(self.connection)
            && let Ok(stream) = reader.reunite(connection.writer)
            && let Ok(stream) = net::detach(stream)
        {
            let session = connection.state.into_inner().session;
            inbox.take_over(Box::new(Moving {
                stream,
                session,
                unread: buffer,
            }));
        }
    }

    /// Serves the client until it goes, or is to move on to the executor with this index.
    async fn serve(&self, reader: &mut OwnedReadHalf, buffer: &mut BytesMut) -> Option<usize> {
        let connection = &self.connection;
        let mut args = Args::default();
        let mut needed = 0;
        let mut room = READ_BYTES;
        let mut skip = None;
        loop {
            if connection.is_over() {
                self.linger(reader).await;
                return None;
            }
            let moves = connection.moves_to.get().filter(|_| skip.is_none());
            if moves.is_some() && connection.is_quiet() {
                return moves;
            }
            let (closing, blocked) = {
                let state = connection.state.borrow();
                (state.closing, state.blocked_since.is_some())
            };
            let waits = closing || moves.is_some() || connection.is_full(&self.coordinator);
            connection.set_waits(waits);
            let spare = buffer.capacity() - buffer.len();
            if spare < READ_BYTES_MIN {
                // The read that left so little room may have filled it. Room for a large request grows with what has come of
                // it, not with what was announced.
                room = (room * 2).min(READ_BYTES_MAX);
                buffer.reserve(room.max(needed.min(buffer.len())));
            }
            tokio::select! {
                biased;
                read = reader.read_buf(buffer), if !waits => match read {
                    // The client has said all that it will say, and may still want to hear.
                    Ok(0) => connection.state.borrow_mut().closing = true,
                    Err(_) => return None,
                    Ok(count) if count < needed => {
                        self.inbox.count_input(count);
                        needed -= count;
                    }
                    Ok(count) => {
                        self.inbox.count_input(count);
                        connection.dispatching.set(true);
                        needed = self.take(buffer, &mut args, &mut skip).await;
                        connection.dispatching.set(false);
                        if buffer.is_empty() && buffer.capacity() > READ_BYTES_MAX {
                            // The room of a large request is not kept for the next one.
                            *buffer = BytesMut::with_capacity(READ_BYTES);
                        }
                    }
                },
                _ = connection.writer.writable(), if blocked => connection.flush(),
                () = connection.progress.notified() => {}
            }
        }
    }

    /// Takes out of the buffer what is whole. Returns how many more bytes it takes for another look to be worth it.
    async fn take(
        &self,
        buffer: &mut BytesMut,
        args: &mut Args,
        skip: &mut Option<codec::Skip>,
    ) -> usize {
        loop {
            if let Some(skipping) = skip {
                match skipping.feed(buffer) {
                    Ok((count, done)) => {
                        buffer.advance(count);
                        if !done {
                            return 0;
                        }
                        *skip = None;
                    }
                    Err(error) => {
                        self.refuse(&error);
                        return 0;
                    }
                }
            }
            match self.parse(buffer, args).await {
                Parse::Wait(needed) => return needed.saturating_sub(buffer.len()),
                Parse::End => {
                    self.connection.state.borrow_mut().closing = true;
                    return 0;
                }
                Parse::Skip(over) => *skip = Some(over),
            }
        }
    }

    /// Hears out a client that is still sending when its connection ends, for a moment: closing on unread bytes would take
    /// the last reply away from it.
    async fn linger(&self, reader: &mut OwnedReadHalf) {
        if !self.connection.state.borrow().refused {
            return;
        }
        let mut unread = vec![0; READ_BYTES_MAX];
        let hear = async { while matches!(reader.read(&mut unread).await, Ok(1..)) {} };
        // Out of patience or out of words: either way it ends here.
        let _ = tokio::time::timeout(LINGER, hear).await;
    }

    /// Takes every whole request out of the buffer and sends it off.
    async fn parse(&self, buffer: &mut BytesMut, args: &mut Args) -> Parse {
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
        match broken {
            Some(error @ ProtocolError::TooBig(_)) if open => match codec::Skip::over(buffer) {
                Some(skip) => {
                    let mut state = self.connection.state.borrow_mut();
                    state.reply(|out| error.reply(out));
                    state.partial_since = Some(Instant::now());
                    drop(state);
                    self.finish_batch();
                    Parse::Skip(skip)
                }
                None => {
                    self.refuse(&error);
                    Parse::End
                }
            },
            Some(error) => {
                self.refuse(&error);
                Parse::End
            }
            None => {
                self.finish_batch();
                if open {
                    Parse::Wait(needed)
                } else {
                    Parse::End
                }
            }
        }
    }

    /// Sends requests off in order; false when the client said goodbye.
    async fn dispatch_all(
        &self,
        chunk: &Bytes,
        ranges: &[Range<usize>],
        requests: Vec<Parsed>,
    ) -> bool {
        let mut time = Time::now(&self.coordinator);
        for request in requests {
            let (buffer, ranges) = match &request {
                Parsed::Multibulk(of) => (chunk, ranges.get(of.clone()).unwrap_or_default()),
                Parsed::Inline(buffer, ranges) => (buffer, ranges.as_slice()),
            };
            if ranges.is_empty() {
                continue;
            }
            if self.connection.is_full(&self.coordinator) {
                self.wait_until(|connection| !connection.is_full(&self.coordinator))
                    .await;
                // Time that the client itself took is not taken from its commands.
                time = Time::now(&self.coordinator);
            }
            if self.connection.state.borrow().dead {
                return false;
            }
            if !self.dispatch(buffer, ranges, &mut time).await {
                return false;
            }
        }
        true
    }

    /// Sends one command off, or answers it; false when the client said goodbye.
    async fn dispatch(&self, buffer: &Bytes, ranges: &[Range<usize>], time: &mut Time) -> bool {
        let view = codec::Words::new(ranges, buffer);
        let clients = match shows_clients(view) {
            true => self.clients().await,
            false => Vec::new(),
        };
        let mut reply = Vec::new();
        let front = self.executor.borrow().front();
        let (next, silent) = {
            let mut state = self.connection.state.borrow_mut();
            let about = &self.about;
            about.with_facts(&front, time.now_ms, &clients, |facts| {
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
            Next::Node(command) if command.asks_vnodes() => {
                let words = Words::new(buffer.clone(), ranges);
                self.settled().await;
                let reply = views::ask(&self.coordinator, command, &words).await;
                self.answer(&reply, silent);
                *time = Time::now(&self.coordinator);
                true
            }
            Next::Node(command) => {
                let words = Words::new(buffer.clone(), ranges);
                let reply = views::run(&self.coordinator, command, &words);
                self.answer(&reply, silent);
                true
            }
            Next::Guest(target) => {
                let words = Words::new(buffer.clone(), ranges);
                match self.route(&front, target, &words) {
                    Ok(Route::One { partition, hash }) => {
                        let place = Place {
                            partition,
                            hash,
                            consistency: self.coordinator.consistency(&front, target),
                        };
                        while self.overtakes(&front, target, &place, &words) {
                            self.settled().await;
                            self.connection.state.borrow_mut().looking.clear();
                            *time = Time::now(&self.coordinator);
                        }
                        self.submit(target, place, words, *time, silent);
                    }
                    Ok(Route::EachKey | Route::Coverage) => {
                        self.settled().await;
                        let reply = self
                            .coordinator
                            .call(target, words, Wishes::default())
                            .await;
                        self.answer(&reply, silent);
                        *time = Time::now(&self.coordinator);
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

    fn route(&self, front: &Front, target: GuestCommand, words: &Words) -> Result<Route, Failure> {
        if self.coordinator.is_draining() {
            return Err(Failure::Draining);
        }
        self.coordinator.route(front, target, words)
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
                let own = self.connection.state.borrow().session.client.id;
                let ends_itself = ids.contains(&own);
                let others = ids.into_iter().filter(|id| *id != own);
                let others: Arc<[u64]> = others.collect();
                for inbox in self.coordinator.inboxes() {
                    let others = Arc::clone(&others);
                    inbox.send(Message::Inspect(Box::new(move |executor| {
                        executor
                            .connections()
                            .end(|session| others.contains(&session.client.id));
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

    /// Whether a command might run before an earlier one on the same key. If not, remembers what it is that others might overtake.
    fn overtakes(&self, front: &Front, target: GuestCommand, place: &Place, words: &Words) -> bool {
        let Some(spec) = front.spec(target) else {
            return false;
        };
        let mut state = self.connection.state.borrow_mut();
        if state.slots.is_empty() {
            state.looking.clear();
        }
        let several = spec.key_positions(words.len()).nth(1).is_some();
        if state.looking.blocks(place.hash, spec.writes(), several) {
            return true;
        }
        if spec.looks() && place.consistency.looks() {
            state.looking.add(place.hash, spec.writes(), several);
        }
        false
    }

    fn submit(&self, target: GuestCommand, place: Place, words: Words, time: Time, silent: bool) {
        let mut executor = self.executor.borrow_mut();
        let index = u16::try_from(executor.connections.index).unwrap_or(u16::MAX);
        let seq = {
            let mut state = self.connection.state.borrow_mut();
            let bytes = words.bytes();
            let nth = u32::try_from(state.slots.len()).unwrap_or(u32::MAX);
            state.in_flight_bytes += bytes;
            let proto = state.session.protocol();
            state.slots.push_back(Slot::Waiting {
                bytes,
                silent,
                proto,
            });
            state.first.wrapping_add(nth)
        };
        let id = executor.next_id();
        executor.submit(Request {
            service: u16::try_from(target.service).unwrap_or(u16::MAX),
            command: u16::try_from(target.command).unwrap_or(u16::MAX),
            partition: place.partition,
            range: place.partition,
            hash: place.hash,
            words,
            now_ms: time.now_ms,
            id,
            alone: false,
            role: Role::Primary,
            work: Work::Command,
            consistency: place.consistency,
            trace: None,
            tries: 0,
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
        self.wait_until(|connection| {
            let state = connection.state.borrow();
            state.slots.is_empty() || state.dead
        })
        .await;
    }

    /// Lets the executor work until that holds.
    async fn wait_until(&self, holds: impl Fn(&Connection) -> bool) {
        if holds(&self.connection) {
            return;
        }
        self.finish_batch();
        while !holds(&self.connection) {
            self.connection.progressed().await;
        }
    }

    /// Lets the executor make a pass, which also writes what is there for this client.
    fn finish_batch(&self) {
        self.executor
            .borrow_mut()
            .connections
            .touch(&self.connection);
        self.inbox.wake();
    }

    fn refuse(&self, error: &ProtocolError) {
        let mut state = self.connection.state.borrow_mut();
        state.reply(|out| error.reply(out));
        state.closing = true;
        state.refused = true;
        drop(state);
        self.finish_batch();
    }
}
