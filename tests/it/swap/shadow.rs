//! A version that is tried on live commands: what differs is found, and nobody but the operator notices that it is there.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tests::resp::Reply;
use tests::{Node, eventually, text};

use super::{all_run, cluster, done, guest, rollout, settle, tellers};

const MEMORY: &[&str] = &["--storage", "memory"];

/// What was seen of the version that is tried.
fn report(node: &Node) -> Value {
    node.json("/v1/services/clerk/shadow")
}

/// What was seen of one command.
fn row<'a>(report: &'a Value, command: &str) -> &'a Value {
    let mut rows = report["commands"].as_array().expect("rows").iter();
    rows.find(|row| row["command"] == command)
        .unwrap_or_else(|| panic!("no {command}: {report}"))
}

fn count(row: &Value, of: &str) -> u64 {
    row[of].as_u64().unwrap_or_else(|| panic!("no {of}: {row}"))
}

/// Tries a make in all partitions of a node until enough was seen, and ends it then. Returns what the command line showed, and the
/// report.
fn tried(node: &Node, make: &str, enough: impl Fn(&Value) -> bool) -> (String, Value) {
    let file = guest(make);
    let words = ["guest", "shadow", &file, "--share", "100%", "--for", "1h"];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| {
            let output = node.cli(&words);
            over.store(true, Ordering::Relaxed);
            text(&output)
        });
        eventually("enough to be seen", || {
            let (status, body) = node.get("/v1/services/clerk/shadow");
            // One that was tried before is not meant.
            let report: Value = serde_json::from_str(&body).expect("JSON");
            assert!(!over.load(Ordering::Relaxed), "it ended early: {report}");
            (status == 200 && report["state"] == "running" && enough(&report)).then_some(())
        });
        node.cli(&["guest", "shadow", "--stop"]);
        let report = report(node);
        assert_eq!(report["state"], "ended");
        (shown.join().expect("the command line ends"), report)
    })
}

fn compared(report: &Value) -> u64 {
    count(&report["total"], "compared")
}

#[test]
fn one_that_is_equal_shows_no_difference() {
    let cluster = cluster(1, MEMORY);
    let tellers = tellers(&cluster, 4);
    let node = cluster.node(1);
    let (shown, report) = tried(node, "clerk-two", |report| compared(report) > 500);
    assert!(
        shown.contains(" 0 differ (0 replies, 0 effects)"),
        "{shown}"
    );
    assert!(shown.contains("left out   DOUBLE: only the new"), "{shown}");
    for command in ["ADD", "BALANCE"] {
        let row = row(&report, command);
        assert!(count(row, "compared") > 0, "{row}");
        assert!(row["microseconds"]["shadow"]["p99"].is_f64(), "{row}");
    }
    let series = "service=\"clerk\",command=\"ADD\",outcome=\"equal\"";
    let series = format!("vnode_shadow_commands_total{{{series}}}");
    assert!(node.metric(&series).is_some_and(|count| count > 0.0));
    settle(&cluster, tellers);
}

#[test]
fn values_are_compared_as_they_would_be_stored_whatever_schema_a_version_writes() {
    let cluster = cluster(1, MEMORY);
    let tellers = tellers(&cluster, 4);
    let node = cluster.node(1);
    let (shown, _) = tried(node, "clerk-migrates", |report| compared(report) > 500);
    assert!(
        shown.contains(" 0 differ (0 replies, 0 effects)"),
        "{shown}"
    );
    settle(&cluster, tellers);
}

#[test]
fn one_that_answers_wrong_is_found_out_by_command_and_key() {
    let cluster = cluster(1, MEMORY);
    let tellers = tellers(&cluster, 4);
    let wrong = |report: &Value| count(&report["total"], "differ") > 5;
    let (shown, report) = tried(cluster.node(1), "clerk-wrong", wrong);
    let balance = row(&report, "BALANCE");
    assert_eq!(balance["replies_differ"], balance["differ"]);
    assert_eq!(balance["effects_differ"], 0);
    assert_eq!(row(&report, "ADD")["differ"], 0, "{report}");
    let examples = report["examples"].as_array().expect("examples");
    assert!((1..=3).contains(&examples.len()), "{examples:?}");
    for example in examples {
        let key = example["key"].as_str().expect("a key");
        assert!(
            key.ends_with('7') && example["command"] == "BALANCE",
            "{example}"
        );
        let number = |side: &str| {
            example[side]
                .as_str()
                .and_then(|text| text.parse::<i64>().ok())
        };
        let right = number("running").expect("a balance");
        assert_eq!(number("shadow"), Some(right + 1), "{example}");
    }
    assert!(shown.contains("differs    BALANCE "), "{shown}");
    settle(&cluster, tellers);
}

