//! A version that stores its values in another schema, and migrates them.

use tests::resp::{Reply, line};
use tests::{Cluster, Node, eventually, signal};

use super::{all_run, cluster, done, guest, rollout, settle, tellers};

const MEMORY: &[&str] = &["--storage", "memory"];
const KEYS: usize = 100;

fn fill(node: &Node, name: &str) {
    let mut client = node.client();
    for n in 0..KEYS {
        assert_eq!(client.run(&format!("ADD {name}{n} 7")), Reply::Int(7));
    }
}

/// What each replica of a key has stored, as its bytes are.
fn stored(node: &Node, key: &str) -> Vec<Reply> {
    let Reply::Array(replicas) = node
        .client()
        .run(&format!("VNODE.REPLICAS {key} SERVICE clerk"))
    else {
        panic!("no replicas of {key}");
    };
    let values = replicas.into_iter().map(|replica| match replica {
        Reply::Array(mut parts) => parts.remove(3),
        other => panic!("{other:?}"),
    });
    values.collect()
}

/// Waits until every replica of a key has stored just this value.
pub(super) fn all_store(cluster: &Cluster, key: &str, value: &str) {
    let wanted = Reply::Array(vec![value.into()]);
    eventually(&format!("{key} to be stored as {value} everywhere"), || {
        let stored = stored(cluster.node(1), key);
        stored.iter().all(|one| *one == wanted).then_some(())
    });
}

#[test]
fn values_are_migrated_when_they_are_read_and_stored_anew_when_the_version_is_final() {
    let cluster = cluster(3, MEMORY);
    fill(cluster.node(1), "k");
    let tellers = tellers(&cluster, 2);
    let node = cluster.node(2);
    let make = guest("clerk-migrates");
    let plan = node.must(&["guest", "plan", &make]);
    assert!(plan.contains("schema     1 -> 2"), "{plan}");
    assert!(
        plan.contains("way back   any time before it is finalized"),
        "{plan}"
    );
    node.must(&["guest", "upgrade", &make, "--soak", "0s"]);
    done(node);
    all_run(cluster.nodes(), "2.0.0");
    // The old version could take over again at any time.
    let mut client = node.client();
    assert_eq!(client.run("BALANCE k1"), Reply::Int(7));
    assert_eq!(client.run("ADD k2 1"), Reply::Int(8));
    all_store(&cluster, "k1", "7");
    all_store(&cluster, "k2", "8");
    node.must(&["guest", "finalize"]);
    all_store(&cluster, "k1", "n=7");
    all_store(&cluster, "k2", "n=8");
    assert_eq!(client.run("ADD k3 1"), Reply::Int(8));
    all_store(&cluster, "k3", "n=8");
    tellers.iter().for_each(|teller| teller.does(100));
    node.refuses(
        &["guest", "upgrade", &guest("clerk"), "--service", "clerk"],
        &["schemas up to 1, and 2 is stored"],
    );
    let counted = 7 * KEYS as i64 + 2;
    client.run(&format!("ADD all-{counted} -{counted}"));
    settle(&cluster, tellers);
}

#[test]
fn a_migration_that_takes_longer_than_an_executor_has_time_is_waited_for() {
    let cluster = cluster(1, MEMORY);
    let node = cluster.node(1);
    let mut client = node.client();
    for key in ["k1", "k2"] {
        assert_eq!(client.run(&format!("ADD {key} 7")), Reply::Int(7));
    }
    let make = guest("clerk-migrates-slow");
    node.must(&["guest", "upgrade", &make, "--soak", "0s"]);
    done(node);
    all_run(cluster.nodes(), "2.0.0");
    // One is migrated to be read, one to be stored, and one both.
    assert_eq!(client.run("BALANCE k1"), Reply::Int(7));
    assert_eq!(client.run("ADD new 1"), Reply::Int(1));
    assert_eq!(client.run("ADD k2 1"), Reply::Int(8));
    all_store(&cluster, "new", "1");
    node.must(&["guest", "finalize"]);
    all_store(&cluster, "k2", "n=8");
}

