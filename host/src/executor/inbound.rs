//! Commands that other nodes send on, and the replies to them.
//!
//! A link is one connection of one executor of another node. Its commands are staged for their vnodes like those of clients;
//! replies go back as they come, each with the name of its command.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use slab::Slab;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Executor;
use super::frame::{self, Command, Frame, ServiceNames};
use super::inbox::Inbox;
use super::outbox::{EAGER_BYTES, Outbox};
use crate::coordinator::Coordinator;
use crate::net::{self, Detached, OwnedReadHalf, OwnedWriteHalf};
use crate::vnode::failure::Failure;
use crate::vnode::request::{ReplyTo, Request};
use vnode_cluster::stream::PeerStream;

/// Commands of one link under way; beyond, no more is read from it.
const COMMANDS_MAX: usize = 64 * 1024;
/// Bytes of replies that wait for a link; beyond, no more is read from it.
const OUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// A link from another node.
pub(super) struct Inbound {
    id: u64,
    node: String,
    writer: PeerStream<OwnedWriteHalf>,
    out: RefCell<Outbox>,
    under_way: Cell<usize>,
    /// Its task reads no more until some of that is done.
    waits: Cell<bool>,
    blocked: Cell<bool>,
    dead: Cell<bool>,
    dirty: Cell<bool>,
    progress: Notify,
}

impl Inbound {
    fn flush(&self) {
        let mut out = self.out.borrow_mut();
        match out.write(|bytes| self.writer.try_write(bytes, OwnedWriteHalf::try_write)) {
            Ok(_) => self.blocked.set(!out.is_empty()),
            Err(_) => self.dead.set(true),
        }
    }

    fn is_full(&self) -> bool {
        self.under_way.get() >= COMMANDS_MAX || self.out.borrow().len() > OUT_BYTES_MAX
    }
}

/// The links from other nodes to one executor.
#[derive(Default)]
pub(super) struct InboundLinks {
    live: Slab<Rc<Inbound>>,
    dirty: Vec<Rc<Inbound>>,
    opened: u32,
}

impl InboundLinks {
    fn open(&mut self, node: String, writer: PeerStream<OwnedWriteHalf>) -> Rc<Inbound> {
        self.opened = self.opened.wrapping_add(1);
        let entry = self.live.vacant_entry();
        // A place is used again; the number of the opening tells its users apart.
        let id = (u64::from(self.opened) << 32) | entry.key() as u64;
        let link = Rc::new(Inbound {
            id,
            node,
            writer,
            out: RefCell::default(),
            under_way: Cell::new(0),
            waits: Cell::new(false),
            blocked: Cell::new(false),
            dead: Cell::new(false),
            dirty: Cell::new(false),
            progress: Notify::new(),
        });
        entry.insert(Rc::clone(&link));
        link
    }

    fn get(&self, id: u64) -> Option<&Rc<Inbound>> {
        let place = usize::try_from(id & 0xffff_ffff).ok()?;
        self.live.get(place).filter(|link| link.id == id)
    }

    fn forget(&mut self, link: &Inbound) {
        if self.get(link.id).is_some() {
            self.live.remove((link.id & 0xffff_ffff) as usize);
        }
    }

    /// Sends the reply to a command, if its link is still there.
    pub(super) fn deliver(&mut self, link: u64, id: u64, reply: &[u8]) {
        self.answer(link, |out| frame::put_reply(out, id, reply));
    }

    /// Says that a command went to the wrong node.
    pub(super) fn deliver_stale(&mut self, link: u64, id: u64, epoch: u64) {
        self.answer(link, |out| frame::put_stale(out, id, epoch));
    }

    fn answer(&mut self, link: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(link) = self.get(link).cloned() else {
            return;
        };
        let mut out = link.out.borrow_mut();
        write(out.tail());
        let staged = out.len();
        drop(out);
        link.under_way.set(link.under_way.get().saturating_sub(1));
        if staged >= EAGER_BYTES && !link.blocked.get() {
            link.flush();
        }
        if !link.dirty.replace(true) {
            self.dirty.push(link);
        }
    }

    /// Writes to every link that got something.
    pub(super) fn flush(&mut self) {
        for link in self.dirty.drain(..) {
            link.dirty.set(false);
            link.flush();
            if link.waits.get() || link.blocked.get() || link.dead.get() {
                link.progress.notify_one();
            }
        }
    }

    /// Whether every command is answered and every reply is written.
    pub(super) fn idle(&self) -> bool {
        let done = |link: &Rc<Inbound>| link.under_way.get() == 0 && link.out.borrow().is_empty();
        self.live
            .iter()
            .all(|(_, link)| done(link) || link.dead.get())
    }

    /// Ends every link.
    pub(super) fn close_all(&mut self) {
        for (_, link) in &self.live {
            link.dead.set(true);
            link.progress.notify_one();
        }
    }
}

/// Takes a link in from the node `node`, which has been greeted, and serves it.
pub(super) fn accept(
    executor: &Rc<RefCell<Executor>>,
    inbox: &Arc<Inbox>,
    node: String,
    stream: PeerStream<Detached>,
) {
    let stream = match stream.map(net::attach) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, %node, "a link from a node could not be taken");
            return;
        }
    };
    let (reader, writer) = stream.split(net::split);
    let (link, coordinator) = {
        let mut now = executor.borrow_mut();
        (now.inbound.open(node, writer), Arc::clone(&now.coordinator))
    };
    let task = Task {
        executor: Rc::clone(executor),
        inbox: Arc::clone(inbox),
        coordinator,
        link,
        names: RefCell::default(),
        services: RefCell::default(),
    };
    tokio::task::spawn_local(async move {
        task.serve(reader).await;
        task.executor.borrow_mut().inbound.forget(&task.link);
    });
}

