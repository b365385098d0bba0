//! Whole command lines: what parses, what is refused, and what is printed for the answers of a node.

use std::io::{Read, Write};
use std::net::TcpListener;

use clap::CommandFactory;
use serde_json::{Value, json};

use super::testing::{FakeNode, execute, parse_line};
use super::*;
use crate::config::{GuestSource, Origin, SETTINGS};

fn node_of(line: &str) -> Config {
    *parse_line(line).unwrap().node().unwrap().unwrap()
}

#[test]
fn the_tree_of_commands_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_node_starts_with_or_without_its_command() {
    for line in [
        "host --vnode kv --port 7389",
        "host run --vnode kv --port 7389",
    ] {
        let config = node_of(line);
        assert_eq!(config.vnodes, [GuestSource::BuiltIn("kv".into())]);
        assert_eq!(config.resp.to_string(), "127.0.0.1:7389");
        assert_eq!(config.origin("port"), Origin::Flag("port"));
    }
    assert_eq!(
        node_of("host --format json --vnode a.wasm --vnode b.wasm")
            .vnodes
            .len(),
        2
    );
}

#[test]
fn every_documented_flag_parses() {
    let line = "host --vnode kv --name node1@127.0.0.1 --port 0 --resp 127.0.0.1:1 --http 127.0.0.1:2 --peer 127.0.0.1:3 \
        --advertise h:9 --data /d --tls-dir /t --ring-size 16 --n 4 --r 3 --w 4 --storage memory --sync always --sync-interval 5ms \
        --memory-per-vnode 8MiB --command-budget 1s --location rack1 --log debug --log-format json";
    let config = node_of(line);
    for setting in SETTINGS
        .iter()
        .filter(|setting| line.contains(&format!("--{} ", setting.flag)))
    {
        assert_eq!(config.origin(setting.key), Origin::Flag(setting.flag));
    }
    for setting in SETTINGS {
        let value = (setting.show)(&config);
        let line = format!(
            "host run --vnode kv --{}={}",
            setting.flag,
            value.replace(' ', "")
        );
        assert!(parse_line(&line).is_ok(), "{line}");
    }
}

#[test]
fn a_node_needs_a_guest() {
    let error = parse_line("host run --port 1").unwrap().node().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Usage);
    assert!(
        render(&error).starts_with("error: no guest to run\n  next: name one: `host --vnode kv`")
    );
}

#[test]
fn wrong_settings_are_three_lines() {
    for (line, key) in [
        ("host --vnode kv --port 70000", "port"),
        ("host --vnode kv --port -1", "port"),
        ("host --vnode kv --ring-size 100", "ring_size"),
        ("host --vnode kv --command-budget soon", "command_budget"),
    ] {
        let error = parse_line(line).unwrap().node().unwrap_err();
        let text = render(&error);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with(&format!("error: {key}: ")), "{text}");
        assert_eq!(lines[1], format!("  in: --{}", key.replace('_', "-")));
        assert_eq!(lines[2], "  next: `host run --help` explains every setting");
        assert_eq!(exit_of(&error), Exit::Usage);
    }
}

