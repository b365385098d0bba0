//! One control connection, in the role of the node that dialled ([`Link`]) and of the one that answers ([`serve`]).
//!
//! Requests have ids, so that many are in flight and replies come in any order. Everything that has collected is written with
//! one call of the system. Whatever waits is bounded: past the bound a caller gets `Busy` at once. A heartbeat shows a
//! connection that is open but dead, which TCP alone does not. Neither role leaves a task behind when it is dropped.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::wire::{self, BODY_BYTES_MAX, CONTROL_BYTES_MAX, Hello, Message, WireError};
use crate::net::{OwnedReadHalf, OwnedWriteHalf, TcpStream};
use crate::stream::PeerStream;

/// How often the node that dialled says that it is there, busy or not.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A connection without one whole frame for this long is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Requests of one connection that wait for their reply. More are `Busy`.
pub const IN_FLIGHT_MAX: usize = 1024;

/// Requests of one connection that are being served. More are `Busy`.
pub const SERVED_MAX: usize = 1024;

/// Bytes that wait to be written. A frame that comes when there are so many is `Busy`.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A buffer that grew larger than this for one burst is given back.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// Bytes read from the system at once.
const READ_BYTES: usize = 64 * 1024;

/// A boxed future, for handlers.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers a request. Dropped at its next wait when the connection ends: what must be finished it spawns.
pub type RequestHandler = Arc<dyn Fn(Arc<Hello>, Vec<u8>) -> BoxFuture<Vec<u8>> + Send + Sync>;

/// Takes a message that wants no reply. Must not block.
pub type MessageHandler = Arc<dyn Fn(Arc<Hello>, Vec<u8>) + Send + Sync>;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The other side closed it, or its process ended.
    #[error("the other side closed the connection")]
    Closed,
    /// Nothing was heard.
    #[error("nothing was heard for {SILENCE_MAX:?}; the other side is stopped or cut off")]
    Silent,
    /// It broke, or something came over it that is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Why a call over a link has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Not sent: the link had ended before.
    #[error("not sent: {0}")]
    NotSent(Ended),
    /// Not sent, or not looked at: too much waits on one of both sides.
    #[error("too much waits on this link")]
    Busy,
    /// Not sent: longer than [`BODY_BYTES_MAX`].
    #[error("request of {0} bytes, at most {BODY_BYTES_MAX} are allowed; send it in parts")]
    TooLong(usize),
    /// Sent, and perhaps done: the deadline passed. A reply that comes later is dropped.
    #[error("no reply within the deadline")]
    Timeout,
    /// Sent, and perhaps done: the link ended first.
    #[error("link lost: {0}")]
    Lost(Ended),
}

/// A control connection that this node dialled.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    outbox: Outbox,
    waiting: Mutex<Waiting>,
    ended: watch::Sender<Option<Ended>>,
}

type Reply = Result<Vec<u8>, CallError>;

#[derive(Debug, Default)]
struct Waiting {
    id_last: u64,
    /// Set once, so that no caller waits on a link that will never answer.
    ended: Option<Ended>,
    replies: BTreeMap<u64, oneshot::Sender<Reply>>,
}

impl Link {
    /// Runs a connection whose hello was answered. Needs a tokio runtime.
    #[must_use]
    pub fn open(stream: PeerStream) -> Link {
        let shared = Arc::new(Shared {
            outbox: Outbox::default(),
            waiting: Mutex::default(),
            ended: watch::Sender::new(None),
        });
        let task = tokio::spawn(run(stream, Arc::clone(&shared))).abort_handle();
        Link { shared, task }
    }

    /// Sends a request and waits for its reply, at most until `deadline`.
    ///
    /// # Errors
    /// See [`CallError`]: only after `Timeout` and `Lost` the request may have been done.
    pub async fn call(&self, body: &[u8], deadline: Instant) -> Result<Vec<u8>, CallError> {
        let (id, reply) = self.shared.expect_reply()?;
        // Forgets the reply however this call ends, also when its future is dropped.
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        self.shared
            .outbox
            .put(&Message::Request { id, body })
            .map_err(|refused| match refused {
                Full::Busy => CallError::Busy,
                Full::TooLong => CallError::TooLong(body.len()),
            })?;
        match timeout_at(deadline, reply).await {
            Err(_) => Err(CallError::Timeout),
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(CallError::Lost(self.shared.why_ended())),
        }
    }

