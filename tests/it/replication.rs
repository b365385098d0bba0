//! Several replicas of each key: what clients may ask of them, what becomes of the data when nodes die, and how replicas become
//! equal again. Read next: `nemesis.rs`, which does all of it at once.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::resp::{Client, Reply};
use tests::{Cluster, Node, eventually, up};

mod healing;
mod nemesis;
mod sessions;

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
        cluster.nodes().all(gone).then_some(())
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

/// Waits until all nodes that run see that one is not up.
fn seen_down(cluster: &Cluster, gone: &[usize]) {
    let names: BTreeSet<String> = gone
        .iter()
        .map(|number| format!("node{number}@test"))
        .collect();
    eventually("the others to miss it", || {
        let seen = |node: &Node| {
            let view = node.json("/v1/cluster");
            up(&view).iter().all(|name| !names.contains(*name))
        };
        let mut others = cluster.nodes().filter(|node| !names.contains(&node.name));
        others.all(seen).then_some(())
    });
}
