//! How many partitions each node should own.
//!
//! Shares follow the weights, within what safe preference lists allow. With lists of `n` on a ring of `N`, a node that owns more
//! than `N / n` partitions is in some list twice; if there are fewer nodes than `n`, one that owns less than that is missing from
//! some list. The same holds for locations. For their sake a node may own more than its share, but not without limit.

use std::cmp::{Ordering, Reverse};

use super::members::Members;

/// For the sake of locations a node owns at most this many times its share. The first node of a new location would otherwise
/// hold a replica of everything.
const LOCATION_LOAD_MAX: u64 = 2;

/// How many partitions each node should own, by number.
///
/// Where rounding leaves a choice, it favours the node that owns more of what it should now, then the first by name. `owned`
/// has what each node owns now.
pub(super) fn quotas(
    members: &Members,
    partitions: usize,
    n: usize,
    owned: &[usize],
) -> Vec<usize> {
    let flat = flat_quotas(members, partitions, n, owned);
    let most_by_node = load_limits(members, partitions, n, &flat);
    let most = sums(members, &most_by_node);
    let (least, bound) = location_bounds(partitions, n, &most);
    let kept = sums(members, &flat);
    if kept.iter().all(|total| (least..=bound).contains(total)) {
        return flat;
    }
    let (node_least, _) = node_bounds(partitions, n, members.len());
    let claims: Vec<Claim> = (0..members.location_count())
        .zip(&most)
        .zip(sums(members, owned))
        .map(|((location, &most), owned)| Claim {
            weight: members
                .nodes_in(location)
                .map(|node| members.weight(node))
                .sum(),
            least: least
                .max(node_least * members.nodes_in(location).count())
                .min(most),
            most: bound.min(most),
            owned,
        })
        .collect();
    let mut quotas = vec![0; members.len()];
    for (location, total) in apportion(partitions, &claims).into_iter().enumerate() {
        let nodes: Vec<usize> = members.nodes_in(location).collect();
        let claims: Vec<Claim> = nodes
            .iter()
            .map(|&node| Claim {
                weight: members.weight(node),
                least: node_least,
                most: most_by_node.get(node).copied().unwrap_or(0),
                owned: owned.get(node).copied().unwrap_or(0),
            })
            .collect();
        for (node, quota) in nodes.into_iter().zip(apportion(total, &claims)) {
            quotas
                .get_mut(node)
                .into_iter()
                .for_each(|slot| *slot = quota);
        }
    }
    quotas
}

/// Quotas without regard to locations, but for the order of ties: it goes around the locations, lest all nodes that get one
/// partition more be in the same.
fn flat_quotas(members: &Members, partitions: usize, n: usize, owned: &[usize]) -> Vec<usize> {
    let (least, most) = node_bounds(partitions, n, members.len());
    let mut met = vec![0; members.location_count()];
    let mut order: Vec<(usize, usize)> = Vec::with_capacity(members.len());
    for node in 0..members.len() {
        let turn = met
            .get_mut(members.location(node))
            .map_or(0, |met| std::mem::replace(met, *met + 1));
        order.push((turn, node));
    }
    order.sort_unstable();
    let claims: Vec<Claim> = order
        .iter()
        .map(|&(_, node)| Claim {
            weight: members.weight(node),
            least,
            most,
            owned: owned.get(node).copied().unwrap_or(0),
        })
        .collect();
    let nodes = order.into_iter().map(|(_, node)| node);
    let mut quotas: Vec<(usize, usize)> = nodes.zip(apportion(partitions, &claims)).collect();
    quotas.sort_unstable();
    quotas.into_iter().map(|(_, quota)| quota).collect()
}

/// The most each location may own, by number.
pub(super) fn location_limits(members: &Members, partitions: usize, n: usize) -> Vec<usize> {
    let flat = flat_quotas(members, partitions, n, &vec![0; members.len()]);
    sums(members, &load_limits(members, partitions, n, &flat))
}

/// The most each node may own for the sake of locations.
fn load_limits(members: &Members, partitions: usize, n: usize, flat: &[usize]) -> Vec<usize> {
    let (_, most) = node_bounds(partitions, n, members.len());
    let weights: u64 = members.weights().sum();
    let limit = |weight: u64| {
        let share = (LOCATION_LOAD_MAX * weight * as_u64(partitions)).div_ceil(weights);
        most.min(as_usize(share))
    };
    let limits = members.weights().map(limit);
    limits
        .zip(flat)
        .map(|(limit, &flat)| limit.max(flat))
        .collect()
}

