//! The fault-tolerance chapter of the tutorial with a hundred keys: their owner is killed, others stand in for it, and what they
//! wrote for it goes home when it is back, whoever else is killed meanwhile.

use std::collections::BTreeSet;

use tests::resp::{Client, Reply};
use tests::{Cluster, eventually};

use super::healing::judge;
use super::sessions::{Run, kept};
use super::{
    ALWAYS, MEMORY, all_equal, healed, healed_by_all, hints, hints_gone, replicas, seen_down,
    settle, through_all,
};

/// Three nodes with a hundred keys, the third of which is gone and missed.
fn without_the_third() -> Cluster {
    let mut cluster = Cluster::of(3, ALWAYS);
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        settle(&mut client, &format!("k{n}"), "old");
    }
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    cluster
}

/// Gives the first of so many keys their values through each of these nodes in turn, none of which may refuse.
fn write(cluster: &Cluster, through: &[usize], count: usize) {
    let clients = through.iter().map(|number| cluster.node(*number).client());
    let mut clients: Vec<_> = clients.collect();
    let several = clients.len();
    for n in 0..count {
        let reply = clients[n % several].run(&format!("SET k{n} v{n}"));
        assert_eq!(reply, Reply::ok(), "k{n}");
    }
}

#[test]
fn a_hundred_keys_outlive_their_owner_and_its_hints_go_home() {
    let mut cluster = without_the_third();
    for number in [1, 2] {
        let mut client = cluster.node(number).client();
        for n in 0..100 {
            let value = client.run(&format!("GET k{n}"));
            assert_eq!(value, "old".into(), "k{n} through node {number}");
        }
    }
    write(&cluster, &[1, 2], 120);
    through_all(&cluster, "k", 120);
    let waiting: Vec<_> = [1, 2].map(|number| hints(cluster.node(number))).concat();
    assert!(!waiting.is_empty());
    for hint in &waiting {
        assert_eq!(hint["to"], "node3@test", "{hint}");
        assert_eq!(hint["state"], "waiting", "{hint}");
        assert_eq!(hint["reason"], "node3@test is not up", "{hint}");
        assert!(hint["objects"].as_u64() > Some(0), "{hint}");
        assert!(hint["bytes"].as_u64() > Some(0), "{hint}");
    }
    let told = cluster.node(1).must(&["transfers"]);
    assert!(told.contains("node3@test"), "{told}");
    let objects = |hint: &serde_json::Value| hint["objects"].as_u64().expect("a number");
    let objects: u64 = waiting.iter().map(objects).sum();
    assert_eq!(
        healed_by_all(&cluster, "hint"),
        0,
        "nobody was there to take them"
    );
    cluster.restart(3);
    hints_gone(&cluster);
    assert_eq!(healed_by_all(&cluster, "hint"), objects);
    all_equal(&cluster, "k", 120);
    through_all(&cluster, "k", 120);
    // It has them itself, except for two of the 64 ranges where the ring does not close evenly: the others may go.
    let mut client = cluster.node(1).client();
    let its = |n: &usize| {
        let held = replicas(&mut client, &format!("k{n}"), "kv");
        held.iter().any(|held| held.node == "node3@test")
    };
    let its: Vec<usize> = (0..120).filter(its).collect();
    assert!(its.len() > 100, "{its:?}");
    cluster.kill(1);
    cluster.kill(2);
    seen_down(&cluster, &[1, 2]);
    let mut third = cluster.node(3).client();
    for n in its {
        let value = third.run(&format!("VNODE.WITH R 1 -- GET k{n}"));
        assert_eq!(value, format!("v{n}").as_str().into(), "k{n}");
    }
}

#[test]
fn a_replica_and_a_fallback_that_both_missed_a_write_hide_it_from_nobody() {
    let mut cluster = Cluster::of(3, UNSYNCED);
    cluster.kill(2);
    seen_down(&cluster, &[2]);
    write(&cluster, &[1, 3], 5000);
    cluster.kill(3);
    cluster.restart(2);
    // Of each key node 1 has the write, node 2 has not, and whoever stands in for node 3 was not there.
    for number in [2, 1] {
        let mut client = cluster.node(number).client();
        for n in 0..5000 {
            let value = eventually("enough replicas", || {
                let reply = client.run(&format!("GET k{n}"));
                (!matches!(reply, Reply::Error(_))).then_some(reply)
            });
            assert_eq!(value, format!("v{n}").as_str().into(), "k{n}");
        }
    }
}

