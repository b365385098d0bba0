//! Where a key's replicas are, what a client may ask of them, and what it is told when there are too few.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::resp::{Client, Reply};
use tests::{Cluster, Node};

use super::{ALWAYS, Held, MEMORY, replicas, seen_down, settle, steps, through_all};

#[test]
fn each_key_has_n_replicas_where_the_ring_says_and_is_read_through_every_node() {
    for (nodes, on) in [(1, 1), (3, 3), (5, 3)] {
        let cluster = match nodes {
            1 => Cluster::apart(1, MEMORY),
            _ => Cluster::of(nodes, MEMORY),
        };
        let owners = cluster.node(1).json("/v1/ring")["owners"].clone();
        let mut client = cluster.node(1).client();
        let mut distinct = 0;
        for n in 0..100 {
            let key = format!("k{n}");
            settle(&mut client, &key, &format!("v{n}"));
            let held = replicas(&mut client, &key, "kv");
            let first = held[0].partition;
            assert_eq!(held.len(), 3, "{held:?}");
            for (nth, replica) in (0..).zip(&held) {
                assert_eq!(replica.partition, (first + nth) % 64, "{held:?}");
                let owner = &owners[replica.partition as usize];
                assert_eq!(owner.as_str(), Some(replica.node.as_str()), "{held:?}");
                assert_eq!(replica.kind, "primary", "{held:?}");
                assert_eq!(replica.values, [format!("v{n}").into_bytes()], "{held:?}");
            }
            let apart: BTreeSet<&str> = held.iter().map(|held| held.node.as_str()).collect();
            distinct += usize::from(apart.len() == on);
        }
        // With three nodes and 64 partitions the ring does not close evenly: two of its ranges have two replicas on one node.
        assert!(distinct >= 90, "{distinct} of 100 keys are on {on} nodes");
        through_all(&cluster, "k", 100);
    }
}

/// What each replica did: node, partition, kind, outcome.
fn traced(client: &mut Client, words: &str) -> (Reply, Vec<(String, i64, String, String)>) {
    let mut parts = client.run(words).items();
    let steps = steps(parts.pop().expect("two parts"));
    (parts.pop().expect("two parts"), steps)
}

#[test]
fn a_trace_has_one_step_for_each_replica_that_was_asked() {
    let cluster = Cluster::of(3, MEMORY);
    for node in cluster.nodes() {
        let mut client = node.client();
        settle(&mut client, "k", "v");
        let held = replicas(&mut client, "k", "kv");
        let all: Vec<_> = held.iter().map(step_of).collect();
        for (words, reply, asked) in [
            ("VNODE.TRACE SET k v", Reply::ok(), 3),
            ("VNODE.TRACE GET k", "v".into(), 3),
            ("VNODE.TRACE VNODE.WITH W 1 -- SET k v", Reply::ok(), 3),
            ("VNODE.WITH W 3 PW 3 -- VNODE.TRACE SET k v", Reply::ok(), 3),
            ("VNODE.TRACE VNODE.WITH R 3 -- GET k", "v".into(), 3),
            ("VNODE.WITH R 3 -- VNODE.TRACE GET k", "v".into(), 3),
            ("VNODE.WITH N 2 -- VNODE.TRACE GET k", "v".into(), 2),
            ("VNODE.TRACE VNODE.WITH N 1 -- SET k v", Reply::ok(), 1),
            // One that needs nobody else asks nobody else.
            ("VNODE.WITH R 1 -- VNODE.TRACE GET k", "v".into(), 1),
            // What stands nearer to the command counts.
            (
                "VNODE.WITH N 1 -- VNODE.WITH N 2 -- VNODE.TRACE SET k v",
                Reply::ok(),
                2,
            ),
        ] {
            let (said, steps) = traced(&mut client, words);
            assert_eq!((said, &steps[..]), (reply, &all[..asked]), "{words}");
        }
    }
}

fn step_of(held: &Held) -> (String, i64, String, String) {
    let partition = i64::from(held.partition);
    (held.node.clone(), partition, held.kind.clone(), "ok".into())
}