/// The least and the most that a node may own if all lists are to be on distinct nodes, or as close to that as can be.
fn node_bounds(partitions: usize, n: usize, nodes: usize) -> (usize, usize) {
    let most = if nodes < n {
        partitions
    } else {
        (partitions / n).max(partitions.div_ceil(nodes))
    };
    (least(partitions, n, nodes), most)
}

/// The same for locations, of which each cannot own more than its limit.
fn location_bounds(partitions: usize, n: usize, limits: &[usize]) -> (usize, usize) {
    let room = |most: usize| limits.iter().map(|&limit| limit.min(most)).sum::<usize>();
    let first = if limits.len() < n {
        partitions
    } else {
        partitions / n
    };
    let most = (first..partitions).find(|&most| room(most) >= partitions);
    (
        least(partitions, n, limits.len()),
        most.unwrap_or(partitions),
    )
}

/// The least that a group may own: with no more groups than replicas, every list needs every group.
fn least(partitions: usize, n: usize, groups: usize) -> usize {
    match groups.cmp(&n) {
        Ordering::Less => partitions.div_ceil(n).min(partitions / groups),
        Ordering::Equal => partitions / n,
        Ordering::Greater => 0,
    }
}

/// Adds up, for each location, what its nodes have.
fn sums(members: &Members, by_node: &[usize]) -> Vec<usize> {
    let mut sums = vec![0; members.location_count()];
    for (node, count) in by_node.iter().enumerate() {
        let sum = sums.get_mut(members.location(node));
        sum.into_iter().for_each(|sum| *sum += count);
    }
    sums
}

/// What a node or a location has to say in a division.
#[derive(Clone, Debug)]
struct Claim {
    weight: u64,
    least: usize,
    most: usize,
    owned: usize,
}

/// Divides `total` in proportion to the weights and within the bounds, the rest to the largest remainders.
///
/// Claims beyond their bounds are held there and the others share what is left, until all are within (as flexible boxes do in
/// CSS). The sum is `total` if the bounds allow it.
fn apportion(total: usize, claims: &[Claim]) -> Vec<usize> {
    let mut held: Vec<Option<usize>> = vec![None; claims.len()];
    let (rest, weights) = loop {
        let rest = total.saturating_sub(held.iter().flatten().sum());
        let free = || claims.iter().zip(&held).filter(|(_, held)| held.is_none());
        let weights: u64 = free().map(|(claim, _)| claim.weight).sum();
        let scaled = |count: usize| as_u64(count) * weights;
        let over = |claim: &Claim| (as_u64(rest) * claim.weight).saturating_sub(scaled(claim.most));
        let under = |claim: &Claim| scaled(claim.least).saturating_sub(as_u64(rest) * claim.weight);
        let all_over: u64 = free().map(|(claim, _)| over(claim)).sum();
        let all_under: u64 = free().map(|(claim, _)| under(claim)).sum();
        if all_over == 0 && all_under == 0 {
            break (rest, weights);
        }
        for (claim, held) in claims.iter().zip(&mut held) {
            if held.is_some() {
                continue;
            }
            if all_over >= all_under && over(claim) > 0 {
                *held = Some(claim.most);
            } else if all_over < all_under && under(claim) > 0 {
                *held = Some(claim.least);
            }
        }
    };
    let mut parts = Vec::with_capacity(claims.len());
    let mut remainders = Vec::new();
    for (index, (claim, held)) in claims.iter().zip(&held).enumerate() {
        let scaled = as_u64(rest) * claim.weight;
        let part = held.unwrap_or_else(|| as_usize(scaled / weights.max(1)));
        parts.push(part);
        if held.is_none() {
            let surplus = claim.owned.saturating_sub(part);
            remainders.push((Reverse(scaled % weights.max(1)), Reverse(surplus), index));
        }
    }
    remainders.sort_unstable();
    let missing = total.saturating_sub(parts.iter().sum());
    for (_, _, index) in remainders.into_iter().take(missing) {
        parts.get_mut(index).into_iter().for_each(|part| *part += 1);
    }
    parts
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn as_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
