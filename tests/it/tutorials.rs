//! The two tutorials that this descends from, command by command, with our words.
//!
//! The first (Basho's `rc_example`): three nodes join, a ping is answered by another node from time to time; coverage commands;
//! a node leaves, and a node dies and comes back. The second (the Elixir `Rkv`): joins are staged, planned and committed; the
//! member table; the ring in letters; keys are found through every node; what quorums say of each replica.

use std::collections::BTreeSet;

use tests::resp::{Client, Reply};
use tests::{Cluster, eventually, up};

/// Lines of a text between two that begin like this.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).collect()
}

#[test]
fn rc_example_pings_until_each_of_three_nodes_has_answered() {
    let mut cluster = Cluster::apart(1, &["--storage", "memory"]);
    let first = cluster.node(1).http.to_string();
    // Its `join` commits by itself.
    for number in 2..=3 {
        assert_eq!(cluster.add(&["--join", &first, "--auto-commit"]), number);
        cluster.agree();
    }
    cluster
        .node(1)
        .must(&["cluster", "wait", "--timeout", "60s"]);
    cluster.agree();
    let mut client = cluster.node(1).client();
    let mut answered = BTreeSet::new();
    let mut asked = 0;
    while answered.len() < 3 {
        asked += 1;
        assert!(asked < 10_000, "only {answered:?} have answered");
        let reply = client.run("PING.PING").items();
        assert_eq!(reply[0], Reply::Simple("pong".into()));
        answered.insert(reply[2].text());
    }
}

#[test]
fn rkv_joins_plans_commits_and_finds_its_keys_through_every_node() {
    let cluster = Cluster::apart(3, &["--storage", "memory", "--ring-size", "16"]);
    let first = cluster.node(1);
    // :riak_core.join('node1@127.0.0.1') on node2 and node3
    cluster.join(2);
    cluster.join(3);
    let staged = first.must(&["cluster", "status"]);
    assert!(
        staged.contains("Valid:1 / Leaving:0 / Exiting:0 / Joining:2 / Down:0"),
        "{staged}"
    );
    // :riak_core_claimant.plan() and commit()
    let plan = cluster.commit_on(1);
    assert!(plan.contains("14 of 16"), "{plan}");
    cluster.agree();
    // :riak_core_console.member_status([])
    let table = first.must(&["cluster", "status"]);
    let rows: Vec<&str> = lines(&table)
        .into_iter()
        .filter(|line| line.starts_with("valid"))
        .collect();
    assert_eq!(
        rows,
        [
            "valid      37.5%      --      'node1@test' (C)",
            "valid      31.3%      --      'node2@test'",
            "valid      31.3%      --      'node3@test'",
        ]
    );
    assert!(
        table.contains("Valid:3 / Leaving:0 / Exiting:0 / Joining:0 / Down:0"),
        "{table}"
    );
    // :riak_core_ring.pretty_print(ring, [:legend])
    let ring = first.must(&["ring"]);
    for line in [
        "Node a: 6 ( 37.5%) node1@test",
        "Node b: 5 ( 31.3%) node2@test",
        "Node c: 5 ( 31.3%) node3@test",
    ] {
        assert!(ring.contains(line), "{line:?} is not in {ring}");
    }
    let letters = lines(&ring).last().copied().unwrap_or_default().to_owned();
    assert_eq!(letters.len(), 20, "{ring}");
    assert!(
        letters.chars().all(|letter| "abc|".contains(letter)),
        "{ring}"
    );
    // Rkv.Service.put and get: k1, k2, k10
    let mut second = cluster.node(2).client();
    for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k10", "v10")] {
        assert_eq!(second.run(&format!("PUT {key} {value}")), Reply::ok());
    }
    for node in cluster.nodes() {
        let mut client = node.client();
        for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k10", "v10")] {
            let traced = client.run(&format!("VNODE.TRACE GET {key}")).items();
            assert_eq!(traced[0], value.into(), "{} {key}", node.name);
        }
        assert_eq!(client.run("GET k3"), Reply::Nil);
    }
    assert_eq!(second.run("DELETE k10"), "v10".into());
    assert_eq!(cluster.node(3).client().run("GET k10"), Reply::Nil);
}

/// What each vnode says of a coverage command that has anything to say: its node, and its part of the reply.
fn parts(client: &mut Client, command: &str) -> Vec<(String, Vec<String>)> {
    let traced = client.run(&format!("VNODE.TRACE {command}")).items();
    let parts = traced[1].clone().items().into_iter().map(|part| {
        let part = part.items();
        let items = part[2].clone().items();
        (part[0].text(), items.iter().map(Reply::text).collect())
    });
    parts
        .filter(|(_, items): &(String, Vec<String>)| !items.is_empty())
        .collect()
}

/// The only node that has any keys, and they are these.
fn holder(client: &mut Client, keys: &[&str]) -> String {
    let parts = parts(client, "KEYS");
    let [(node, held)] = parts.as_slice() else {
        panic!("not one vnode: {parts:?}");
    };
    assert_eq!(held, keys);
    node.clone()
}

