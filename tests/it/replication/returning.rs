//! The first moments of a node that starts again in a cluster that runs: it has heard of nobody yet, and is not alone.

use tests::resp::{Client, Reply};
use tests::{Cluster, eventually};

use super::{MEMORY, hints, hints_gone, seen_down, settle};

const KEYS: usize = 60;

/// Reads these keys over and over until each was there, and takes no other answer than its value or an error.
fn found_or_refused(client: &mut Client, keys: &[usize]) {
    let mut left = keys.to_vec();
    eventually("every key to be found", || {
        left.retain(|n| match client.run(&format!("GET k{n}")) {
            Reply::Error(_) => true,
            value => {
                assert_eq!(value, format!("v{n}").as_str().into(), "k{n}");
                false
            }
        });
        left.is_empty().then_some(())
    });
}

#[test]
fn a_node_that_comes_back_empty_never_answers_for_the_others_from_nothing() {
    let mut cluster = Cluster::of(3, MEMORY);
    let mut client = cluster.node(1).client();
    for n in 0..KEYS {
        settle(&mut client, &format!("k{n}"), &format!("v{n}"));
    }
    cluster.kill(3);
    cluster.restart(3);
    let mut third = cluster.node(3).client();
    found_or_refused(&mut third, &Vec::from_iter(0..KEYS));
}

/// With one copy of each key there is nobody else to ask.
#[test]
fn a_node_that_comes_back_leaves_keys_of_one_copy_to_their_owners() {
    let mut cluster = Cluster::of(3, &[MEMORY, &["--n", "1", "--r", "1", "--w", "1"]].concat());
    let mut client = cluster.node(1).client();
    let owner = |client: &mut Client, n: usize| {
        let list = client.run(&format!("VNODE.PREFLIST k{n}")).items();
        list[0].clone().items()[1].text()
    };
    let others: Vec<usize> = (0..KEYS)
        .filter(|n| owner(&mut client, *n) != "node3@test")
        .collect();
    assert!(others.len() > KEYS / 3, "{others:?}");
    for n in &others {
        assert_eq!(client.run(&format!("SET k{n} v{n}")), Reply::ok());
    }
    cluster.kill(3);
    cluster.restart(3);
    let mut third = cluster.node(3).client();
    found_or_refused(&mut third, &others);
    assert_eq!(hints(cluster.node(3)), Vec::<serde_json::Value>::new());
}

#[test]
fn what_is_written_through_a_node_that_has_just_come_back_is_no_hint() {
    let mut cluster = Cluster::of(3, MEMORY);
    cluster.kill(3);
    cluster.restart(3);
    let mut third = cluster.node(3).client();
    let mut wrote = 0;
    for n in 0..KEYS {
        if third.run(&format!("SET k{n} v{n}")) == Reply::ok() {
            wrote += 1;
        }
    }
    assert_eq!(wrote, KEYS, "the others are there");
    assert_eq!(hints(cluster.node(3)), Vec::<serde_json::Value>::new());
}

/// Until it has heard of all that may be there it says that it is not ready, and then that it is, whoever is missing.
#[test]
fn a_node_that_comes_back_is_ready_when_it_has_looked_for_the_others() {
    let mut cluster = Cluster::of(3, MEMORY);
    cluster.kill(2);
    cluster.kill(3);
    seen_down(&cluster, &[2, 3]);
    cluster.restart(3);
    let third = cluster.node(3);
    eventually("the node to be ready", || {
        let (status, text) = third.get("/readyz");
        let looks = "[-]peers failed\nnot ready\n";
        assert!(status == 200 || text == looks, "{status} {text}");
        (status == 200).then_some(())
    });
    let view = third.json("/v1/cluster");
    assert_eq!(tests::up(&view), ["node1@test", "node3@test"]);
}

/// How much is left on disk of what has been removed is an estimate, which nobody waits for.
#[test]
fn what_has_gone_home_is_no_hint_any_more() {
    let mut cluster = Cluster::of(3, &[]);
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    let mut client = cluster.node(1).client();
    // More than a node keeps in memory before it puts rows into tables.
    let value = "v".repeat(900 << 10);
    for n in 0..120 {
        settle(&mut client, &format!("k{n}"), &value);
    }
    cluster.restart(3);
    hints_gone(&cluster);
}
