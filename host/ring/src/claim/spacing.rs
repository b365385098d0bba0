//! Counting bad preference lists.
//!
//! A list is bad when its replicas are on fewer nodes, or in fewer locations, than they could be. Lists are windows of the ring,
//! so a change of one owner touches only the few windows that contain it, and a search can ask for those alone.

use super::members::Members;

/// The owner of a partition that nobody owns for the moment. It counts as a node and a location of its own.
pub(super) const NOBODY: usize = usize::MAX;

/// The owner of each partition, by number, in ring order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment(pub(super) Vec<usize>);

impl Assignment {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The owner of a partition; `partition` may be up to one turn beyond the end of the ring.
    pub(super) fn owner(&self, partition: usize) -> usize {
        let wrapped = partition.checked_sub(self.len()).unwrap_or(partition);
        self.0.get(wrapped).copied().unwrap_or(NOBODY)
    }

    pub(super) fn give(&mut self, partition: usize, node: usize) {
        if let Some(owner) = self.0.get_mut(partition) {
            *owner = node;
        }
    }

    pub(super) fn swap(&mut self, one: usize, other: usize) {
        self.0.swap(one, other);
    }

    /// How many partitions have another owner than in `before`.
    pub(super) fn moves_from(&self, before: &Assignment) -> usize {
        let pairs = self.0.iter().zip(&before.0);
        pairs.filter(|(now, before)| now != before).count()
    }
}

/// Bad lists of each kind, in the order of their importance, or a change of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Badness {
    /// Lists on too few nodes.
    pub(super) nodes: i64,
    /// Lists in too few locations.
    pub(super) locations: i64,
    /// Lists that, with the next partition, are on too few nodes or in too few locations: what is left of them, and their
    /// natural stand-in, would be bad after a loss.
    pub(super) after_loss: i64,
}

impl Badness {
    /// What is bad without any loss.
    pub(super) fn now(self) -> (i64, i64) {
        (self.nodes, self.locations)
    }

    pub(super) fn plus(self, other: Badness) -> Badness {
        Badness {
            nodes: self.nodes + other.nodes,
            locations: self.locations + other.locations,
            after_loss: self.after_loss + other.after_loss,
        }
    }

    pub(super) fn minus(self, other: Badness) -> Badness {
        Badness {
            nodes: self.nodes - other.nodes,
            locations: self.locations - other.locations,
            after_loss: self.after_loss - other.after_loss,
        }
    }
}

/// What the members of a cluster can expect of each preference list.
#[derive(Clone, Debug)]
pub(super) struct Spacing<'m> {
    members: &'m Members,
    /// The width of a list.
    pub(super) list: usize,
    /// The width of a list with the next partition.
    pub(super) extended: usize,
}

impl<'m> Spacing<'m> {
    pub(super) fn new(members: &'m Members, partitions: usize, list: usize) -> Spacing<'m> {
        Spacing {
            members,
            list,
            extended: (list + 1).min(partitions),
        }
    }

    /// Whether fewer than `width` nodes, or all of them if there are not so many, are in the window from `first` on.
    pub(super) fn few_nodes(&self, ring: &Assignment, first: usize, width: usize) -> bool {
        let wanted = width.min(self.members.len());
        distinct(width, |step| ring.owner(first + step)) < wanted
    }

    /// The same for locations.
    pub(super) fn few_locations(&self, ring: &Assignment, first: usize, width: usize) -> bool {
        let wanted = width.min(self.members.location_count());
        let location = |step| self.members.location(ring.owner(first + step));
        distinct(width, location) < wanted
    }

    fn window(&self, ring: &Assignment, first: usize) -> (bool, bool) {
        let nodes = self.few_nodes(ring, first, self.list);
        let locations = match self.members.share_locations() {
            true => self.few_locations(ring, first, self.list),
            false => nodes,
        };
        (nodes, locations)
    }

    fn extended_window(&self, ring: &Assignment, first: usize) -> i64 {
        let nodes = self.few_nodes(ring, first, self.extended);
        let locations =
            self.members.share_locations() && self.few_locations(ring, first, self.extended);
        i64::from(nodes) + i64::from(locations)
    }

    /// All bad lists.
    pub(super) fn badness(&self, ring: &Assignment) -> Badness {
        self.sum(ring, 0..ring.len(), 0..ring.len())
    }

    /// The bad lists among those that contain a partition.
    pub(super) fn badness_at(&self, ring: &Assignment, partition: usize) -> Badness {
        let first = |width| partition + ring.len() + 1 - width;
        let last = partition + ring.len();
        self.sum(
            ring,
            first(self.list)..last + 1,
            first(self.extended)..last + 1,
        )
    }

    fn sum(
        &self,
        ring: &Assignment,
        lists: std::ops::Range<usize>,
        extended: std::ops::Range<usize>,
    ) -> Badness {
        let wrap = |first: usize| first.checked_sub(ring.len()).unwrap_or(first);
        let mut badness = Badness::default();
        for (nodes, locations) in lists.map(|first| self.window(ring, wrap(first))) {
            badness.nodes += i64::from(nodes);
            badness.locations += i64::from(locations);
        }
        badness.after_loss = extended
            .map(|first| self.extended_window(ring, wrap(first)))
            .sum();
        badness
    }
}

/// How many different groups there are on the first `width` steps.
pub(super) fn distinct(width: usize, group: impl Fn(usize) -> usize) -> usize {
    (0..width)
        .filter(|&step| {
            let this = group(step);
            this == NOBODY || (0..step).all(|earlier| group(earlier) != this)
        })
        .count()
}