#[test]
fn wrong_command_lines_are_refused() {
    for line in [
        "host --vnode",
        "host nonsense",
        "host --vnod kv",
        "host ring partition x",
        "host ring preflist k --n 0",
        "host new",
        "host call",
        "host status --format yaml",
        "host status --timeout soon",
        "host --port 1 status",
        "host --port 1 run --vnode kv",
        "host --config host.toml config show",
        "host cluster",
        "host cluster join",
        "host cluster replace a",
        "host cluster force-replace a",
        "host cluster force-remove",
        "host cluster down",
        "host cluster location a",
        "host cluster weight a",
        "host cluster weight a heavy",
        "host cluster weight a 70000",
        "host cluster commit ../stats",
        "host cluster commit --wait soon",
        "host cluster commit --wait",
        "host cluster wait --for ever",
        "host bench",
        "host bench run --workers 0",
        "host bench run --keys 0",
        "host bench run --rate 0",
        "host bench run --value 65MiB",
        "host bench run --duration 10ms",
        "host bench run --during 10s",
        "host bench run --workload read --command GET",
        "host bench compare a",
        "host bench plot",
        "host --n 1 --n 2 --vnode kv",
        "host dev --nodes 0",
        "host tls dev",
        "host dev --port 70000",
    ] {
        let error = parse_line(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    let text = parse_line("host --port 1 status").unwrap_err().to_string();
    assert!(
        text.contains(
            "--port starts a node and does not go before `status`; write `host status …`"
        ),
        "{text}"
    );
}

#[test]
fn every_documented_command_parses() {
    for line in [
        "host call set k v",
        "host call get -x --y",
        "host inspect kv.wasm",
        "host check kv.wasm",
        "host new x --template counter --sdk 0.1",
        "host build",
        "host build dir",
        "host dev",
        "host dev kv.wasm --nodes 3 --port 0",
        "host status -e http://a:1 --format json --color never --timeout 1s",
        "host --format json --endpoint http://a:1 status",
        "host vnode list",
        "host vnode show 3",
        "host guest show",
        "host ring",
        "host ring show",
        "host ring preflist k --service kv --n 3",
        "host ring partition 3",
        "host tls dev certs",
        "host tls dev certs --node a --node b",
        "host config default",
        "host config check f",
        "host config show --n 1",
        "host completions zsh",
        "host cluster status",
        "host cluster join 127.0.0.1:7381",
        "host cluster leave",
        "host cluster leave b",
        "host cluster replace a d",
        "host cluster force-replace a d",
        "host cluster force-remove a",
        "host cluster down a",
        "host cluster location a rack1",
        "host cluster location a none",
        "host cluster weight a 200",
        "host cluster plan",
        "host cluster commit",
        "host cluster commit 1a2b3c4d --wait 10m",
        "host cluster clear",
        "host cluster wait",
        "host cluster wait --for ready --timeout 5s",
        "host transfers --watch",
        "host node drain",
        "host bench run",
        "host bench run --workload mixed --mix 1:1 --workers 50 --pipeline 16 --threads 2 --keys 9 --value 1KiB --rate 5 --seed 7",
        "host bench run --duration 10s --out d --node a:1 --node b:1 --command GET",
        "host bench compare a b",
        "host bench plot f --out d",
    ] {
        let invocation = parse_line(line).unwrap();
        assert!(invocation.node().unwrap().is_none(), "{line}");
    }
}

#[test]
fn help_says_what_there_is() {
    let help = |line: &str| parse_line(line).unwrap_err().to_string();
    let short = help("host -h");
    for word in [
        "Examples:",
        "Exit codes: 0 ok",
        "--vnode <GUEST>",
        "--ring-size <N>",
        "status",
        "[default: 7379]",
    ] {
        assert!(short.contains(word), "{word}: {short}");
    }
    assert!(!short.contains("--stack-bytes-max"), "{short}");
    let long = help("host run --help");
    for setting in SETTINGS {
        // A switch may stand without its value.
        let flag = |end: &str| long.contains(&format!("--{}{end}", setting.flag));
        assert!(flag(" ") || flag("[=<"), "{}", setting.flag);
    }
    assert!(
        long.contains("Limits of a node:") && long.contains("[default: 64MiB]"),
        "{long}"
    );
    // Commands that there are not yet are not promised.
    for word in ["resize", "upgrade"] {
        assert!(!short.contains(word), "{word}");
    }
}

#[test]
fn completions_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        let (exit, output) = execute(&format!("host completions {shell}"));
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert!(
            output.contains("preflist") && output.contains("ring-size"),
            "{shell}"
        );
    }
}

#[test]
fn status_decides_the_exit_code() {
    let ok = json!({"verdict": "ok", "problems": [], "as_seen_by": "a", "epoch": 9});
    let (exit, output, asked) = FakeNode::with(&[ok]).run("host status");
    assert_eq!(exit.unwrap(), Exit::Ok);
    assert_eq!(output, "OK  serving, no problems   as seen by a, ring v9\n");
    assert_eq!(asked, [("GET /v1/status".into(), String::new())]);

    let problem =
        json!({"code": "x", "text": "c is away", "since": "2026-01-01T00:00:00Z", "hint": "wait"});
    let bad = json!({"verdict": "degraded", "problems": [problem], "as_seen_by": "a", "epoch": 9, "more": 1});
    let (exit, output, _) = FakeNode::with(std::slice::from_ref(&bad)).run("host status");
    assert_eq!(exit.unwrap(), Exit::Unhealthy);
    assert_eq!(
        output,
        "DEGRADED  serving, 1 problem   as seen by a, ring v9\n ! c is away (since 2026-01-01T00:00:00Z)\n   wait\n"
    );
    let (exit, output, _) =
        FakeNode::with(std::slice::from_ref(&bad)).run("host status --format json");
    assert_eq!(exit.unwrap(), Exit::Unhealthy);
    assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), bad);
    let (_, output, _) = FakeNode::with(&[bad]).run("host status --color always");
    assert!(
        output.starts_with("\u{1b}[31mDEGRADED\u{1b}[0m"),
        "{output:?}"
    );
}

