//! Redis' own programs against a node.

use std::process::Command;

use tests::{Node, finish, text, tool};

/// `redis-cli` or the like, pointed at the node.
fn at(node: &Node, name: &str) -> Option<Command> {
    let mut command = tool(name)?;
    command.args(["-h", "127.0.0.1", "-p", &node.resp.port().to_string()]);
    Some(command)
}

#[test]
fn redis_cli_sets_gets_and_deletes() {
    let node = Node::in_memory();
    let table: [(&[&str], &str); 10] = [
        (&["set", "hello", "world"], "OK\n"),
        (&["get", "hello"], "world\n"),
        (&["keys", "*"], "hello\n"),
        (&["incr", "n"], "1\n"),
        (&["incr", "n"], "2\n"),
        (&["del", "hello"], "1\n"),
        (&["get", "hello"], "\n"),
        (&["ping"], "PONG\n"),
        (&["-3", "get", "hello"], "\n"),
        (&["--no-raw", "dbsize"], "(integer) 0\n"),
    ];
    for (words, expected) in table {
        let Some(mut cli) = at(&node, "redis-cli") else {
            return;
        };
        let output = finish(cli.args(words));
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{words:?}"
        );
    }
}

#[test]
fn redis_cli_reads_the_documentation_and_scans() {
    let node = Node::in_memory();
    for n in 0..300 {
        node.client().run(&format!("SET key:{n} v"));
    }
    let Some(mut cli) = at(&node, "redis-cli") else {
        return;
    };
    let docs = text(&finish(cli.args([
        "command",
        "docs",
        "get",
        "counter.incr",
    ])));
    assert!(
        docs.contains("Get a value") && docs.contains("Add one"),
        "{docs}"
    );
    let Some(mut cli) = at(&node, "redis-cli") else {
        return;
    };
    let scanned = text(&finish(cli.args(["--scan", "--pattern", "key:*"])));
    assert_eq!(scanned.lines().count(), 300);
}

#[test]
fn redis_benchmark_runs_without_an_error() {
    let node = Node::in_memory();
    for pipeline in ["1", "32"] {
        let Some(mut bench) = at(&node, "redis-benchmark") else {
            return;
        };
        let flags = [
            "-n",
            "3000",
            "-c",
            "20",
            "-r",
            "1000",
            "-t",
            "ping,set,get,incr",
            "-q",
            "-P",
            pipeline,
        ];
        let output = finish(bench.args(flags));
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output).to_lowercase();
        for word in ["error", "warning", "could not", "err "] {
            assert!(!said.contains(word), "{said}");
        }
        for test in ["ping_inline", "ping_mbulk", "set", "get", "incr"] {
            assert!(said.contains(&format!("{test}: ")), "{said}");
        }
    }
    let Some(mut bench) = at(&node, "redis-benchmark") else {
        return;
    };
    let output = finish(bench.args(["-n", "2000", "-q", "kv.get", "key:__rand_int__"]));
    assert!(
        output.status.success() && !text(&output).contains("rror"),
        "{}",
        text(&output)
    );
}
