//! The cluster chapters of the two tutorials that this descends from, command by command, with our words.
//!
//! The first (Basho's `rc_example`): three nodes join, a ping is answered by another node from time to time. The second (the Elixir
//! `Rkv`): joins are staged, planned and committed; the member table; the ring in letters; keys are found through every node.

use std::collections::BTreeSet;

use tests::Cluster;
use tests::resp::Reply;

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