#[test]
fn a_call_goes_to_its_service() {
    let services = json!({"services": [{"name": "kv", "commands": [{"name": "SET"}]}]});
    let node = FakeNode::with(&[services.clone(), json!({"value": "OK"})]);
    let (exit, output, asked) = node.run("host --format json call kv.set k -v");
    assert_eq!(exit.unwrap(), Exit::Ok);
    assert_eq!(
        serde_json::from_str::<Value>(&output).unwrap(),
        json!({"value": "OK"})
    );
    let sent: Value = serde_json::from_str(&asked[1].1).unwrap();
    assert_eq!(asked[1].0, "POST /v1/services/kv/commands/SET");
    assert_eq!(sent, json!({"args": ["k", "-v"]}));

    let node = FakeNode::with(&[
        services.clone(),
        json!({"value": {"error": {"code": "ERR", "message": "no"}}}),
    ]);
    assert_eq!(node.run("host call set k v").0.unwrap(), Exit::Failed);

    let error = FakeNode::with(&[services])
        .run("host call flush")
        .0
        .unwrap_err();
    let text = render(&error);
    assert!(
        text.starts_with("error: unknown command \"flush\"\n  next: this node has SET;"),
        "{text}"
    );
}

#[test]
fn preference_lists_and_partitions_are_tables() {
    let body = json!({"key": "user:42", "service": "kv", "hash": "3b9f00112233445566778899aabbccddeeff0011", "partition": 14,
        "replicas": [{"partition": 14, "node": "b", "kind": "primary", "up": true},
                     {"partition": 15, "node": "c", "kind": "primary", "up": false}]});
    let (_, output, asked) = FakeNode::with(&[body]).run("host ring preflist user:42 --n 2");
    assert_eq!(
        output,
        "key \"user:42\" of kv -> hash 3b9f00112233…, partition 14\n  1  14  b  primary  up\n  2  15  c  primary  DOWN\n"
    );
    assert!(
        asked[0].0.starts_with("GET /v1/ring/preflist?key=user") && asked[0].0.ends_with("42&n=2"),
        "{asked:?}"
    );

    let ring = json!({"size": 8, "epoch": 2, "owners": vec!["a"; 8], "pending": [], "letters": {"a": "a"}});
    let vnodes =
        json!({"vnodes": [{"service": "kv", "partition": 3, "state": "ready", "bytes": 2048}]});
    let (_, output, _) =
        FakeNode::with(&[ring.clone(), vnodes.clone()]).run("host ring partition 3");
    let zeros = "0".repeat(38);
    assert!(
        output.starts_with(&format!(
            "partition 3 of 8, ring v2\nowner    a\nhashes   from 40{zeros}\n"
        )),
        "{output}"
    );
    assert!(
        output.contains("\nkv               3  -     ready        -        -  2.0 KiB  -"),
        "{output}"
    );
    let (exit, _, _) = FakeNode::with(&[ring]).run("host ring partition 9");
    let error = exit.unwrap_err();
    assert_eq!(exit_of(&error), Exit::Usage);
    assert_eq!(
        render(&error),
        "error: there is no partition 9; the ring has 0 to 7"
    );
    let (exit, output, _) =
        FakeNode::with(std::slice::from_ref(&vnodes)).run("host vnode show KV/3");
    assert_eq!(exit.unwrap(), Exit::Ok);
    assert!(
        output.contains("partition  3\n") && output.contains("bytes      2048\n"),
        "{output}"
    );
    let (exit, _, _) = FakeNode::with(&[vnodes]).run("host vnode show kv/4");
    assert!(render(&exit.unwrap_err()).starts_with("error: this node has no vnode kv/4\n  next: "));
}