#[test]
fn what_one_writes_is_compared_and_never_seen() {
    let cluster = cluster(3, MEMORY);
    let tellers = tellers(&cluster, 2);
    let (_, report) = tried(cluster.node(2), "clerk-stray", |report| {
        compared(report) > 300
    });
    let add = row(&report, "ADD");
    assert_eq!(add["effects_differ"], add["compared"]);
    assert_eq!(add["replies_differ"], 0);
    assert_eq!(row(&report, "BALANCE")["differ"], 0, "{report}");
    settle(&cluster, tellers);
}

#[test]
fn one_that_traps_is_given_up_and_nothing_fails() {
    let cluster = cluster(1, MEMORY);
    let tellers = tellers(&cluster, 4);
    let given_up = |report: &Value| {
        let vnodes = report["vnodes"].as_array().into_iter().flatten();
        vnodes.filter(|vnode| vnode["state"] == "given up").count() > 3
    };
    let (shown, report) = tried(cluster.node(1), "clerk-trap-all", given_up);
    assert!(shown.contains("this make fails"), "{shown}");
    assert!(count(&report["total"], "traps") >= 12, "{report}");
    assert_eq!(report["total"]["compared"], 0);
    let vnodes = cluster.node(1).json("/v1/vnodes");
    for vnode in vnodes["vnodes"].as_array().expect("vnodes") {
        assert_eq!(vnode["traps"], 0, "its own guest did not trap: {vnode}");
    }
    settle(&cluster, tellers);
}

#[test]
fn one_that_never_returns_is_given_up_and_nothing_fails() {
    let cluster = cluster(1, MEMORY);
    let tellers = tellers(&cluster, 2);
    let node = cluster.node(1);
    let over = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut client = node.client();
            while !over.load(Ordering::Relaxed) {
                for n in 0..50 {
                    assert_eq!(client.run(&format!("BALANCE bad{n}")), Reply::Int(0));
                }
            }
        });
        let (_, report) = tried(node, "clerk-loop", |report| {
            let vnodes = report["vnodes"].as_array().into_iter().flatten();
            vnodes.filter(|vnode| vnode["state"] == "given up").count() > 3
        });
        over.store(true, Ordering::Relaxed);
        asked.join().expect("every answer was right");
        report
    });
    assert!(count(&report["total"], "overruns") >= 12, "{report}");
    settle(&cluster, tellers);
}

#[test]
fn one_that_is_slower_is_compared_all_the_same() {
    let cluster = cluster(1, MEMORY);
    let tellers = tellers(&cluster, 4);
    let (_, report) = tried(cluster.node(1), "clerk-slower", |report| {
        compared(report) > 200
    });
    assert_eq!(report["total"]["differ"], 0, "{report}");
    settle(&cluster, tellers);
}

#[test]
fn causal_contexts_are_those_that_the_serving_version_gives() {
    let cluster = cluster(1, &[]);
    let node = cluster.node(1);
    let path = "/v1/services/kv/shadow";
    let file = guest("kv");
    std::thread::scope(|scope| {
        let words = [
            "guest",
            "shadow",
            &file,
            "--service",
            "kv",
            "--share",
            "100",
            "--for",
            "1h",
        ];
        let shown = scope.spawn(move || text(&node.cli(&words)));
        let mut client = node.client();
        let mut n = 0;
        eventually("each command to be compared", || {
            for _ in 0..20 {
                n += 1;
                let key = format!("k{}", n % 40);
                client.run(&format!("SET {key} a{n}"));
                client.run(&format!("VPUT {key} b{n} \"\""));
                client.run(&format!("VGET {key}"));
                client.run(&format!("DELETE {key}"));
                client.run(&format!("DELETE {key}"));
            }
            let (status, body) = node.get(path);
            let report: Value = serde_json::from_str(&body).expect("JSON");
            let rows = report["commands"].as_array().into_iter().flatten();
            let seen = rows.filter(|row| count(row, "compared") > 50).count();
            (status == 200 && seen >= 4).then_some(())
        });
        node.cli(&["guest", "shadow", "--stop", "--service", "kv"]);
        assert_eq!(node.json(path)["total"]["differ"], 0, "{}", node.json(path));
        shown.join().expect("the command line ends");
    });
}

