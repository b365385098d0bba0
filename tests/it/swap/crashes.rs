//! Nodes end, as by `kill -9`, while a rollout is under way. It goes on, or back, and whoever comes again runs what was decided.

use tests::resp::Reply;
use tests::{Cluster, eventually};

use super::schemas::all_store;
use super::{AT_ANY_PACE, Teller, all_run, cluster, done, guest, rollout, settle};

const FLAGS: &[&str] = &["--sync", "always"];

#[test]
fn a_rollout_goes_on_when_its_driver_dies() {
    let mut cluster = cluster(3, FLAGS);
    let claimant = cluster.claimant();
    let other = claimant % 3 + 1;
    let node = cluster.node(other);
    node.must(&["guest", "upgrade", &guest("clerk-two"), "--soak", "1s"]);
    eventually("the canaries", || {
        (rollout(node)["stage"] == "canary").then_some(())
    });
    cluster.kill(claimant);
    let node = cluster.node(other);
    done(node);
    cluster.restart(claimant);
    cluster.agree();
    all_run(cluster.nodes(), "2.0.0");
}

#[test]
fn a_node_that_was_away_serves_only_what_was_decided_meanwhile() {
    let mut cluster = cluster(3, FLAGS);
    let mut client = cluster.node(1).client();
    for n in 0..200 {
        assert_eq!(client.run(&format!("ADD k{n} 1")), Reply::Int(1));
    }
    cluster.kill(3);
    eventually("the others to notice", || {
        let view = cluster.node(1).json("/v1/cluster");
        (tests::up(&view).len() == 2).then_some(())
    });
    let words = [
        "guest",
        "upgrade",
        &guest("clerk-two"),
        "--soak",
        "0s",
        "--wait",
    ];
    let shown = cluster.node(1).must(&words);
    assert!(shown.contains("without node3@test"), "{shown}");
    cluster.restart(3);
    // From its first answer on.
    let who = eventually("an answer", || {
        let reply = cluster.node(3).client().run("WHO k1");
        (!matches!(reply, Reply::Error(_))).then_some(reply)
    });
    assert_eq!(who, "2.0.0".into());
    cluster.agree();
    all_run(cluster.nodes(), "2.0.0");
    for n in 0..200 {
        assert_eq!(client.run(&format!("ADD k{n} 1")), Reply::Int(2));
    }
}

#[test]
fn commands_at_other_nodes_go_on_while_a_node_dies_in_a_rollout() {
    let mut cluster = cluster(3, FLAGS);
    let claimant = cluster.claimant();
    let (victim, node) = match claimant {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    cluster
        .node(node)
        .must(&["guest", "upgrade", &guest("clerk-two"), "--soak", "1s"]);
    eventually("the canaries", || {
        (rollout(cluster.node(node))["stage"] == "canary").then_some(())
    });
    cluster.kill(victim);
    eventually("the others to notice", || {
        let view = cluster.node(node).json("/v1/cluster");
        (tests::up(&view).len() == 2).then_some(())
    });
    let teller = Teller::at(cluster.node(node).resp, "late".into());
    done(cluster.node(node));
    teller.does(100);
    cluster.restart(victim);
    cluster.agree();
    all_run(cluster.nodes(), "2.0.0");
    settle(&cluster, vec![teller]);
}

/// Three nodes with accounts, of which one, the driver of rollouts or another one, ends at a place of a rollout; the numbers of that one
/// and of another.
fn ending(place: &str, passes: usize, driver: bool) -> (Cluster, usize, usize) {
    let one = guest("clerk");
    let flags = [&["--vnode", &one, "--ring-size", "8"], AT_ANY_PACE, FLAGS].concat();
    let cluster = Cluster::faulty(3, &flags);
    for number in 2..=3 {
        cluster.join(number);
    }
    cluster.commit();
    cluster.seated();
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        assert_eq!(client.run(&format!("ADD k{n} 1")), Reply::Int(1));
    }
    let claimant = cluster.claimant();
    let victim = if driver { claimant } else { claimant % 3 + 1 };
    let other = victim % 3 + 1;
    cluster.end_at(victim, place, passes);
    (cluster, victim, other)
}

/// Waits until the node has ended, and starts it again.
fn comes_back(cluster: &mut Cluster, victim: usize, place: &str) {
    eventually(&format!("the node to end at {place}"), || {
        cluster.node_mut(victim).has_ended().then_some(())
    });
    cluster.restart(victim);
}

/// Ends a node at a place of a rollout; that goes on without it or with it, and in the end everything runs the new version and holds
/// what it held.
fn ends_at(place: &str, passes: usize, driver: bool) {
    goes_on(ending(place, passes, driver), place, "clerk-two");
}

fn goes_on((mut cluster, victim, other): (Cluster, usize, usize), place: &str, make: &str) {
    let words = ["guest", "upgrade", &guest(make), "--soak", "300ms"];
    cluster.node(other).must(&words);
    comes_back(&mut cluster, victim, place);
    eventually(&format!("the rollout to be done after {place}"), || {
        (rollout(cluster.node(other))["state"] == "done").then_some(())
    });
    cluster.agree();
    all_run(cluster.nodes(), "2.0.0");
    for node in cluster.nodes() {
        assert_eq!(node.client().run("TOTAL"), Reply::Int(100), "{place}");
    }
}

#[test]
fn a_node_may_end_when_it_has_fetched_a_version() {
    ends_at("version-fetched", 0, false);
    ends_at("version-here", 0, false);
}

#[test]
fn a_node_may_end_while_a_version_tries_what_it_migrates() {
    let place = "migration-tried";
    goes_on(ending(place, 1, false), place, "clerk-migrates");
}

#[test]
fn a_node_may_end_while_its_values_are_brought_up() {
    let place = "migration-half";
    let (mut cluster, victim, other) = ending(place, 2, false);
    let words = ["guest", "upgrade", &guest("clerk-migrates"), "--soak", "0s"];
    cluster.node(other).must(&words);
    done(cluster.node(other));
    cluster.node(other).must(&["guest", "finalize"]);
    comes_back(&mut cluster, victim, place);
    cluster.agree();
    for n in 0..100 {
        all_store(&cluster, &format!("k{n}"), "n=1");
    }
    all_run(cluster.nodes(), "2.0.0");
    for node in cluster.nodes() {
        assert_eq!(node.client().run("TOTAL"), Reply::Int(100));
    }
}

#[test]
fn a_node_may_end_while_its_vnodes_go_back() {
    let place = "swap-back";
    let (mut cluster, victim, other) = ending(place, 1, false);
    let words = ["guest", "upgrade", &guest("clerk-two"), "--soak", "0s"];
    cluster.node(other).must(&words);
    done(cluster.node(other));
    cluster.node(other).must(&["guest", "rollback"]);
    comes_back(&mut cluster, victim, place);
    cluster.agree();
    all_run(cluster.nodes(), "1.0.0");
    for node in cluster.nodes() {
        assert_eq!(node.client().run("TOTAL"), Reply::Int(100));
    }
}

#[test]
fn a_node_may_end_before_during_and_after_the_swap_of_a_vnode() {
    ends_at("swap-next", 0, false);
    ends_at("swap-held", 1, false);
    ends_at("swapped", 0, false);
}

#[test]
fn a_node_may_end_before_it_reports() {
    ends_at("swap-done", 1, false);
}

#[test]
fn the_driver_may_end_before_and_after_it_decides() {
    ends_at("rollout-distributed", 0, true);
    ends_at("rollout-advances", 1, true);
    ends_at("rollout-advanced", 0, true);
}
