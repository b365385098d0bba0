//! Where the replies of vnodes go: to a connection, a peer's link or a flight, of this executor or of another one.

use super::connection::Connections;
use super::flights::Flights;
use super::inbound::InboundLinks;
use super::inbox::{Parcel, Waiter};
use crate::vnode::request::ReplyTo;

/// Puts a reply where it belongs.
pub(super) struct Delivery<'a> {
    pub(super) index: usize,
    pub(super) connections: &'a mut Connections,
    pub(super) inbound: &'a mut InboundLinks,
    pub(super) flights: &'a mut Flights,
    pub(super) parcels: &'a mut [Parcel],
}

impl Delivery<'_> {
    pub(super) fn deliver(&mut self, to: ReplyTo, reply: &[u8]) {
        match to {
            // A task that went away does not want its reply.
            ReplyTo::Task(task) => drop(task.send(reply.to_vec())),
            ReplyTo::Connection {
                executor,
                connection,
                seq,
            } => match usize::from(executor) {
                here if here == self.index => self.connections.deliver(connection, seq, reply),
                there => self.send(there, Waiter::Client(connection, seq), reply),
            },
            ReplyTo::Peer { executor, link, id } => match usize::from(executor) {
                here if here == self.index => self.inbound.deliver(link, id, reply),
                there => self.send(there, Waiter::Peer(link, id), reply),
            },
            ReplyTo::Flight {
                executor,
                flight,
                holder,
            } => match usize::from(executor) {
                here if here == self.index => self.flights.take(flight, holder, reply),
                there => self.send(there, Waiter::Flight(flight, holder), reply),
            },
            ReplyTo::Nobody => {}
        }
    }

    fn send(&mut self, executor: usize, waiter: Waiter, reply: &[u8]) {
        if let Some(parcel) = self.parcels.get_mut(executor) {
            parcel.push(waiter, reply);
        }
    }
}