#[test]
fn quorums_that_nobody_can_meet_are_refused_with_their_names() {
    let node = Node::in_memory();
    let mut client = node.client();
    let knows = "it takes N R W PR PW DW NODE_CONFIRMS TIMEOUT, each with a number";
    for (words, error) in [
        (
            "VNODE.WITH N 4 -- GET k",
            "ERR n=4: the service keeps 3 replicas of each key",
        ),
        (
            "VNODE.WITH N 0 -- GET k",
            "ERR n=0: the service keeps 3 replicas of each key",
        ),
        (
            "VNODE.WITH R 4 -- GET k",
            "ERR r=4: it has to be from 1 to n=3",
        ),
        (
            "VNODE.WITH R 0 -- GET k",
            "ERR r=0: it has to be from 1 to n=3",
        ),
        (
            "VNODE.WITH W 0 -- SET k v",
            "ERR w=0: it has to be from 1 to n=3",
        ),
        (
            "VNODE.WITH PR 4 -- GET k",
            "ERR pr=4: it has to be from 0 to n=3",
        ),
        (
            "VNODE.WITH PW 4 -- SET k v",
            "ERR pw=4: it has to be from 0 to n=3",
        ),
        (
            "VNODE.WITH DW 4 -- SET k v",
            "ERR dw=4: it has to be from 0 to n=3",
        ),
        (
            "VNODE.WITH NODE_CONFIRMS 4 -- SET k v",
            "ERR node_confirms=4: it has to be from 0 to n=3",
        ),
        (
            "VNODE.WITH N 1 R 2 -- GET k",
            "ERR r=2: it has to be from 1 to n=1",
        ),
        (
            "VNODE.WITH R 2",
            "ERR VNODE.WITH needs a -- before the command",
        ),
        ("VNODE.WITH X 1 -- GET k", "does not know 'X 1'; it takes"),
        ("VNODE.WITH FOO -- GET k", "does not know 'FOO'; it takes"),
        ("VNODE.WITH R -- GET k", "'R' needs a number; it takes"),
        ("VNODE.WITH R many -- GET k", knows),
        ("VNODE.WITH R 256 -- GET k", knows),
        ("VNODE.WITH R -1 -- GET k", knows),
        (
            "VNODE.WITH R 2 -- PING",
            "ERR 'PING' is no command of a guest",
        ),
        (
            "VNODE.WITH R 2 -- GET",
            "ERR wrong number of arguments for 'get' command",
        ),
    ] {
        let Reply::Error(text) = client.run(words) else {
            panic!("{words} is not refused")
        };
        assert!(text.contains(error), "{words}: {text}");
    }
    // A node has three replicas of each key on itself, but is not three nodes.
    assert_eq!(
        client.run("VNODE.WITH W 3 PW 3 DW 3 -- SET k v"),
        Reply::ok()
    );
    let reply = client.run("VNODE.WITH NODE_CONFIRMS 2 -- SET k v");
    assert!(
        reply
            .text()
            .starts_with("NOREPLICAS wanted w=2 node_confirms=2, got 0 in "),
        "{reply:?}"
    );
}

