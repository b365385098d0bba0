//! `host bench` against real nodes: what it counts is what happened, and what is not true is found.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tests::resp::Reply;
use tests::{Cluster, Node, Starter, arg, command, finish, run, signal, text};

/// A folder for reports that goes away with the test.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    (folder, out)
}

/// Runs `host bench run` to its end.
fn bench(node: &Node, out: &Path, args: &[&str]) -> Output {
    let endpoint = format!("http://{}", node.http);
    let head = ["-e", &endpoint, "bench", "run", "--out", arg(&out)];
    finish(command().args(head).args(args))
}

/// The same with the report, which has to be without a failure.
fn clean(node: &Node, out: &Path, args: &[&str]) -> Value {
    let output = bench(node, out, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    let report = report(out);
    assert_eq!(report["failed"], 0, "{args:?}: {}", report["failures"]);
    report
}

fn report(out: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap()
}

fn operations(report: &Value) -> &Vec<Value> {
    report["operations"].as_array().unwrap()
}

/// Successful operations with this command's name.
fn successful(report: &Value, command: &str) -> u64 {
    let of = |operation: &&Value| {
        operation["command"].as_str().unwrap().split(' ').next() == Some(command)
    };
    operations(report)
        .iter()
        .filter(of)
        .map(|operation| operation["successful"].as_u64().unwrap())
        .sum()
}

/// How often the node has answered this command well.
fn answered(node: &Node, service: &str, command: &str) -> f64 {
    let labels =
        format!(r#"vnode_commands_total{{service="{service}",command="{command}",outcome="ok"}}"#);
    node.metric(&labels).unwrap_or(0.0)
}

/// The sums of the columns `successful` and `failed`.
fn sums(file: &Path, columns: [usize; 2]) -> [u64; 2] {
    let text = std::fs::read_to_string(file).unwrap();
    let rows = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>());
    rows.fold([0, 0], |[good, bad], row| {
        let [a, b] = columns.map(|column| row[column].parse::<u64>().unwrap());
        [good + a, bad + b]
    })
}

fn kinds(report: &Value) -> Vec<&str> {
    let failures = report["failures"].as_array().unwrap();
    failures
        .iter()
        .map(|failure| failure["kind"].as_str().unwrap())
        .collect()
}

#[test]
fn every_workload_runs_without_a_failure_and_all_counts_agree() {
    let node = Node::in_memory();
    let table: [(&str, &[(&str, &str)]); 6] = [
        ("rkv", &[("kv", "PUT"), ("kv", "GET")]),
        ("read", &[("kv", "GET")]),
        ("write", &[("kv", "SET")]),
        ("mixed", &[("kv", "GET"), ("kv", "SET")]),
        ("counter", &[("counter", "INCR"), ("counter", "COUNT")]),
        ("scan", &[("kv", "SCAN")]),
    ];
    for (workload, commands) in table {
        let (_folder, out) = folder();
        let before: Vec<f64> = commands
            .iter()
            .map(|(service, command)| answered(&node, service, command))
            .collect();
        let args = [
            "--workload",
            workload,
            "--duration",
            "500ms",
            "--keys",
            "2000",
            "--workers",
            "5",
            "--pipeline",
            "4",
        ];
        let report = clean(&node, &out, &args);
        for ((service, command), before) in commands.iter().zip(before) {
            let filled = report["filled"]["keys"]
                .as_u64()
                .filter(|_| *command == "SET")
                .unwrap_or(0);
            let expected = before + (successful(&report, command) + filled) as f64;
            assert_eq!(
                answered(&node, service, command),
                expected,
                "{workload} {command}"
            );
        }
        let mut all = 0;
        for operation in operations(&report) {
            let (name, count) = (
                operation["name"].as_str().unwrap(),
                operation["successful"].as_u64().unwrap(),
            );
            assert!(count > 0, "{workload} {name}");
            assert_eq!(
                sums(&out.join(format!("{name}_latencies.csv")), [2, 3]),
                [count, 0],
                "{workload} {name}"
            );
            let windows = operation["windows"].as_array().unwrap();
            let in_windows: u64 = windows
                .iter()
                .map(|window| window["successful"].as_u64().unwrap())
                .sum();
            assert_eq!(in_windows, count, "{workload} {name}");
            let times = &operation["latency_microseconds"];
            let order = ["min", "median", "p95", "p99", "p99_9", "max"]
                .map(|name| times[name].as_u64().unwrap());
            assert!(order.is_sorted() && order[0] > 0, "{times}");
            all += count;
        }
        assert_eq!(report["successful"], all);
        assert_eq!(sums(&out.join("summary.csv"), [3, 4]), [all, 0]);
        assert_eq!(report["nodes"][0]["name"], "a@test");
    }
}

#[test]
fn the_tutorials_driver_is_what_runs_when_nobody_says() {
    let node = Node::in_memory();
    let (_folder, out) = folder();
    let report = clean(&node, &out, &["--duration", "300ms"]);
    let mix: Vec<(&str, u64)> = operations(&report)
        .iter()
        .map(|operation| {
            (
                operation["name"].as_str().unwrap(),
                operation["weight"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(mix, [("put", 10), ("get-own-puts", 3), ("get", 2)]);
    let settings = &report["settings"];
    for (name, expected) in [
        ("workers", 2),
        ("keys", 100_000),
        ("value_bytes", 100),
        ("pipeline", 1),
    ] {
        assert_eq!(settings[name], expected, "{name}");
    }
    assert_eq!(
        (&settings["workload"], &settings["loop"]),
        (&"rkv".into(), &"closed".into())
    );
    let help = text(&run(&["bench", "run", "--help"]));
    assert!(help.contains("[default: 60s]"), "{help}");
    // Its keys are plain numbers, its values have their size.
    let keys = node.client().run("KEYS *").items();
    assert!(
        keys.iter()
            .all(|key| key.text().parse::<u64>().is_ok_and(|key| key < 100_000))
    );
    let Reply::Bulk(value) = node.client().run(&format!("GET {}", keys[0].text())) else {
        panic!("no value");
    };
    assert_eq!(value.len(), 100);
}

#[test]
fn commands_of_ones_own_are_sent_as_they_are_written() {
    let node = Node::in_memory();
    let (_folder, out) = folder();
    let args = [
        "--command",
        "SET mine:{key} 'a {value}'",
        "--command",
        "nonsense {key}",
        "--mix",
        "set=2,nonsense=1",
        "--keys",
        "10",
    ];
    let output = bench(
        &node,
        &out,
        &[&args[..], &["--duration", "300ms", "--value", "5B"]].concat(),
    );
    // Refused commands are in the report, and are no lies of the node.
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report = report(&out);
    assert_eq!(kinds(&report), ["ERR"]);
    assert_eq!(report["failures"][0]["operation"], "nonsense");
    assert_eq!(report["failures"][0]["count"], report["failed"]);
    assert!(
        report["failures"][0]["first"]
            .as_str()
            .unwrap()
            .starts_with("ERR unknown command 'nonsense'")
    );
    let Reply::Bulk(value) = node.client().run("GET mine:7") else {
        panic!("no value");
    };
    assert!(value.starts_with(b"a ") && value.len() == 7, "{value:?}");
}

#[test]
fn an_open_loop_sends_what_its_rate_says_and_nothing_else() {
    let node = Node::in_memory();
    for threads in ["1", "2"] {
        let (_folder, out) = folder();
        let args = [
            "--rate",
            "700",
            "--duration",
            "1s",
            "--workers",
            "8",
            "--threads",
            threads,
        ];
        let report = clean(&node, &out, &args);
        let sent = report["successful"].as_u64().unwrap() + report["not_sent"].as_u64().unwrap();
        assert_eq!(sent, 700, "{threads} threads");
        assert_eq!(report["settings"]["loop"], "open");
    }
}

#[test]
fn acknowledged_keys_that_are_gone_and_values_that_nobody_wrote_are_found() {
    let node = Node::in_memory();
    for (harm, kind) in [("CLEAR", "missing"), ("SET 1 something", "wrong")] {
        let (_folder, out) = folder();
        let done = std::sync::atomic::AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = node.client();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(client.run(harm), Reply::ok());
                }
            });
            let output = bench(&node, &out, &["--duration", "1s", "--keys", "3"]);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            output
        });
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let report = report(&out);
        assert!(
            kinds(&report).contains(&kind),
            "{harm}: {}",
            report["failures"]
        );
        let markdown = std::fs::read_to_string(out.join("report.md")).unwrap();
        assert!(markdown.contains(&format!("| {kind} |")), "{markdown}");
        assert!(text(&output).contains(kind), "{}", text(&output));
    }
}

