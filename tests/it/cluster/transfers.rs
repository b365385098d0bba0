//! What operators see of transfers, and what they can say of them.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tests::resp::{Client, Reply};
use tests::{Cluster, Node, eventually};

use super::{MEMORY, insist};

/// Sets so many keys of a KiB each.
fn fill(client: &mut Client, count: usize) {
    for n in 0..count {
        let value = format!("{n:08}").repeat(128);
        assert_eq!(client.run(&format!("SET k{n} {value}")), Reply::ok());
    }
}

fn transfers(node: &Node) -> Vec<Value> {
    let view = node.json("/v1/transfers");
    view["transfers"].as_array().expect("transfers").clone()
}

fn settle(cluster: &Cluster) {
    cluster
        .node(1)
        .must(&["cluster", "wait", "--for", "settled", "--timeout", "60s"]);
    cluster.agree();
}

/// A second node is to have its share of what the first holds.
fn two(flags: &[&str], keys: usize) -> Cluster {
    let cluster = Cluster::apart(2, &[MEMORY, &["--n", "1"], flags].concat());
    fill(&mut cluster.node(1).client(), keys);
    cluster.join(2);
    cluster.node(1).must(&["cluster", "plan"]);
    cluster
}

#[test]
fn paused_transfers_wait_on_every_node_and_go_on_when_they_are_resumed() {
    let cluster = two(&[], 500);
    let said = cluster.node(2).must(&["transfers", "pause"]);
    assert_eq!(said, "transfers are paused\n");
    cluster.node(1).must(&["cluster", "commit"]);
    eventually("all transfers to wait for their pause to end", || {
        let all = transfers(cluster.node(1));
        let paused = |one: &Value| {
            let why = one["reason"].as_str().unwrap_or_default();
            one["state"] == "waiting" && why.contains("paused")
        };
        (!all.is_empty() && all.iter().all(paused)).then_some(())
    });
    for node in cluster.nodes() {
        assert_eq!(node.json("/v1/transfers")["limits"]["paused"], true);
        assert_eq!(node.client().run("DBSIZE"), Reply::Int(500));
    }
    assert!(cluster.node(1).must(&["transfers"]).contains(", paused"));
    cluster.node(1).must(&["transfers", "resume"]);
    settle(&cluster);
    assert_eq!(cluster.node(2).client().run("DBSIZE"), Reply::Int(500));
}

#[test]
fn a_slow_transfer_is_seen_in_each_of_its_phases_and_hurries_when_it_may() {
    let cluster = two(&["--transfers-bytes-per-second", "100KiB"], 2000);
    cluster.node(1).must(&["cluster", "commit"]);
    let copying = eventually("a page to have gone and more to be left", || {
        let all = transfers(cluster.node(1)).into_iter();
        let mut all = all.filter(|one| one["phase"] == "copying" && one["moved_bytes"] != 0);
        all.next()
    });
    assert_eq!(copying["kind"], "ownership", "{copying}");
    assert_eq!(copying["from"], "node1@test", "{copying}");
    assert_eq!(copying["to"], "node2@test", "{copying}");
    assert!(
        copying["rate_bytes_per_second"].as_f64() > Some(0.0),
        "{copying}"
    );
    assert!(copying["since"].is_string(), "{copying}");
    eventually("the receiver to show it, too", || {
        let mut all = transfers(cluster.node(2)).into_iter();
        all.find(|one| one["state"] == "running")
    });
    eventually("those that have no place to say so", || {
        let mut all = transfers(cluster.node(1)).into_iter();
        all.find(|one| one["reason"] == "this node sends 2 of 2 at once")
    });
    let limit = ["transfers", "limit", "4", "--rate", "0"];
    assert_eq!(
        cluster.node(2).must(&limit),
        "transfers go on, limit 4 in, 4 out\n"
    );
    settle(&cluster);
    let mut events = cluster.node(1).events();
    for phase in ["is copying", "is dual", "is flip", "is over"] {
        events.wait_for(phase);
    }
    let sent = r#"vnode_transfer_rows_total{kind="ownership"}"#;
    assert!(cluster.node(1).metric(sent) > Some(500.0));
    assert_eq!(cluster.node(2).client().run("DBSIZE"), Reply::Int(2000));
}