#[test]
fn the_death_of_a_node_costs_at_most_what_it_was_asked_just_then() {
    let mut cluster = Cluster::of(3, MEMORY);
    let mut client = cluster.node(1).client();
    for n in 0..300 {
        settle(&mut client, &format!("k{n}"), "old");
    }
    cluster.kill(3);
    // It asks one after the other, so one may have been under way when the link broke.
    let mut refused = Vec::new();
    for n in 0..300 {
        for words in [format!("SET k{n} new"), format!("GET k{n}")] {
            if let Reply::Error(text) = client.run(&words) {
                refused.push((words, text));
            }
        }
    }
    let unknown = |(_, text): &(String, String)| text.contains("may have happened");
    assert!(
        refused.len() <= 1 && refused.iter().all(unknown),
        "{refused:?}"
    );
}

#[test]
fn nobody_waits_for_a_replica_whose_node_cannot_be_reached() {
    let mut cluster = Cluster::of(3, MEMORY);
    let mut client = cluster.node(1).client();
    for n in 0..300 {
        settle(&mut client, &format!("k{n}"), "old");
    }
    cluster.kill(3);
    // All three are asked for, so before the third is missed no write can have them, and it is known at once why.
    for n in 0..300 {
        let reply = client.run(&format!("VNODE.WITH W 3 -- SET k{n} new"));
        if let Reply::Error(text) = reply {
            assert!(!text.contains("timeout"), "{text}");
        }
    }
}

/// R01: riak did not start the vnodes that held hints when their node started again.
#[test]
fn hints_outlive_a_restart_of_their_holder() {
    let mut cluster = without_the_third();
    write(&cluster, &[1, 2], 100);
    for holder in [1, 2] {
        let before = hints(cluster.node(holder));
        assert!(!before.is_empty(), "node {holder} stands in for the third");
        cluster.kill(holder);
        cluster.restart(holder);
        let partitions = |hints: Vec<serde_json::Value>| -> BTreeSet<(String, u64)> {
            let place = |hint: &serde_json::Value| {
                let service = hint["service"].as_str().expect("a name").to_owned();
                (service, hint["partition"].as_u64().expect("a number"))
            };
            hints.iter().map(place).collect()
        };
        let after = partitions(hints(cluster.node(holder)));
        assert!(after.is_superset(&partitions(before)), "{after:?}");
    }
    cluster.restart(3);
    cluster.agree();
    hints_gone(&cluster);
    all_equal(&cluster, "k", 100);
    through_all(&cluster, "k", 100);
}

/// R02: riak gave up after a hinted handoff that had failed once.
#[test]
fn hints_go_home_although_their_owner_is_killed_again_while_it_takes_them() {
    let mut cluster = without_the_third();
    let mut client = cluster.node(1).client();
    let value = "x".repeat(60_000);
    let mut interrupted = 0;
    for round in 0..8 {
        for n in 0..150 {
            let key = format!("large{n}");
            let reply = client.call(&["SET", &key, &format!("{round}{value}")]);
            assert_eq!(reply, Reply::ok(), "{key}");
        }
        let before = healed_by_all(&cluster, "hint");
        cluster.restart(3);
        eventually("the first hint to go home", || {
            (healed_by_all(&cluster, "hint") > before).then_some(())
        });
        cluster.kill(3);
        seen_down(&cluster, &[3]);
        // What was on its way is still here.
        interrupted += usize::from(!hints(cluster.node(1)).is_empty());
        if interrupted == 2 {
            break;
        }
    }
    assert!(
        interrupted > 0,
        "all hints were home before the owner was killed"
    );
    write(&cluster, &[1, 2], 100);
    cluster.restart(3);
    cluster.agree();
    hints_gone(&cluster);
    all_equal(&cluster, "large", 150);
    all_equal(&cluster, "k", 100);
    through_all(&cluster, "k", 100);
    assert!(healed(cluster.node(1), "hint") > 0);
}

/// A fallback that has handed its rows back knows nothing of them when it stands in again. What it writes then must not pass for
/// something that has seen what it wrote before.
#[test]
fn a_fallback_that_stands_in_twice_supersedes_nothing_that_it_has_forgotten() {
    let mut cluster = Cluster::of(5, ALWAYS);
    cluster.seated();
    let mut client = cluster.node(1).client();
    let far = |client: &mut Client, service: &str| {
        let mut keys = (0..1_000).map(|n| format!("k{n}"));
        let away = |key: &String| {
            let held = replicas(client, key, service);
            let nodes: BTreeSet<_> = held.iter().map(|held| held.node.clone()).collect();
            nodes == BTreeSet::from([3, 4, 5].map(|number| format!("node{number}@test")))
        };
        keys.find(away).expect("a key of the other three")
    };
    let (key, counted) = (far(&mut client, "kv"), far(&mut client, "counter"));
    for turn in ["1", "2"] {
        for number in [3, 4, 5] {
            cluster.kill(number);
        }
        seen_down(&cluster, &[3, 4, 5]);
        // Whoever runs it holds nothing of either key.
        let siblings = client.call(&["VGET", &key]).items()[1].clone();
        assert_eq!(siblings, Reply::Array(vec![]), "turn {turn}");
        let reply = client.call(&["VPUT", &key, turn, ""]);
        assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        for count in 1..=3 {
            let reply = client.call(&["INCR", &counted]);
            assert_eq!(reply, count.into(), "turn {turn}");
        }
        for number in [3, 4, 5] {
            cluster.restart(number);
        }
        cluster.agree();
        hints_gone(&cluster);
    }
    let versions = client
        .call(&["VNODE.WITH", "R", "3", "--", "VGET", &key])
        .items();
    let found: BTreeSet<String> = versions[1]
        .clone()
        .items()
        .iter()
        .map(Reply::text)
        .collect();
    assert_eq!(found, BTreeSet::from(["1".to_owned(), "2".to_owned()]));
    let reply = client.call(&["VNODE.WITH", "R", "3", "--", "COUNT", &counted]);
    assert_eq!(reply, 6.into());
}

