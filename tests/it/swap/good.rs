//! A version that is as good as the one before.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::resp::{Client, Reply};
use tests::{Cluster, eventually};

use super::{all_run, cluster, done, guest, replace_at_once, rollout, running, settle, tellers};

const MEMORY: &[&str] = &["--storage", "memory"];

#[test]
fn one_node_replaces_its_guest_while_it_serves() {
    let cluster = cluster(1, MEMORY);
    let tellers = tellers(&cluster, 4);
    let node = cluster.node(1);
    let mut events = node.events();
    let two = guest("clerk-two");
    let shown = node.must(&["guest", "upgrade", &two, "--soak", "0s", "--wait"]);
    assert!(shown.contains("done   64/64 partitions"), "{shown}");
    for stage in [
        "canary, 1 of 64",
        "wave 25%, 16 of 64",
        "wave 100%, 64 of 64",
        "done",
    ] {
        events.wait_for(&format!("clerk 1.0.0 -> 2.0.0: {stage}"));
    }
    all_run(cluster.nodes(), "2.0.0");
    assert_eq!(node.client().run("WHO x"), "2.0.0".into());
    let plan = node.must(&["guest", "plan", &guest("clerk")]);
    assert!(
        plan.contains("there is no way back to 1.0.0 then"),
        "{plan}"
    );
    settle(&cluster, tellers);
}

#[test]
fn three_nodes_go_there_and_back_several_times_and_nothing_fails() {
    let cluster = cluster(3, MEMORY);
    let tellers = tellers(&cluster, 4);
    for (make, version) in [
        ("clerk-two", "2.0.0"),
        ("clerk", "1.0.0"),
        ("clerk-two", "2.0.0"),
    ] {
        let node = cluster.node(2);
        // The first version lacks a command of the second.
        let words = [
            "guest",
            "upgrade",
            &guest(make),
            "--soak",
            "0s",
            "--wait",
            "--force",
        ];
        node.must(&words);
        all_run(cluster.nodes(), version);
        tellers.iter().for_each(|teller| teller.does(100));
    }
    let node = cluster.node(3);
    node.must(&["guest", "rollback"]);
    all_run(cluster.nodes(), "1.0.0");
    eventually("the rollout to be over", || {
        (rollout(node)["state"] == "rolled-back").then_some(())
    });
    tellers.iter().for_each(|teller| teller.does(100));
    settle(&cluster, tellers);
}

#[test]
fn a_command_of_the_new_version_waits_until_all_replicas_have_it() {
    let cluster = cluster(3, MEMORY);
    let node = cluster.node(1);
    let mut client = node.client();
    let unknown = client.run("DOUBLE a");
    assert!(unknown.is_error("ERR"), "{unknown:?}");
    node.must(&["guest", "upgrade", &guest("clerk-two"), "--soak", "1h"]);
    eventually("the canaries", || {
        (rollout(node)["stage"] == "canary").then_some(())
    });
    all_run_assigned(&cluster);
    assert_eq!(
        running(node),
        BTreeMap::from([("1.0.0".into(), 61), ("2.0.0".into(), 3)])
    );
    for n in 0..50 {
        let reply = client.run(&format!("DOUBLE a{n}"));
        assert!(reply.is_error("NOTACTIVE"), "{reply:?}");
    }
    // The operator has seen enough.
    for _ in 0..4 {
        all_run_assigned(&cluster);
        node.must(&["guest", "advance"]);
    }
    eventually("the new command", || {
        cluster
            .nodes()
            .all(|node| node.client().run("DOUBLE a") == Reply::Int(0))
            .then_some(())
    });
    node.must(&["guest", "finalize"]);
    assert_eq!(rollout(node)["state"], "finalized");
    let rollback = ["guest", "rollback", "--service", "clerk"];
    node.refuses(&rollback, &["no such rollout"]);
}

/// Waits until every node runs what the present stage asks of it.
fn all_run_assigned(cluster: &Cluster) {
    eventually("the nodes to report", || {
        let waits_for = rollout(cluster.node(1))["waits_for"].clone();
        (waits_for == serde_json::json!([])).then_some(())
    });
}