/// Runs a command by HTTP.
fn post(node: &Node, command: &str, body: &Value) -> (u16, Value) {
    let path = format!("/v1/services/kv/commands/{command}");
    let (status, body) = node.post(&path, &body.to_string());
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[test]
fn wishes_go_by_http_too() {
    let cluster = Cluster::of(3, MEMORY);
    let node = cluster.node(2);
    let held = |body: &Value| body["replicas"].as_array().map_or(0, Vec::len);
    let all = json!({"args": ["k", "v"], "w": 3, "pw": 3, "dw": 3, "node_confirms": 3, "timeout_ms": 900, "trace": true});
    let (status, body) = post(node, "SET", &all);
    assert_eq!(
        (status, &body["value"], held(&body)),
        (200, &json!("OK"), 3),
        "{body}"
    );
    let (status, body) = post(
        node,
        "GET",
        &json!({"args": ["k"], "r": 3, "pr": 3, "trace": true}),
    );
    assert_eq!(
        (status, &body["value"], held(&body)),
        (200, &json!("v"), 3),
        "{body}"
    );
    let (status, body) = post(node, "GET", &json!({"args": ["k"], "n": 1, "trace": true}));
    assert_eq!(
        (status, &body["value"], held(&body)),
        (200, &json!("v"), 1),
        "{body}"
    );
    let (status, body) = post(node, "GET", &json!({"args": ["k"], "r": 4}));
    assert_eq!(
        (status, body["code"].as_str()),
        (400, Some("ERR")),
        "{body}"
    );
    assert_eq!(body["detail"], "r=4: it has to be from 1 to n=3");
}

/// The keys of which one node holds exactly one replica, by the place of it, with the nodes of the others.
fn keys_with_one_at(client: &mut Client, name: &str) -> BTreeMap<usize, String> {
    let mut found = BTreeMap::new();
    for n in 0..200 {
        let key = format!("k{n}");
        let held = replicas(client, &key, "kv");
        let nodes: BTreeSet<&str> = held.iter().map(|held| held.node.as_str()).collect();
        if let (3, Some(place)) = (nodes.len(), held.iter().position(|held| held.node == name)) {
            found.entry(place).or_insert(key);
        }
    }
    found
}

#[test]
fn what_needs_a_dead_primary_is_refused_at_once_and_says_who_keeps_the_write() {
    let mut cluster = Cluster::of(3, MEMORY);
    let mut client = cluster.node(1).client();
    let keys = keys_with_one_at(&mut client, "node3@test");
    assert_eq!(keys.len(), 3, "{keys:?}");
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    for key in keys.values() {
        for (command, wanted) in [
            (format!("VNODE.WITH PW 3 -- SET {key} kept"), "w=2 pw=3"),
            (format!("VNODE.WITH PW 3 W 3 -- SET {key} kept"), "w=3 pw=3"),
            (
                format!("VNODE.WITH NODE_CONFIRMS 3 -- SET {key} kept"),
                "w=2 node_confirms=3",
            ),
            (format!("VNODE.WITH PR 3 -- GET {key}"), "r=2 pr=3"),
            (
                format!("VNODE.WITH NODE_CONFIRMS 3 R 1 -- GET {key}"),
                "r=1 node_confirms=3",
            ),
        ] {
            let asked = Instant::now();
            let text = client.run(&command).text();
            // Nobody waited for the node's request timeout.
            assert!(
                asked.elapsed() < Duration::from_secs(10),
                "{command}: {:?}",
                asked.elapsed()
            );
            assert!(
                text.starts_with(&format!("NOREPLICAS wanted {wanted}, got ")),
                "{command}: {text}"
            );
            assert!(!text.contains("timeout"), "nobody was waited for: {text}");
            let all = text.contains("(fallback, node3@test is down)")
                && text.contains("node1@test")
                && text.contains("node2@test");
            assert!(all, "{command}: {text}");
            if command.contains("SET") {
                assert!(text.contains(" the write"), "{text}");
                assert!(
                    !text.ends_with("; 0 replicas keep the write"),
                    "they do: {text}"
                );
            }
        }
        // Without a promise about primaries the fallback counts.
        for command in [
            "VNODE.WITH W 3 -- SET",
            "VNODE.WITH PW 2 W 3 -- SET",
            "VNODE.WITH W 1 -- SET",
        ] {
            assert_eq!(client.run(&format!("{command} {key} other")), Reply::ok());
        }
        assert_eq!(client.run(&format!("SET {key} v")), Reply::ok());
        assert_eq!(
            client.run(&format!("VNODE.WITH R 3 PR 2 -- GET {key}")),
            "v".into()
        );
        let refused = client.run(&format!("VNODE.WITH PW 3 -- SET {key} kept"));
        assert!(refused.is_error("NOREPLICAS"), "{refused:?}");
        // It was refused and not undone: the others have it.
        tests::eventually("the write at all replicas", || {
            let held = replicas(&mut client, key, "kv");
            held.iter()
                .all(|held| held.values == [b"kept"])
                .then_some(())
        });
    }
    let (status, body) = post(
        cluster.node(1),
        "SET",
        &json!({"args": [&keys[&0], "v"], "pw": 3}),
    );
    assert_eq!(
        (status, body["code"].as_str()),
        (503, Some("NOREPLICAS")),
        "{body}"
    );
}

#[test]
fn a_write_that_is_said_not_to_have_reached_its_node_is_nowhere() {
    let mut cluster = Cluster::of(3, ALWAYS);
    let mut client = cluster.node(1).client();
    cluster.kill(2);
    cluster.kill(3);
    // Until the others are missed, some keys have a coordinator that is gone, and some too few replicas.
    let mut refused = Vec::new();
    for n in 0..300 {
        match client.run(&format!("SET early{n} v")) {
            Reply::Error(text) if text.contains("cannot be reached; retry") => refused.push(n),
            Reply::Error(text) => assert!(
                text.starts_with("NOREPLICAS wanted w=2") || text.contains("may have happened"),
                "{text}"
            ),
            reply => assert_eq!(reply, Reply::ok()),
        }
    }
    println!("{} of 300 refused", refused.len());
    seen_down(&cluster, &[2, 3]);
    for n in refused {
        assert_eq!(client.run(&format!("GET early{n}")), Reply::Nil, "early{n}");
    }
}

/// All primaries first, wherever one is asked.
#[test]
fn everybody_lists_the_replicas_of_a_key_in_the_same_order() {
    let mut cluster = Cluster::of(4, MEMORY);
    cluster.kill(4);
    seen_down(&cluster, &[4]);
    let node = cluster.node(1);
    let mut client = node.client();
    let mut mixed = 0;
    for n in 0..60 {
        let key = format!("k{n}");
        type Entry = (u64, String, String);
        let held = replicas(&mut client, &key, "kv").into_iter();
        let held: Vec<Entry> = held
            .map(|held| (held.partition.into(), held.node, held.kind))
            .collect();
        let entry = |entry: Reply| {
            let parts = entry.items();
            let partition = u64::try_from(parts[0].int()).expect("a partition");
            (partition, parts[1].text(), parts[2].text())
        };
        let listed = client.run(&format!("VNODE.PREFLIST {key}")).items();
        let listed: Vec<Entry> = listed.into_iter().map(entry).collect();
        assert_eq!(listed, held, "{key}");
        let body = node.json(&format!("/v1/ring/preflist?key={key}"));
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let shown = body["replicas"].as_array().expect("replicas").iter();
        let shown: Vec<Entry> = shown
            .map(|one| {
                let partition = one["partition"].as_u64().expect("a partition");
                (partition, text(&one["node"]), text(&one["kind"]))
            })
            .collect();
        assert_eq!(shown, held, "{key}");
        mixed += usize::from(held.iter().any(|(_, _, kind)| kind == "fallback"));
    }
    assert!(mixed > 0, "nobody stands in for the fourth");
}
