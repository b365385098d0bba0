//! What HTTP shows of a node: health, metrics, and the JSON that dashboards and the command line read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tests::resp::Reply;
use tests::{Node, Starter, eventually};

/// Asserts that an object has these keys; more are allowed.
fn has(value: &Value, keys: &[&str]) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"));
    for key in keys {
        assert!(object.contains_key(*key), "{key} is missing: {value}");
    }
}

#[test]
fn a_ready_node_says_so() {
    let node = Node::in_memory();
    assert_eq!(node.get("/healthz").0, 200);
    let (status, body) = node.get("/readyz");
    assert_eq!((status, body.as_str()), (200, "ready\n"));
    let (status, body) = node.get("/readyz?verbose");
    assert_eq!(status, 200);
    assert!(
        body.contains("[+]draining ok") && body.contains("[+]storage ok"),
        "{body}"
    );
}

#[test]
fn status_has_a_verdict_and_no_problems() {
    let node = Node::in_memory();
    let status = node.json("/v1/status");
    assert_eq!(status["verdict"], "ok");
    assert_eq!(status["problems"], json!([]));
    assert_eq!(status["as_seen_by"], "a@test");
    assert!(status["epoch"].is_u64(), "{status}");
}

#[test]
fn the_cluster_is_its_one_member() {
    let node = Node::in_memory();
    let cluster = node.json("/v1/cluster");
    has(
        &cluster,
        &[
            "epoch",
            "claimant",
            "ring_size",
            "ready",
            "members",
            "staged",
        ],
    );
    assert_eq!(cluster["claimant"], "a@test");
    assert_eq!(cluster["ring_size"], 64);
    assert_eq!(cluster["ready"], true);
    assert_eq!(cluster["staged"], json!([]));
    assert_eq!(cluster["members"].as_array().unwrap().len(), 1);
    let member = &cluster["members"][0];
    let keys = [
        "name",
        "status",
        "up",
        "ring_share",
        "pending_share",
        "partitions",
        "next_partitions",
        "guests",
        "location",
        "addresses",
    ];
    has(member, &keys);
    assert_eq!(member["name"], "a@test");
    assert_eq!(
        (&member["status"], &member["up"]),
        (&json!("valid"), &json!(true))
    );
    assert_eq!(member["ring_share"], 1.0);
    assert_eq!(member["addresses"]["resp"], node.resp.to_string());
    assert_eq!(member["addresses"]["http"], node.http.to_string());
    assert_eq!(member["guests"].as_array().unwrap().len(), 3);
}

#[test]
fn the_ring_names_an_owner_for_every_partition() {
    let node = Node::in_memory();
    let ring = node.json("/v1/ring");
    has(&ring, &["size", "epoch", "owners", "pending", "letters"]);
    assert_eq!(ring["size"], 64);
    assert_eq!(ring["owners"], json!(vec!["a@test"; 64]));
    assert_eq!(ring["pending"], json!([]));
    assert_eq!(ring["letters"], json!({ "a@test": "a" }));
}

#[test]
fn a_preflist_is_consecutive_partitions_from_the_keys_own() {
    let node = Node::in_memory();
    for key in ["user:42", "", "a%20b", "%C3%A4"] {
        let found = node.json(&format!("/v1/ring/preflist?key={key}"));
        let first = found["partition"].as_u64().unwrap();
        let replicas = found["replicas"].as_array().unwrap();
        assert_eq!(replicas.len(), 3);
        for (at, replica) in (0..).zip(replicas) {
            assert_eq!(replica["partition"], (first + at) % 64);
            assert_eq!(replica["node"], "a@test");
            assert_eq!(replica["kind"], "primary");
        }
    }
    let of = |query: &str| node.json(&format!("/v1/ring/preflist?key=k&{query}"));
    assert_eq!(of("n=5")["replicas"].as_array().unwrap().len(), 5);
    assert_eq!(of("service=counter")["service"], "counter");
    assert_ne!(
        of("service=counter")["hash"],
        of("service=kv")["hash"],
        "services hash apart"
    );
}

