//! What a read does for replicas that lack something.

use std::collections::BTreeSet;

use tests::Cluster;
use tests::resp::Reply;

use super::{
    ALWAYS, MEMORY, all_equal, healed_by_all, hints_gone, replicas, seen_down, settle, through_all,
};

#[test]
fn a_replica_that_comes_back_empty_gets_what_is_read() {
    let mut cluster = Cluster::of(3, MEMORY);
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        settle(&mut client, &format!("k{n}"), &format!("v{n}"));
    }
    // What it held is gone with its process.
    cluster.kill(3);
    cluster.restart(3);
    cluster.agree();
    let lacking: Vec<usize> = (0..100)
        .filter(|n| {
            let held = replicas(&mut client, &format!("k{n}"), "kv");
            held.iter()
                .any(|held| held.node == "node3@test" && held.values.is_empty())
        })
        .collect();
    assert!(lacking.len() > 90, "{lacking:?}");
    assert_eq!(healed_by_all(&cluster, "read"), 0);
    // Also through the node that has nothing.
    let mut third = cluster.node(3).client();
    for n in 0..100 {
        assert_eq!(
            third.run(&format!("GET k{n}")),
            format!("v{n}").as_str().into(),
            "k{n}"
        );
    }
    all_equal(&cluster, "k", 100);
    let repaired = healed_by_all(&cluster, "read");
    assert!(repaired > 0, "somebody noticed");
    through_all(&cluster, "k", 100);
    assert_eq!(healed_by_all(&cluster, "read"), repaired, "once is enough");
    assert_eq!(healed_by_all(&cluster, "hint"), 0);
}

/// riak_kv 679: whoever has lost his data must not number his writes as before.
#[test]
fn a_node_whose_rows_are_wiped_starts_anew_and_its_first_writes_supersede_nothing_unseen() {
    let mut cluster = Cluster::of(3, ALWAYS);
    let mut client = cluster.node(1).client();
    for n in 0..60 {
        settle(&mut client, &format!("k{n}"), &format!("v{n}"));
    }
    cluster.kill(3);
    let store = cluster.folder().join("node3@test").join("store");
    std::fs::remove_dir_all(store).expect("its rows");
    cluster.restart(3);
    cluster.agree();
    // A blind write that hears nobody else, where the node is the first of the key.
    let mut third = cluster.node(3).client();
    let mut owned = Vec::new();
    for n in 0..60 {
        let key = format!("k{n}");
        let held = replicas(&mut client, &key, "kv");
        let nodes: BTreeSet<&str> = held.iter().map(|held| held.node.as_str()).collect();
        if held[0].node == "node3@test" && nodes.len() == 3 {
            let reply = third.call(&["VNODE.WITH", "R", "1", "--", "VPUT", &key, "unseen", ""]);
            assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
            owned.push((key, format!("v{n}")));
        }
    }
    assert!(!owned.is_empty());
    for (key, value) in owned {
        let versions = client
            .call(&["VNODE.WITH", "R", "3", "--", "VGET", &key])
            .items();
        let found: BTreeSet<String> = versions[1]
            .clone()
            .items()
            .iter()
            .map(Reply::text)
            .collect();
        assert_eq!(found, BTreeSet::from(["unseen".to_owned(), value]), "{key}");
    }
    for n in 0..60 {
        let reply = third.run(&format!("VNODE.WITH R 3 -- GET k{n}"));
        assert!(
            !matches!(reply, Reply::Error(_) | Reply::Nil),
            "k{n}: {reply:?}"
        );
    }
    all_equal(&cluster, "k", 60);
}

#[test]
fn what_fallbacks_wrote_is_read_through_an_owner_that_has_not_got_it_yet() {
    let mut cluster = Cluster::of(3, MEMORY);
    cluster.kill(3);
    seen_down(&cluster, &[3]);
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        assert_eq!(client.run(&format!("SET k{n} v{n}")), Reply::ok());
    }
    cluster.restart(3);
    cluster.agree();
    through_all(&cluster, "k", 100);
    hints_gone(&cluster);
    all_equal(&cluster, "k", 100);
}

#[test]
fn with_no_faults_nothing_is_repaired() {
    let cluster = Cluster::of(3, MEMORY);
    let nodes: Vec<_> = cluster.nodes().collect();
    std::thread::scope(|scope| {
        for (number, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                let mut client = node.client();
                for n in 0..300 {
                    let key = format!("k{number}-{}", n % 20);
                    assert_eq!(client.run(&format!("SET {key} {n}")), Reply::ok());
                    assert_eq!(
                        client.run(&format!("GET {key}")),
                        n.to_string().as_str().into()
                    );
                    assert_eq!(client.run(&format!("INCR {key}")), (n / 20 + 1).into());
                }
            });
        }
    });
    for noticed in ["read", "hint"] {
        assert_eq!(healed_by_all(&cluster, noticed), 0, "{noticed}");
    }
    let mut client = cluster.node(1).client();
    for number in 0..3 {
        for n in 0..20 {
            let held = replicas(&mut client, &format!("k{number}-{n}"), "kv");
            assert!(super::equal(&held), "{held:?}");
        }
    }
}
