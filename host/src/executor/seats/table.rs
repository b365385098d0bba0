//! All seats of a node, by number: those for the ring that there is, and for those before and after it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vnode_ring::index::GENERATIONS;
use vnode_ring::{NodeName, PartitionId, RingSize};

use super::Seat;
use crate::vnode::{Figures, Vnode};
use crate::wasm::Hook;

/// What can be seen of a seat.
#[derive(Clone, Debug)]
pub struct SeatView {
    /// The position of its service.
    pub service: usize,
    /// Its partition.
    pub partition: PartitionId,
    /// What the vnode was when it last came back.
    pub figures: Figures,
    /// Commands that wait.
    pub mailbox: usize,
    /// Whether it is on a slow thread.
    pub lent: bool,
    /// Whether the node owns the partition.
    pub owned: bool,
}

/// Rings that a node can have seats for, one after another, until it starts again.
const RINGS_MAX: usize = 64;
/// In the number of a seat: bits below the number of its ring.
const RING_SHIFT: u32 = 24;
/// The number of no seat.
pub const NO_SEAT: usize = usize::MAX;
/// The ring of a generation that has no seats.
const NO_RING: u8 = u8::MAX;

/// The seats for one ring: those of the first service in ring order, then those of the next.
struct RingSeats {
    size: RingSize,
    seats: Box<[Mutex<Seat>]>,
}

/// The seats of a node, by number; see `Coordinator::seat`. There are as many as partitions of services, and while the ring is
/// resized as many again for the next one. Numbers are never used twice, so what is sent to a seat of another ring is noticed.
pub struct Seats {
    services: usize,
    rings: [OnceLock<RingSeats>; RINGS_MAX],
    /// The ring that has the seats of each generation.
    by_generation: [AtomicU8; GENERATIONS as usize],
}

impl Seats {
    /// Empty seats for each partition of so many services.
    pub fn new(services: usize, size: RingSize) -> Seats {
        let seats = Seats {
            services,
            rings: [const { OnceLock::new() }; RINGS_MAX],
            by_generation: [const { AtomicU8::new(NO_RING) }; GENERATIONS as usize],
        };
        seats.open(size);
        seats
    }

    /// Makes empty seats for a ring, unless there are some. False if there was a resize too many since the node started.
    pub(crate) fn open(&self, size: RingSize) -> bool {
        if self.has(size) {
            return true;
        }
        let count = self.services * usize::from(size.get());
        let seats = std::iter::repeat_with(Mutex::default).take(count).collect();
        let mut ring = RingSeats { size, seats };
        for (number, place) in (0..).zip(&self.rings) {
            match place.set(ring) {
                Ok(()) => {
                    let generation = self.by_generation.get(usize::from(size.generation()));
                    if let Some(known) = generation {
                        known.store(number, Ordering::Release);
                    }
                    return true;
                }
                Err(taken) => ring = taken,
            }
        }
        false
    }

    /// A ring is no more: if one of its generation comes again, it gets seats of its own.
    pub(crate) fn retire(&self, size: RingSize) {
        if let Some(known) = self.by_generation.get(usize::from(size.generation())) {
            known.store(NO_RING, Ordering::Release);
        }
    }

    /// Rings whose seats are closed. There may be rows by their numbers.
    pub(crate) fn closed(&self) -> impl Iterator<Item = RingSize> {
        let known = self.by_generation.iter();
        let known = known.map(|known| usize::from(known.load(Ordering::Acquire)));
        let rings = known.filter_map(|number| Some((number, self.rings.get(number)?.get()?)));
        rings.filter_map(|(number, ring)| {
            let seat = self.lock(Seats::number_of(number, 0))?;
            seat.closed.then_some(ring.size)
        })
    }

    /// Whether there are seats for a ring.
    pub(crate) fn has(&self, size: RingSize) -> bool {
        let ring = self.ring_of(size.at(0));
        ring.is_some_and(|(_, ring)| ring.size == size)
    }

