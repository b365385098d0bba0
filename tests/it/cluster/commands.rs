//! Commands: every node answers for every key, whoever owns it.

use std::collections::BTreeSet;

use tests::Cluster;
use tests::resp::{Reply, line};

use super::{MEMORY, get_everywhere, set_and_get_everywhere};

#[test]
fn pings_are_answered_by_every_node_of_the_cluster() {
    let cluster = Cluster::of(3, MEMORY);
    for node in cluster.nodes() {
        let mut client = node.client();
        let mut answered = BTreeSet::new();
        for n in 0..300 {
            let reply = client.run(&format!("PING.PING {n}")).items();
            assert_eq!(reply[1], Reply::Int(n + 1));
            answered.insert(reply[2].text());
        }
        let all: Vec<_> = cluster.nodes().map(|node| node.name.clone()).collect();
        assert_eq!(answered.into_iter().collect::<Vec<_>>(), all);
    }
}

#[test]
fn pipelines_over_several_nodes_keep_the_order_of_their_replies() {
    let cluster = Cluster::of(3, MEMORY);
    let mut client = cluster.node(2).client();
    let commands: Vec<_> = (0..2000)
        .flat_map(|n| [format!("INCR c{}", n % 50), format!("COUNT c{}", n % 50)])
        .map(|words| line(&words))
        .collect();
    let replies = client.pipeline(&commands);
    for (n, pair) in replies.chunks(2).enumerate() {
        let expected = Reply::Int((n / 50 + 1).try_into().expect("a small number"));
        assert_eq!(pair, [expected.clone(), expected], "{n}");
    }
}

#[test]
fn what_holds_data_stays_where_it_is_and_is_served_on() {
    let cluster = Cluster::apart(2, MEMORY);
    let mut first = cluster.node(1).client();
    assert_eq!(first.run("SET k0 v0"), Reply::ok());
    cluster.join(2);
    cluster.node(1).must(&["cluster", "plan"]);
    cluster.node(1).must(&["cluster", "commit"]);
    tests::eventually("all but one partition to move", || {
        let body = cluster.node(1).json("/v1/transfers");
        let left = body["transfers"].as_array()?.len();
        (left <= 1).then_some(())
    });
    cluster.agree();
    get_everywhere(&cluster, "k", 1);
}

#[test]
fn a_trace_names_the_node_and_the_partition_of_each_step() {
    let cluster = Cluster::of(3, MEMORY);
    set_and_get_everywhere(&cluster, "k", 40);
    let ring = cluster.node(1).json("/v1/ring");
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..40 {
            let traced = client.run(&format!("VNODE.TRACE GET k{n}")).items();
            assert_eq!(traced[0], format!("v{n}").as_str().into());
            let step = traced[1].clone().items()[0].clone().items();
            let partition = usize::try_from(step[1].int()).expect("a partition");
            assert_eq!(
                ring["owners"][partition].as_str(),
                Some(step[0].text().as_str())
            );
            assert_eq!(step[2], Reply::Simple("primary".into()));
            assert_eq!(step[3], "ok".into());
        }
        let keys = client.run("VNODE.TRACE KEYS *").items();
        assert_eq!(keys[0].clone().items().len(), 40);
        let parts = keys[1].clone().items();
        assert_eq!(parts.len(), 64);
        let in_parts = |part: &Reply| part.clone().items()[2].clone().items().len();
        assert_eq!(parts.iter().map(in_parts).sum::<usize>(), 40);
    }
    let told = cluster.node(1).must(&["call", "--trace", "get", "k1"]);
    assert!(
        told.starts_with("v1\n") && told.contains("primary") && told.contains("@test"),
        "{told}"
    );
    let mut client = cluster.node(1).client();
    let counted = client.run("VNODE.TRACE EXISTS k1 k2 nokey").items();
    assert_eq!(counted[0], Reply::Int(2));
    // Three keys, and the three replicas of each.
    assert_eq!(counted[1].clone().items().len(), 9);
    assert!(client.run("VNODE.TRACE PING").is_error("ERR"));
}
