//! What a plan says of the data that would move, and what a commit is waited for.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::resp::Reply;
use tests::{Cluster, Node, eventually, up};

use super::MEMORY;

/// Objects and bytes of each partition that a node holds, all services together.
fn held(node: &Node) -> BTreeMap<u64, (u64, u64)> {
    let view = node.json("/v1/vnodes");
    let mut held: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for vnode in view["vnodes"].as_array().expect("vnodes") {
        let number = |what: &str| vnode[what].as_u64().expect("a number");
        let all = held.entry(number("partition")).or_default();
        *all = (all.0 + number("objects"), all.1 + number("bytes"));
    }
    held
}

fn moves(plan: &Value) -> &[Value] {
    plan["moves"].as_array().expect("moves")
}

#[test]
fn a_plan_says_how_much_moves_and_how_long_that_takes() {
    let cluster = Cluster::apart(2, MEMORY);
    let first = cluster.node(1);
    let mut client = first.client();
    for n in 0..200 {
        assert_eq!(client.run(&format!("SET k{n} v{n}")), Reply::ok());
    }
    cluster.join(2);
    let held = held(first);
    // The other node asks the owner.
    for node in cluster.nodes() {
        let plan = eventually("the joiner to know the plan", || {
            let (status, body) = node.get("/v1/plan");
            (status == 200).then(|| serde_json::from_str::<Value>(&body).expect("JSON"))
        });
        let (mut objects, mut bytes) = (0, 0);
        for step in moves(&plan) {
            let (count, size) = held[&step["partition"].as_u64().expect("a partition")];
            assert_eq!(
                (&step["objects"], &step["bytes"]),
                (&count.into(), &size.into())
            );
            (objects, bytes) = (objects + count, bytes + size);
        }
        let total = &plan["total"];
        assert_eq!(total["partitions"], moves(&plan).len());
        assert_eq!(total["unknown_partitions"], 0);
        assert_eq!(
            (&total["objects"], &total["bytes"]),
            (&objects.into(), &bytes.into())
        );
        let pair = &plan["transfers"][0];
        assert_eq!(
            (&pair["objects"], &pair["bytes"]),
            (&objects.into(), &bytes.into())
        );
        let rate = total["rate_bytes_per_second"].as_f64().expect("a rate");
        let seconds = total["estimated_seconds"].as_f64().expect("a time");
        #[allow(clippy::cast_precision_loss, reason = "few bytes")]
        let expected = bytes as f64 / rate;
        assert!((seconds - expected).abs() < 0.002, "{seconds} {expected}");
        let text = node.must(&["cluster", "plan"]);
        let words = format!(" in {objects} objects, about 1s\n");
        assert!(text.contains(&words), "{words:?} is not in {text}");
    }
}

#[test]
fn a_plan_says_of_what_it_does_not_know_how_much_it_is() {
    let mut cluster = Cluster::of(3, MEMORY);
    cluster.add(&[]);
    cluster.join(4);
    cluster.kill(3);
    let first = cluster.node(1);
    eventually("the third to be missed", || {
        let view = first.json("/v1/cluster");
        (!up(&view).contains(&"node3@test")).then_some(())
    });
    let plan = first.json("/v1/plan");
    let from_third = |step: &&Value| step["from"] == "node3@test";
    let unknown = moves(&plan).iter().filter(from_third).count();
    assert!(unknown > 0, "{plan}");
    assert_eq!(plan["total"]["unknown_partitions"], unknown);
    for step in moves(&plan) {
        assert_eq!(step["bytes"].is_null(), from_third(&step), "{step}");
    }
    let text = first.must(&["cluster", "plan"]);
    let words = format!("what {unknown} of them hold, as their owners do not answer\n");
    assert!(text.contains(&words), "{words:?} is not in {text}");
}

#[test]
fn a_node_may_be_killed_as_soon_as_a_commit_was_waited_for() {
    let mut cluster = Cluster::apart(3, MEMORY);
    cluster.join(2);
    cluster.join(3);
    cluster.commit_on(1);
    cluster.kill(1);
    // The two that are left are a majority.
    let change = ["cluster", "location", "node2@test", "here"];
    eventually("a change to be agreed on", || {
        let output = cluster.node(2).cli(&change);
        output.status.success().then_some(())
    });
}