#[test]
fn a_refusal_is_the_nodes_own_words() {
    let problem = json!({"title": "Conflict", "status": 409, "detail": "the plan is stale", "hint": "plan again"});
    let (exit, _, asked) =
        FakeNode::answering(vec![(409, problem.to_string())]).run("host node drain");
    let error = exit.unwrap_err();
    assert_eq!(
        render(&error),
        "error: the plan is stale\n  next: plan again"
    );
    assert_eq!(exit_of(&error), Exit::Refused);
    assert_eq!(asked, [("POST /v1/node/drain".into(), "{}".into())]);
    let busy = json!({"detail": "vnode 3 has 10000 commands queued", "code": "BUSY", "hint": null});
    let (exit, _, _) = FakeNode::answering(vec![(503, busy.to_string())]).run("host status");
    let text = render(&exit.unwrap_err());
    assert_eq!(text, "error: BUSY vnode 3 has 10000 commands queued");
    let (exit, _, _) = FakeNode::answering(vec![(500, "oops".into())]).run("host status");
    let error = exit.unwrap_err();
    assert!(
        render(&error).starts_with("error: the node answers 500 Internal Server Error to http://"),
        "{error:#}"
    );
    assert_eq!(exit_of(&error), Exit::Failed);
}

#[test]
fn nobody_there_says_how_to_start_a_node() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (exit, _) = execute(&format!("host status -e {free}"));
    let text = render(&exit.unwrap_err());
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("error: no node answers: ") && lines[0].contains("refused"),
        "{text}"
    );
    assert_eq!(lines[1], format!("  in: http://{free}/v1/status"));
    assert!(
        lines[2].starts_with("  next: is a node running? start one with `host --vnode kv`"),
        "{text}"
    );
}

#[test]
fn a_silent_or_foreign_server_is_told_apart() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (exit, _) = execute(&format!("host status -e {address} --timeout 50ms"));
    assert!(render(&exit.unwrap_err()).starts_with("error: no answer within 50ms\n  in: http://"));

    let (exit, _, _) = FakeNode::answering(vec![(200, "<html>".into())]).run("host status");
    let text = render(&exit.unwrap_err());
    assert!(
        text.starts_with("error: the answer is not that of a node: "),
        "{text}"
    );

    let resp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = resp.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = resp.accept().unwrap();
        stream
            .write_all(b"-ERR Protocol error: unknown\r\n")
            .unwrap();
        let _ = stream.read(&mut [0; 1024]);
    });
    let (exit, _) = execute(&format!("host status -e {address}"));
    let text = render(&exit.unwrap_err());
    assert!(text.contains("the RESP port plus one"), "{text}");
    thread.join().unwrap();

    for endpoint in ["ftp://a", "https://a:1", "http://", "http://a/b"] {
        let error = execute(&format!("host status -e {endpoint}"))
            .0
            .unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage, "{endpoint}");
        assert!(render(&error).contains("next: write it like http://127.0.0.1:7380"));
    }
}

#[test]
fn errors_gather_where_and_next_behind_all_causes() {
    let inner = anyhow::anyhow!("inner\n  in: file.wasm\n  next: rebuild it");
    let error = inner
        .context("middle")
        .context("outer\n  in: somewhere\n  next: look there");
    assert_eq!(
        render(&error),
        "error: outer: middle: inner\n  in: file.wasm\n  next: look there"
    );
    let repeated = anyhow::anyhow!("cause").context("outer: cause");
    assert_eq!(render(&repeated), "error: outer: cause");
}

#[test]
fn settings_in_force_show_their_origin() {
    let (exit, output) = execute("host config show --port 7389 --n 5");
    assert_eq!(exit.unwrap(), Exit::Ok);
    let words = |key: &str| {
        let line = output
            .lines()
            .find(|line| line.starts_with(&format!("{key} ")))
            .unwrap();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(words("n"), ["n", "5", "--n"]);
    assert_eq!(words("peer"), ["peer", "127.0.0.1:7391", "--port"]);
    assert_eq!(words("name"), ["name", "node@127.0.0.1:7391", "default"]);
    assert_eq!(
        words("data"),
        ["data", "./data/node@127.0.0.1:7391", "default"]
    );
    assert_eq!(
        words("limits.drain_timeout"),
        ["limits.drain_timeout", "10s", "default"]
    );
}

#[test]
fn a_file_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "n = 1\n[service.kv]\nn = 2\n").unwrap();
    let (exit, output) = execute(&format!("host config check {}", file.display()));
    assert_eq!(exit.unwrap(), Exit::Ok);
    assert_eq!(
        output,
        format!("ok  {}: 1 settings, 1 services\n", file.display())
    );
    std::fs::write(&file, "n = 1\nm = 1\n").unwrap();
    let error = execute(&format!("host config check {}", file.display()))
        .0
        .unwrap_err();
    let expected = format!(
        "error: m: there is no such setting\n  in: {}:2\n  next: ",
        file.display()
    );
    assert!(render(&error).starts_with(&expected), "{}", render(&error));
}