#[test]
fn services_list_their_commands_and_count_their_calls() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.run("SET k v");
    client.run("SET k v EX 1");
    let services = node.json("/v1/services");
    let services = services["services"].as_array().unwrap();
    let names: Vec<_> = services
        .iter()
        .map(|service| service["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["kv", "ping", "counter"]);
    for service in services {
        has(
            service,
            &[
                "name",
                "version",
                "digest",
                "commands",
                "n",
                "r",
                "w",
                "schema_reads_from",
                "schema_writes",
            ],
        );
        assert_eq!(service["digest"].as_str().unwrap().len(), 64);
        assert_eq!(
            (&service["n"], &service["r"], &service["w"]),
            (&json!(3), &json!(2), &json!(2))
        );
    }
    let set = services[0]["commands"].as_array().unwrap();
    let set = set.iter().find(|command| command["name"] == "SET").unwrap();
    has(set, &["name", "arity", "kind", "keys", "summary", "syntax"]);
    assert_eq!((&set["arity"], &set["kind"]), (&json!(-3), &json!("write")));
    assert_eq!((&set["calls"], &set["errors"]), (&json!(2), &json!(1)));
}

#[test]
fn vnodes_are_listed_with_what_they_hold() {
    let node = Node::in_memory();
    let mut client = node.client();
    for n in 0..100 {
        client.run(&format!("SET key{n} value"));
    }
    let vnodes = node.json("/v1/vnodes");
    let vnodes = vnodes["vnodes"].as_array().unwrap();
    assert_eq!(vnodes.len(), 3 * 64);
    let mut objects = 0;
    for vnode in vnodes {
        has(
            vnode,
            &[
                "service",
                "partition",
                "node",
                "state",
                "mailbox",
                "objects",
                "bytes",
                "version",
                "traps",
                "restarts",
            ],
        );
        assert_eq!(vnode["state"], "running");
        objects += vnode["objects"].as_u64().unwrap();
    }
    assert_eq!(objects, 3 * 100, "each has three replicas");
    assert_eq!(
        node.json("/v1/vnodes?node=a@test")["vnodes"]
            .as_array()
            .unwrap()
            .len(),
        192
    );
}

#[test]
fn nothing_moves_on_a_single_node() {
    let node = Node::in_memory();
    let transfers = node.json("/v1/transfers");
    has(&transfers, &["running", "transfers", "limits"]);
    assert_eq!(
        (&transfers["running"], &transfers["transfers"]),
        (&json!(0), &json!([]))
    );
}

#[test]
fn the_dashboard_is_a_page() {
    let node = Node::in_memory();
    let page = node.request("GET", "/", None);
    assert_eq!(page.status, 200);
    assert!(page.kind.starts_with("text/html"), "{}", page.kind);
    assert!(
        page.body.contains("<html") || page.body.contains("<!doctype html"),
        "{}",
        page.body
    );
}

#[test]
fn the_api_describes_every_route_of_its_own() {
    let node = Node::in_memory();
    let api = node.json("/v1/openapi.json");
    assert!(
        api["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.")),
        "{api}"
    );
    for path in [
        "/v1/status",
        "/v1/cluster",
        "/v1/ring",
        "/v1/services",
        "/v1/vnodes",
        "/v1/transfers",
        "/v1/transfers/limit",
        "/v1/transfers/repair",
        "/v1/changes",
        "/v1/plan",
        "/v1/plan/{id}/commit",
        "/v1/events",
        "/v1/stats",
        "/metrics",
    ] {
        has(&api["paths"], &[path]);
    }
}

#[test]
fn each_second_is_kept_with_what_the_services_did() {
    let node = Node::in_memory();
    let mut client = node.client();
    for n in 0..10 {
        assert_eq!(client.run(&format!("SET k{n} v")), Reply::ok());
    }
    let (stats, last) = eventually("ten commands in the samples", || {
        let stats = node.json("/v1/stats");
        let samples = stats["samples"].as_array().into_iter().flatten();
        let done = samples.filter_map(|sample| sample["services"]["kv"]["commands"].as_u64());
        let last = stats["samples"].as_array()?.last()?["time"].clone();
        (done.sum::<u64>() == 10).then_some((stats, last))
    });
    has(&stats, &["node", "interval_seconds", "samples"]);
    let sample = &stats["samples"][0];
    has(sample, &["time", "clients", "services"]);
    let latency = ["failed", "latency_p50_us", "latency_p99_us"];
    has(&sample["services"]["kv"], &latency);
    // Those that were seen are left out when the time of the last one is named.
    let last = last.as_str().unwrap();
    let later = node.json(&format!("/v1/stats?since={last}"));
    let later = later["samples"].as_array().unwrap();
    assert!(
        later
            .iter()
            .all(|sample| sample["time"].as_str().unwrap() > last)
    );
    assert!(later.len() < stats["samples"].as_array().unwrap().len());
}

