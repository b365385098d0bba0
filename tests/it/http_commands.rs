//! Commands of guests by HTTP: JSON in, JSON out, bytes either way.

use serde_json::{Value, json};
use tests::resp::Reply;
use tests::{Answer, Node};

fn post(node: &Node, target: &str, body: &str) -> Answer {
    let (service, command) = target.split_once('.').unwrap();
    let path = format!("/v1/services/{service}/commands/{command}");
    node.request("POST", &path, Some(body))
}

/// The value of a command that is answered.
fn value(node: &Node, target: &str, args: &Value) -> Value {
    let answer = post(node, target, &json!({ "args": args }).to_string());
    assert_eq!(answer.status, 200, "{target} {args}: {}", answer.body);
    assert_eq!(answer.kind, "application/json");
    let mut body: Value = serde_json::from_str(&answer.body).unwrap();
    body["value"].take()
}

/// The problem of one that is not.
fn problem(node: &Node, target: &str, body: &str) -> Value {
    let answer = post(node, target, body);
    assert_eq!(
        answer.kind, "application/problem+json",
        "{target} {body}: {}",
        answer.body
    );
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], answer.status);
    assert!(
        problem["detail"].is_string() && problem["title"].is_string(),
        "{problem}"
    );
    problem
}

#[test]
fn every_kind_of_reply_is_json() {
    let node = Node::in_memory();
    assert_eq!(value(&node, "kv.set", &json!(["k", "v"])), "OK");
    assert_eq!(value(&node, "kv.get", &json!(["k"])), "v");
    assert_eq!(value(&node, "KV.Get", &json!(["none"])), Value::Null);
    assert_eq!(
        value(&node, "kv.mget", &json!(["none", "k"])),
        json!([null, "v"])
    );
    assert_eq!(value(&node, "kv.keys", &json!([])), json!(["k"]));
    assert_eq!(value(&node, "kv.dbsize", &json!([])), 1);
    assert_eq!(
        value(&node, "kv.scan", &json!([0, "COUNT", 100])),
        json!(["0", ["k"]])
    );
    assert_eq!(value(&node, "counter.incrby", &json!(["n", 5])), 5);
    assert_eq!(value(&node, "counter.incrby", &json!(["n", "-7"])), -2);
    assert_eq!(value(&node, "kv.del", &json!(["k", "none"])), 1);
    let pong = value(&node, "ping.ping", &json!([41]));
    assert_eq!(
        (&pong[0], &pong[1], &pong[2]),
        (&json!("pong"), &json!(42), &json!("a@test"))
    );
}

#[test]
fn bytes_that_are_no_text_are_base64_both_ways() {
    let node = Node::in_memory();
    let bytes = json!({ "base64": "/wABAg==" });
    assert_eq!(value(&node, "kv.set", &json!([bytes, bytes])), "OK");
    assert_eq!(value(&node, "kv.get", &json!([bytes])), bytes);
    assert_eq!(value(&node, "kv.keys", &json!([])), json!([bytes]));
    let mut client = node.client();
    assert_eq!(
        client.call(&[&b"GET"[..], b"\xff\0\x01\x02"]),
        Reply::Bulk(b"\xff\0\x01\x02".into())
    );
    // Text may be sent as base64 too.
    assert_eq!(
        value(&node, "kv.set", &json!([{ "base64": "aw==" }, "ä€\u{0}"])),
        "OK"
    );
    assert_eq!(value(&node, "kv.get", &json!(["k"])), "ä€\u{0}");
}

#[test]
fn the_body_of_a_command_may_have_all_that_the_contract_lists() {
    let node = Node::in_memory();
    let body =
        json!({ "args": ["k", "v"], "n": 3, "r": 2, "w": 2, "timeout_ms": 1000, "trace": true });
    let answer = post(&node, "kv.set", &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["value"], "OK");
    assert!(body["replicas"].is_array(), "{body}");
}

