//! Commands for vnodes of other nodes: one link from this executor to each node, made when it is needed.
//!
//! Everything that one pass sends to a node goes out in one write. A command waits here for its reply, with its words, so
//! that it can be sent elsewhere when the node answers that it is the wrong one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use slab::Slab;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use vnode_ring::{NodeName, View};

use super::Executor;
use super::frame::{self, Frame};
use super::inbox::Inbox;
use super::outbox::{EAGER_BYTES, Outbox};
use crate::coordinator::PATIENCE;
use crate::net::{self, OwnedReadHalf, OwnedWriteHalf};
use crate::vnode::failure::Failure;
use crate::vnode::request::Request;
use vnode_cluster::Greeter;
use vnode_cluster::stream::PeerStream;

/// Commands that wait for one node; beyond: `BUSY`.
const COMMANDS_MAX: usize = 64 * 1024;
/// Bytes that wait to be written to one node; beyond: `BUSY`.
const OUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Room for one read.
const READ_BYTES: usize = 64 * 1024;
/// A node that owes an answer and has said nothing for so long is dialled anew: the network may have lost the connection.
const SILENCE: Duration = Duration::from_secs(2);
/// After a link broke, commands for its node are refused for so long before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// A command that was sent on.
struct Pending {
    /// Tells the users of one place apart.
    nth: u32,
    request: Request,
}

/// A link to another node.
pub(super) struct Outbound {
    node: NodeName,
    out: RefCell<Outbox>,
    pending: RefCell<Slab<Pending>>,
    sent: Cell<u32>,
    writer: RefCell<Option<Rc<PeerStream<OwnedWriteHalf>>>>,
    /// Its task is there.
    running: Cell<bool>,
    broken_at: Cell<Option<Instant>>,
    blocked: Cell<bool>,
    dirty: Cell<bool>,
    /// Nobody needs it any more.
    over: Cell<bool>,
    /// When the node last said anything.
    heard: Cell<Instant>,
    /// The node has said nothing for so long that the connection is given up.
    silent: Cell<bool>,
    progress: Notify,
}

impl Outbound {
    fn new(node: NodeName) -> Rc<Outbound> {
        Rc::new(Outbound {
            node,
            out: RefCell::default(),
            pending: RefCell::default(),
            sent: Cell::new(0),
            writer: RefCell::default(),
            running: Cell::new(false),
            broken_at: Cell::new(None),
            blocked: Cell::new(false),
            dirty: Cell::new(false),
            over: Cell::new(false),
            heard: Cell::new(Instant::now()),
            silent: Cell::new(false),
            progress: Notify::new(),
        })
    }

    /// Whether it lately broke and is not to be tried again yet.
    fn pauses(&self) -> bool {
        self.broken_at.get().is_some_and(|at| at.elapsed() < PAUSE)
    }

    /// Stages a command for the next write, which may be now.
    fn push(&self, request: Request, epoch: u64) {
        let nth = self.sent.get().wrapping_add(1);
        self.sent.set(nth);
        let mut pending = self.pending.borrow_mut();
        let entry = pending.vacant_entry();
        let id = (u64::from(nth) << 32) | entry.key() as u64;
        let mut out = self.out.borrow_mut();
        frame::put_command(out.tail(), id, epoch, &request);
        entry.insert(Pending { nth, request });
        let staged = out.len();
        drop(out);
        if staged >= EAGER_BYTES && !self.blocked.get() {
            self.flush();
        }
    }

    /// The command of that name, which is answered now.
    fn answered(&self, id: u64) -> Option<Request> {
        let mut pending = self.pending.borrow_mut();
        let place = usize::try_from(id & 0xffff_ffff).ok()?;
        pending
            .get(place)
            .filter(|pending| u64::from(pending.nth) == id >> 32)?;
        Some(pending.remove(place).request)
    }

    fn flush(&self) {
        let writer = self.writer.borrow();
        let Some(writer) = writer.as_ref() else {
            return;
        };
        let mut out = self.out.borrow_mut();
        match out.write(|bytes| writer.try_write(bytes, OwnedWriteHalf::try_write)) {
            Ok(_) => self.blocked.set(!out.is_empty()),
            // The task reads the end of the connection and mends what is to be mended.
            Err(_) => self.blocked.set(false),
        }
        if self.blocked.get() {
            self.progress.notify_one();
        }
    }
}