#[test]
fn one_ends_by_itself_and_what_cannot_be_tried_is_refused() {
    let cluster = cluster(1, MEMORY);
    let node = cluster.node(1);
    let two = guest("clerk-two");
    node.refuses(
        &["guest", "shadow", "--service", "clerk"],
        &["no version of clerk was tried"],
    );
    let hostile = guest("hostile");
    let words = ["guest", "shadow", &hostile, "--service", "clerk"];
    node.refuses(&words, &["hostile"]);
    let words = ["guest", "shadow", &two, "--partitions", "64"];
    node.refuses(&words, &["there is no partition"]);
    // Nobody asks for anything meanwhile.
    let words = [
        "guest",
        "shadow",
        &two,
        "--partitions",
        "3,7",
        "--for",
        "100ms",
    ];
    node.refuses(&words, &["no command was compared"]);
    let ended = report(node);
    assert_eq!(ended["why"], "its time is over");
    assert_eq!(ended["partitions"], serde_json::json!([3, 7]));
    std::thread::scope(|scope| {
        let words = ["guest", "shadow", &two, "--for", "1h"];
        let first = scope.spawn(move || node.cli(&words));
        eventually("the first to run", || {
            (report(node)["state"] == "running").then_some(())
        });
        node.refuses(
            &["guest", "shadow", &two],
            &["version 2.0.0 is tried already"],
        );
        node.must(&["guest", "upgrade", &two, "--soak", "1h"]);
        first.join().expect("the command line ends");
    });
    assert_eq!(report(node)["why"], "a rollout has begun");
    node.refuses(
        &["guest", "shadow", &two],
        &["a rollout to version 2.0.0 is under way"],
    );
    node.must(&["guest", "rollback"]);
}

#[test]
fn the_old_version_beside_the_canaries_finds_nothing_wrong_with_an_equal_one() {
    let cluster = cluster(3, MEMORY);
    let tellers = tellers(&cluster, 4);
    let node = cluster.node(1);
    node.must(&["guest", "upgrade", &guest("clerk-two"), "--soak", "1h"]);
    eventually("the canaries to be compared", || {
        let rollout = rollout(node);
        assert_ne!(rollout["state"], "rolled-back", "{rollout}");
        // More than what three of them are given in a second.
        (rollout["gate"]["compared"]["compared"].as_u64()? > 200).then_some(())
    });
    assert_eq!(rollout(node)["gate"]["compared"]["differ"], 0);
    node.must(&["guest", "rollback"]);
    all_run(cluster.nodes(), "1.0.0");
    settle(&cluster, tellers);
}

#[test]
fn one_that_is_meant_to_answer_something_else_goes_through() {
    let cluster = cluster(3, MEMORY);
    let node = cluster.node(1);
    let wrong = guest("clerk-wrong");
    let expecting = |what: &str| {
        let option = format!("--expect-divergence={what}");
        node.cli(&["guest", "upgrade", &wrong, "--soak", "1h", &option])
    };
    let refused = text(&expecting("BALANCE,NONE"));
    assert!(refused.contains("no command \"NONE\""), "{refused}");
    let begun = expecting("balance");
    assert!(begun.status.success(), "{}", text(&begun));
    let expected = rollout(node)["expected_divergence"].clone();
    assert_eq!(expected, serde_json::json!(["BALANCE"]));
    let mut client = node.client();
    let mut n = 0;
    eventually("the canaries to differ", || {
        for _ in 0..50 {
            n += 1;
            client.run(&format!("BALANCE k{n}7"));
        }
        let rollout = rollout(node);
        assert_ne!(rollout["state"], "rolled-back", "{rollout}");
        (rollout["gate"]["compared"]["differ"].as_u64()? > 20).then_some(())
    });
    while rollout(node)["stage"] != "done" {
        eventually("the nodes to report", || {
            (rollout(node)["waits_for"] == serde_json::json!([])).then_some(())
        });
        node.must(&["guest", "advance"]);
    }
    done(node);
    all_run(cluster.nodes(), "2.0.0");
    assert_eq!(client.run("BALANCE k7"), Reply::Int(1));
}