#[test]
fn a_body_that_is_not_what_was_expected_is_refused_with_an_example() {
    let node = Node::in_memory();
    let bodies = [
        ("{bad", 400),
        ("", 400),
        (r#"{"args": "k"}"#, 422),
        (r#"{"args": [null]}"#, 422),
        (r#"{"args": [{"base64": 1}]}"#, 422),
        (r#"{"arg": ["k"]}"#, 422),
    ];
    for (body, status) in bodies {
        let problem = problem(&node, "kv.get", body);
        assert_eq!(problem["status"], status, "{body}: {problem}");
        assert!(
            problem["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains("args")),
            "{body}: {problem}"
        );
    }
    let not_base64 = problem(&node, "kv.get", r#"{"args": [{"base64": "!"}]}"#);
    assert_eq!(not_base64["status"], 400);
    assert!(
        not_base64["detail"].as_str().unwrap().contains("base64"),
        "{not_base64}"
    );
    let huge = json!({ "args": ["k", "v".repeat(4 << 20)] }).to_string();
    assert_eq!(problem(&node, "kv.set", &huge)["status"], 413);
    assert_eq!(value(&node, "kv.dbsize", &json!([])), 0);
}

#[test]
fn every_refusal_has_a_hint() {
    let node = Node::in_memory();
    let table = [
        ("kv.get", r#"{"args": []}"#),
        ("kv.get", r#"{"args": [{"base64": "!"}]}"#),
        ("counter.incrby", r#"{"args": ["k", "x"]}"#),
        ("nope.get", r#"{"args": ["k"]}"#),
        ("kv.nope", r#"{"args": ["k"]}"#),
    ];
    for (target, body) in table {
        let problem = problem(&node, target, body);
        assert!(problem["hint"].is_string(), "{target} {body}: {problem}");
    }
}

#[test]
fn what_a_redis_client_would_hear_is_in_the_problem() {
    let node = Node::in_memory();
    let long = json!({ "args": ["k".repeat(4097), "v"] }).to_string();
    let large = json!({ "args": ["k", "v".repeat((1 << 20) + 1)] }).to_string();
    let many = json!({ "args": vec!["k"; 1024] }).to_string();
    let table = [
        (
            "kv.get",
            r#"{"args": []}"#,
            400,
            "ERR",
            "wrong number of arguments for 'get' command",
        ),
        (
            "kv.get",
            r#"{"args": ["a", "b"]}"#,
            400,
            "ERR",
            "wrong number of arguments",
        ),
        (
            "kv.set",
            r#"{"args": ["a", "b", "NX"]}"#,
            400,
            "ERR",
            "syntax error",
        ),
        (
            "counter.incrby",
            r#"{"args": ["k", "x"]}"#,
            400,
            "ERR",
            "not an integer",
        ),
        ("kv.set", &long, 413, "TOOBIG", "4096"),
        ("kv.set", &large, 413, "TOOBIG", "1048576"),
        ("kv.del", &many, 413, "TOOBIG", "1024"),
    ];
    for (target, body, status, code, words) in table {
        let problem = problem(&node, target, body);
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{problem}"
        );
    }
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let node = Node::in_memory();
    let service = problem(&node, "nope.get", r#"{"args": ["k"]}"#);
    assert_eq!(service["status"], 404);
    let hint = service["hint"].as_str().unwrap();
    assert!(
        ["kv", "ping", "counter"]
            .iter()
            .all(|name| hint.contains(name)),
        "{hint}"
    );
    let command = problem(&node, "kv.nope", r#"{"args": ["k"]}"#);
    assert_eq!(command["status"], 404);
    assert!(
        command["detail"].as_str().unwrap().contains("nope"),
        "{command}"
    );
}

#[test]
fn a_coverage_command_streams_one_line_for_each_part() {
    let node = Node::in_memory();
    let mut client = node.client();
    for n in 0..500 {
        client.run(&format!("SET {{tag{}}}{n} v", n % 3));
    }
    let answer = post(&node, "kv.keys", r#"{"stream": true}"#);
    assert_eq!(answer.status, 200);
    let mut items = 0;
    let mut partitions = Vec::new();
    for line in answer.body.lines() {
        let part: Value = serde_json::from_str(line).unwrap();
        assert_eq!(part["node"], "a@test", "{part}");
        assert_eq!(part["version"], env!("CARGO_PKG_VERSION"), "{part}");
        partitions.push(part["partition"].as_u64().unwrap());
        items += part["items"].as_array().unwrap().len();
    }
    assert_eq!(items, 500);
    partitions.sort_unstable();
    partitions.dedup();
    assert_eq!(partitions, (0..64).collect::<Vec<_>>());
    let refused = problem(&node, "kv.get", r#"{"args": ["k"], "stream": true}"#);
    assert_eq!(refused["status"], 400);
    assert!(refused["hint"].is_string(), "{refused}");
}
