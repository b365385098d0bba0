//! Whoever asks about a command hears which version ran it, while some vnodes run one version and some another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tests::resp::{Client, Reply};
use tests::{Cluster, Node, eventually};

use super::{all_run, cluster, guest, rollout};

const MEMORY: &[&str] = &["--storage", "memory"];
const KEYS: usize = 60;

/// The version that each vnode runs, by its node and its partition.
type Running = BTreeMap<(String, i64), String>;

/// Three nodes of which some vnodes run the second version, and stay so.
fn at_the_canaries() -> (Cluster, Running) {
    let cluster = cluster(3, MEMORY);
    let node = cluster.node(1);
    node.must(&[
        "guest",
        "upgrade",
        &guest("clerk-two"),
        "--soak",
        "1h",
        "--expect-divergence=WHO",
    ]);
    eventually("the canaries", || {
        let rollout = rollout(node);
        let reached = rollout["stage"] == "canary" && rollout["waits_for"] == json!([]);
        reached.then_some(())
    });
    let running = cluster.nodes().flat_map(vnodes).collect();
    (cluster, running)
}

fn vnodes(node: &Node) -> Vec<((String, i64), String)> {
    let view = node.json("/v1/vnodes");
    let vnodes = view["vnodes"].as_array().expect("vnodes").iter();
    let vnodes = vnodes.filter(|vnode| vnode["service"] == "clerk");
    let of = |vnode: &Value| {
        let partition = vnode["partition"].as_i64().expect("a partition");
        let version = vnode["version"].as_str().expect("a version");
        ((node.name.clone(), partition), version.to_owned())
    };
    vnodes.map(of).collect()
}

/// Where the items of a trace are from, and the version that stands last in each.
fn told(items: Vec<Reply>) -> Running {
    let of = |item: Reply| {
        let parts = item.items();
        let version = parts.last().expect("a version").text();
        ((parts[0].text(), parts[1].int()), version)
    };
    items.into_iter().map(of).collect()
}

/// Runs a command with a trace, of which each step has to name the version that its vnode runs: the reply, and the versions.
fn traced(client: &mut Client, words: &str, running: &Running) -> (Reply, BTreeSet<String>) {
    let mut parts = client.run(&format!("VNODE.TRACE {words}")).items();
    let told = told(parts.pop().expect("steps").items());
    check(&told, running, words);
    (parts.remove(0), told.into_values().collect())
}

fn check(told: &Running, running: &Running, words: &str) {
    assert!(!told.is_empty(), "{words}");
    for (vnode, version) in told {
        assert_eq!(running.get(vnode), Some(version), "{words} at {vnode:?}");
    }
}

#[test]
fn a_trace_names_the_version_of_each_vnode_at_every_node() {
    let (cluster, running) = at_the_canaries();
    let both = BTreeSet::from(["1.0.0".to_owned(), "2.0.0".to_owned()]);
    let mut seen = BTreeSet::new();
    for (nth, node) in (1..).zip(cluster.nodes()) {
        let mut client = node.client();
        for n in 0..KEYS {
            let (reply, versions) = traced(&mut client, &format!("ADD k{n} 1"), &running);
            assert_eq!(reply, Reply::Int(nth));
            seen.insert(versions);
            traced(&mut client, &format!("BALANCE k{n}"), &running);
            traced(&mut client, &format!("EACH k{n}"), &running);
            // Without others there is the one step, of whoever ran it.
            let (who, versions) = traced(
                &mut client,
                &format!("VNODE.WITH R 1 -- WHO k{n}"),
                &running,
            );
            assert_eq!(versions, BTreeSet::from([who.text()]));
            let refused = format!("VNODE.WITH R 1 -- ADD k{n} much");
            let (refused, _) = traced(&mut client, &refused, &running);
            assert!(refused.is_error("ERR"), "{refused:?}");
            let replicas = client.run(&format!("VNODE.REPLICAS k{n} SERVICE clerk"));
            let replicas = told(replicas.items());
            assert_eq!(replicas.len(), 3);
            check(&replicas, &running, "VNODE.REPLICAS");
        }
        let (total, versions) = traced(&mut client, "TOTAL", &running);
        assert_eq!((total, &versions), (Reply::Int(nth * KEYS as i64), &both));
    }
    assert!(
        seen.contains(&both),
        "a write went to replicas of both versions: {seen:?}"
    );
}

#[test]
fn http_and_the_command_line_name_the_version_too() {
    let (cluster, running) = at_the_canaries();
    let node = cluster.node(3);
    for n in 0..KEYS {
        let body = json!({"args": [format!("k{n}"), "1"], "trace": true});
        let path = "/v1/services/clerk/commands/add";
        let (status, body) = node.post(path, &body.to_string());
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(status, 200, "{body}");
        let steps = body["replicas"].as_array().expect("replicas").iter();
        let told = steps.map(|step| {
            let partition = step["partition"].as_i64().expect("a partition");
            let text = |name: &str| step[name].as_str().expect("text").to_owned();
            ((text("node"), partition), text("version"))
        });
        check(&told.collect(), &running, "by HTTP");
    }
    let shown = node.must(&["call", "--trace", "total"]);
    for words in ["VERSION", "1.0.0", "2.0.0"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

/// What a family says of a command at all nodes, by version.
fn counted(cluster: &Cluster, command: &str) -> BTreeMap<String, f64> {
    let mut counted = BTreeMap::new();
    for node in cluster.nodes() {
        let (_, text) = node.get("/metrics");
        for line in text.lines().filter(|line| {
            line.starts_with("vnode_version_commands_total{service=\"clerk\"")
                && line.contains(&format!("command=\"{command}\",outcome=\"ok\""))
        }) {
            let (_, rest) = line.split_once("version=\"").expect("a version");
            let (version, _) = rest.split_once('"').expect("a version");
            let (_, count) = line.rsplit_once(' ').expect("a number");
            *counted.entry(version.to_owned()).or_default() +=
                count.parse::<f64>().expect("a number");
        }
    }
    counted
}

#[test]
fn metrics_count_by_version_and_forget_none_that_may_come_back() {
    let cluster = cluster(3, MEMORY);
    let mut client = cluster.node(2).client();
    let add = |client: &mut Client, count: usize| {
        (0..count)
            .for_each(|n| assert!(matches!(client.run(&format!("ADD k{n} 1")), Reply::Int(_))));
    };
    add(&mut client, 10);
    let one = BTreeMap::from([("1.0.0".to_owned(), 10.0)]);
    assert_eq!(counted(&cluster, "ADD"), one);
    let words = [
        "guest",
        "upgrade",
        &guest("clerk-two"),
        "--soak",
        "0s",
        "--wait",
    ];
    cluster.node(1).must(&words);
    all_run(cluster.nodes(), "2.0.0");
    add(&mut client, 7);
    let both = [("1.0.0".to_owned(), 10.0), ("2.0.0".to_owned(), 7.0)];
    assert_eq!(counted(&cluster, "ADD"), BTreeMap::from(both));
    // A command that only one of them has.
    assert_eq!(client.run("DOUBLE k1"), Reply::Int(4));
    let two = BTreeMap::from([("2.0.0".to_owned(), 1.0)]);
    assert_eq!(counted(&cluster, "DOUBLE"), two);
}
