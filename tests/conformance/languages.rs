//! One guest in three languages: in Python and in JavaScript, made from the same contract without the SDK, and in Rust with it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::guests::{foreign, rust};
use tests::resp::{Client, Reply};
use tests::{Node, Starter, arg};

/// Keys of the scan test: several pages on every partition.
const KEYS: usize = 500;

/// What all of them say they are.
const SERVICE: &str = "polyglot";

struct Guest {
    file: PathBuf,
    data: tempfile::TempDir,
}

impl Guest {
    fn start(&self) -> Node {
        let flags = [
            "--vnode",
            arg(&self.file),
            "--vnode",
            "kv",
            "--ring-size",
            "8",
        ];
        // The second start finds the compiled guest in the data directory.
        Starter::new(&flags)
            .data(&self.data.path().join("data"))
            .start()
    }

    fn run(&self, client: &mut Client, words: &str) -> Reply {
        client.run(&format!("{SERVICE}.{words}"))
    }
}

/// The guest in that language, unless its compiler cannot be installed.
fn written_in(language: &str) -> Option<PathBuf> {
    match language {
        "rust" => Some(rust("polyglot-rust")),
        "python" => foreign(language, "polyglot-python"),
        _ => foreign(language, "polyglot-js"),
    }
}

fn lives(language: &str) {
    let Some(file) = written_in(language) else {
        return;
    };
    let data = tempfile::tempdir().expect("a folder");
    let guest = Guest { file, data };
    let node = guest.start();
    assert_eq!(described(&node), described(&twin().start()), "{language}");
    values_are_kept(&guest, &mut node.client());
    numbers_are_counted(&guest, &mut node.client());
    rows_are_listed(&guest, &mut node.client());
    failures_stay_alone(&guest, &mut node.client());
    assert_eq!(node.terminate().status.code(), Some(0));
    let node = guest.start();
    let mut client = node.client();
    assert_eq!(guest.run(&mut client, "GET key:7"), "7".into());
    assert_eq!(
        guest.run(&mut client, "DBSIZE").int(),
        i64::try_from(KEYS).unwrap()
    );
}

/// The one that all of them have to be like, and that takes no time to compile.
fn twin() -> Guest {
    let data = tempfile::tempdir().expect("a folder");
    let file = rust("polyglot-rust");
    Guest { file, data }
}

/// What a node says of the guest's commands and of what it stores.
fn described(node: &Node) -> Value {
    let mut view = node.json("/v1/services");
    let mut service = view["services"][0].take();
    assert_eq!(service["name"], SERVICE);
    for own in ["version", "digest"] {
        assert!(!service[own].take().is_null(), "{own}");
    }
    service
}

/// They have to do the same to the last word: each reads what the others have stored.
fn numbers_are_counted(guest: &Guest, client: &mut Client) {
    for (stored, answer) in [
        ("-2", Reply::Int(-1)),
        ("-1", Reply::Int(0)),
        ("41", Reply::Int(42)),
        ("9223372036854775806", Reply::Int(i64::MAX)),
        ("-9223372036854775808", Reply::Int(i64::MIN + 1)),
    ] {
        assert_eq!(guest.run(client, &format!("SET n {stored}")), Reply::ok());
        assert_eq!(guest.run(client, "INCR n"), answer, "{stored}");
        let after = answer.int().to_string();
        assert_eq!(guest.run(client, "GET n"), after.as_str().into());
    }
    assert_eq!(guest.run(client, "INCR fresh"), Reply::Int(1));
    let overflow = "ERR increment or decrement would overflow";
    let invalid = "ERR value is not an integer or out of range";
    for (stored, error) in [
        ("9223372036854775807", overflow),
        ("9223372036854775808", invalid),
        ("-9223372036854775809", invalid),
        ("+1", invalid),
        ("01", invalid),
        ("-0", invalid),
        ("1_0", invalid),
        ("1.0", invalid),
        ("one", invalid),
    ] {
        assert_eq!(guest.run(client, &format!("SET n {stored}")), Reply::ok());
        assert_eq!(
            guest.run(client, "INCR n"),
            Reply::Error(error.into()),
            "{stored}"
        );
        assert_eq!(guest.run(client, "GET n"), stored.into());
    }
    assert_eq!(guest.run(client, "DEL n fresh"), Reply::Int(2));
}

