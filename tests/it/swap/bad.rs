//! Versions that are worse: the canaries find out, and everything goes back without anybody asking for it.

use tests::resp::Reply;
use tests::{Cluster, Node, eventually};

use super::{all_run, cluster, guest, replace_at_once, rollout};

const MEMORY: &[&str] = &["--storage", "memory", "--rollout-commands-min", "200"];

/// Begins a rollout that has time to be watched.
fn begin(node: &Node, make: &str) {
    node.must(&["guest", "upgrade", &guest(make), "--soak", "1h"]);
}

/// Calls a command on many keys, whose partitions are everywhere, until the rollout has gone back. What it answers is not looked at:
/// on a canary it may fail.
fn call_until_back(cluster: &Cluster, command: impl Fn(usize) -> String) -> String {
    let mut client = cluster.node(1).client();
    let mut n = 0;
    let node = cluster.node(2);
    eventually("the rollout to go back", || {
        for _ in 0..50 {
            n += 1;
            client.run(&command(n));
        }
        let rollout = rollout(node);
        (rollout["state"] == "rolled-back")
            .then(|| rollout["why"].as_str().unwrap_or("").to_owned())
    })
}

fn serves_as_before(cluster: &Cluster) {
    all_run(cluster.nodes(), "1.0.0");
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..50 {
            assert_eq!(client.run(&format!("BALANCE bad-fresh-{n}")), Reply::Int(0));
        }
    }
}

#[test]
fn one_that_traps_always_is_stopped_at_the_canaries() {
    let cluster = cluster(3, MEMORY);
    begin(cluster.node(1), "clerk-trap-all");
    let why = call_until_back(&cluster, |n| format!("ADD k{n} 1"));
    assert!(
        why.starts_with("canary:") && why.contains("trapped"),
        "{why}"
    );
    serves_as_before(&cluster);
}

#[test]
fn one_that_traps_on_some_keys_is_stopped_at_the_canaries() {
    let cluster = cluster(3, MEMORY);
    begin(cluster.node(1), "clerk-trap-key");
    let why = call_until_back(&cluster, |n| match n % 10 {
        0 => format!("ADD bad{n} 1"),
        _ => format!("ADD k{n} 1"),
    });
    assert!(why.contains("trapped"), "{why}");
    serves_as_before(&cluster);
}

#[test]
fn one_that_never_returns_is_stopped_at_the_canaries() {
    let cluster = cluster(3, MEMORY);
    begin(cluster.node(1), "clerk-loop");
    let why = call_until_back(&cluster, |n| format!("BALANCE bad{n}"));
    assert!(why.contains("ran out of time"), "{why}");
    serves_as_before(&cluster);
}

#[test]
fn one_that_refuses_what_the_old_one_did_is_stopped_at_the_canaries() {
    let cluster = cluster(3, MEMORY);
    begin(cluster.node(1), "clerk-refuse");
    let why = call_until_back(&cluster, |n| format!("ADD k{n} 1"));
    // The gate sees that more fails, and that the old version would have answered.
    let seen = [
        "failed; of the old version",
        "answers ERR this make refuses",
    ];
    assert!(seen.iter().any(|words| why.contains(words)), "{why}");
    serves_as_before(&cluster);
}

#[test]
fn one_that_answers_wrong_without_failing_is_stopped_at_the_canaries() {
    let cluster = cluster(3, MEMORY);
    begin(cluster.node(1), "clerk-wrong");
    let why = call_until_back(&cluster, |n| format!("BALANCE k{n}"));
    assert!(why.starts_with("canary:"), "{why}");
    assert!(
        why.contains("BALANCE did not end as with the old version"),
        "{why}"
    );
    assert!(why.contains("7: answers 1, the old version 0)"), "{why}");
    serves_as_before(&cluster);
}

