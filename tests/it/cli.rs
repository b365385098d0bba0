//! The command line: what people and scripts get for what they type.

use std::process::Output;

use serde_json::Value;
use tests::resp::Reply;
use tests::{Node, command, finish, run, text};

/// What it printed, once it succeeded.
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    assert!(output.stderr.is_empty(), "{}", text(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The error of one that did not, with its exit code: what, perhaps where, and what next.
fn bad(output: &Output, code: i32) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(
        output.stdout.is_empty(),
        "errors go to stderr: {}",
        text(output)
    );
    assert!(said.starts_with("error: "), "{said}");
    for line in said.lines().skip(1) {
        assert!(
            line.starts_with("  in: ") || line.starts_with("  next: "),
            "{said}"
        );
    }
    said
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&good(output)).unwrap()
}

#[test]
fn status_says_ok_and_exits_with_nothing_to_say() {
    let node = Node::in_memory();
    let said = good(&node.cli(&["status"]));
    assert!(said.starts_with("OK  serving, no problems"), "{said}");
    assert!(said.contains("as seen by a@test"), "{said}");
}

#[test]
fn json_output_is_the_body_of_the_api() {
    let node = Node::in_memory();
    let table: [(&[&str], &str); 6] = [
        (&["cluster", "status"], "/v1/cluster"),
        (&["ring"], "/v1/ring"),
        (&["ring", "show"], "/v1/ring"),
        (
            &["ring", "preflist", "user:42"],
            "/v1/ring/preflist?key=user:42",
        ),
        (&["vnode", "list"], "/v1/vnodes"),
        (&["guest", "show"], "/v1/services"),
    ];
    for (words, path) in table {
        let printed = json(&node.cli(&[words, &["--format", "json"]].concat()));
        assert_eq!(printed, node.json(path), "{words:?}");
    }
    let status = json(&node.cli(&["status", "--format", "json"]));
    assert_eq!(status["verdict"], "ok");
}

#[test]
fn call_prints_replies_as_they_are_in_a_pipe() {
    let node = Node::in_memory();
    let table: [(&[&str], &str); 10] = [
        (&["set", "k", "v"], "OK\n"),
        (&["get", "k"], "v\n"),
        (&["kv.get", "none"], "\n"),
        (&["KV.MGET", "k", "none", "k"], "v\n\nv\n"),
        (&["keys"], "k\n"),
        (&["incrby", "n", "-5"], "-5\n"),
        (&["dbsize"], "1\n"),
        (&["set", "--flag", "-x"], "OK\n"),
        (&["get", "--flag"], "-x\n"),
        (&["del", "k"], "1\n"),
    ];
    for (words, expected) in table {
        assert_eq!(
            good(&node.cli(&[&["call"], words].concat())),
            expected,
            "{words:?}"
        );
    }
    assert_eq!(node.client().run("GET --flag"), "-x".into());
    let whole = json(&node.cli(&["--format", "json", "call", "get", "--flag"]));
    assert_eq!(whole["value"], "-x");
}

#[test]
fn bytes_of_the_shell_arrive_as_they_are() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let node = Node::in_memory();
    let bytes = OsStr::from_bytes(b"\xff\xfe");
    let endpoint = format!("http://{}", node.http);
    let set = finish(
        command()
            .args(["-e", &endpoint, "call", "set", "k"])
            .arg(bytes),
    );
    assert_eq!(good(&set), "OK\n");
    assert_eq!(node.client().run("GET k"), Reply::Bulk(b"\xff\xfe".into()));
    let get = finish(
        command()
            .env("VNODE_ENDPOINT", &endpoint)
            .args(["call", "get", "k"]),
    );
    assert_eq!(get.stdout, b"\xff\xfe\n");
}