    /// Sends a message if there is room for it. False: it was dropped.
    pub fn tell(&self, body: &[u8]) -> bool {
        self.shared.outbox.put(&Message::Tell { body }).is_ok()
    }

    /// Waits until the link has ended.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::Closed),
            Err(_) => Ended::Closed,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.waiting().replies.remove(&self.id);
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_reply(&self) -> Result<(u64, oneshot::Receiver<Reply>), CallError> {
        let mut waiting = self.waiting();
        if let Some(ended) = &waiting.ended {
            return Err(CallError::NotSent(ended.clone()));
        }
        if waiting.replies.len() >= IN_FLIGHT_MAX {
            return Err(CallError::Busy);
        }
        waiting.id_last += 1;
        let id = waiting.id_last;
        let (sender, receiver) = oneshot::channel();
        waiting.replies.insert(id, sender);
        Ok((id, receiver))
    }

    fn answer(&self, id: u64, answer: Reply) {
        // Nobody waits any more if the deadline has passed; the reply is dropped.
        let waiting = self.waiting().replies.remove(&id);
        if let Some(caller) = waiting {
            let _ = caller.send(answer);
        }
    }

    fn end(&self, ended: &Ended) {
        let mut waiting = self.waiting();
        waiting.ended = Some(ended.clone());
        let callers = std::mem::take(&mut waiting.replies);
        drop(waiting);
        for caller in callers.into_values() {
            let _ = caller.send(Err(CallError::Lost(ended.clone())));
        }
        self.ended.send_replace(Some(ended.clone()));
    }

    fn why_ended(&self) -> Ended {
        self.waiting().ended.clone().unwrap_or(Ended::Closed)
    }
}

async fn run(stream: PeerStream, shared: Arc<Shared>) {
    let (from, to) = stream.split(TcpStream::into_split);
    // In a fixed order, so that a simulation repeats itself.
    let ended = tokio::select! { biased;
        ended = take_replies(from, &shared) => ended,
        ended = shared.outbox.write_to(to) => ended,
        ended = beat(&shared.outbox) => ended,
    };
    shared.end(&ended);
}

async fn take_replies(from: PeerStream<OwnedReadHalf>, shared: &Shared) -> Ended {
    let mut frames = Frames::new(from);
    loop {
        match frames.next().await {
            Err(ended) => return ended,
            Ok(Message::Reply { id, body }) => shared.answer(id, Ok(body.to_vec())),
            Ok(Message::Busy { id }) => shared.answer(id, Err(CallError::Busy)),
            Ok(Message::Pong) => {}
            Ok(Message::Request { .. } | Message::Tell { .. } | Message::Ping) => {
                return Ended::Wire(out_of_place("message to the node that dialled"));
            }
        }
    }
}

async fn beat(outbox: &Outbox) -> Ended {
    loop {
        sleep(HEARTBEAT).await;
        // A full queue needs no heartbeat: it is written as soon as the other side reads.
        let _ = outbox.put(&Message::Ping);
    }
}

/// Answers the requests of a connection that was let in, until it ends. Dropping the future ends it too.
pub async fn serve(
    stream: PeerStream,
    hello: Arc<Hello>,
    request: &RequestHandler,
    message: &MessageHandler,
) -> Ended {
    let (from, to) = stream.split(TcpStream::into_split);
    let outbox = Arc::new(Outbox::default());
    tokio::select! { biased;
        ended = take_requests(from, &outbox, &hello, request, message) => ended,
        ended = outbox.write_to(to) => ended,
    }
}

