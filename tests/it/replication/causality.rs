//! Writes that did not know of each other, and deletions that an owner missed.

use std::collections::BTreeSet;

use tests::resp::{Client, Reply};
use tests::{Cluster, eventually};

use super::{
    ALWAYS, Held, MEMORY, all_equal, equal, hints, hints_gone, replicas, seen_down, settle,
};

fn versions(client: &mut Client, key: &str) -> (String, BTreeSet<String>) {
    let parts = client.call(&["VGET", key]).items();
    let values = parts[1].clone().items();
    (parts[0].text(), values.iter().map(Reply::text).collect())
}

fn set<const N: usize>(values: [&str; N]) -> BTreeSet<String> {
    BTreeSet::from(values.map(str::to_owned))
}

#[test]
fn writers_that_did_not_know_of_each_other_are_all_heard_through_every_node() {
    let cluster = Cluster::of(3, MEMORY);
    let mut clients: Vec<Client> = cluster.nodes().map(|node| node.client()).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        let context = client.call(&["VPUT", "k", &format!("first{nth}"), ""]);
        assert!(!context.is_error("ERR"), "{context:?}");
    }
    let all = set(["first0", "first1", "first2"]);
    let (context, found) = versions(&mut clients[0], "k");
    assert_eq!(found, all);
    for client in &mut clients {
        assert_eq!(versions(client, "k").1, all);
    }
    // One who has seen all takes their place; one with the same context stands beside it.
    clients[1].call(&["VPUT", "k", "second", &context]);
    assert_eq!(versions(&mut clients[2], "k").1, set(["second"]));
    clients[2].call(&["VPUT", "k", "late", &context]);
    assert_eq!(versions(&mut clients[0], "k").1, set(["second", "late"]));
    // A plain write supersedes what its coordinator sees.
    assert_eq!(clients[0].run("SET k plain"), Reply::ok());
    assert_eq!(versions(&mut clients[1], "k").1, set(["plain"]));
    let held = replicas(&mut clients[0], "k", "kv");
    assert!(held.len() == 3 && equal(&held), "{held:?}");
}

#[test]
fn writers_at_once_through_all_nodes_lose_nothing_that_nobody_superseded() {
    let cluster = Cluster::of(3, MEMORY);
    let nodes: Vec<_> = cluster.nodes().collect();
    std::thread::scope(|scope| {
        for (number, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                let mut client = node.client();
                for n in 0..8 {
                    let reply = client.call(&["VPUT", "k", &format!("{number}-{n}"), ""]);
                    assert!(matches!(reply, Reply::Bulk(_)), "{reply:?}");
                }
            });
        }
    });
    let all = (0..3).flat_map(|number| (0..8).map(move |n| format!("{number}-{n}")));
    let all: BTreeSet<String> = all.collect();
    for node in cluster.nodes() {
        assert_eq!(versions(&mut node.client(), "k").1, all);
    }
}

/// Three nodes with keys that all replicas hold.
fn settled(count: usize) -> Cluster {
    let cluster = Cluster::of(3, ALWAYS);
    let mut client = cluster.node(1).client();
    for n in 0..count {
        settle(&mut client, &format!("k{n}"), "old");
    }
    cluster
}

/// Asserts that each node says so of each key, and that no replica holds anything else.
fn everywhere(cluster: &Cluster, count: usize, value: Option<&str>) {
    let expected = value.map_or(Reply::Nil, Reply::from);
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..count {
            let read = client.run(&format!("VNODE.WITH R 3 -- GET k{n}"));
            assert_eq!(read, expected, "k{n} through {}", node.name);
        }
    }
    all_equal(cluster, "k", count);
    let mut client = cluster.node(1).client();
    for n in 0..count {
        let held = replicas(&mut client, &format!("k{n}"), "kv");
        let right =
            |held: &Held| held.values == value.map(Vec::from).into_iter().collect::<Vec<_>>();
        assert!(held.iter().all(right), "{held:?}");
    }
    let size = i64::try_from(value.map_or(0, |_| count)).expect("a small number");
    assert_eq!(client.run("DBSIZE"), size.into());
}

#[test]
fn what_is_deleted_while_an_owner_is_down_stays_deleted() {
    let mut cluster = settled(60);
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    let mut client = cluster.node(2).client();
    for n in 0..60 {
        assert_eq!(client.run(&format!("DEL k{n}")), 1.into(), "k{n}");
        assert_eq!(client.run(&format!("GET k{n}")), Reply::Nil, "k{n}");
    }
    cluster.restart(3);
    cluster.agree();
    hints_gone(&cluster);
    everywhere(&cluster, 60, None);
}

#[test]
fn what_is_deleted_and_written_again_while_an_owner_is_down_is_the_new_one() {
    let mut cluster = settled(60);
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    let mut client = cluster.node(2).client();
    for n in 0..60 {
        assert_eq!(client.run(&format!("DEL k{n}")), 1.into(), "k{n}");
        assert_eq!(client.run(&format!("SET k{n} new")), Reply::ok(), "k{n}");
    }
    cluster.restart(3);
    cluster.agree();
    hints_gone(&cluster);
    everywhere(&cluster, 60, Some("new"));
}

/// The doomstone: a tombstone that a fallback kept comes home after the key was written again.
#[test]
fn a_tombstone_that_comes_home_late_does_not_eat_what_was_written_since() {
    let mut cluster = settled(60);
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    let mut client = cluster.node(2).client();
    for n in 0..60 {
        assert_eq!(client.run(&format!("DEL k{n}")), 1.into(), "k{n}");
    }
    // The owner comes back while those that hold its tombstones are away, one after the other.
    assert!(
        [1, 2]
            .iter()
            .all(|number| !hints(cluster.node(*number)).is_empty())
    );
    cluster.kill(1);
    seen_down(&cluster, &[1]);
    cluster.restart(3);
    eventually("the third to be seen", || {
        let view = cluster.node(2).json("/v1/cluster");
        tests::up(&view).contains(&"node3@test").then_some(())
    });
    let mut client = cluster.node(2).client();
    for n in 0..60 {
        let reply = client.run(&format!("SET k{n} new"));
        assert_eq!(reply, Reply::ok(), "k{n}");
    }
    cluster.restart(1);
    cluster.agree();
    hints_gone(&cluster);
    everywhere(&cluster, 60, Some("new"));
}