    fn ring_of(&self, partition: PartitionId) -> Option<(usize, &RingSeats)> {
        let known = self
            .by_generation
            .get(usize::from(partition.generation()))?;
        let number = usize::from(known.load(Ordering::Acquire));
        Some((number, self.rings.get(number)?.get()?))
    }

    /// The number of the seat for a partition of a service; that of no seat if there is none.
    pub(crate) fn number(&self, service: usize, partition: PartitionId) -> usize {
        let Some((number, ring)) = self.ring_of(partition) else {
            return NO_SEAT;
        };
        let at = service * usize::from(ring.size.get()) + usize::from(partition.number());
        Seats::number_of(number, at)
    }

    /// The ring of a seat, as a number from 0 on, and its place there.
    pub(in crate::executor) fn place_of(number: usize) -> (usize, usize) {
        (number >> RING_SHIFT, number & ((1 << RING_SHIFT) - 1))
    }

    /// The number of the seat at a place of a ring; see [`place_of`](Seats::place_of).
    pub(in crate::executor) fn number_of(ring: usize, at: usize) -> usize {
        ring << RING_SHIFT | at
    }

    /// How many seats there are for a ring.
    pub(in crate::executor) fn count(&self, ring: usize) -> Option<usize> {
        Some(self.rings.get(ring)?.get()?.seats.len())
    }

    fn seat(&self, number: usize) -> Option<&Mutex<Seat>> {
        let (ring, at) = Seats::place_of(number);
        self.rings.get(ring)?.get()?.seats.get(at)
    }

