//! What an executor has for vnodes and has not handed in, by the numbers of their seats.

use std::collections::VecDeque;

use super::seats::Seats;
use crate::vnode::request::Request;

/// What an executor has for one vnode.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) commands: VecDeque<Request>,
    /// Whether the vnode stands in `due`.
    pub(super) scheduled: bool,
}

/// The same for all vnodes, ring by ring. Grows with the seats that there are.
#[derive(Default)]
pub(super) struct StagedForAll {
    rings: Vec<Vec<Staged>>,
}

impl StagedForAll {
    /// What there is for the vnode of a seat; none if there is no such seat.
    pub(super) fn of(&mut self, number: usize, seats: &Seats) -> Option<&mut Staged> {
        let (ring, at) = Seats::place_of(number);
        let known = self.rings.get(ring).is_some_and(|staged| at < staged.len());
        if !known {
            let count = seats.count(ring)?;
            self.rings
                .resize_with(self.rings.len().max(ring + 1), Vec::new);
            self.rings
                .get_mut(ring)?
                .resize_with(count, Staged::default);
        }
        self.rings.get_mut(ring)?.get_mut(at)
    }

    /// The numbers of the seats for whose vnodes there is something.
    pub(super) fn waiting(&self) -> Vec<usize> {
        let rings = self.rings.iter().enumerate();
        let all = rings.flat_map(|(ring, staged)| {
            let waiting = staged.iter().enumerate();
            let waiting = waiting.filter(|(_, staged)| !staged.commands.is_empty());
            waiting.map(move |(at, _)| Seats::number_of(ring, at))
        });
        all.collect()
    }
}
