//! Several replicas of each key: what clients may ask of them, what becomes of the data when nodes die, and how replicas become
//! equal again. Read next: `nemesis.rs`, which does all of it at once.

use serde_json::Value;
use tests::resp::{Client, Reply};
use tests::{Cluster, Node, eventually, up};

mod causality;
mod coverage;
mod faults;
mod healing;
mod nemesis;
mod quorums;
mod repair;
mod returning;
mod sessions;
mod tombstones;

const MEMORY: &[&str] = &["--storage", "memory"];

/// What was acknowledged is there also when its node is killed at once. Without this a node that is cut off, and is then the
/// fallback of all the others, may acknowledge alone what it has not on disk.
const ALWAYS: &[&str] = &["--sync", "always"];

/// What one replica holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    node: String,
    partition: u32,
    kind: String,
    /// Sorted; empty also when the replica did not answer.
    values: Vec<Vec<u8>>,
    /// The first word of the error in place of values.
    error: Option<String>,
}

impl Held {
    fn of(replica: Reply) -> Held {
        let parts = replica.items();
        let (mut values, mut error) = (Vec::new(), None);
        match &parts[3] {
            Reply::Array(items) => {
                let bytes = |item: &Reply| match item {
                    Reply::Bulk(bytes) => bytes.clone(),
                    other => panic!("no value: {other:?}"),
                };
                values = items.iter().map(bytes).collect();
                values.sort();
            }
            other => error = Some(other.text()),
        }
        Held {
            node: parts[0].text(),
            partition: u32::try_from(parts[1].int()).expect("a partition"),
            kind: parts[2].text(),
            values,
            error,
        }
    }
}

/// What each replica of a key holds, in the order of the preference list.
fn replicas(client: &mut Client, key: &str, service: &str) -> Vec<Held> {
    let reply = client.call(&["VNODE.REPLICAS", key, "SERVICE", service]);
    reply.items().into_iter().map(Held::of).collect()
}

/// Whether all of them are primaries that hold the same.
fn equal(held: &[Held]) -> bool {
    let same =
        |one: &Held| one.kind == "primary" && one.error.is_none() && one.values == held[0].values;
    held.iter().all(same)
}

/// The transfers of hints that a node tells of.
fn hints(node: &Node) -> Vec<Value> {
    let view = node.json("/v1/transfers");
    let all = view["transfers"].as_array().expect("transfers").iter();
    all.filter(|transfer| transfer["kind"] == "hinted")
        .cloned()
        .collect()
}

/// Waits until no node holds anything for another one.
fn hints_gone(cluster: &Cluster) {
    eventually("the hints to go home", || {
        let gone = |node: &Node| hints(node).is_empty();
        cluster.alive().all(gone).then_some(())
    });
}

/// Rows that a node gave to others because of what was noticed so.
fn healed(node: &Node, noticed: &str) -> u64 {
    let name = format!("vnode_healed_rows_total{{noticed=\"{noticed}\"}}");
    let count = node.metric(&name).expect("a metric");
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far fewer rows than a f64 counts exactly"
    )]
    let count = count as u64;
    count
}

/// Waits until all nodes that run see that these are not up.
fn seen_down(cluster: &Cluster, gone: &[usize]) {
    let gone = |name: &&str| {
        let named = |number: &usize| *name == format!("node{number}@test");
        gone.iter().any(named)
    };
    eventually("the others to miss it", || {
        let seen = |node: &Node| {
            let view = node.json("/v1/cluster");
            !up(&view).iter().any(gone)
        };
        cluster.alive().all(seen).then_some(())
    });
}

/// Sets a key on all of its replicas.
fn settle(client: &mut Client, key: &str, value: &str) {
    let reply = client.call(&["VNODE.WITH", "W", "3", "--", "SET", key, value]);
    assert_eq!(reply, Reply::ok(), "{key}");
}

/// Asserts that each node has `v0` under the first of so many keys, `v1` under the second and on.
fn through_all(cluster: &Cluster, prefix: &str, count: usize) {
    for node in cluster.alive() {
        let mut client = node.client();
        for n in 0..count {
            let value = client.run(&format!("GET {prefix}{n}"));
            assert_eq!(
                value,
                format!("v{n}").as_str().into(),
                "{prefix}{n} through {}",
                node.name
            );
        }
    }
}

/// The steps of a trace of a guest that comes with the host: node, partition, kind and outcome.
fn steps(trace: Reply) -> Vec<(String, i64, String, String)> {
    let step = |step: Reply| {
        let parts = step.items();
        assert!(parts[4].int() >= 0, "microseconds");
        let text = |nth: usize| parts[nth].text();
        if text(3) == "ok" {
            assert_eq!(text(5), env!("CARGO_PKG_VERSION"), "{parts:?}");
        }
        (text(0), parts[1].int(), text(2), text(3))
    };
    trace.items().into_iter().map(step).collect()
}

/// Waits until all replicas of the first of so many keys are primaries that hold the same.
fn all_equal(cluster: &Cluster, prefix: &str, count: usize) {
    let mut client = cluster.node(1).client();
    for n in 0..count {
        let key = format!("{prefix}{n}");
        eventually(&format!("the replicas of {key} to be equal"), || {
            equal(&replicas(&mut client, &key, "kv")).then_some(())
        });
    }
}

/// Rows that all nodes together gave to others because of what was noticed so.
fn healed_by_all(cluster: &Cluster, noticed: &str) -> u64 {
    cluster.alive().map(|node| healed(node, noticed)).sum()
}
