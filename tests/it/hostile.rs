//! Clients that take without giving: the node's memory stays bounded and everybody else is served.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use tests::resp::{Reply, encode, line};
use tests::{Node, Starter, eventually};

const MIB: f64 = 1024.0 * 1024.0;

fn resident(node: &Node) -> f64 {
    node.metric("vnode_resident_memory_bytes").expect("the metric")
}

/// Writes until the node takes no more, and returns how much it took.
fn stuff(mut stream: &TcpStream, bytes: &[u8], most: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut full) = (0, 0);
    // The node is given time to read on: only when it has not for a while, it has stopped.
    while sent < most && full < 50 {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(count) => (sent, full) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                full += 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn a_client_that_never_reads_does_not_fill_the_memory_and_others_are_served() {
    let node = Node::in_memory();
    let mut other = node.client();
    let value = "v".repeat(256 * 1024);
    assert_eq!(other.call(&["SET", "big", &value]), Reply::ok());
    let before = resident(&node);
    let greedy = node.client();
    // Answers to all of it would be 5 GiB.
    let sent = stuff(greedy.stream(), &line("GET big"), 20_000 * line("GET big").len());
    for turn in 0..50 {
        assert_eq!(other.run(&format!("SET k{turn} v")), Reply::ok());
        assert_eq!(other.run("DBSIZE"), Reply::Int(turn + 2));
    }
    assert_eq!(node.get("/healthz").0, 200);
    // The limit on waiting replies is 32 MiB, and as much again is a buffer's slack.
    let grown = (resident(&node) - before) / MIB;
    assert!(grown < 128.0, "{sent} bytes of requests grew the node by {grown:.0} MiB");
    drop(greedy);
    eventually("the memory to come back", || (resident(&node) < before + 64.0 * MIB).then_some(()));
}

#[test]
fn a_client_that_reads_again_gets_every_reply() {
    let node = Node::in_memory();
    let mut client = node.client();
    let value = "v".repeat(64 * 1024);
    assert_eq!(client.call(&["SET", "big", &value]), Reply::ok());
    let request = line("GET big");
    let sent = stuff(client.stream(), &request, 3000 * request.len());
    let whole = sent / request.len();
    assert!(whole > 100, "{whole}");
    for turn in 0..whole {
        assert_eq!(client.reply(), value.as_str().into(), "{turn}");
    }
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_dropped() {
    let flags = ["--storage", "memory", "--request-read-timeout", "300ms"];
    let node = Starter::three(&flags).start();
    let mut other = node.client();
    let value = "v".repeat(256 * 1024);
    assert_eq!(other.call(&["SET", "big", &value]), Reply::ok());
    let greedy = node.client();
    greedy.stream().set_nonblocking(true).unwrap();
    let request = line("GET big").repeat(300);
    drop((&mut &*greedy.stream()).write(&request));
    eventually("the client to be dropped", || {
        let list = other.run("CLIENT LIST").text();
        (list.lines().count() == 1).then_some(())
    });
}

#[test]
fn announced_bytes_that_never_come_cost_no_memory() {
    let node = Node::in_memory();
    let before = resident(&node);
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let mut client = node.client();
            client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\nv");
            client
        })
        .collect();
    eventually("the clients to be there", || {
        (node.metric("vnode_resp_connections")? >= 200.0).then_some(())
    });
    assert_eq!(node.client().run("PING"), Reply::Simple("PONG".into()));
    let grown = (resident(&node) - before) / MIB;
    assert!(grown < 48.0, "200 announcements of 1 MiB grew the node by {grown:.0} MiB");
    drop(clients);
}

#[test]
fn large_values_of_many_clients_are_not_kept_after_they_are_answered() {
    let node = Node::in_memory();
    let value = "v".repeat(1 << 20);
    let mut clients: Vec<_> = (0..40).map(|_| node.client()).collect();
    let before = resident(&node);
    for client in &mut clients {
        assert_eq!(client.call(&["ECHO", &value]), value.as_str().into());
    }
    for client in &mut clients {
        assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
    }
    let grown = (resident(&node) - before) / MIB;
    // One megabyte in and one out for each would be 80.
    assert!(grown < 64.0, "40 idle clients keep {grown:.0} MiB");
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let node = Node::in_memory();
    for _ in 0..300 {
        let mut client = node.client();
        client.send(&encode(&["SET", "k", "v"]));
    }
    eventually("the connections to be forgotten", || {
        (node.metric("vnode_resp_connections")? < 1.0).then_some(())
    });
    assert_eq!(node.client().run("CLIENT LIST").text().lines().count(), 1);
}
