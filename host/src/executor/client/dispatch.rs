//! What becomes of a client's requests: built-ins are answered, commands of guests go to their vnodes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use vnode_ring::Role;

use super::{Parsed, Place, Task, Time, shows_clients};
use crate::coordinator::Route;
use crate::coordinator::front::Front;
use crate::coordinator::wishes::Wishes;
use crate::executor::connection::Slot;
use crate::executor::inbox::Message;
use crate::executor::views;
use crate::resp::builtin::{self, After, Next};
use crate::resp::catalog::GuestCommand;
use crate::resp::codec;
use crate::resp::session::ClientInfo;
use crate::resp::wire;
use crate::vnode::failure::Failure;
use crate::vnode::request::{ReplyTo, Request, Work};
use crate::vnode::words::Words;

impl Task {
    /// Sends requests off in order; false when the client said goodbye.
    pub(super) async fn dispatch_all(
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
}
