//! Where a command goes: to a vnode here or to another node, and what becomes of one that went to the wrong place.
//!
//! Each command carries the epoch at which its node was chosen. A node that is behind waits until it knows that epoch; a node
//! that is ahead, and does not own the partition any more, answers `stale`, and the command is sent again once its sender
//! knows as much (RI1: one owner for each partition at each epoch).

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use vnode_ring::{Holder, NodeName, Role};

use super::Executor;
use super::frame::ServiceNames;
use super::outbound::Happened;
use crate::coordinator::Coordinator;
use crate::coordinator::front::Front;
use crate::descriptor::CommandSpec;
use crate::resp::catalog::GuestCommand;
use crate::vnode::failure::Failure;
use crate::vnode::request::{ReplyTo, Request, Work};

/// How often a command may go to a node that is not the right one any more.
const TRIES_MAX: u8 = 3;
/// Commands that wait for a newer view.
const HELD_MAX: usize = 64 * 1024;

/// A command for which this node does not know enough yet.
pub(super) struct Held {
    /// The epoch it waits for.
    epoch: u64,
    request: Request,
}

impl Executor {
    /// Takes a request of a client of this node, or of this node itself, and sends it where it belongs.
    pub fn submit(&mut self, request: Request) {
        if !self.is_numbered(&request) {
            return self.renumber(request);
        }
        match self.holder_of(&request) {
            Some(holder) => self.send_to(
                &holder,
                Request {
                    partition: holder.partition,
                    role: holder.role,
                    ..request
                },
            ),
            None => {
                let partition = request.range;
                let failure = Failure::NobodyUp { partition };
                self.replies.fail(request.reply_to, &failure);
            }
        }
    }

    /// The vnode that is to have a request.
    fn holder_of(&self, request: &Request) -> Option<Holder> {
        let n = request.consistency.n.into();
        match request.work {
            // Any of the range's vnodes may run a command; the first does as long as its node is up and can be reached.
            Work::Command | Work::Look => {
                let reached = |holder: &&Holder| {
                    self.view.is_here(holder) || !self.outbound.pauses(holder.node.into())
                };
                let holders = self.view.holders(request.range, n).iter();
                let mut primaries = holders.filter(|holder| holder.is_primary());
                let first = primaries.find(reached).copied();
                first.or_else(|| self.view.coordinator(request.range, n))
            }
            _ => {
                let mut holders = self.view.holders(request.range, n).iter();
                let own = holders.find(|holder| holder.partition == request.partition);
                own.copied()
            }
        }
    }

    /// Sends a request to a vnode, which may be one of this node's.
    pub(super) fn send_to(&mut self, holder: &Holder, request: Request) {
        if self.view.is_here(holder) {
            return self.coordinate(request);
        }
        let epoch = self.view.map().epoch();
        let sent = self.outbound.send(holder.node.into(), request, epoch);
        if let Err(unsent) = sent {
            let (request, failure) = *unsent;
            self.keep_hint(&request);
            self.replies.fail(request.reply_to, &failure);
        }
    }

    /// Keeps here what a replica on another node should have taken in and cannot be given. It is a hint, and no replica that
    /// counts: this node may have another one already.
    fn keep_hint(&mut self, request: &Request) {
        let ring = self.view.ring();
        let known = ring.size().contains(request.partition);
        let foreign = !ring.is_owner(self.view.me(), request.partition);
        if request.work == Work::Merge && known && foreign {
            self.stage(Request {
                role: Role::Fallback,
                ..request.copy()
            });
        }
    }

    /// Takes a command that another node sent here when the map was at `epoch`.
    pub(super) fn serve(&mut self, request: Request, epoch: u64) {
        if epoch > self.view.map().epoch() {
            self.adopt_newest();
        }
        if epoch > self.view.map().epoch() {
            return self.hold(request, epoch);
        }
        let size = self.view.ring().size();
        if !size.contains(request.partition) || !size.contains(request.range) {
            if epoch < self.view.map().epoch() {
                // The ring was resized since it was sent.
                return self.reject(request);
            }
            let failure = Failure::Usage(format!("there is no partition {}", request.partition));
            return self.replies.fail(request.reply_to, &failure);
        }
        let owned = self.view.ring().is_owner(self.view.me(), request.partition);
        if request.role == Role::Primary && !owned {
            return self.reject(request);
        }
        self.coordinate(request);
    }

    /// Answers a command that this node is not to run with `stale` if another node sent it over a link of this executor, and sends
    /// it on otherwise.
    fn reject(&mut self, request: Request) {
        match request.reply_to {
            ReplyTo::Peer { executor, link, id } if usize::from(executor) == self.index => {
                let epoch = self.view.map().epoch();
                self.inbound.deliver_stale(link, id, epoch);
            }
            _ => self.submit(request),
        }
    }

    /// Sends a command again that its vnode here did not take.
    pub(super) fn reroute(&mut self, request: Request) {
        self.adopt_newest();
        if let Some(request) = self.once_more(request) {
            self.reject(request);
        }
    }

