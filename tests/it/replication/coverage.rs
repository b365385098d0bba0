//! KEYS, VALUES, DBSIZE, SCAN and CLEAR see each key once however many replicas it has, with a node gone and after its return.

use std::collections::BTreeSet;

use tests::Cluster;
use tests::resp::{Client, Reply};

use super::{ALWAYS, hints_gone, replicas, seen_down, settle};

/// The texts of a reply, each of them once.
fn distinct(reply: &[Reply], what: &str) -> BTreeSet<String> {
    let texts: BTreeSet<String> = reply.iter().map(Reply::text).collect();
    assert_eq!(texts.len(), reply.len(), "{what}: something came twice");
    texts
}

fn scanned(client: &mut Client) -> Vec<Reply> {
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let page = client.run(&format!("SCAN {cursor} COUNT 50")).items();
        found.extend(page[1].clone().items());
        cursor = page[0].text();
        if cursor == "0" {
            return found;
        }
    }
}

/// Asserts that each node counts, lists and scans exactly these keys, each of which has its own name as its value.
fn covered(cluster: &Cluster, keys: &BTreeSet<String>, when: &str) {
    for node in cluster.alive() {
        let mut client = node.client();
        let what = |command: &str| format!("{command} through {} {when}", node.name);
        for command in ["KEYS", "VALUES"] {
            let items = client.run(command).items();
            let found = distinct(&items, &what(command));
            assert!(found == *keys, "{}: {} keys", what(command), found.len());
        }
        let scan = scanned(&mut client);
        let found = distinct(&scan, &what("SCAN"));
        assert!(found == *keys, "{}: {} keys", what("SCAN"), found.len());
        let size = i64::try_from(keys.len()).expect("a small number");
        assert_eq!(client.run("DBSIZE"), size.into(), "{}", what("DBSIZE"));
    }
}

fn names(begin: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|n| format!("{begin}{n}")).collect()
}

#[test]
fn each_key_is_covered_once_with_a_node_dead_and_after_its_return() {
    for nodes in [3, 5] {
        let mut cluster = Cluster::of(nodes, ALWAYS);
        let mut client = cluster.node(1).client();
        let mut keys = names("old", 300);
        for key in &keys {
            settle(&mut client, key, key);
        }
        covered(&cluster, &keys, "before");
        cluster.kill(3);
        seen_down(&cluster, &[3]);
        covered(&cluster, &keys, "without the third");
        let new = names("new", 100);
        for key in &new {
            assert_eq!(client.call(&["SET", key, key]), Reply::ok());
        }
        let gone = names("old", 50);
        for key in &gone {
            assert_eq!(client.call(&["DEL", key]), 1.into());
        }
        keys.extend(new);
        keys.retain(|key| !gone.contains(key));
        covered(&cluster, &keys, "after writes without the third");
        cluster.restart(3);
        cluster.agree();
        hints_gone(&cluster);
        covered(&cluster, &keys, "after its return");
    }
}

#[test]
fn what_is_cleared_is_gone_from_every_replica_also_from_one_that_was_down() {
    let mut cluster = Cluster::of(3, ALWAYS);
    let mut client = cluster.node(1).client();
    let keys = names("k", 200);
    let fill = |client: &mut Client| {
        for key in &keys {
            settle(client, key, key);
        }
    };
    fill(&mut client);
    assert_eq!(cluster.node(2).client().run("CLEAR"), Reply::ok());
    emptied(&cluster, &keys);
    fill(&mut client);
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    assert_eq!(client.run("CLEAR"), Reply::ok());
    covered(&cluster, &BTreeSet::new(), "cleared without the third");
    cluster.restart(3);
    cluster.agree();
    hints_gone(&cluster);
    emptied(&cluster, &keys);
}

/// Asserts that no replica holds a value under any of these keys.
fn emptied(cluster: &Cluster, keys: &BTreeSet<String>) {
    covered(cluster, &BTreeSet::new(), "cleared");
    let mut client = cluster.node(1).client();
    for key in keys {
        // A replica that was not waited for may still be at it.
        tests::eventually(&format!("{key} to be gone"), || {
            let held = replicas(&mut client, key, "kv");
            let empty = |held: &super::Held| held.error.is_none() && held.values.is_empty();
            (held.len() == 3 && held.iter().all(empty)).then_some(())
        });
    }
}
