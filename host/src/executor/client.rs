//! A client's task: reads requests, sends each to its vnode, and waits only where the client's order asks for it.
//!
//! Requests of one connection run in parallel when they have different keys, as in any sharded store; those for one key
//! stay in order. A command that needs several vnodes waits for all before it, and all after it wait for it.

mod dispatch;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use vnode_ring::PartitionId;

use super::Executor;
use super::about::About;
use super::connection::Connection;
use super::inbox::Inbox;
use crate::coordinator::Coordinator;
use crate::net::{self, Detached, OwnedReadHalf};
use crate::resp::codec::{self, Args, Progress, ProtocolError};
use crate::resp::session::Session;
use crate::vnode::request::Consistency;

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