#[test]
fn whatever_is_refused_is_a_problem_with_a_hint() {
    let node = Node::in_memory();
    let table = [
        ("GET", "/v1/nope", 404),
        ("GET", "/nope", 404),
        ("GET", "/v1/ring/preflist", 400),
        ("GET", "/v1/ring/preflist?key=k&n=x", 400),
        ("GET", "/v1/ring/preflist?key=k&service=nope", 404),
        ("GET", "/v1/vnodes?node=b@test", 404),
        ("POST", "/v1/status", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/v1/services/kv/commands/get", 405),
    ];
    for (method, path, status) in table {
        let answer = node.request(method, path, None);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.kind, "application/problem+json", "{method} {path}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        has(&problem, &["type", "title", "status", "detail", "hint"]);
        assert_eq!(problem["status"], status);
        assert!(problem["hint"].is_string(), "{method} {path}: {problem}");
    }
}

/// The samples of a text in Prometheus' format, and the kind of each family. Fails on a line that does not fit.
fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut samples, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind)) => {
                    assert_eq!(
                        kinds.insert(name.to_owned(), kind.to_owned()),
                        None,
                        "{line}"
                    );
                }
                (Some("HELP" | "UNIT"), Some(_), Some(_)) | (Some("EOF"), None, None) => {}
                _ => panic!("{line:?}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let bare = name.split('{').next().unwrap();
        assert!(
            bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "{line:?}"
        );
        assert!(bare == name || name.ends_with('}'), "{line:?}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
        assert_eq!(
            samples.insert(name.to_owned(), value),
            None,
            "twice: {line:?}"
        );
    }
    (samples, kinds)
}

#[test]
fn metrics_are_prometheus_text_and_count_what_happened() {
    let node = Node::in_memory();
    let mut client = node.client();
    for _ in 0..7 {
        client.run("SET k v");
    }
    client.run("SET k v EX 1");
    let (samples, kinds) = parse(&node.get("/metrics").1);
    let expected = [
        ("vnode_commands", "counter"),
        ("vnode_command_duration_seconds", "histogram"),
        ("vnode_version_commands", "counter"),
        ("vnode_version_command_duration_seconds", "histogram"),
        ("vnode_resp_connections", "gauge"),
        ("vnode_partitions", "gauge"),
        ("vnode_ready", "gauge"),
        ("vnode_storage_writable", "gauge"),
        ("vnode_resident_memory_bytes", "gauge"),
    ];
    for (name, kind) in expected {
        assert_eq!(kinds.get(name).map(String::as_str), Some(kind), "{name}");
    }
    assert!(
        kinds.keys().all(|name| name.starts_with("vnode_")),
        "{kinds:?}"
    );
    let set = |outcome| {
        samples
            [&format!(r#"vnode_commands_total{{service="kv",command="SET",outcome="{outcome}"}}"#)]
    };
    assert_eq!((set("ok"), set("error"), set("trap")), (7.0, 1.0, 0.0));
    let services = node.json("/v1/services");
    let digest = &services["services"][0]["digest"].as_str().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let of = format!(r#"service="kv",version="{version}",digest="{digest}",command="SET""#);
    let set =
        |outcome| samples[&format!(r#"vnode_version_commands_total{{{of},outcome="{outcome}"}}"#)];
    assert_eq!((set("ok"), set("error"), set("trap")), (7.0, 1.0, 0.0));
    let count = format!("vnode_version_command_duration_seconds_count{{{of}}}");
    assert_eq!(samples[&count], 8.0);
    let labels = r#"{service="kv",command="SET"}"#;
    assert_eq!(
        samples[&format!("vnode_command_duration_seconds_count{labels}")],
        8.0
    );
    let all = r#"vnode_command_duration_seconds_bucket{le="+Inf",service="kv",command="SET"}"#;
    assert_eq!(samples[all], 8.0);
    assert_eq!(samples["vnode_ready"], 1.0);
    assert_eq!(samples["vnode_storage_writable"], 1.0);
    assert_eq!(samples["vnode_partitions"], 192.0);
    assert_eq!(samples["vnode_resp_connections"], 1.0);
    assert!(samples["vnode_resident_memory_bytes"] > 1e6);
    let buckets: Vec<_> = node
        .get("/metrics")
        .1
        .lines()
        .filter(|line| line.contains("_bucket{") && line.contains(r#"service="kv",command="SET""#))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .collect();
    assert!(
        buckets.len() > 5 && buckets.is_sorted(),
        "buckets only grow: {buckets:?}"
    );
    assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
}

/// What the node says to bytes on a connection of its HTTP door, until it closes it.
fn heard(node: &Node, bytes: &str) -> String {
    let mut socket = TcpStream::connect(node.http).expect("the door is open");
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout can be set");
    socket.write_all(bytes.as_bytes()).expect("bytes go out");
    let mut heard = String::new();
    socket
        .read_to_string(&mut heard)
        .expect("the node closes it");
    heard
}

#[test]
fn half_a_request_is_not_waited_for_without_end() {
    let flags = ["--storage", "memory", "--request-read-timeout", "300ms"];
    let node = Starter::three(&flags).start();
    let head = "POST /v1/services/kv/commands/set HTTP/1.1\r\nHost: localhost\r\n";
    assert_eq!(heard(&node, head), "", "nothing is said to half a head");
    let body = "content-type: application/json\r\ncontent-length: 30\r\n\r\n{\"args\": [";
    let answer = heard(&node, &format!("{head}{body}"));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request_read_timeout"), "{answer}");
}
