//! The nodes that may own partitions, by number.

use std::collections::{BTreeMap, BTreeSet};

use super::spacing::{Assignment, NOBODY};
use super::{ClaimError, Claimer};
use crate::ring::NodeName;

/// Claimers with a weight above 0, numbered in the order of their names.
#[derive(Clone, Debug)]
pub(super) struct Members {
    nodes: Vec<Member>,
    /// Names of locations by number; `None` for that of a node without one.
    locations: Vec<Option<String>>,
}

#[derive(Clone, Debug)]
struct Member {
    name: NodeName,
    weight: u64,
    location: usize,
}

impl Members {
    pub(super) fn new(claimers: &[Claimer]) -> Result<Members, ClaimError> {
        let mut seen = BTreeSet::new();
        if let Some(twice) = claimers.iter().find(|claimer| !seen.insert(&claimer.node)) {
            let node = twice.node.clone();
            return Err(ClaimError::Duplicate { node });
        }
        let mut sorted: Vec<&Claimer> = claimers.iter().filter(|c| c.weight > 0).collect();
        sorted.sort_by_key(|claimer| &claimer.node);
        if sorted.is_empty() {
            return Err(ClaimError::Nobody);
        }
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut locations = Vec::new();
        let mut nodes = Vec::new();
        for claimer in sorted {
            let known = claimer.location.as_deref();
            let location = match known.and_then(|location| numbers.get(location)) {
                Some(&number) => number,
                None => {
                    let number = locations.len();
                    numbers.extend(known.map(|location| (location, number)));
                    locations.push(claimer.location.clone());
                    number
                }
            };
            nodes.push(Member {
                name: claimer.node.clone(),
                weight: claimer.weight.into(),
                location,
            });
        }
        Ok(Members { nodes, locations })
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn location_count(&self) -> usize {
        self.locations.len()
    }

    /// Whether any two nodes share a location; if not, locations say no more than nodes do.
    pub(super) fn share_locations(&self) -> bool {
        self.location_count() < self.len()
    }

    pub(super) fn weights(&self) -> impl Iterator<Item = u64> {
        self.nodes.iter().map(|node| node.weight)
    }

    pub(super) fn weight(&self, node: usize) -> u64 {
        self.nodes.get(node).map_or(0, |node| node.weight)
    }

    /// The location of a node, by number; that of no node is no location either.
    pub(super) fn location(&self, node: usize) -> usize {
        self.nodes.get(node).map_or(node, |node| node.location)
    }

    pub(super) fn location_name(&self, location: usize) -> Option<&str> {
        self.locations.get(location)?.as_deref()
    }

    /// The nodes of a location.
    pub(super) fn nodes_in(&self, location: usize) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(move |&node| self.location(node) == location)
    }

    pub(super) fn name(&self, node: usize) -> Option<&NodeName> {
        self.nodes.get(node).map(|node| &node.name)
    }

    pub(super) fn number(&self, name: &NodeName) -> Option<usize> {
        self.nodes
            .binary_search_by_key(&name, |node| &node.name)
            .ok()
    }

    /// A ring by number; whoever is not a member is nobody.
    pub(super) fn assignment(&self, owners: &[NodeName]) -> Assignment {
        let number = |owner| self.number(owner).unwrap_or(NOBODY);
        Assignment(owners.iter().map(number).collect())
    }

    /// How many partitions each node owns.
    pub(super) fn owned(&self, ring: &Assignment) -> Vec<usize> {
        let mut owned = vec![0; self.len()];
        for &owner in &ring.0 {
            owned
                .get_mut(owner)
                .into_iter()
                .for_each(|count| *count += 1);
        }
        owned
    }

    /// The nodes of each location. Nodes, and locations by their first node, are in the order in which they first own something on
    /// the ring; those that own nothing come last, by name.
    pub(super) fn by_location(&self, ring: &Assignment) -> Vec<Vec<usize>> {
        let mut first: Vec<usize> = vec![ring.len(); self.len()];
        for (partition, &owner) in ring.0.iter().enumerate().rev() {
            first
                .get_mut(owner)
                .into_iter()
                .for_each(|first| *first = partition);
        }
        let mut nodes: Vec<usize> = (0..self.len()).collect();
        nodes.sort_by_key(|&node| first.get(node).copied());
        let mut places: Vec<Option<usize>> = vec![None; self.location_count()];
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for node in nodes {
            let Some(place) = places.get_mut(self.location(node)) else {
                continue;
            };
            match place.and_then(|place| groups.get_mut(place)) {
                Some(group) => group.push(node),
                None => {
                    *place = Some(groups.len());
                    groups.push(vec![node]);
                }
            }
        }
        groups
    }

    /// These members and `count` more of average weight, in the location given or each in one of its own.
    pub(super) fn with_more(&self, count: usize, location: Option<usize>) -> Members {
        let mut more = self.clone();
        let average = self.weights().sum::<u64>() / u64::try_from(self.len()).unwrap_or(1);
        for node in self.nodes.iter().cycle().take(count) {
            let location = location.unwrap_or_else(|| {
                more.locations.push(None);
                more.locations.len() - 1
            });
            more.nodes.push(Member {
                name: node.name.clone(),
                weight: average.max(1),
                location,
            });
        }
        more
    }
}