#[test]
fn one_that_writes_something_else_is_stopped_at_the_canaries() {
    let cluster = cluster(3, MEMORY);
    begin(cluster.node(1), "clerk-stray");
    let why = call_until_back(&cluster, |n| format!("ADD k{n} 1"));
    assert!(why.contains(" = 1001, the old version "), "{why}");
    serves_as_before(&cluster);
}

#[test]
fn one_that_does_not_start_on_what_is_there_leaves_the_old_one_serving() {
    let cluster = cluster(3, MEMORY);
    let mut client = cluster.node(1).client();
    for n in 0..500 {
        assert_eq!(client.run(&format!("ADD k{n} 1")), Reply::Int(1));
    }
    let output = cluster
        .node(1)
        .cli(&["guest", "upgrade", &guest("clerk-trap-init"), "--wait"]);
    assert_eq!(output.status.code(), Some(1));
    let why = rollout(cluster.node(3))["why"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    assert!(why.contains("cannot read what is there"), "{why}");
    for n in 0..500 {
        assert_eq!(client.run(&format!("ADD k{n} 1")), Reply::Int(2));
    }
    serves_as_before(&cluster);
}

#[test]
fn one_that_is_slower_is_stopped() {
    let flags = "--storage memory --rollout-commands-min 20 --rollout-p99-percent 100 --rollout-time-percent 1000000";
    let flags: Vec<&str> = flags.split(' ').collect();
    let cluster = cluster(3, &flags);
    begin(cluster.node(1), "clerk-slow");
    let why = call_until_back(&cluster, |n| format!("ADD k{n} 1"));
    assert!(why.contains("99 of 100 commands"), "{why}");
    serves_as_before(&cluster);
}

#[test]
fn one_whose_guest_takes_longer_is_stopped_at_the_canaries() {
    let flags = "--storage memory --rollout-commands-min 20 --rollout-p99-percent 1000000";
    let flags: Vec<&str> = flags.split(' ').collect();
    let cluster = cluster(3, &flags);
    begin(cluster.node(1), "clerk-slower");
    let why = call_until_back(&cluster, |n| format!("ADD k{n} 1"));
    assert!(
        why.starts_with("canary:") && why.contains("in the old version within"),
        "{why}"
    );
    serves_as_before(&cluster);
}

#[test]
fn one_that_takes_nearly_all_memory_is_stopped_at_the_canaries() {
    let cluster = cluster(3, MEMORY);
    begin(cluster.node(1), "clerk-hoard");
    let why = call_until_back(&cluster, |n| format!("ADD k{n} 1"));
    assert!(
        why.starts_with("canary:") && why.contains("% of the memory"),
        "{why}"
    );
    serves_as_before(&cluster);
}

#[test]
fn one_that_is_too_large_is_refused_in_words() {
    let cluster = cluster(1, MEMORY);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.wasm");
    std::fs::write(&file, vec![0; 40 << 20]).unwrap();
    let file = file.display().to_string();
    for what in ["upgrade", "shadow"] {
        // Whether the node's answer is still read, or its end of the connection is noticed first.
        let said = cluster
            .node(1)
            .cli(&["guest", what, &file, "--service", "clerk"]);
        assert_eq!(said.status.code(), Some(1));
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(text.contains("component_bytes_max"), "{text}");
    }
}

#[test]
fn with_too_little_traffic_a_stage_says_so() {
    let cluster = cluster(1, &["--storage", "memory"]);
    let node = cluster.node(1);
    node.must(&["guest", "upgrade", &guest("clerk-two"), "--soak", "2s"]);
    eventually("the state", || {
        let gate = rollout(node)["gate"].clone();
        (gate["state"] == "too little traffic").then_some(())
    });
    node.must(&["guest", "pause"]);
    assert_eq!(rollout(node)["state"], "paused");
    node.must(&["guest", "rollback"]);
    all_run(cluster.nodes(), "1.0.0");
    let shown = replace_at_once(node, "clerk-two", "1s");
    assert!(
        shown.contains("too few commands came to judge it"),
        "{shown}"
    );
    all_run(cluster.nodes(), "2.0.0");
}