#[test]
fn what_a_node_writes_that_does_not_know_yet_is_stored_anew_too() {
    let cluster = cluster(3, MEMORY);
    let (node, late) = (cluster.node(1), cluster.node(3));
    fill(node, "k");
    let make = guest("clerk-migrates");
    node.must(&["guest", "upgrade", &make, "--soak", "0s"]);
    done(node);
    all_run(cluster.nodes(), "2.0.0");
    let others = [1, 2].map(|number| cluster.node(number).events());
    let mut client = late.client();
    signal("STOP", &late.pid().to_string());
    for n in 0..KEYS {
        client.send(&line(&format!("ADD k{n} 1")));
    }
    node.must(&["guest", "finalize"]);
    for mut events in others {
        events.wait_for("all values here are in schema 2 now");
    }
    signal("CONT", &late.pid().to_string());
    for n in 0..KEYS {
        // It may have been refused, since the node had been missed.
        client.reply();
        eventually(&format!("k{n} to be stored anew everywhere"), || {
            let stored = stored(node, &format!("k{n}"));
            let new = |one: &Reply| {
                ["n=7", "n=8"]
                    .map(|value| Reply::Array(vec![value.into()]))
                    .contains(one)
            };
            stored.iter().all(new).then_some(())
        });
    }
}

#[test]
fn a_version_that_migrates_goes_back_without_loss() {
    let cluster = cluster(3, MEMORY);
    fill(cluster.node(1), "k");
    let node = cluster.node(1);
    node.must(&["guest", "upgrade", &guest("clerk-migrates"), "--soak", "0s"]);
    done(node);
    all_run(cluster.nodes(), "2.0.0");
    let mut client = node.client();
    for n in 0..KEYS {
        assert_eq!(client.run(&format!("ADD k{n} 1")), Reply::Int(8));
    }
    node.must(&["guest", "rollback"]);
    all_run(cluster.nodes(), "1.0.0");
    for n in 0..KEYS {
        assert_eq!(client.run(&format!("ADD k{n} 1")), Reply::Int(9));
    }
    assert_eq!(client.run("TOTAL"), Reply::Int(9 * KEYS as i64));
}

#[test]
fn one_that_cannot_migrate_what_is_there_never_serves_it() {
    for (make, words) in [
        ("clerk-migrates-trap", "cannot migrate that"),
        ("clerk-migrates-loop", "used its budget"),
    ] {
        let cluster = cluster(3, MEMORY);
        fill(cluster.node(1), "bad");
        let node = cluster.node(2);
        node.must(&["guest", "upgrade", &guest(make), "--soak", "0s"]);
        let why = eventually("the rollout to go back", || {
            let rollout = rollout(node);
            assert_ne!(rollout["state"], "done", "{rollout}");
            let why = rollout["why"].as_str().unwrap_or("").to_owned();
            (rollout["state"] == "rolled-back").then_some(why)
        });
        assert!(
            why.contains("migrating a value from schema 1 to 2") && why.contains(words),
            "{why}"
        );
        all_run(cluster.nodes(), "1.0.0");
        let mut client = node.client();
        for n in 0..KEYS {
            assert_eq!(client.run(&format!("ADD bad{n} 1")), Reply::Int(8));
        }
    }
}

#[test]
fn one_that_cannot_go_back_needs_force_and_what_it_stored_is_refused_to_the_old_one() {
    let cluster = cluster(1, MEMORY);
    let node = cluster.node(1);
    fill(node, "k");
    let make = guest("clerk-migrates-one-way");
    let plan = node.must(&["guest", "plan", &make]);
    assert!(plan.contains("way back   none"), "{plan}");
    node.refuses(&["guest", "upgrade", &make], &["there is no way back"]);
    node.must(&["guest", "upgrade", &make, "--soak", "0s", "--force"]);
    done(node);
    let mut client = node.client();
    assert_eq!(client.run("ADD k1 1"), Reply::Int(8));
    all_store(&cluster, "k1", "n=8");
    node.must(&["guest", "rollback"]);
    all_run(cluster.nodes(), "1.0.0");
    let refused = client.run("BALANCE k1");
    assert!(refused.is_error("ERR"), "{refused:?}");
    assert!(
        format!("{refused:?}").contains("the value is of schema 2"),
        "{refused:?}"
    );
    assert_eq!(client.run("BALANCE k2"), Reply::Int(7));
}
