//! Rings from scratch: given how many partitions each node should own, an order in which its partitions are far apart.
//!
//! Locations are laid out first, then the nodes of each location on the places of that location. Nothing is searched. A ring
//! is cut into blocks, and the places are filled row by row: the first of every block, then the second of every block, and so
//! on. Whoever owns at most as many places as there are blocks then comes about once in each block.

use super::members::Members;
use super::spacing::Assignment;

/// How the places of a ring are ordered before groups take them one group after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    /// As many blocks as the largest group has members, all about as long.
    Blocks,
    /// Blocks of as many places as there are groups, the last one shorter: the plain diagonal, best when there are only as many
    /// groups as a list has replicas.
    Diagonal,
    /// Every group at even distances, best when lists are longer than there are groups.
    Even,
}

/// A ring on which every node owns as many partitions as `quotas` says. Nodes take their places in the order of `rank`.
pub(super) fn layout(
    members: &Members,
    quotas: &[usize],
    rank: &[usize],
    pattern: Pattern,
) -> Assignment {
    let quota = |node: usize| quotas.get(node).copied().unwrap_or(0);
    let rank = |node: &usize| rank.get(*node).copied();
    let mut locations: Vec<Vec<usize>> = vec![Vec::new(); members.location_count()];
    for node in 0..members.len() {
        locations
            .get_mut(members.location(node))
            .into_iter()
            .for_each(|nodes| nodes.push(node));
    }
    for nodes in &mut locations {
        nodes.sort_by_key(rank);
    }
    locations.sort_by_key(|nodes| nodes.first().map(rank));
    let totals: Vec<usize> = locations
        .iter()
        .map(|nodes| nodes.iter().map(|&node| quota(node)).sum())
        .collect();
    let mut queues: Vec<std::vec::IntoIter<usize>> = Vec::new();
    for nodes in &locations {
        let counts: Vec<usize> = nodes.iter().map(|&node| quota(node)).collect();
        let order = arrange(&counts, Pattern::Blocks);
        let nodes: Vec<usize> = order
            .iter()
            .filter_map(|&index| nodes.get(index).copied())
            .collect();
        queues.push(nodes.into_iter());
    }
    let turns = arrange(&totals, pattern);
    let owners = turns
        .iter()
        .filter_map(|&location| queues.get_mut(location)?.next());
    Assignment(owners.collect())
}

/// Puts as many of each group as `counts` says on a circle, and returns the group at each place.
fn arrange(counts: &[usize], pattern: Pattern) -> Vec<usize> {
    let places: usize = counts.iter().sum();
    let largest = counts.iter().copied().max().unwrap_or(0);
    let blocks = match pattern {
        Pattern::Even => return evenly(counts),
        Pattern::Blocks => even_blocks(places, largest),
        Pattern::Diagonal => diagonal_blocks(places, counts.len()),
    };
    // Groups with the most members go first: they fill whole rows, the others may then run on from one row into the next.
    let mut groups: Vec<(usize, usize)> = counts.iter().copied().enumerate().collect();
    groups.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let members = groups
        .into_iter()
        .flat_map(|(group, count)| std::iter::repeat_n(group, count));
    let mut arranged = vec![0; places];
    for (place, group) in rows(&blocks).into_iter().zip(members) {
        arranged
            .get_mut(place)
            .into_iter()
            .for_each(|slot| *slot = group);
    }
    arranged
}

/// The places of a circle cut into blocks, row by row.
fn rows(blocks: &[usize]) -> Vec<usize> {
    let starts = blocks.iter().scan(0, |end, &length| {
        let start = *end;
        *end += length;
        Some(start)
    });
    let starts: Vec<usize> = starts.collect();
    let longest = blocks.iter().copied().max().unwrap_or(0);
    let mut places = Vec::new();
    for row in 0..longest {
        let long_enough = starts
            .iter()
            .zip(blocks)
            .filter(|&(_, &length)| length > row);
        places.extend(long_enough.map(|(start, _)| start + row));
    }
    places
}

/// Lengths of `count` blocks, the longer ones first.
fn even_blocks(places: usize, count: usize) -> Vec<usize> {
    let longer = places.checked_rem(count).unwrap_or(0);
    (0..count)
        .map(|block| places / count + usize::from(block < longer))
        .collect()
}

/// Lengths of blocks of `length`, the last one shorter if it must be.
fn diagonal_blocks(places: usize, length: usize) -> Vec<usize> {
    (0..places)
        .step_by(length)
        .map(|start| length.min(places - start))
        .collect()
}

/// Every group at even distances, ties by number.
fn evenly(counts: &[usize]) -> Vec<usize> {
    let places: usize = counts.iter().sum();
    let mut order = Vec::with_capacity(places);
    for (group, &count) in counts.iter().enumerate() {
        // The middle of each of `count` equal arcs, on a scale fine enough for any ring.
        order.extend((0..count).map(|turn| (((2 * turn + 1) << 32) / count, group)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, group)| group).collect()
}
