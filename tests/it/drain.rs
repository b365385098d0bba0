//! A graceful end: no new work, what is under way is finished, then exit code 0.

use std::io::Write;

use tests::resp::{Client, Reply, line};
use tests::{Node, Starter, eventually, text};

/// A node that cannot end yet, because a client has still to take its replies.
fn busy() -> (Node, Client, String) {
    let node = Starter::three(&["--storage", "memory", "--drain-timeout", "10m"]).start();
    let value = "v".repeat(1 << 20);
    let mut client = node.client();
    assert_eq!(client.call(&["SET", "big", &value]), Reply::ok());
    client.send(&line("GET big").repeat(20));
    let counter = r#"vnode_commands_total{service="kv",command="GET",outcome="ok"}"#;
    eventually("all of it to be under way", || {
        (node.metric(counter)? == 20.0).then_some(())
    });
    (node, client, value)
}

fn is_draining(node: &Node) -> bool {
    node.get("/readyz").0 == 503
}

#[test]
fn an_idle_node_ends_at_once_with_exit_code_zero() {
    for _ in 0..3 {
        let node = Node::in_memory();
        let mut client = node.client();
        assert_eq!(client.run("SET k v"), Reply::ok());
        let ended = node.terminate();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
        assert_eq!(client.try_reply(), None);
    }
}

#[test]
fn while_it_drains_it_is_alive_and_not_ready_and_takes_no_commands() {
    let (mut node, mut client, value) = busy();
    let mut idle = node.client();
    assert_eq!(idle.run("PING"), Reply::Simple("PONG".into()));
    node.ask_to_end();
    eventually("the node to drain", || is_draining(&node).then_some(()));
    let (status, body) = node.get("/readyz");
    assert_eq!(status, 503);
    assert!(
        body.contains("[-]draining failed") && body.ends_with("not ready\n"),
        "{body}"
    );
    assert_eq!(node.get("/healthz").0, 200);
    assert_eq!(node.metric("vnode_ready"), Some(0.0));
    let status = node.json("/v1/status");
    assert_eq!(status["verdict"], "degraded");
    assert_eq!(status["problems"][0]["code"], "draining");
    for key in ["code", "text", "since", "hint"] {
        assert!(status["problems"][0][key].is_string(), "{key}: {status}");
    }
    let said = node.cli(&["status"]);
    assert_eq!(said.status.code(), Some(3), "{}", text(&said));
    assert!(text(&said).starts_with("DEGRADED"), "{}", text(&said));
    let (status, body) = node.post("/v1/services/kv/commands/set", r#"{"args": ["k", "v"]}"#);
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("TRYAGAIN"), "{body}");
    assert!(!node.has_ended());
    for turn in 0..20 {
        assert_eq!(client.reply(), value.as_str().into(), "{turn}");
    }
    assert_eq!(
        client.try_reply(),
        None,
        "after its last reply it is closed"
    );
    assert_eq!(node.ended().status.code(), Some(0));
}

#[test]
fn a_client_can_ask_for_the_drain_too() {
    let node = Node::in_memory();
    let said = node.cli(&["node", "drain"]);
    assert!(said.status.success(), "{}", text(&said));
    assert_eq!(node.ended().status.code(), Some(0));
}

#[test]
fn work_that_never_ends_does_not_hold_the_node_for_ever() {
    let node = Starter::three(&["--storage", "memory", "--drain-timeout", "200ms"]).start();
    let value = "v".repeat(1 << 20);
    let mut client = node.client();
    assert_eq!(client.call(&["SET", "big", &value]), Reply::ok());
    client.send(&line("GET big").repeat(20));
    assert_eq!(node.terminate().status.code(), Some(0));
}

#[test]
fn all_that_was_acknowledged_before_the_drain_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    tests::seed(&data);
    // Long enough that nothing is on disk by itself.
    let flags = ["--sync", "interval", "--sync-interval", "10m"];
    let node = Starter::three(&flags).data(&data).start();
    let mut client = node.client();
    let commands: Vec<_> = (0..500).map(|n| line(&format!("SET k{n} {n}"))).collect();
    assert_eq!(client.pipeline(&commands), vec![Reply::ok(); 500]);
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    let node = Starter::three(&[]).data(&data).start();
    let mut client = node.client();
    for n in 0..500 {
        assert_eq!(
            client.run(&format!("GET k{n}")),
            n.to_string().as_str().into()
        );
    }
}

#[test]
fn every_command_under_way_is_answered_or_the_connection_ends() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    tests::seed(&data);
    let node = Starter::three(&[]).data(&data).start();
    let mut client = node.client();
    let mut writer = client.stream().try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let commands: Vec<_> = (0..200_000)
            .map(|n| line(&format!("SET k{n} {n}")))
            .collect();
        // The node ends in the middle of it.
        drop(writer.write_all(&commands.concat()));
    });
    let mut acknowledged = 0;
    for _ in 0..1000 {
        assert_eq!(client.reply(), Reply::ok());
        acknowledged += 1;
    }
    node.ask_to_end();
    while let Some(reply) = client.try_reply() {
        if reply == Reply::ok() {
            acknowledged += 1;
        } else {
            assert!(reply.is_error("TRYAGAIN"), "{reply:?}");
        }
    }
    writing.join().unwrap();
    assert_eq!(node.ended().status.code(), Some(0));
    let node = Starter::three(&[]).data(&data).start();
    let mut client = node.client();
    assert!(
        client.run("DBSIZE").int() >= acknowledged,
        "{acknowledged} were acknowledged"
    );
    assert_eq!(
        client.run(&format!("EXISTS k{}", acknowledged - 1)),
        1.into()
    );
}