    /// A node answered that it does not own the partition at its epoch.
    pub(super) fn stale(&mut self, request: Request, epoch: u64) {
        self.adopt_newest();
        match self.once_more(request) {
            None => {}
            Some(request) if epoch > self.view.map().epoch() => self.hold(request, epoch),
            Some(request) => self.submit(request),
        }
    }

    /// Counts one more try, and gives the command up after too many.
    fn once_more(&mut self, mut request: Request) -> Option<Request> {
        request.tries += 1;
        if request.tries <= TRIES_MAX {
            return Some(request);
        }
        self.give_up(request);
        None
    }

    fn give_up(&mut self, request: Request) {
        let partition = request.partition;
        let failure = Failure::Moving { partition };
        self.replies.fail(request.reply_to, &failure);
    }

    /// The node that had a command does not answer any more.
    pub(super) fn lost(&mut self, node: &NodeName, mut request: Request, happened: Happened) {
        let reads = self.spec_of(&request).is_some_and(|spec| !spec.writes());
        let again = reads || request.work.may_repeat();
        request.tries += 1;
        let now_at = self.holder_of(&request).map(|holder| holder.node);
        let node_at = now_at.and_then(|at| self.view.nodes().get(usize::from(at)));
        let elsewhere = node_at != Some(node);
        // What cannot have happened, or may happen twice, is tried again where the view now says.
        if (happened == Happened::No || again) && elsewhere && request.tries <= TRIES_MAX {
            return self.submit(request);
        }
        let node = node.to_string();
        let failure = match happened {
            Happened::No => Failure::Unreachable { node },
            Happened::Perhaps => Failure::PeerGone { node },
        };
        self.keep_hint(&request);
        self.replies.fail(request.reply_to, &failure);
    }

    fn hold(&mut self, request: Request, epoch: u64) {
        if self.held.len() >= HELD_MAX {
            return self.give_up(request);
        }
        self.held.push_back(Held { epoch, request });
    }

    /// Looks at the cluster as it is now, if that has changed.
    pub(super) fn adopt_newest(&mut self) {
        if !self.views.has_changed().unwrap_or(false) {
            return;
        }
        self.view = Arc::clone(&self.views.borrow_and_update());
        self.adopt_front();
        for (node, request) in self.outbound.adopt(&self.view) {
            self.lost(&node, request, Happened::Perhaps);
        }
        for held in std::mem::take(&mut self.held) {
            match held.request.reply_to {
                ReplyTo::Peer { .. } => self.serve(held.request, held.epoch),
                _ if held.epoch > self.view.map().epoch() => self.held.push_back(held),
                _ => self.submit(held.request),
            }
        }
        // Commands that wait here for a vnode which is not the owner's any more are turned away by its seat.
        for number in self.staged.waiting() {
            self.schedule(number);
        }
    }

    /// Refuses what has waited for another node for too long.
    pub(super) fn refuse_overdue(&mut self) {
        let now = Instant::now();
        self.end_late_flights(now);
        let mut late = self.outbound.late(now);
        let (over, held): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.request.is_late(now));
        self.held = held.into();
        late.extend(over.into_iter().map(|held| held.request));
        for request in late {
            let failure = Failure::Timeout {
                within: request.consistency.within(),
                limit: "request_timeout",
            };
            self.replies.fail(request.reply_to, &failure);
        }
    }

    /// Whether something waits for another node.
    pub(super) fn waits_for_others(&self) -> bool {
        !self.held.is_empty() || !self.outbound.idle() || !self.flights.is_empty()
    }

    /// Takes over what clients may ask for now, and lets other nodes know the names of what is new.
    fn adopt_front(&mut self) {
        let newest = self.coordinator.front();
        let size = self.view.ring().size();
        if Arc::ptr_eq(&newest, &self.front_of) && self.front.ring_size() == size {
            return;
        }
        self.front = Rc::new(Front::clone(&newest).at_size(size));
        self.front_of = newest;
        let names = service_names(&self.coordinator);
        if names != self.service_names {
            self.service_names = names;
            self.outbound.announce(&self.service_names);
        }
    }

    /// What clients may ask for.
    pub(super) fn front(&self) -> Rc<Front> {
        Rc::clone(&self.front)
    }

    /// The command of a request.
    pub(super) fn spec_of(&self, request: &Request) -> Option<&CommandSpec> {
        self.front.spec(GuestCommand {
            service: request.service.into(),
            command: request.command.into(),
        })
    }

    /// The services of this node and their commands, for a node that is to understand their positions.
    pub(super) fn service_names(&self) -> &[ServiceNames] {
        &self.service_names
    }
}

/// The services of a node with their commands, by position.
pub(super) fn service_names(coordinator: &Coordinator) -> Vec<ServiceNames> {
    let services = coordinator.services().iter();
    let names = services.map(|service| {
        let commands = service.commands().into_iter();
        (
            service.name().to_owned(),
            commands.map(|command| command.name).collect(),
        )
    });
    names.collect()
}