#[test]
fn limits_of_one_node_are_its_own_and_a_limit_of_nothing_is_refused() {
    let cluster = Cluster::of(2, MEMORY);
    let limits = |number: usize| cluster.node(number).json("/v1/transfers")["limits"].clone();
    cluster
        .node(2)
        .must(&["transfers", "limit", "--in", "7", "--here"]);
    assert_eq!(
        (&limits(2)["in"], &limits(2)["out"]),
        (&json!(7), &json!(2))
    );
    assert_eq!(limits(1)["in"], 2);
    cluster.node(1).must(&["transfers", "limit", "5"]);
    eventually("all to know", || {
        let known = (&limits(2)["in"], &limits(2)["out"]) == (&json!(7), &json!(5));
        known.then_some(())
    });
    let (status, body) = cluster.node(1).post("/v1/transfers/limit", r#"{"in": 0}"#);
    assert_eq!(status, 422, "{body}");
    let (status, body) = cluster.node(1).post("/v1/transfers/limit", r#"{"inn": 1}"#);
    assert_eq!(status, 422, "{body}");
}

#[test]
fn a_partition_that_lost_its_rows_is_filled_again_from_its_neighbours() {
    let mut cluster = Cluster::of(3, MEMORY);
    fill(&mut cluster.node(1).client(), 200);
    let owned = |node: &Node, least: u64| {
        let vnodes = node.json("/v1/vnodes");
        let vnodes = vnodes["vnodes"].as_array().expect("vnodes").clone();
        let mut full = vnodes.into_iter().filter(move |vnode| {
            let objects = vnode["objects"].as_u64().expect("a number");
            vnode["service"] == "kv" && vnode["kind"] == "primary" && objects >= least
        });
        full.next()
            .map(|vnode| (vnode["partition"].clone(), vnode["objects"].clone()))
    };
    let (partition, objects) = owned(cluster.node(3), 5).expect("a vnode with rows");
    // It is in memory: its rows are gone, and nobody has told the others.
    cluster.kill(3);
    cluster.restart(3);
    cluster.agree();
    let number = partition.to_string();
    let said = cluster.node(1).must(&["transfers", "repair", &number]);
    assert!(said.starts_with("node3@test repairs partition"), "{said}");
    eventually("the repair to end", || {
        let ended = r#"vnode_transfers_finished_total{kind="repair"}"#;
        (cluster.node(3).metric(ended) == Some(1.0)).then_some(())
    });
    let vnodes = cluster.node(3).json("/v1/vnodes");
    let vnodes = vnodes["vnodes"].as_array().expect("vnodes").iter();
    let mut vnodes = vnodes.filter(|vnode| vnode["service"] == "kv");
    let found = vnodes.find(|vnode| vnode["partition"] == partition);
    assert_eq!(found.expect("the vnode")["objects"], objects);
    let refusal = cluster.node(1).cli(&["transfers", "repair", "64"]);
    assert_eq!(refusal.status.code(), Some(1));
}

#[test]
fn guests_hear_that_their_partition_goes_and_may_refuse_for_now() {
    let guest = tests::guest("traveller").display().to_string();
    let flags = [
        MEMORY,
        &["--n", "1", "--vnode", &guest, "--transfers-retention", "0s"],
    ]
    .concat();
    let mut cluster = Cluster::apart(2, &flags);
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        assert_eq!(client.run(&format!("PACK bag-{n} things")), Reply::ok());
    }
    cluster.join(2);
    let mut events = cluster.node(1).events();
    cluster.commit();
    events.wait_for("the guest of traveller refuses: not packed yet");
    eventually("nothing to be left behind", || {
        cluster
            .nodes()
            .all(|node| transfers(node).is_empty())
            .then_some(())
    });
    let mut client = cluster.node(2).client();
    for n in 0..100 {
        let bag = insist(&mut client, &format!("UNPACK bag-{n}"));
        assert_eq!(bag, "things".into());
    }
    let ended = cluster.take(1).terminate();
    for line in [
        "starting handoff to node2@test",
        "handoff finished: node2@test has it",
        "terminate: another node serves the partition",
        "deleted",
    ] {
        assert!(ended.printed.contains(line), "{line}: {}", ended.printed);
    }
}

#[test]
fn guests_hear_that_their_partition_stays_after_all() {
    let guest = tests::guest("traveller").display().to_string();
    let slow = ["--transfers-bytes-per-second", "1KiB"];
    let flags = [MEMORY, &["--n", "1", "--vnode", &guest], &slow[..]].concat();
    let mut cluster = Cluster::apart(2, &flags);
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        let bag = "things ".repeat(100);
        assert_eq!(
            client.call(&["PACK", &format!("bag-{n}"), &bag]),
            Reply::ok()
        );
    }
    cluster.join(2);
    cluster.node(1).must(&["cluster", "plan"]);
    cluster.node(1).must(&["cluster", "commit"]);
    eventually("rows to flow", || {
        let mut all = transfers(cluster.node(1)).into_iter();
        all.find(|one| one["phase"] == "copying" && one["moved_bytes"] != 0)
    });
    // What it got already may go back at once.
    cluster
        .node(2)
        .must(&["transfers", "limit", "--rate", "0", "--here"]);
    cluster.node(1).must(&["cluster", "leave", "node2@test"]);
    cluster.commit_on(1);
    assert_eq!(cluster.take(2).ended().status.code(), Some(0));
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        let bag = insist(&mut client, &format!("UNPACK bag-{n}"));
        assert_eq!(bag, "things ".repeat(100).as_str().into());
    }
    let ended = cluster.take(1).terminate();
    let line = "handoff cancelled: not to node2@test";
    assert!(ended.printed.contains(line), "{}", ended.printed);
}