/// A service of the sender: its position here, and those of its commands.
struct Known {
    service: u16,
    commands: Vec<Option<u16>>,
}

struct Task {
    executor: Rc<RefCell<Executor>>,
    inbox: Arc<Inbox>,
    coordinator: Arc<Coordinator>,
    link: Rc<Inbound>,
    /// The sender's services with their commands, by its positions.
    names: RefCell<Vec<ServiceNames>>,
    /// The same, as ours.
    services: RefCell<Vec<Option<Known>>>,
}

impl Task {
    async fn serve(&self, mut reader: PeerStream<OwnedReadHalf>) {
        let link = &self.link;
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        while !link.dead.get() {
            let full = link.is_full();
            link.waits.set(full);
            let blocked = link.blocked.get();
            buffer.reserve(READ_BYTES.max(frame::lacks(&buffer).min(buffer.len())));
            tokio::select! {
                biased;
                read = reader.read_buf(&mut buffer), if !full => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        if let Err(error) = self.take(&mut buffer) {
                            let node = &link.node;
                            tracing::warn!(%error, %node, "a link from a node is closed");
                            return;
                        }
                        self.inbox.wake();
                    }
                },
                _ = link.writer.socket().writable(), if blocked => link.flush(),
                () = link.progress.notified() => {}
            }
        }
    }

    fn take(&self, buffer: &mut BytesMut) -> Result<(), frame::BadFrame> {
        let arrived = Instant::now();
        for frame in frame::take(buffer)?.read() {
            match frame? {
                Frame::Services(names) => {
                    *self.services.borrow_mut() = self.known(&names);
                    *self.names.borrow_mut() = names;
                }
                Frame::Command(command) => self.command(command, arrived),
                // Only the side that sends commands gets these.
                Frame::Reply(..) | Frame::Stale(..) => {}
            }
        }
        Ok(())
    }

    /// What we call the sender's services and commands.
    fn known(&self, names: &[ServiceNames]) -> Vec<Option<Known>> {
        let services = self.coordinator.services();
        let of = |(name, commands): &ServiceNames| {
            let service = services.iter().find(|service| service.name() == name)?;
            let commands = commands.iter();
            Some(Known {
                service: service.index,
                commands: commands.map(|name| service.command_number(name)).collect(),
            })
        };
        names.iter().map(of).collect()
    }

    /// What the service and the command of a request are called here.
    fn target(&self, command: &Command) -> Option<(u16, u16)> {
        self.known_as(command).or_else(|| {
            // A version may have come since that has it.
            *self.services.borrow_mut() = self.known(&self.names.borrow());
            self.known_as(command)
        })
    }

    fn known_as(&self, command: &Command) -> Option<(u16, u16)> {
        let services = self.services.borrow();
        let known = services.get(usize::from(command.service))?.as_ref()?;
        if !command.work.is_named() {
            return Some((known.service, 0));
        }
        let commands = known.commands.get(usize::from(command.command))?;
        Some((known.service, (*commands)?))
    }

    fn command(&self, command: Command, arrived: Instant) {
        let link = &self.link;
        link.under_way.set(link.under_way.get() + 1);
        let mut executor = self.executor.borrow_mut();
        let reply_to = ReplyTo::Peer {
            executor: u16::try_from(executor.index).unwrap_or(u16::MAX),
            link: link.id,
            id: command.id,
        };
        let target = self.target(&command);
        let Some((service, number)) = target else {
            let failure = Failure::Usage("this node does not serve that command".into());
            return executor.replies.fail(reply_to, &failure);
        };
        let request = Request {
            service,
            work: command.work,
            command: number,
            partition: command.partition,
            range: command.range,
            hash: command.hash,
            words: command.words,
            now_ms: command.now_ms,
            id: command.request,
            // As one of many it would not be told which version ran it.
            alone: command.traced,
            role: command.role,
            consistency: command.consistency,
            trace: command.traced.then(Box::default),
            tries: 0,
            arrived,
            reply_to,
        };
        executor.serve(request, command.epoch);
    }
}

#[cfg(not(feature = "sim"))]
#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A link to nobody in particular, and the socket at its other end.
    async fn link(links: &mut InboundLinks) -> (Rc<Inbound>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (here, _) = listener.accept().await.unwrap();
        let (_, writer) = PeerStream::plain(here).split(net::split);
        (links.open("node2".into(), writer), there.unwrap())
    }

    #[tokio::test]
    async fn a_link_that_was_full_is_read_again_once_it_is_not() {
        let mut links = InboundLinks::default();
        let (link, _there) = link(&mut links).await;
        link.under_way.set(COMMANDS_MAX);
        link.waits.set(link.is_full());
        links.deliver(link.id, 1, b"+OK\r\n");
        assert!(!link.is_full());
        links.flush();
        link.progress.notified().await;
    }

    #[tokio::test]
    async fn many_replies_are_written_before_the_pass_ends() {
        let mut links = InboundLinks::default();
        let (link, mut there) = link(&mut links).await;
        link.writer.socket().writable().await.unwrap();
        links.deliver(link.id, 1, &[b'x'; EAGER_BYTES]);
        assert!(link.out.borrow().is_empty());
        let mut head = [0; 4];
        there.read_exact(&mut head).await.unwrap();
        assert_eq!(u32::from_le_bytes(head) as usize, EAGER_BYTES + 9);
    }
}
