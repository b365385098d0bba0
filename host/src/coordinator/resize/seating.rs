//! The seats of the rings between which a node goes: who sits there, who waits, and when they close.

use std::sync::Arc;

use vnode_cluster::failpoint;
use vnode_ring::{PartitionId, RingSize, View};

use super::super::Coordinator;
use crate::vnode::failure::Failure;

impl Coordinator {
    /// Puts a vnode into each empty seat of a ring.
    pub(super) fn seat_vnodes(&self, size: RingSize) -> Result<(), Failure> {
        self.open_seats(size)?;
        let mut places = Vec::new();
        for service in 0..self.services.len() {
            let partitions = size.partitions();
            places.extend(partitions.map(|partition| (service, partition)));
        }
        self.seat_at(size, places)
    }

    /// Puts a vnode into the empty seats of a ring that is not the cluster's, as far as there may be rows.
    pub(super) fn seat_closed(&self, size: RingSize) -> Result<(), Failure> {
        self.open_seats(size)?;
        for number in size.partitions().flat_map(|one| self.seats_of(one)) {
            if let Some(mut seat) = self.seats.lock(number) {
                self.send_all(number, seat.close());
            }
        }
        let known = self.engine.partitions().into_iter();
        let places = known.filter_map(|(name, partition)| {
            let mut services = self.services.iter();
            let service = services.position(|service| service.name() == name)?;
            let partition = PartitionId::from_id(partition);
            size.contains(partition).then_some((service, partition))
        });
        self.seat_at(size, places.collect())
    }

    fn open_seats(&self, size: RingSize) -> Result<(), Failure> {
        match self.seats.open(size) {
            true => Ok(()),
            false => Err(Failure::Usage(
                "the ring was resized too often since this node started; start it again".into(),
            )),
        }
    }

    fn seat_at(
        &self,
        size: RingSize,
        mut places: Vec<(usize, PartitionId)>,
    ) -> Result<(), Failure> {
        places.retain(|(service, partition)| self.seats.is_vacant(self.seat(*service, *partition)));
        let named: Vec<(&str, u16)> = places
            .iter()
            .filter_map(|(service, partition)| {
                Some((self.services.get(*service)?.name(), partition.id()))
            })
            .collect();
        let failed = |error| Failure::of_store(&error, size.at(0));
        let stores = self.engine.open_all(&named).map_err(failed)?;
        for ((service, partition), store) in places.into_iter().zip(stores) {
            if let Some(of) = self.services.get(service) {
                let vnode = self.vnode(of, (size, partition), store).map_err(failed)?;
                self.seats.place(self.seat(service, partition), vnode);
            }
        }
        Ok(())
    }

    /// Whether a vnode of the partition has commands wait for rows of the ring before.
    pub(in crate::coordinator) fn is_filling(&self, partition: PartitionId) -> bool {
        let mut seats = self.seats_of(partition).filter_map(|n| self.seats.lock(n));
        seats.any(|seat| seat.is_filling())
    }

    /// What the sources of a vnode only kept, because their owners have it all, it keeps as long. Their other rows go home.
    pub(super) fn keep_on(&self, heir: usize, sources: impl Iterator<Item = usize>) {
        let sources = sources.filter_map(|number| {
            let seat = self.seats.lock(number)?;
            (seat.figures().store.bytes > 0).then(|| seat.kept_until())
        });
        let until: Option<Vec<_>> = sources.collect();
        if let (Some(until), Some(mut seat)) = (until, self.seats.lock(heir))
            && let Some(until) = until.into_iter().max()
        {
            seat.keep_until(until);
        }
    }

    /// The vnode of a seat has what it is to have.
    pub(super) fn let_serve(&self, number: usize) {
        if let Some(mut seat) = self.seats.lock(number) {
            seat.set_filling(false);
        }
        self.look(number);
    }

    /// The ring has flipped: whoever has commands for the old partitions finds the seats of the new ones, where they wait.
    pub(in crate::coordinator) fn flip(&self, old: RingSize, view: View) {
        let size = view.ring().size();
        if let Err(error) = self.open_seats(size) {
            tracing::error!(%error, "no commands are served");
        }
        for partition in size.partitions() {
            let owned = view.ring().is_owner(view.me(), partition);
            for mut seat in self.seats_of(partition).filter_map(|n| self.seats.lock(n)) {
                if owned {
                    seat.own();
                }
                seat.set_filling(true);
            }
        }
        let map = Arc::clone(view.map());
        self.views.send_replace(Arc::new(view));
        self.renew_front(&map);
        for number in old.partitions().flat_map(|one| self.seats_of(one)) {
            if let Some(mut seat) = self.seats.lock(number) {
                self.send_all(number, seat.close());
            }
            self.look(number);
        }
        self.transfers().forget_all_but(size);
        failpoint("resize-flipped");
    }
}