fn values_are_kept(guest: &Guest, client: &mut Client) {
    assert_eq!(guest.run(client, "GET key"), Reply::Nil);
    assert_eq!(guest.run(client, "SET key value"), Reply::ok());
    assert_eq!(guest.run(client, "GET key"), "value".into());
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let name = |command: &str| format!("{SERVICE}.{command}").into_bytes();
    for (key, value) in [
        (&b"\0\r\n\xff"[..], &bytes[..]),
        (b"", b""),
        (b"empty", b""),
    ] {
        assert_eq!(client.call(&[&name("SET"), key, value]), Reply::ok());
        assert_eq!(
            client.call(&[&name("GET"), key]),
            Reply::Bulk(value.to_vec())
        );
    }
    assert_eq!(
        client.call(&[
            &name("DEL"),
            &b"key"[..],
            b"",
            b"\0\r\n\xff",
            b"empty",
            b"none"
        ]),
        Reply::Int(4)
    );
    assert_eq!(guest.run(client, "KEYS"), Reply::Array(vec![]));
}

fn rows_are_listed(guest: &Guest, client: &mut Client) {
    for n in 0..KEYS {
        assert_eq!(guest.run(client, &format!("SET key:{n} {n}")), Reply::ok());
    }
    let wanted: BTreeSet<String> = (0..KEYS).map(|n| format!("key:{n}")).collect();
    let keys = guest.run(client, "KEYS").items();
    assert_eq!(keys.len(), KEYS);
    assert_eq!(
        keys.iter().map(Reply::text).collect::<BTreeSet<_>>(),
        wanted
    );
    assert_eq!(
        guest.run(client, "DBSIZE").int(),
        i64::try_from(KEYS).unwrap()
    );
    for count in ["", " COUNT 7", " COUNT 1000"] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), "0".to_owned(), 0);
        loop {
            let page = guest.run(client, &format!("SCAN {cursor}{count}")).items();
            cursor = page[0].text();
            found.extend(page[1].clone().items().iter().map(Reply::text));
            pages += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found.len(), KEYS, "COUNT{count}: each key once");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
        assert!(pages > 1, "COUNT{count}: {pages} pages");
    }
}

fn failures_stay_alone(guest: &Guest, client: &mut Client) {
    let syntax = Reply::Error("ERR syntax error".into());
    assert_eq!(guest.run(client, "SET key:7 8 NX"), syntax);
    assert_eq!(guest.run(client, "SCAN 0 COUNT"), syntax);
    assert!(guest.run(client, "SCAN 0 COUNT 0").is_error("ERR"));
    assert!(
        guest
            .run(client, "GET")
            .text()
            .contains("wrong number of arguments")
    );
    assert!(client.run("KV.SET key neighbour") == Reply::ok());
    for _ in 0..3 {
        let reply = guest.run(client, "BOOM key:7");
        assert!(reply.is_error("GUESTTRAP"), "{reply:?}");
        assert_eq!(guest.run(client, "GET key:7"), "7".into());
        assert_eq!(client.run("KV.GET key"), "neighbour".into());
    }
}

fn keeps_the_contract(language: &str) {
    let Some(file) = written_in(language) else {
        return;
    };
    let output = tests::run(&["check", arg(&file)]);
    let text = tests::text(&output);
    // BOOM fails on purpose; nothing else may.
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(" FAIL"))
        .collect();
    assert_eq!(failed.len(), 1, "{text}");
    assert!(
        failed[0].contains("arguments") && failed[0].matches("GUESTTRAP").count() == 1,
        "{text}"
    );
    assert!(failed[0].contains("BOOM"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}

#[test]
fn a_guest_in_rust_serves_fails_and_comes_back() {
    lives("rust");
}

#[test]
fn a_guest_in_python_serves_fails_and_comes_back() {
    lives("python");
}

#[test]
fn a_guest_in_javascript_serves_fails_and_comes_back() {
    lives("javascript");
}

#[test]
fn a_guest_in_rust_keeps_the_contract() {
    keeps_the_contract("rust");
}

#[test]
fn a_guest_in_python_keeps_the_contract() {
    keeps_the_contract("python");
}

#[test]
fn a_guest_in_javascript_keeps_the_contract() {
    keeps_the_contract("javascript");
}