/// The links of one executor to other nodes.
#[derive(Default)]
pub(super) struct OutboundLinks {
    links: BTreeMap<NodeName, Rc<Outbound>>,
    /// By the position of the node in the present view.
    by_node: Vec<Option<Rc<Outbound>>>,
    dirty: Vec<Rc<Outbound>>,
    /// Links whose task is to be started.
    wanted: Vec<Rc<Outbound>>,
}

impl OutboundLinks {
    /// Keeps a link for each other member. Returns the commands of nodes that are gone or not up any more.
    pub(super) fn adopt(&mut self, view: &View) -> Vec<(NodeName, Request)> {
        let mut lost = Vec::new();
        self.links.retain(|node, link| {
            let stays = view.map().members().contains_key(node);
            if !stays || !view.is_up(node) {
                let requests = link
                    .pending
                    .borrow_mut()
                    .drain()
                    .map(|p| p.request)
                    .collect::<Vec<_>>();
                lost.extend(requests.into_iter().map(|request| (node.clone(), request)));
                link.over.set(true);
                link.progress.notify_one();
                return false;
            }
            true
        });
        let me = view.me();
        self.by_node = view
            .nodes()
            .iter()
            .map(|node| {
                (node != me && view.is_up(node)).then(|| {
                    let link = self.links.entry(node.clone());
                    Rc::clone(link.or_insert_with(|| Outbound::new(node.clone())))
                })
            })
            .collect();
        lost
    }

    /// Whether the link to the node at that position of the view lately broke and is not to be tried again yet.
    pub(super) fn pauses(&self, node: usize) -> bool {
        let link = self.by_node.get(node).and_then(Option::as_ref);
        link.is_some_and(|link| link.pauses())
    }

    /// Sends a command to the node at that position of the view, in the next flush.
    ///
    /// # Errors
    /// Gives it back, and says why, when it was not and will not be sent.
    pub(super) fn send(
        &mut self,
        node: usize,
        request: Request,
        epoch: u64,
    ) -> Result<(), Box<(Request, Failure)>> {
        let Some(link) = self.by_node.get(node).and_then(Option::as_ref) else {
            let partition = request.partition;
            return Err(Box::new((request, Failure::NobodyUp { partition })));
        };
        if link.pauses() {
            let node = link.node.to_string();
            return Err(Box::new((request, Failure::Unreachable { node })));
        }
        let waiting = link.pending.borrow().len();
        if waiting >= COMMANDS_MAX || link.out.borrow().len() > OUT_BYTES_MAX {
            let node = link.node.to_string();
            return Err(Box::new((request, Failure::PeerBusy { node, waiting })));
        }
        link.push(request, epoch);
        if !link.running.replace(true) {
            self.wanted.push(Rc::clone(link));
        }
        if !link.dirty.replace(true) {
            self.dirty.push(Rc::clone(link));
        }
        Ok(())
    }

    /// Tells nodes to which there is a link how services and commands are called from now on.
    pub(super) fn announce(&mut self, names: &[frame::ServiceNames]) {
        for link in self.links.values() {
            if link.writer.borrow().is_none() {
                // They are the first that goes over it.
                continue;
            }
            frame::put_services(link.out.borrow_mut().tail(), names);
            if !link.dirty.replace(true) {
                self.dirty.push(Rc::clone(link));
            }
        }
    }

    /// Writes to every link that got something.
    pub(super) fn flush(&mut self) {
        for link in self.dirty.drain(..) {
            link.dirty.set(false);
            link.flush();
        }
    }

    /// Links that need a task; see [`start`].
    pub(super) fn wanted(&mut self) -> Vec<Rc<Outbound>> {
        std::mem::take(&mut self.wanted)
    }

    /// Whether no command waits for another node.
    pub(super) fn idle(&self) -> bool {
        self.links
            .values()
            .all(|link| link.pending.borrow().is_empty())
    }

    /// Takes out the commands for which the time is over.
    pub(super) fn late(&mut self, now: Instant) -> Vec<Request> {
        let mut late = Vec::new();
        for link in self.links.values() {
            let mut pending = link.pending.borrow_mut();
            // The node that has it gives up first, and knows more of why.
            let before = now.checked_sub(PATIENCE).unwrap_or(now);
            let places: Vec<usize> = pending
                .iter()
                .filter(|(_, pending)| pending.request.is_late(before))
                .map(|(place, _)| place)
                .collect();
            if !places.is_empty() && link.heard.get().elapsed() > SILENCE {
                link.silent.set(true);
                link.progress.notify_one();
            }
            late.extend(
                places
                    .into_iter()
                    .map(|place| pending.remove(place).request),
            );
        }
        late
    }

