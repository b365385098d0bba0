//! Hashing a key, its preference list, a coverage plan.

use divan::{Bencher, black_box};
use vnode_host::ring::{HashId, NodeName, Ring, RingSize, coverage_plan, preflist, primaries};

use crate::rig::key;

/// 64 partitions on three nodes, n = 3.
fn three_nodes() -> Ring {
    let size = RingSize::new(64).unwrap();
    let names = ["a", "b", "c"].map(|name| NodeName::new(name).unwrap());
    let owners = names.into_iter().cycle().take(64).collect();
    Ring::new(size, HashId::V1, owners, 1).unwrap()
}

#[divan::bench(args = [HashId::V1, HashId::EtfSha1])]
fn hash(bencher: Bencher, id: HashId) {
    let key = key(7);
    bencher.bench_local(|| id.hash(black_box(b"kv"), black_box(&key)));
}

#[divan::bench]
fn first_replica(bencher: Bencher) {
    let size = RingSize::new(64).unwrap();
    let hash = HashId::V1.hash(b"kv", &key(7));
    bencher.bench_local(|| size.first_replica(black_box(&hash)));
}

#[divan::bench]
fn primaries_of_3(bencher: Bencher) {
    let ring = three_nodes();
    let hash = HashId::V1.hash(b"kv", &key(7));
    bencher.bench_local(|| primaries(&ring, black_box(&hash), 3));
}

#[divan::bench]
fn preflist_of_3_with_one_node_down(bencher: Bencher) {
    let ring = three_nodes();
    let hash = HashId::V1.hash(b"kv", &key(7));
    let up = |node: &NodeName| node.as_str() != "b";
    bencher.bench_local(|| preflist(&ring, &up, black_box(&hash), 3));
}

#[divan::bench(args = [1, 3])]
fn coverage_plan_of_64_partitions(bencher: Bencher, n: u16) {
    let ring = three_nodes();
    let up = |_: &NodeName| true;
    let mut offset = 0;
    bencher.bench_local(|| {
        offset += 1;
        coverage_plan(&ring, &up, n, offset).unwrap()
    });
}
