//! Partitions that hold data go to other nodes while clients write to them.

use std::sync::atomic::{AtomicBool, Ordering};

use tests::resp::Reply;
use tests::{Cluster, Node, eventually};

use super::{DISK, MEMORY, insist, shares};

const KEYS: usize = 100;

/// Sets keys of its own on each of the nodes.
fn fill(node: &Node) {
    let mut client = node.client();
    for n in 0..KEYS {
        assert_eq!(
            client.run(&format!("SET {}-{n} v{n}", node.name)),
            Reply::ok()
        );
    }
}

/// Asserts that every node has all keys of all of them.
fn all_have_all(cluster: &Cluster, names: &[String]) {
    for node in cluster.nodes() {
        let mut client = node.client();
        for name in names {
            for n in 0..KEYS {
                let value = insist(&mut client, &format!("GET {name}-{n}"));
                assert_eq!(
                    value,
                    format!("v{n}").as_str().into(),
                    "{} {name}-{n}",
                    node.name
                );
            }
        }
        let counted = insist(&mut client, "DBSIZE");
        assert_eq!(
            counted.int(),
            i64::try_from(names.len() * KEYS).expect("few")
        );
    }
}

/// As in the second tutorial: each of three nodes holds 100 keys before they join, and each has all 300 afterwards.
#[test]
fn nodes_that_join_with_data_bring_it_along() {
    for flags in [MEMORY.to_vec(), [DISK, &["--n", "1"]].concat()] {
        let cluster = Cluster::apart(3, &flags);
        let names: Vec<String> = cluster.nodes().map(|node| node.name.clone()).collect();
        cluster.nodes().for_each(fill);
        cluster.join(2);
        cluster.join(3);
        cluster.commit();
        eventually("what joined to come home", || {
            let none =
                |node: &Node| node.json("/v1/transfers")["transfers"] == serde_json::json!([]);
            cluster.nodes().all(none).then_some(())
        });
        all_have_all(&cluster, &names);
        for (name, partitions) in shares(&cluster.node(1).json("/v1/cluster")) {
            assert!((20..=23).contains(&partitions), "{name} has {partitions}");
        }
    }
}

#[test]
fn a_node_that_leaves_leaves_its_data_with_the_others() {
    let mut cluster = Cluster::of(3, &["--storage", "memory", "--n", "1"]);
    let names = vec![cluster.node(2).name.clone()];
    fill(cluster.node(2));
    cluster.node(3).must(&["cluster", "leave"]);
    cluster.commit_on(1);
    let ended = cluster.take(3).ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    cluster.agree();
    all_have_all(&cluster, &names);
}

/// Ends the writers, also when the test fails meanwhile.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Nothing is refused, counted twice or missing while partitions move.
#[test]
fn counters_and_keys_stay_exact_while_a_node_joins() {
    for flags in [MEMORY.to_vec(), [MEMORY, &["--n", "1"]].concat()] {
        let cluster = Cluster::apart(2, &flags);
        fill(cluster.node(1));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            let counting: Vec<_> = (0..4)
                .map(|writer| {
                    let (node, stop) = (cluster.node(1), &stop);
                    scope.spawn(move || {
                        let mut client = node.client();
                        let mut counted = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let key = format!("counter-{writer}-{}", counted % 10);
                            let expected = counted / 10 + 1;
                            let reply = client.run(&format!("INCR {key}"));
                            assert_eq!(reply, Reply::Int(expected), "{key}");
                            counted += 1;
                        }
                        counted
                    })
                })
                .collect();
            cluster.join(2);
            let first = cluster.node(1);
            first.must(&["cluster", "plan"]);
            first.must(&["cluster", "commit"]);
            let mut client = first.client();
            eventually("the new node to have its share", || {
                assert_eq!(
                    client.run("DBSIZE").int(),
                    i64::try_from(KEYS).expect("few")
                );
                (first.json("/v1/cluster")["ready"] == true).then_some(())
            });
            stop.store(true, Ordering::Relaxed);
            let counted: Vec<i64> = counting
                .into_iter()
                .map(|writer| writer.join().expect("a writer"))
                .collect();
            let mut client = cluster.node(2).client();
            for (writer, counted) in counted.into_iter().enumerate() {
                let sum: i64 = (0..10)
                    .map(|n| insist(&mut client, &format!("COUNT counter-{writer}-{n}")).int())
                    .sum();
                assert_eq!(sum, counted, "of writer {writer}");
            }
        });
    }
}
