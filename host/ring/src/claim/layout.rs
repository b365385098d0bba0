//! Rings from scratch: given how many partitions each node should own, an order in which those of a node are far apart.
//!
//! Groups of nodes that may fail together are laid out first, then the nodes of each group on its places. Nothing is searched.
//! A ring is cut into blocks, and the places are filled row by row: one place of every block, then another of every block, and
//! so on. A group with no more partitions than there are blocks then comes at most once in each block, and blocks are so long
//! that it is never twice in a list.

use std::cmp::Reverse;

use super::spacing::Assignment;

/// How groups share the places of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    /// As many blocks as the largest group has partitions, all about as long.
    Blocks,
    /// Blocks as long as there are groups, the last one shorter: the plain diagonal, best if there are only as many groups as
    /// replicas.
    Diagonal,
    /// Every group at even distances, best if there are fewer groups than replicas.
    Even,
}

/// A ring on which every node owns as many partitions as `quotas` says.
///
/// `apart` is the distance of a group's partitions that is worth keeping if it can be had. What a ring can have beyond that
/// serves to change the neighbours of a group from block to block, so that many share its load when it fails.
pub(super) fn layout(
    groups: &[Vec<usize>],
    quotas: &[usize],
    pattern: Pattern,
    apart: usize,
) -> Assignment {
    let mut totals = Vec::with_capacity(groups.len());
    let mut queues = Vec::with_capacity(groups.len());
    for nodes in groups {
        let counts: Vec<usize> = nodes
            .iter()
            .filter_map(|&node| quotas.get(node))
            .copied()
            .collect();
        let total = counts.iter().sum();
        let mut turns = arrange(&counts, Pattern::Blocks, total);
        // Where the circle of a group closes, its nodes are closest together; that should not be where the ring closes.
        turns.rotate_left(total / 2);
        totals.push(total);
        queues.push(
            turns
                .into_iter()
                .filter_map(|turn| nodes.get(turn).copied()),
        );
    }
    let turns = arrange(&totals, pattern, apart);
    let owners = turns
        .into_iter()
        .filter_map(|group| queues.get_mut(group)?.next());
    Assignment(owners.collect())
}

/// All nodes, those of each group at even distances.
pub(super) fn interleaved(groups: &[Vec<usize>]) -> impl Iterator<Item = usize> {
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    let mut nodes: Vec<_> = groups.iter().map(|nodes| nodes.iter().copied()).collect();
    let turns = evenly(&sizes).into_iter();
    turns.filter_map(move |group| nodes.get_mut(group)?.next())
}

/// Puts as many of each group as `counts` says on a circle, and returns the group at each place.
fn arrange(counts: &[usize], pattern: Pattern, apart: usize) -> Vec<usize> {
    let places: usize = counts.iter().sum();
    let largest = counts.iter().copied().max().unwrap_or(0);
    let blocks = match pattern {
        Pattern::Even => return evenly(counts),
        Pattern::Blocks => even_blocks(places, largest),
        Pattern::Diagonal => diagonal_blocks(places, counts.len()),
    };
    // The largest groups go first and fill whole rows. The others may run on from one row into the next: they lack at least one
    // block, so that where they do, a block lies between.
    let mut groups: Vec<(usize, usize)> = counts.iter().copied().enumerate().collect();
    groups.sort_by_key(|&(_, count)| Reverse(count));
    let takers = groups
        .into_iter()
        .flat_map(|(group, count)| std::iter::repeat_n(group, count));
    let mut arranged = vec![0; places];
    for (place, group) in by_rows(&blocks, apart).into_iter().zip(takers) {
        arranged
            .get_mut(place)
            .into_iter()
            .for_each(|slot| *slot = group);
    }
    arranged
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

/// All places, the first row of every block first.
///
/// A row is not at the same place in every block: rows are mixed with so many neighbours as leaves any two places of a row, or
/// of rows next to each other, `apart` from block to block.
fn by_rows(blocks: &[usize], apart: usize) -> Vec<usize> {
    let shortest = blocks.iter().copied().min().unwrap_or(0);
    let longest = blocks.iter().copied().max().unwrap_or(0);
    let mixed = (shortest + 1).saturating_sub(apart).max(1);
    let mut rows: Vec<Vec<usize>> = vec![Vec::with_capacity(blocks.len()); longest];
    let mut start = 0;
    for (block, &length) in blocks.iter().enumerate() {
        let mut order: Vec<usize> = (0..length).collect();
        order.sort_by_key(|&row| {
            (
                row / mixed,
                if mixed > 1 { scramble(block, row) } else { row },
            )
        });
        for (row, place) in rows.iter_mut().zip(order) {
            row.push(start + place);
        }
        start += length;
    }
    rows.concat()
}

/// A number that looks random, the same for the same arguments everywhere (the finaliser of splitmix64).
fn scramble(block: usize, row: usize) -> usize {
    let mut mixed = (block << 20 | row).wrapping_mul(0x9e37_79b9);
    mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b);
    mixed ^ mixed >> 13
}

/// Every group at even distances, ties in the order of the groups.
fn evenly(counts: &[usize]) -> Vec<usize> {
    let mut order = Vec::new();
    for (group, &count) in counts.iter().enumerate() {
        // The middle of each of `count` equal arcs, on a scale fine enough for any ring.
        order.extend((0..count).map(|turn| (((2 * turn + 1) << 32) / count, group)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, group)| group).collect()
}