/// Ends the writers, also when the test fails meanwhile.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Twenty nodes come and go, one after the other, and no client of the two that stay sees an error or a wrong answer.
#[test]
fn twenty_nodes_come_and_go_and_no_client_notices() {
    let mut cluster = Cluster::of(2, &[MEMORY, &["--transfers-retention", "1s"]].concat());
    fill(&mut cluster.node(1).client(), 300);
    let clients = [1, 2].map(|number| cluster.node(number).client());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let stop = &stop;
        let clients = clients.into_iter().enumerate().map(|(writer, mut client)| {
            scope.spawn(move || {
                let mut counted = 0;
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.run(&format!("INCR visits-{writer}"));
                    counted += 1;
                    assert_eq!(reply, Reply::Int(counted), "of writer {writer}");
                    let n = counted % 300;
                    let value = format!("{n:08}").repeat(128);
                    assert_eq!(client.run(&format!("GET k{n}")), value.as_str().into());
                    if counted % 50 == 0 {
                        assert_eq!(client.run("DBSIZE"), Reply::Int(300));
                    }
                }
                counted
            })
        });
        let clients: Vec<_> = clients.collect();
        for _ in 0..20 {
            let number = cluster.add(&[]);
            cluster.join(number);
            cluster.commit_on(1);
            cluster.node(number).must(&["cluster", "leave"]);
            cluster.commit_on(1);
            let ended = cluster.take(number).ended();
            assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
        }
        stop.store(true, Ordering::Relaxed);
        let mut client = cluster.node(1).client();
        for (writer, counted) in clients.into_iter().enumerate() {
            let counted = counted.join().expect("a client");
            assert_eq!(
                client.run(&format!("COUNT visits-{writer}")),
                Reply::Int(counted)
            );
        }
    });
}
