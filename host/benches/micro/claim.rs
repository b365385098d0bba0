//! Who should own what: a ring from scratch, and the join of one fresh node, up to 1000 nodes and 16384 partitions.

use std::time::Instant;

use divan::{Bencher, black_box};
use vnode_host::ring::{Claimer, NodeName, WEIGHT, claim, safety};

const N: u16 = 3;
/// Nodes and partitions: the tutorials' ring, and up to the largest that the claim is made for.
const RINGS: [(usize, usize); 4] = [(3, 64), (10, 256), (100, 4096), (1000, 16384)];

fn claimers(nodes: usize) -> Vec<Claimer> {
    let claimer = |number| Claimer {
        node: NodeName::new(&format!("node{number}")).unwrap(),
        location: None,
        weight: WEIGHT,
    };
    (0..nodes).map(claimer).collect()
}

/// As a cluster begins: the first node owns everything.
fn unclaimed(partitions: usize) -> Vec<NodeName> {
    vec![NodeName::new("node0").unwrap(); partitions]
}

#[divan::bench(args = RINGS)]
fn from_scratch(bencher: Bencher, (nodes, partitions): (usize, usize)) {
    let (owners, claimers) = (unclaimed(partitions), claimers(nodes));
    bencher.bench_local(|| claim(black_box(&owners), &claimers, N).unwrap());
}

#[divan::bench(args = RINGS)]
fn one_joins(bencher: Bencher, (nodes, partitions): (usize, usize)) {
    let owners = claim(&unclaimed(partitions), &claimers(nodes), N).unwrap();
    let more = claimers(nodes + 1);
    bencher.bench_local(|| claim(black_box(&owners), &more, N).unwrap());
}

/// Prints what a join costs: the time, and partitions that move against the fewest that can, which is the share of the fresh node.
pub(crate) fn print() {
    println!("a ring from scratch, and the join of a fresh node, n={N}     must < 1 s, 1.2x");
    println!(
        "{:>6}{:>12}{:>12}{:>12}{:>8}{:>8}{:>8}{:>8}",
        "nodes", "partitions", "scratch ms", "join ms", "moved", "least", "ratio", "unsafe"
    );
    for (nodes, partitions) in RINGS {
        let begun = Instant::now();
        let before = claim(&unclaimed(partitions), &claimers(nodes), N).unwrap();
        let scratch = begun.elapsed();
        let more = claimers(nodes + 1);
        let begun = Instant::now();
        let after = claim(&before, &more, N).unwrap();
        let join = begun.elapsed();
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        let least = partitions / (nodes + 1);
        let bad = safety(&after, &more, N).unwrap().nodes.bad.len();
        println!(
            "{nodes:>6}{partitions:>12}{:>12.1}{:>12.1}{moved:>8}{least:>8}{:>7.2}x{bad:>8}",
            scratch.as_secs_f64() * 1e3,
            join.as_secs_f64() * 1e3,
            moved as f64 / least as f64,
        );
    }
}