#[test]
fn a_node_that_is_killed_meanwhile_costs_its_clients_little_and_nobody_an_acknowledged_write() {
    let mut cluster = Cluster::of(3, &["--storage", "memory"]);
    let (_folder, out) = folder();
    let fault = "500ms:kill node3";
    let args = [
        "--duration",
        "2s",
        "--workers",
        "6",
        "--keys",
        "500",
        "--during",
        fault,
        "--timeout",
        "5s",
    ];
    let output = bench(cluster.node(1), &out, &args);
    let report = report(&out);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{} {}",
        text(&output),
        report["failures"]
    );
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3);
    let mark = &report["marks"][0];
    assert_eq!(
        (&mark["label"], &mark["error"]),
        (&"kill node3".into(), &Value::Null)
    );
    assert!(cluster.node_mut(3).has_ended());
    // Its two clients lost their connections and went on elsewhere.
    assert!(
        report["connections_lost"].as_u64().unwrap() >= 2,
        "{report}"
    );
    for picture in ["throughput.svg", "latency.svg"] {
        let svg = std::fs::read_to_string(out.join(picture)).unwrap();
        assert!(svg.contains(">kill node3</text>"), "{picture}");
    }
}

#[test]
fn ctrl_c_ends_early_and_the_report_is_written() {
    let node = Node::in_memory();
    let (_folder, out) = folder();
    let endpoint = format!("http://{}", node.http);
    let mut child = command()
        .args([
            "-e",
            &endpoint,
            "bench",
            "run",
            "--duration",
            "1h",
            "--out",
            arg(&out),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(
        first.contains("of 3600s") && first.contains("0 failed"),
        "{first}"
    );
    signal("INT", &child.id().to_string());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    let report = report(&out);
    assert_eq!(
        (&report["interrupted"], &report["failed"]),
        (&true.into(), &0.into())
    );
    assert!(
        rest.iter().any(|line| line.starts_with("ended early")),
        "{rest:?}"
    );
    let counted = answered(&node, "kv", "PUT") + answered(&node, "kv", "GET");
    assert_eq!(report["successful"].as_f64(), Some(counted));
}

#[test]
fn reports_are_compared_and_drawn_again() {
    let node = Node::in_memory();
    let (_one, a) = folder();
    let (_two, b) = folder();
    clean(&node, &a, &["--duration", "300ms"]);
    clean(&node, &b, &["--duration", "300ms", "--workers", "4"]);
    let said = text(&run(&[
        "bench",
        "compare",
        arg(&a),
        arg(&b.join("report.json")),
    ]));
    let row = said
        .lines()
        .find(|line| line.starts_with("settings workers"))
        .unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["settings", "workers", "2", "4"]
    );
    assert!(
        said.contains("get-own-puts") && said.contains("p99.9"),
        "{said}"
    );
    let output = run(&["bench", "compare", arg(&a), arg(&b), "--format", "json"]);
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rate = &compared["operations"][0]["figures"][0];
    let (own, other) = (
        report(&a)["rate_per_second"].as_f64(),
        report(&b)["rate_per_second"].as_f64(),
    );
    assert_eq!((rate["a"].as_f64(), rate["b"].as_f64()), (own, other));
    let drawn = a.join("again");
    let output = run(&["bench", "plot", arg(&a), "--out", arg(&drawn)]);
    assert!(output.status.success(), "{}", text(&output));
    for picture in ["throughput.svg", "latency.svg", "percentiles.svg"] {
        assert_eq!(
            std::fs::read(drawn.join(picture)).unwrap(),
            std::fs::read(a.join(picture)).unwrap(),
            "{picture}"
        );
    }
    let output = run(&[
        "bench",
        "plot",
        arg(&a.join("put_latencies.csv")),
        "--out",
        arg(&drawn),
    ]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        std::fs::read_to_string(drawn.join("latency.svg"))
            .unwrap()
            .contains(">p99.9</text>")
    );
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_written() {
    let node = Starter::new(&["--vnode", "kv", "--storage", "memory"]).start();
    let http = node.http.to_string();
    let table: [(&[&str], i32, &str); 9] = [
        (
            &["--workload", "nonsense"],
            2,
            "rkv, read, write, mixed, counter, scan",
        ),
        (&["--mix", "1:2"], 2, "2 weights for 3 operations"),
        (&["--command", "GET '{key}"], 2, "is no command"),
        (&["--during", "1s:hug a"], 2, "10s:kill node2"),
        (
            &["--during", "1s:kill b"],
            1,
            "there is no node \"b\" among a@test",
        ),
        (&["--node", &http], 1, "next: "),
        (&["--node", "127.0.0.1"], 2, "is not the address of a node"),
        (&["--duration", "0s"], 2, "from 100ms"),
        (
            &["--command", "GET {key}", "--workload", "read"],
            2,
            "cannot be used with",
        ),
    ];
    for (args, code, words) in table {
        let (_folder, out) = folder();
        let output = bench(&node, &out, args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            text(&output)
        );
        assert!(text(&output).contains(words), "{args:?}: {}", text(&output));
        assert!(!out.exists(), "{args:?}");
    }
    let (_folder, out) = folder();
    clean(&node, &out, &["--duration", "200ms"]);
    let output = bench(&node, &out, &["--duration", "200ms"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    let (_folder, out) = folder();
    let output = finish(command().args([
        "-e",
        "http://127.0.0.1:1",
        "bench",
        "run",
        "--out",
        arg(&out),
    ]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("no node answers") && !out.exists(),
        "{}",
        text(&output)
    );
}
