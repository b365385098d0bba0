//! Nodes become one cluster: joins, plans, commits, and any node answers for every key.

use serde_json::Value;
use tests::resp::{Client, Reply};
use tests::{Cluster, eventually};

mod changes;
mod commands;
mod cuts;
mod failpoints;
mod faults;
mod joining;
mod kills;
mod moving;
mod plans;
mod registers;
mod resizing;
mod tls;
mod transfers;

const MEMORY: &[&str] = &["--storage", "memory"];
const DISK: &[&str] = &["--sync", "always"];

/// Sets so many keys through one node, and asserts that each node has them all.
fn set_and_get_everywhere(cluster: &Cluster, prefix: &str, count: usize) {
    let mut first = cluster.node(1).client();
    for n in 0..count {
        assert_eq!(first.run(&format!("SET {prefix}{n} v{n}")), Reply::ok());
    }
    get_everywhere(cluster, prefix, count);
}

/// Asserts that each node has all of these keys.
fn get_everywhere(cluster: &Cluster, prefix: &str, count: usize) {
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..count {
            let value = insist(&mut client, &format!("GET {prefix}{n}"));
            assert_eq!(value, format!("v{n}").as_str().into(), "{} {n}", node.name);
        }
    }
}

/// Runs a command until its reply is no error.
fn insist(client: &mut Client, words: &str) -> Reply {
    eventually(words, || {
        let reply = client.run(words);
        (!matches!(reply, Reply::Error(_))).then_some(reply)
    })
}

/// Partitions that each member owns, as one node sees it.
fn shares(view: &Value) -> Vec<(String, u64)> {
    let members = view["members"].as_array().expect("members");
    let share = |member: &Value| {
        let name = member["name"].as_str().expect("a name").to_owned();
        (name, member["partitions"].as_u64().expect("a number"))
    };
    members.iter().map(share).collect()
}