/// Nothing is on disk before a node ends in good order.
const UNSYNCED: &[&str] = &[
    "--sync",
    "interval",
    "--sync-interval",
    "1h",
    "--request-timeout",
    "20s",
    "--command-budget",
    "10s",
];

/// riak_kv 679 again: a node that was killed has lost what was not on disk yet, and its next write to such a key must not pass for
/// something that has seen what was lost.
#[test]
fn a_node_that_lost_its_last_writes_supersedes_nothing_that_it_does_not_know() {
    let mut cluster = Cluster::of(3, UNSYNCED);
    let mut client = cluster.node(1).client();
    let key = first_of(&mut client, "kv", "node3@test");
    let counted = first_of(&mut client, "counter", "node3@test");
    call(&mut client, ALL, &["VPUT", &key, "one", ""]);
    assert_eq!(call(&mut client, ALL, &["INCR", &counted]), 1.into());
    assert_eq!(call(&mut client, ALL, &["INCR", &counted]), 2.into());
    cluster.kill(3);
    cluster.restart(3);
    cluster.agree();
    for (key, service) in [(&key, "kv"), (&counted, "counter")] {
        let held = replicas(&mut client, key, service);
        let has: Vec<bool> = held.iter().map(|held| !held.values.is_empty()).collect();
        assert_eq!(
            has,
            [false, true, true],
            "the killed node has lost it: {held:?}"
        );
    }
    call(&mut client, ALONE, &["VPUT", &key, "two", ""]);
    assert_eq!(call(&mut client, ALONE, &["INCR", &counted]), 1.into());
    let versions = call(&mut client, ALL, &["VGET", &key]).items();
    let found: BTreeSet<String> = versions[1]
        .clone()
        .items()
        .iter()
        .map(Reply::text)
        .collect();
    assert_eq!(found, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    assert_eq!(call(&mut client, ALL, &["COUNT", &counted]), 3.into());
}

/// A command that hears and is heard by all replicas.
const ALL: &[&str] = &["VNODE.WITH", "R", "3", "W", "3", "--"];
/// A command that hears no other replica before it runs.
const ALONE: &[&str] = &["VNODE.WITH", "R", "1", "--"];

fn call(client: &mut Client, quorum: &[&str], words: &[&str]) -> Reply {
    let reply = eventually("a node that is back to be reached", || {
        let reply = client.call(&[quorum, words].concat());
        let away = matches!(&reply, Reply::Error(text) if text.contains("cannot be reached"));
        (!away).then_some(reply)
    });
    assert!(!matches!(reply, Reply::Error(_)), "{words:?}: {reply:?}");
    reply
}

/// A key with replicas on three nodes the first of which is this one.
fn first_of(client: &mut Client, service: &str, node: &str) -> String {
    let mut keys = (0..1_000).map(|n| format!("k{n}"));
    let first = |key: &String| {
        let held = replicas(client, key, service);
        let nodes: BTreeSet<&str> = held.iter().map(|held| held.node.as_str()).collect();
        held[0].node == node && nodes.len() == 3
    };
    keys.find(first)
        .expect("every node is the first of some keys")
}

#[test]
fn clients_lose_and_repeat_nothing_while_each_node_is_killed_and_started_again() {
    let mut cluster = Cluster::of(3, ALWAYS);
    cluster.seated();
    let addresses = cluster.nodes().map(|node| node.resp).collect();
    let run = Run::new(addresses, kept(), 1);
    let history = run.meanwhile(2, "each node in turn".into(), || {
        for number in 1..=3 {
            run.go_on(200);
            cluster.kill(number);
            seen_down(&cluster, &[number]);
            run.go_on(200);
            cluster.restart(number);
            cluster.agree();
        }
        run.go_on(200);
    });
    judge(&cluster, &history);
}