    /// The numbers of all seats, those of rings that are no more too.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = usize> {
        let rings = self.rings.iter().map_while(OnceLock::get).enumerate();
        rings.flat_map(|(number, ring)| {
            (0..ring.seats.len()).map(move |at| Seats::number_of(number, at))
        })
    }

    /// The position of the service of a seat.
    pub(crate) fn service_of(&self, number: usize) -> usize {
        let (ring, at) = Seats::place_of(number);
        let ring = self.rings.get(ring).and_then(OnceLock::get);
        ring.map_or(0, |ring| at / usize::from(ring.size.get()))
    }

    /// The partition of a seat, if there is such a seat.
    pub(crate) fn partition_of(&self, number: usize) -> Option<PartitionId> {
        let (ring, at) = Seats::place_of(number);
        let size = self.rings.get(ring).and_then(OnceLock::get)?.size;
        let number = u16::try_from(at % usize::from(size.get())).ok()?;
        Some(size.at(number))
    }

    /// Whether a seat has no vnode, not even one that somebody has just now.
    pub(crate) fn is_vacant(&self, number: usize) -> bool {
        self.lock(number).is_none_or(|seat| !seat.seated)
    }

    /// Takes a vnode out of its seat for good, if it is there.
    pub(crate) fn remove(&self, number: usize) -> Option<Box<Vnode>> {
        let mut seat = self.lock(number)?;
        let vnode = seat.take_away()?;
        seat.seated = false;
        seat.figures = Figures::default();
        Some(vnode)
    }

    /// Puts a new vnode in its seat.
    pub fn place(&self, number: usize, vnode: Vnode) {
        if let Some(mut seat) = self.lock(number) {
            seat.seated = true;
            seat.put_back(Box::new(vnode));
        }
    }

    /// The seats of a ring.
    pub fn views(&self, size: RingSize) -> impl Iterator<Item = SeatView> {
        let services = 0..self.services;
        let seats = services
            .flat_map(move |service| size.partitions().map(move |partition| (service, partition)));
        seats.filter_map(|(service, partition)| {
            let seat = self.lock(self.number(service, partition))?;
            Some(SeatView {
                service,
                partition,
                figures: seat.figures.clone(),
                mailbox: seat.mailbox.len(),
                lent: seat.lent,
                owned: seat.owned,
            })
        })
    }

    /// Whether every vnode is in its seat and nothing waits for it.
    pub fn idle(&self) -> bool {
        let mut seats = self.numbers().filter_map(|number| self.lock(number));
        seats.all(|seat| {
            let here = seat.vnode.is_some() || !seat.seated;
            here && seat.mailbox.is_empty() && seat.pages.is_empty()
        })
    }

    /// Ends the guest of a vnode that is here and not owned any more, after it was told who serves the partition now. The vnode
    /// stays, and would start it again if there were a command.
    pub(crate) fn rest(&self, number: usize, owner: &NodeName, budget: Duration) {
        self.with(number, |vnode| {
            // It owns nothing now, whatever it says.
            drop(vnode.hear(&Hook::HandoffFinished(owner.to_string()), budget));
            vnode.terminate("another node serves the partition", budget);
            vnode.rest();
        });
    }

    /// Does something with a vnode out of turn, if it is here. Whoever asks has the seat looked at afterwards.
    pub(crate) fn with<T>(&self, number: usize, act: impl FnOnce(&mut Vnode) -> T) -> Option<T> {
        let mut vnode = self.lock(number)?.take_away()?;
        let done = act(&mut vnode);
        if let Some(mut seat) = self.lock(number) {
            seat.put_back(vnode);
        }
        Some(done)
    }

    /// Takes a vnode away for good, if it is there, after its guest was told why.
    pub(in crate::executor) fn terminate(&self, number: usize, reason: &str, budget: Duration) {
        let vnode = self.lock(number).and_then(|mut seat| seat.vnode.take());
        if let Some(mut vnode) = vnode {
            vnode.terminate(reason, budget);
        }
    }

    /// The seat, for a moment: nobody runs a guest while he holds it.
    pub(crate) fn lock(&self, number: usize) -> Option<MutexGuard<'_, Seat>> {
        let seat = self.seat(number)?;
        Some(seat.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_seats_of_any_two_rings_have_one_number() {
        let first = RingSize::new(16).unwrap();
        let second = first.next_generation(32).unwrap();
        let third = second.next_generation(16).unwrap();
        let seats = Seats::new(2, first);
        assert_eq!(seats.number(0, second.at(1)), NO_SEAT, "not made yet");
        assert!(seats.open(second) && seats.open(third) && seats.open(first));
        let mut numbers: Vec<usize> = Vec::new();
        for size in [first, second, third] {
            for service in 0..2 {
                for partition in size.partitions() {
                    let number = seats.number(service, partition);
                    assert!(seats.is_vacant(number) && seats.lock(number).is_some());
                    assert_eq!(seats.service_of(number), service);
                    numbers.push(number);
                }
            }
        }
        assert!(numbers.is_sorted());
        assert_eq!(numbers, seats.numbers().collect::<Vec<_>>());
        numbers.dedup();
        assert_eq!(numbers.len(), 2 * (16 + 32 + 16));
    }

    #[test]
    fn a_seat_that_waits_for_nobody_is_idle_with_a_vnode_or_without() {
        let first = RingSize::new(8).unwrap();
        let seats = Seats::new(1, first);
        assert!(seats.open(first.next_generation(16).unwrap()));
        assert!(seats.idle(), "nobody has sat there yet");
        seats.lock(0).unwrap().seated = true;
        assert!(!seats.idle(), "somebody has the vnode");
    }

    #[test]
    fn a_node_makes_no_seats_without_end() {
        let mut size = RingSize::new(8).unwrap();
        let seats = Seats::new(1, size);
        seats.retire(size);
        let mut made = 1;
        loop {
            size = size.next_generation(u32::from(24 - size.get())).unwrap();
            if !seats.open(size) {
                break;
            }
            assert!(seats.has(size));
            seats.retire(size);
            assert!(!seats.has(size));
            made += 1;
        }
        assert_eq!(made, RINGS_MAX);
    }
}