#[test]
fn a_command_that_fails_exits_with_one() {
    let node = Node::in_memory();
    let said = bad(&node.cli(&["call", "get"]), 1);
    assert!(
        said.contains("ERR wrong number of arguments for 'get' command"),
        "{said}"
    );
    let said = bad(&node.cli(&["call", "nope", "x"]), 1);
    assert!(
        said.contains("unknown command \"nope\"") && said.contains("\n  next: "),
        "{said}"
    );
    let said = bad(&node.cli(&["call", "incrby", "k", "x"]), 1);
    assert!(said.contains("not an integer"), "{said}");
    bad(&node.cli(&["vnode", "show", "kv/64"]), 1);
    bad(
        &node.cli(&["ring", "preflist", "k", "--service", "nope"]),
        1,
    );
}

#[test]
fn a_question_that_makes_no_sense_exits_with_two() {
    let node = Node::in_memory();
    for args in [
        &["vnode", "show", "x"][..],
        &["--endpoint", "ftp://x", "status"],
    ] {
        let mut all = vec!["--endpoint", "http://127.0.0.1:1"];
        if args.contains(&"--endpoint") {
            all.clear();
        }
        all.extend(args);
        bad(&run(&all), 2);
    }
    for args in [
        &["ring", "partition", "x"][..],
        &["bogus"],
        &["call"],
        &["status", "extra"],
    ] {
        assert_eq!(node.cli(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_node_that_is_not_there_is_said_so_with_its_address() {
    // Bound and never listened to by a node: whoever connects is refused once it is closed.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{closed}");
    for words in [
        &["status"][..],
        &["call", "get", "k"],
        &["ring"],
        &["vnode", "list"],
        &["node", "drain"],
    ] {
        let said = bad(&run(&[&["-e", &endpoint], words].concat()), 1);
        assert!(
            said.contains(&endpoint) && said.contains("\n  next: "),
            "{said}"
        );
    }
}

#[test]
fn what_answers_and_is_no_node_is_said_so() {
    let node = Node::in_memory();
    let endpoint = format!("http://{}", node.resp);
    let said = bad(&run(&["-e", &endpoint, "--timeout", "2s", "status"]), 1);
    assert!(said.contains(&node.resp.to_string()), "{said}");
}

#[test]
fn the_ring_is_shown_in_letters_with_a_legend() {
    let node = Node::in_memory();
    let said = good(&node.cli(&["ring"]));
    assert!(said.contains("Node a: 64 (100.0%) a@test"), "{said}");
    assert!(said.contains(&"aaaa|".repeat(16)), "{said}");
    assert_eq!(good(&node.cli(&["ring", "show"])), said);
    let said = good(&node.cli(&["ring", "preflist", "user:42", "--n", "2"]));
    let partition = node.json("/v1/ring/preflist?key=user:42")["partition"]
        .as_u64()
        .unwrap();
    assert!(said.contains(&format!("partition {partition}\n")), "{said}");
    assert_eq!(said.lines().count(), 3, "{said}");
    let said = good(&node.cli(&["ring", "partition", "7"]));
    assert!(said.contains("a@test") && said.contains("kv"), "{said}");
}

#[test]
fn members_vnodes_and_guests_are_tables_for_awk() {
    let node = Node::in_memory();
    let said = good(&node.cli(&["cluster", "status"]));
    for word in [
        "Status", "Ring", "Pending", "Node", "valid", "100.0%", "a@test",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let said = good(&node.cli(&["vnode", "list"]));
    assert_eq!(said.lines().count(), 193, "{said}");
    let columns = said.lines().next().unwrap().split_whitespace().count();
    for line in said.lines() {
        assert_eq!(
            line.split_whitespace().count(),
            columns + usize::from(line.contains(" B ")),
            "{line}"
        );
    }
    let said = good(&node.cli(&["vnode", "show", "counter/14"]));
    assert!(said.contains("counter") && said.contains("14"), "{said}");
    let said = good(&node.cli(&["guest", "show"]));
    let digest = node.json("/v1/services")["services"][2]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    for word in ["kv 0.", "COMMAND", "INCRBY", "n=3 r=2 w=2", &digest] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn inspect_shows_a_guest_from_the_binary_and_the_same_from_a_file() {
    let built_in = good(&run(&["inspect", "kv"]));
    for word in [
        "kv 0.",
        "vnode:host@0.1.0",
        "sha256",
        "imports",
        "exports",
        "COMMAND",
        "SCAN",
    ] {
        assert!(built_in.contains(word), "{word}: {built_in}");
    }
    let component = tests::guest("ping");
    let file = json(&run(&[
        "--format",
        "json",
        "inspect",
        component.to_str().unwrap(),
    ]));
    assert_eq!(file["name"], "ping");
    assert_eq!(file["digest"].as_str().unwrap().len(), 64);
    assert_eq!(file["bytes"], std::fs::metadata(&component).unwrap().len());
    let commands = file["descriptor"]["commands"].as_array().unwrap();
    assert_eq!(commands[0]["name"], "PING");
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.wasm");
    std::fs::write(&garbage, "garbage").unwrap();
    for path in [garbage.to_str().unwrap(), "missing.wasm", "nobody"] {
        let said = bad(&run(&["inspect", path]), 1);
        assert!(said.contains(path) && said.contains("\n  next: "), "{said}");
    }
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = good(&run(&["completions", shell]));
        assert!(
            script.contains("preflist") && script.contains("ring-size"),
            "{shell}"
        );
    }
    assert_eq!(run(&["completions", "nosh"]).status.code(), Some(2));
}

#[test]
fn every_template_makes_a_project() {
    let folder = tempfile::tempdir().unwrap();
    let new = |args: &[&str]| finish(command().current_dir(folder.path()).arg("new").args(args));
    for template in ["kv", "counter", "ping", "empty"] {
        let name = format!("my-{template}");
        let said = good(&new(&[&name, "--template", template]));
        assert!(
            said.contains("cargo test") && said.contains("host build"),
            "{said}"
        );
        for file in [
            "Cargo.toml",
            "src/lib.rs",
            "tests/vnode.rs",
            "README.md",
            ".gitignore",
        ] {
            let path = folder.path().join(&name).join(file);
            let contents = std::fs::read_to_string(&path).unwrap();
            assert!(!contents.contains("{{"), "{}", path.display());
        }
        let said = bad(&new(&[&name]), 1);
        assert!(said.contains("nothing was written"), "{said}");
    }
    for name in ["1a", "A", "fn", "a b", "../up"] {
        bad(&new(&[name]), 2);
    }
    let made = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(made, 4);
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["run", "--help"],
        &["call", "--help"],
        &["help", "ring"],
    ] {
        let said = good(&run(args));
        assert!(said.contains("Usage:"), "{args:?}: {said}");
    }
    assert!(good(&run(&["--version"])).starts_with("host 0."));
    assert!(good(&run(&["--help"])).contains("Exit codes: 0 ok, 1 failed, 2 usage, 3 unhealthy"));
}

#[test]
fn commands_of_the_contract_stay_where_they_are() {
    let table: [&[&str]; 22] = [
        &["run"],
        &["new"],
        &["build"],
        &["dev"],
        &["inspect"],
        &["check"],
        &["call"],
        &["status"],
        &["cluster", "status"],
        &["ring"],
        &["ring", "show"],
        &["ring", "preflist"],
        &["ring", "partition"],
        &["guest", "show"],
        &["vnode", "list"],
        &["vnode", "show"],
        &["node", "drain"],
        &["bench"],
        &["bench", "run"],
        &["bench", "compare"],
        &["bench", "plot"],
        &["completions"],
    ];
    for words in table {
        good(&run(&[words, &["--help"][..]].concat()));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let node = Node::in_memory();
    let mut child = command()
        .args(["-e", &format!("http://{}", node.http), "vnode", "list"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        text(&output)
    );
}
