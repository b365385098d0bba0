//! Requests that were on their way when the ring was resized, by the numbers of the ring that there is now.
//!
//! A resize leaves every row on its node (`vnode_ring::Split`), so whatever was meant for the vnode of a partition is as well done by
//! those of the same node that have its rows now. Commands are sent again by their keys; rows go to where their hashes say, which
//! may be two vnodes for those of one request.

use std::collections::BTreeMap;

use vnode_ring::{Holder, PartitionId, RingSize, Split};

use super::Executor;
use super::flights::Purpose;
use crate::coordinator::Route;
use crate::resp::catalog::GuestCommand;
use crate::store::{Batch, Changes};
use crate::vnode::failure::Failure;
use crate::vnode::replica::is_done;
use crate::vnode::request::{Held, Request, Work};
use crate::vnode::words::Words;

impl Executor {
    /// Whether a request names partitions of the ring as this executor knows it. It looks whether there is a newer one first.
    pub(super) fn is_numbered(&mut self, request: &Request) -> bool {
        if !self.view.ring().size().contains(request.range) {
            self.adopt_newest();
        }
        let size = self.view.ring().size();
        size.contains(request.range) && size.contains(request.partition)
    }

    /// Sends a request again that names partitions of another ring, or refuses it.
    pub(super) fn renumber(&mut self, request: Request) {
        let size = self.view.ring().size();
        match request.work {
            Work::Command | Work::Look => self.route_again(request, size),
            Work::Each | Work::Merge | Work::Fetch => match self.split() {
                Some(split) => self.divide(request, &split, size),
                None => self.refuse_moving(request),
            },
            _ => self.refuse_moving(request),
        }
    }

    fn refuse_moving(&mut self, request: Request) {
        let partition = request.partition;
        let failure = Failure::Moving { partition };
        self.replies.fail(request.reply_to, &failure);
    }

    /// How rows of the last ring came to lie on this one, while somebody may still ask by its numbers.
    fn split(&self) -> Option<Split> {
        let resize = self.view.map().resize()?;
        let split = resize.split();
        split.filter(|_| resize.to == self.view.ring().size())
    }

    /// Where the command's keys are now.
    fn route_again(&mut self, mut request: Request, size: RingSize) {
        match self.range_of(&request) {
            Some(range) if size.contains(range) => {
                (request.range, request.partition) = (range, range);
                request.work = Work::Command;
                self.submit(request);
            }
            _ => self.refuse_moving(request),
        }
    }

    fn range_of(&self, request: &Request) -> Option<PartitionId> {
        let target = GuestCommand {
            service: request.service.into(),
            command: request.command.into(),
        };
        let front = self.front();
        match self.coordinator.route(&front, target, &request.words) {
            Ok(Route::One { partition, .. }) => Some(partition),
            _ => None,
        }
    }

    /// Gives each heir of the request's vnode its part.
    fn divide(&mut self, request: Request, split: &Split, size: RingSize) {
        let mut parts = match request.work {
            Work::Each => self
                .range_of(&request)
                .map_or(Vec::new(), |range| vec![(range, request.words.clone())]),
            Work::Merge => rows_by_range(&request.words, size),
            _ => keys_by_range(&request.words, size),
        };
        let source = request.partition;
        let heir = |range| split.heir_of_range(source, range);
        let (Some((range, words)), rest) = (parts.pop(), parts) else {
            return self.refuse_moving(request);
        };
        if rest.is_empty() {
            return self.submit(Request {
                range,
                partition: heir(range),
                words,
                ..request
            });
        }
        if request.work != Work::Merge {
            // What several vnodes say would have to be put together; whoever asked asks again.
            return self.refuse_moving(request);
        }
        let copy = request.copy();
        let deadline = request.arrived + request.consistency.within();
        let parts: Vec<_> = rest.into_iter().chain([(range, words)]).collect();
        let all = Purpose::Parts {
            to: request.reply_to,
            left: parts.len(),
        };
        let flight = self.begin_alone(deadline, all);
        for (range, words) in parts {
            self.submit(Request {
                range,
                partition: heir(range),
                words,
                reply_to: self.place_in(flight, 0),
                ..copy.copy()
            });
        }
    }

    /// One of several vnodes that have a part in a request has answered: when all have done theirs, it is done.
    pub(super) fn hear_part(&mut self, name: u64, answer: &[u8]) {
        let Some(Purpose::Parts { left, .. }) = self.flights.get(name).map(|one| &mut one.purpose)
        else {
            return;
        };
        *left -= 1;
        if *left > 0 && is_done(answer).is_some() {
            return;
        }
        if let Some(Purpose::Parts { to, .. }) = self.flights.end(name).map(|one| one.purpose) {
            self.deliver(to, answer);
        }
    }

    /// The vnodes that are to have a copy of a request of another ring, each as that ring numbers it, and as this one does.
    pub(super) fn heirs_of(&self, request: &Request) -> Vec<(Holder, PartitionId)> {
        let size = self.view.ring().size();
        let range = rows_by_range(&request.words, size);
        let range = match request.work {
            Work::Merge => range.first().map(|(range, _)| *range),
            Work::Each => self.range_of(request),
            _ => None,
        };
        let (Some(range), Some(split)) = (range, self.split()) else {
            return Vec::new();
        };
        let holders = self.view.holders(range, request.consistency.n.into());
        let sources = holders.iter().filter_map(|holder| {
            let sources = split.sources(holder.partition);
            let mut own = sources.into_iter();
            let source =
                own.find(|source| split.heir_of_range(*source, range) == holder.partition)?;
            Some((*holder, source))
        });
        sources.collect()
    }
}

/// The rows of a merge, by their ranges on a ring of that size; with their checksum if they had one.
fn rows_by_range(words: &Words, size: RingSize) -> Vec<(PartitionId, Words)> {
    let mut parts: BTreeMap<PartitionId, Batch> = BTreeMap::new();
    for change in Changes::new(words.get(0)) {
        if let Some(object) = change.object {
            let rows = parts.entry(size.range_of(change.row.hash)).or_default();
            rows.pass_on(change.row, object);
        }
    }
    let parts = parts.into_iter();
    parts
        .map(|(range, rows)| (range, Words::copy([rows.as_bytes()])))
        .collect()
}

/// The keys of a fetch, by their ranges.
fn keys_by_range(words: &Words, size: RingSize) -> Vec<(PartitionId, Words)> {
    let mut parts: BTreeMap<PartitionId, Vec<&[u8]>> = BTreeMap::new();
    let words: Vec<&[u8]> = words.iter().collect();
    for pair in words.chunks_exact(2) {
        if let [_, held] = pair
            && let Some(held) = Held::from_bytes(held)
        {
            let keys = parts.entry(size.range_of(held.hash)).or_default();
            keys.extend_from_slice(pair);
        }
    }
    let parts = parts.into_iter();
    parts
        .map(|(range, keys)| (range, Words::copy(keys)))
        .collect()
}