async fn take_requests(
    from: PeerStream<OwnedReadHalf>,
    outbox: &Arc<Outbox>,
    hello: &Arc<Hello>,
    request: &RequestHandler,
    message: &MessageHandler,
) -> Ended {
    let mut frames = Frames::new(from);
    let mut served = JoinSet::new();
    loop {
        // Who does not read its replies is not read either.
        if timeout(SILENCE_MAX, outbox.room()).await.is_err() {
            return Ended::Silent;
        }
        let next = match frames.next().await {
            Err(ended) => return ended,
            Ok(next) => next,
        };
        match next {
            Message::Tell { body } => message(Arc::clone(hello), body.to_vec()),
            Message::Ping => drop(outbox.put(&Message::Pong)),
            Message::Reply { .. } | Message::Busy { .. } | Message::Pong => {
                return Ended::Wire(out_of_place("message from the node that dialled"));
            }
            Message::Request { id, body } => {
                while served.try_join_next().is_some() {}
                if served.len() >= SERVED_MAX {
                    let _ = outbox.put(&Message::Busy { id });
                } else {
                    let reply = request(Arc::clone(hello), body.to_vec());
                    served.spawn(send_reply(reply, id, Arc::clone(outbox)));
                }
            }
        }
    }
}

async fn send_reply(reply: BoxFuture<Vec<u8>>, id: u64, outbox: Arc<Outbox>) {
    let body = reply.await;
    loop {
        match outbox.put(&Message::Reply { id, body: &body }) {
            Ok(()) => return,
            Err(Full::Busy) => outbox.room().await,
            Err(Full::TooLong) => {
                tracing::error!(
                    bytes = body.len(),
                    max = BODY_BYTES_MAX,
                    "a reply is too long and was dropped; its caller times out"
                );
                return;
            }
        }
    }
}

fn out_of_place(what: &'static str) -> WireError {
    WireError::Malformed {
        what,
        why: "it goes the other way".to_owned(),
    }
}

/// The frames that arrive, with the limit on silence.
struct Frames {
    from: BufReader<PeerStream<OwnedReadHalf>>,
    frame: Vec<u8>,
}

impl Frames {
    fn new(from: PeerStream<OwnedReadHalf>) -> Frames {
        Frames {
            from: BufReader::with_capacity(READ_BYTES, from),
            frame: Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<Message<'_>, Ended> {
        if self.frame.capacity() > BUFFER_BYTES_KEPT {
            self.frame = Vec::new();
        }
        let read = wire::read_frame(&mut self.from, CONTROL_BYTES_MAX, &mut self.frame);
        match timeout(SILENCE_MAX, read).await {
            Err(_) => Err(Ended::Silent),
            Ok(Ok(false)) => Err(Ended::Closed),
            Ok(Ok(true)) => Ok(wire::message(&self.frame)?),
            Ok(Err(error)) => Err(Ended::Wire(error)),
        }
    }
}

/// Why a frame was not taken.
enum Full {
    Busy,
    TooLong,
}

/// Frames that wait to be written.
#[derive(Debug, Default)]
struct Outbox {
    frames: Mutex<Vec<u8>>,
    more: Notify,
    room: Notify,
}

impl Outbox {
    fn frames(&self) -> MutexGuard<'_, Vec<u8>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, message: &Message<'_>) -> Result<(), Full> {
        let mut frames = self.frames();
        if frames.len() >= QUEUE_BYTES_MAX {
            return Err(Full::Busy);
        }
        wire::put_message(message, &mut frames).map_err(|_| Full::TooLong)?;
        drop(frames);
        self.more.notify_one();
        Ok(())
    }

    /// Waits until a frame would be taken.
    async fn room(&self) {
        loop {
            let room = self.room.notified();
            if self.frames().len() < QUEUE_BYTES_MAX {
                return;
            }
            room.await;
        }
    }

    /// Writes what collects, all of it at once, until the connection breaks.
    async fn write_to(&self, mut to: PeerStream<OwnedWriteHalf>) -> Ended {
        let mut batch = Vec::new();
        loop {
            std::mem::swap(&mut *self.frames(), &mut batch);
            if batch.is_empty() {
                self.more.notified().await;
                // Whoever is ready now has its frame in the same write. With 64 callers that doubles the calls per second;
                // a lone caller waits a microsecond longer.
                yield_now().await;
                continue;
            }
            self.room.notify_waiters();
            if let Err(error) = to.write_all(&batch).await {
                return Ended::Wire(WireError::Broken(error.kind()));
            }
            batch.clear();
            batch.shrink_to(BUFFER_BYTES_KEPT);
        }
    }
}