#[test]
fn rc_example_gathers_keys_and_values_from_all_vnodes_and_clears_them() {
    let cluster = Cluster::of(3, &["--storage", "memory"]);
    let mut first = cluster.node(1).client();
    let mut second = cluster.node(2).client();
    let nothing = Reply::Array(Vec::new());
    // ok = rc_command(Node1, clear), [] = rc_coverage(Node1, keys) and values
    assert_eq!(first.run("CLEAR"), Reply::ok());
    assert_eq!(first.run("KEYS"), nothing);
    assert_eq!(first.run("VALUES"), nothing);
    for n in 1..=100 {
        let put = first.run(&format!("PUT key{n} value{n}"));
        assert_eq!(put, Reply::ok());
    }
    for (command, stem) in [("KEYS", "key"), ("VALUES", "value")] {
        let all = second.run(command).items();
        assert_eq!(all.len(), 100, "{command}");
        let all: BTreeSet<String> = all.iter().map(Reply::text).collect();
        let expected: BTreeSet<String> = (1..=100).map(|n| format!("{stem}{n}")).collect();
        assert_eq!(all, expected);
        let parts = parts(&mut second, command);
        let nodes: BTreeSet<&str> = parts.iter().map(|(node, _)| node.as_str()).collect();
        assert_eq!(nodes.len(), 3, "all nodes have some: {parts:?}");
        let items = parts.iter().map(|(_, items)| items.len()).sum::<usize>();
        assert_eq!(items, 100, "each is told of by one vnode");
    }
    assert_eq!(first.run("CLEAR"), Reply::ok());
    assert_eq!(second.run("KEYS"), nothing);
    assert_eq!(second.run("VALUES"), nothing);
}

/// One copy of each key, as in the tutorial.
const SINGLE: &[&str] = &["--n", "1", "--sync", "always"];

#[test]
fn rc_example_lets_the_owner_of_a_key_leave_and_finds_the_key_at_another() {
    let mut cluster = Cluster::of(3, SINGLE);
    let mut client = cluster.node(1).client();
    assert_eq!(client.run("PUT k1 hello"), Reply::ok());
    let owner = holder(&mut client, &["k1"]);
    let number = (1..=3).find(|number| cluster.node(*number).name == owner);
    let number = number.expect("a node of the cluster");
    // riak_core:leave().
    cluster.node(number).must(&["cluster", "leave"]);
    cluster.commit_on(number);
    assert!(cluster.take(number).ended().status.success());
    let left = (1..=3)
        .find(|other| *other != number)
        .expect("two are left");
    cluster
        .node(left)
        .must(&["cluster", "wait", "--timeout", "60s"]);
    let ring = cluster.node(left).must(&["ring"]);
    assert_eq!(ring.matches("32 ( 50.0%)").count(), 2, "{ring}");
    let mut client = cluster.node(left).client();
    assert_eq!(client.run("GET k1"), "hello".into());
    assert_ne!(holder(&mut client, &["k1"]), owner);
}

#[test]
fn rc_example_writes_while_the_owner_is_dead_and_hands_it_over_when_it_is_back() {
    let mut cluster = Cluster::of(3, SINGLE);
    cluster.seated();
    let mut client = cluster.node(1).client();
    let other = |client: &mut Client, key: &str| {
        let set = client.run(&format!("PUT {key} hello"));
        assert_eq!(set, Reply::ok());
        let owner = holder(client, &[key]);
        assert_eq!(client.run("CLEAR"), Reply::ok());
        owner == "node2@test"
    };
    let key = (1..).map(|n| format!("k{n}"));
    let key = key.take(1000).find(|key| other(&mut client, key));
    let key = key.expect("the second node owns some key");
    assert_eq!(client.run(&format!("PUT {key} hello")), Reply::ok());
    cluster.kill(2);
    eventually("the second node to be missed", || {
        let view = cluster.node(1).json("/v1/cluster");
        (!up(&view).contains(&"node2@test")).then_some(())
    });
    // There is one copy, and it is gone for now.
    let mut client = cluster.node(1).client();
    assert_eq!(client.run(&format!("GET {key}")), Reply::Nil);
    assert_eq!(client.run(&format!("PUT {key} newvalue")), Reply::ok());
    assert_eq!(client.run(&format!("GET {key}")), "newvalue".into());
    let traced = client.run(&format!("VNODE.TRACE GET {key}")).items();
    let replica = traced[1].clone().items()[0].clone().items();
    assert_ne!(replica[0].text(), "node2@test");
    // No replica of some ranges is up, and nobody says that this was all.
    let all = client.run("KEYS");
    assert!(
        matches!(&all, Reply::Error(why) if why.starts_with("CLUSTERDOWN coverage incomplete")),
        "{all:?}"
    );
    cluster.restart(2);
    eventually("the hint to go home", || {
        let value = client.run(&format!("GET {key}"));
        let at_home = parts(&mut client, "KEYS") == [("node2@test".to_owned(), vec![key.clone()])];
        // Nobody knew of the old value when the new one was written, so both are there, and the later one is read.
        (value == "newvalue".into() && at_home).then_some(())
    });
}
