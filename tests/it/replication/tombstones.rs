//! The marks of deleted keys, which go when nobody needs them any more.

use tests::resp::Reply;
use tests::{Cluster, Node, eventually};

use super::{ALWAYS, MEMORY, equal, hints_gone, replicas, seen_down, settle};

const KEYS: usize = 60;
/// As short as can be, so that whatever keeps a tombstone is not its age.
const NO_GRACE: [&str; 2] = ["--tombstone-grace", "1ms"];

fn reaped(node: &Node) -> f64 {
    let metric = node.metric("vnode_reaped_tombstones_total");
    metric.expect("a metric")
}

/// Bytes of rows of the kv service, on all nodes.
fn bytes(cluster: &Cluster) -> u64 {
    let of = |node: &Node| {
        let view = node.json("/v1/vnodes");
        let vnodes = view["vnodes"].as_array().expect("vnodes").clone();
        let kv = vnodes.iter().filter(|vnode| vnode["service"] == "kv");
        kv.map(|vnode| vnode["bytes"].as_u64().expect("bytes"))
            .sum::<u64>()
    };
    cluster.nodes().map(of).sum()
}

/// Waits until this many tombstones have been removed by the nodes together.
fn all_reaped(cluster: &Cluster, count: f64) {
    eventually("the tombstones to go", || {
        let reaped: f64 = cluster.nodes().map(reaped).sum();
        (reaped >= count).then_some(())
    });
}

#[test]
#[allow(clippy::cast_precision_loss, reason = "a small number")]
fn deleted_keys_leave_nothing_behind_and_can_be_written_again() {
    let cluster = Cluster::of(3, &[MEMORY, &NO_GRACE].concat());
    let mut client = cluster.node(1).client();
    for n in 0..KEYS {
        settle(&mut client, &format!("k{n}"), "old");
    }
    settle(&mut client, "stays", "value");
    let with_all = bytes(&cluster);
    for n in 0..KEYS {
        assert_eq!(client.run(&format!("DEL k{n}")), 1.into());
    }
    all_reaped(&cluster, KEYS as f64);
    let left = bytes(&cluster);
    assert!(left > 0 && left < with_all / 10, "{left} of {with_all}");
    for n in 0..KEYS {
        let held = replicas(&mut client, &format!("k{n}"), "kv");
        assert!(held.iter().all(|held| held.values.is_empty()), "{held:?}");
        settle(&mut client, &format!("k{n}"), "new");
        let held = replicas(&mut client, &format!("k{n}"), "kv");
        assert!(equal(&held) && held[0].values == [b"new"], "{held:?}");
    }
    assert_eq!(client.run("GET stays"), "value".into());
}

#[test]
#[allow(clippy::cast_precision_loss, reason = "a small number")]
fn a_member_that_is_away_keeps_all_tombstones_and_brings_nothing_back() {
    let mut cluster = Cluster::of(3, &[ALWAYS, &NO_GRACE].concat());
    let mut client = cluster.node(1).client();
    for n in 0..KEYS {
        settle(&mut client, &format!("k{n}"), "old");
    }
    // Those that are deleted first show that somebody looks.
    settle(&mut client, "first", "old");
    assert_eq!(client.run("DEL first"), 1.into());
    all_reaped(&cluster, 1.0);
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    let mut client = cluster.node(2).client();
    for n in 0..KEYS {
        assert_eq!(client.run(&format!("DEL k{n}")), 1.into());
    }
    let so_far: f64 = cluster.alive().map(reaped).sum();
    assert!(so_far <= 1.0, "{so_far} were reaped while a node was away");
    cluster.restart(3);
    cluster.agree();
    hints_gone(&cluster);
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..KEYS {
            let read = client.run(&format!("VNODE.WITH R 3 -- GET k{n}"));
            assert_eq!(read, Reply::Nil, "k{n} through {}", node.name);
        }
    }
    // Those of the first life of the third node are counted no more.
    all_reaped(&cluster, KEYS as f64);
    for n in 0..KEYS {
        let held = replicas(&mut client, &format!("k{n}"), "kv");
        assert!(held.iter().all(|held| held.values.is_empty()), "{held:?}");
    }
}