#[test]
fn a_plan_says_what_changes_and_what_needs_force() {
    let cluster = cluster(1, MEMORY);
    let node = cluster.node(1);
    let plan = node.must(&["guest", "plan", &guest("clerk-two")]);
    for line in [
        "clerk 1.0.0 -> 2.0.0",
        "added      DOUBLE",
        "canary: 1 partitions, wave 25%: 16 partitions",
        "way back   any time before it is finalized",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    let plan = node.must(&["guest", "plan", &guest("clerk")]);
    assert!(plan.contains("there is nothing to roll out"), "{plan}");
    let plan = node.must(&["guest", "plan", &guest("clerk-less")]);
    assert!(plan.contains("--force    command WHO is removed"), "{plan}");
    let refused = node.cli(&["guest", "upgrade", &guest("clerk-less")]);
    assert_eq!(refused.status.code(), Some(5));
    let words = ["command WHO is removed", "--force"];
    node.refuses(&["guest", "upgrade", &guest("clerk-less")], &words);
    node.refuses(
        &["guest", "upgrade", &guest("clerk-schema")],
        &["there is no way back"],
    );
    node.refuses(&["guest", "upgrade", &guest("clerk")], &["already"]);
    node.refuses(
        &["guest", "upgrade", &guest("hostile"), "--service", "clerk"],
        &["hostile"],
    );
    assert_eq!(node.get("/v1/services/clerk/rollouts/current").0, 404);
}

#[test]
fn a_node_that_joins_or_starts_again_runs_what_the_cluster_runs() {
    let mut cluster = cluster(2, &["--sync", "always"]);
    let node = cluster.node(1);
    assert_eq!(node.client().run("ADD a 5"), Reply::Int(5));
    replace_at_once(node, "clerk-two", "0s");
    // It is started with the first version, as they all were.
    let third = cluster.add(&[]);
    cluster.join(third);
    cluster.commit();
    all_run(cluster.nodes(), "2.0.0");
    cluster.kill(2);
    cluster.restart(2);
    cluster.agree();
    all_run(cluster.nodes(), "2.0.0");
    for node in cluster.nodes() {
        assert_eq!(node.client().run("BALANCE a"), Reply::Int(5));
        assert_eq!(node.client().run("WHO a"), "2.0.0".into());
    }
}

#[test]
fn a_node_that_joins_with_an_older_version_never_answers_with_it() {
    let mut cluster = cluster(2, MEMORY);
    replace_at_once(cluster.node(1), "clerk-two", "0s");
    let third = cluster.add(&[]);
    let (resp, over) = (cluster.node(1).resp, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let stream = TcpStream::connect(resp).expect("the node takes clients");
            let mut client = Client::new(stream);
            let mut asked = 0_usize;
            while !over.load(Ordering::Relaxed) {
                let who = client.run(&format!("WHO k{}", asked % 200));
                assert_eq!(who, "2.0.0".into(), "command {asked}");
                asked += 1;
            }
            asked
        });
        cluster.join(third);
        cluster.commit();
        over.store(true, Ordering::Relaxed);
        assert!(asks.join().unwrap() > 0);
    });
    all_run(cluster.nodes(), "2.0.0");
}

#[test]
fn partitions_move_to_a_new_member_while_versions_change() {
    let mut cluster = cluster(2, MEMORY);
    let tellers = tellers(&cluster, 2);
    let two = guest("clerk-two");
    let words = ["guest", "upgrade", &two, "--soak", "2s"];
    cluster.node(1).must(&words);
    let third = cluster.add(&[]);
    cluster.join(third);
    let plan = cluster.node(1).must(&["cluster", "plan"]);
    assert!(
        plan.contains("a rollout of clerk to 2.0.0 is under way"),
        "{plan}"
    );
    cluster
        .node(1)
        .must(&["cluster", "commit", "--wait", "60s"]);
    done(cluster.node(1));
    all_run(cluster.nodes(), "2.0.0");
    cluster.node(3).must(&["guest", "finalize"]);
    settle(&cluster, tellers);
}