    /// Ends every link.
    pub(super) fn close_all(&mut self) {
        for link in self.links.values() {
            link.over.set(true);
            link.progress.notify_one();
        }
    }
}

/// Starts the task of a link.
pub(super) fn start(
    executor: &Rc<RefCell<Executor>>,
    inbox: &Arc<Inbox>,
    greeter: &Arc<Greeter>,
    link: Rc<Outbound>,
) {
    let executor = Rc::clone(executor);
    let (inbox, greeter) = (Arc::clone(inbox), Arc::clone(greeter));
    tokio::task::spawn_local(async move {
        let happened = match greeter.open_requests(&link.node).await {
            Ok(stream) => {
                serve(&executor, &inbox, &link, stream).await;
                Happened::Perhaps
            }
            Err(error) => {
                tracing::debug!(node = %link.node, %error, "no link for commands");
                Happened::No
            }
        };
        *link.writer.borrow_mut() = None;
        link.running.set(false);
        link.broken_at.set(Some(Instant::now()));
        *link.out.borrow_mut() = Outbox::default();
        let lost: Vec<Request> = link
            .pending
            .borrow_mut()
            .drain()
            .map(|pending| pending.request)
            .collect();
        let mut now = executor.borrow_mut();
        for request in lost {
            now.lost(&link.node, request, happened);
        }
        inbox.wake();
    });
}

/// What is known of a command whose node does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// It was never sent.
    No,
    /// It may have happened.
    Perhaps,
}

async fn serve(
    executor: &Rc<RefCell<Executor>>,
    inbox: &Arc<Inbox>,
    link: &Rc<Outbound>,
    stream: PeerStream,
) {
    let (mut reader, writer) = stream.split(net::split);
    {
        // What is staged already goes behind the names of the services.
        let mut first = Vec::new();
        frame::put_services(&mut first, executor.borrow().service_names());
        let mut out = link.out.borrow_mut();
        out.put_first(first);
        *link.writer.borrow_mut() = Some(Rc::new(writer));
    }
    link.flush();
    link.heard.set(Instant::now());
    link.silent.set(false);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    while !link.over.get() && !link.silent.get() {
        if let Err(error) = read(link, &mut reader, &mut buffer).await {
            tracing::debug!(node = %link.node, %error, "a link for commands ended");
            return;
        }
        let heard = hear(&mut executor.borrow_mut(), link, &mut buffer);
        if let Err(error) = heard {
            tracing::warn!(node = %link.node, %error, "a link for commands is closed");
            return;
        }
        inbox.wake();
    }
}

/// Takes in what the node has answered.
fn hear(now: &mut Executor, link: &Outbound, buffer: &mut BytesMut) -> Result<(), frame::BadFrame> {
    for frame in frame::take(buffer)?.read() {
        match frame? {
            Frame::Reply(id, reply) => {
                if let Some(request) = link.answered(id) {
                    now.deliver(request.reply_to, reply);
                }
            }
            Frame::Stale(id, epoch) => {
                if let Some(request) = link.answered(id) {
                    now.stale(request, epoch);
                }
            }
            // Only the side that serves commands gets these.
            Frame::Services(_) | Frame::Command(_) => {}
        }
    }
    Ok(())
}

/// Reads something, and writes meanwhile what the socket did not take at once.
async fn read(
    link: &Outbound,
    reader: &mut PeerStream<OwnedReadHalf>,
    buffer: &mut BytesMut,
) -> std::io::Result<()> {
    buffer.reserve(READ_BYTES.max(frame::lacks(buffer).min(buffer.len())));
    loop {
        let blocked = link.blocked.get();
        tokio::select! {
            biased;
            read = reader.read_buf(buffer) => {
                link.heard.set(Instant::now());
                return match read? {
                    0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(()),
                };
            }
            ready = writable(link), if blocked => {
                ready?;
                link.flush();
            }
            () = link.progress.notified() => {
                if link.over.get() || link.silent.get() {
                    return Ok(());
                }
            }
        }
    }
}

/// Waits until the socket takes more.
async fn writable(link: &Outbound) -> std::io::Result<()> {
    let writer = link.writer.borrow().clone();
    match writer {
        None => Ok(()),
        Some(writer) => writer.socket().writable().await,
    }
}
