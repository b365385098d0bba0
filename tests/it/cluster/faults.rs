//! Nodes that end, stop or are lost, and what the others do meanwhile.

use tests::resp::Reply;
use tests::{Cluster, arg, eventually, run, signal, text, up};

use super::{DISK, MEMORY, get_everywhere, insist, set_and_get_everywhere, shares};

#[test]
fn members_ring_and_data_outlive_the_end_of_all_nodes() {
    let mut cluster = Cluster::of(3, DISK);
    set_and_get_everywhere(&cluster, "k", 60);
    let before = shares(&cluster.node(1).json("/v1/cluster"));
    for number in 1..=3 {
        cluster.kill(number);
    }
    for number in 1..=3 {
        cluster.restart(number);
    }
    cluster.agree();
    assert_eq!(shares(&cluster.node(2).json("/v1/cluster")), before);
    get_everywhere(&cluster, "k", 60);
    // Changes are made again, too.
    let third = cluster.node(3);
    third.must(&["cluster", "location", "node1@test", "rack 1"]);
    cluster.node(2).must(&["cluster", "clear"]);
}

#[test]
fn a_node_that_dies_takes_no_other_with_it_and_has_its_data_when_it_is_back() {
    let mut cluster = Cluster::of(3, DISK);
    set_and_get_everywhere(&cluster, "k", 100);
    cluster.kill(3);
    seen_unreachable(&cluster, 3, &[1, 2]);
    // Another node stands in for it: every key can be written and read.
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        assert_eq!(insist(&mut client, &format!("SET new{n} v")), Reply::ok());
        assert_eq!(insist(&mut client, &format!("GET new{n}")), "v".into());
    }
    let status = cluster.node(2).cli(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{}", text(&status));
    assert!(text(&status).contains("node3@test is unreachable"));
    cluster.restart(3);
    cluster.agree();
    get_everywhere(&cluster, "k", 100);
}

/// Waits until these nodes see that one is not up.
fn seen_unreachable(cluster: &Cluster, gone: usize, by: &[usize]) {
    let name = format!("node{gone}@test");
    eventually("the others to see it", || {
        let seen = |number: &usize| {
            let view = cluster.node(*number).json("/v1/cluster");
            !up(&view).contains(&name.as_str())
        };
        by.iter().all(seen).then_some(())
    });
}

/// Numbers of keys of which one node owns none.
fn keys_of_others(cluster: &Cluster, number: usize, count: usize) -> Vec<usize> {
    let name = &cluster.node(number).name;
    let mut client = cluster.node(1).client();
    let others = (0..count).filter(|n| {
        let traced = client.run(&format!("VNODE.TRACE GET k{n}")).items();
        let step = traced[1].clone().items()[0].clone().items();
        step[0].text() != *name
    });
    others.collect()
}

#[test]
fn a_node_that_is_stopped_slows_nobody() {
    let cluster = Cluster::of(3, MEMORY);
    set_and_get_everywhere(&cluster, "k", 300);
    let others = keys_of_others(&cluster, 3, 300);
    assert!((1..300).contains(&others.len()), "{others:?}");
    let stopped = cluster.node(3).pid().to_string();
    signal("STOP", &stopped);
    // It never goes on while the others are asked, so whoever waited for it would be told TIMEOUT at his deadline.
    for number in [1, 2] {
        let mut client = cluster.node(number).client();
        for n in &others {
            let value = client.run(&format!("GET k{n}"));
            assert_eq!(value, format!("v{n}").as_str().into());
        }
    }
    // Once it is seen, the same holds for every key.
    seen_unreachable(&cluster, 3, &[1, 2]);
    for number in [1, 2] {
        let mut client = cluster.node(number).client();
        for n in 0..300 {
            assert_eq!(client.run(&format!("SET new{n} v")), Reply::ok());
            assert_eq!(client.run(&format!("GET new{n}")), "v".into());
        }
    }
    signal("CONT", &stopped);
    cluster.agree();
    get_everywhere(&cluster, "k", 300);
}

#[test]
fn a_minority_serves_on_and_changes_nothing_and_agrees_afterwards() {
    let mut cluster = Cluster::of(3, DISK);
    set_and_get_everywhere(&cluster, "k", 30);
    cluster.kill(1);
    cluster.kill(2);
    let mut client = cluster.node(3).client();
    for n in 0..30 {
        insist(&mut client, &format!("SET alone{n} v"));
        assert_eq!(insist(&mut client, &format!("GET alone{n}")), "v".into());
    }
    let leave = ["cluster", "leave", "node1@test"];
    cluster.node(3).refuses(&leave, &["majority of the voters"]);
    let epoch = cluster.node(3).json("/v1/cluster")["epoch"].as_u64();
    cluster.restart(1);
    cluster.restart(2);
    cluster.agree();
    let view = cluster.node(3).json("/v1/cluster");
    assert!(view["epoch"].as_u64() >= epoch);
    let staged = &view["staged"];
    assert!(
        staged.as_array().is_some_and(|staged| staged.len() <= 1),
        "{staged}"
    );
}

#[test]
fn one_node_goes_on_when_the_others_are_lost_for_good() {
    let mut cluster = Cluster::of(3, DISK);
    set_and_get_everywhere(&cluster, "k", 60);
    let data = cluster.node(1).data.clone();
    let running = run(&["recover", "--force", "--data", arg(&data)]);
    assert!(!running.status.success());
    let said = text(&running);
    assert!(said.contains("another process"), "{said}");
    for number in 1..=3 {
        cluster.kill(number);
    }
    let asked = run(&["recover", "--data", arg(&data)]);
    assert_eq!(asked.status.code(), Some(5), "{}", text(&asked));
    let recovered = run(&["recover", "--force", "--data", arg(&data)]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    cluster.restart(1);
    drop((cluster.take(2), cluster.take(3)));
    let first = cluster.node(1);
    for lost in ["node2@test", "node3@test"] {
        let removed = eventually("the node to decide alone", || {
            let output = first.cli(&["cluster", "force-remove", lost]);
            output.status.success().then_some(output)
        });
        assert!(text(&removed).contains(lost));
    }
    cluster.commit_on(1);
    let view = first.json("/v1/cluster");
    assert_eq!(shares(&view), [("node1@test".to_owned(), 64)]);
    // What it held is there; what the lost ones held is not.
    let mut client = first.client();
    let kept = (0..60).filter(|n| client.run(&format!("GET k{n}")) != Reply::Nil);
    assert!((1..60).contains(&kept.count()));
}
