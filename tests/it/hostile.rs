//! Clients that take without giving: the node's memory stays bounded and everybody else is served.

use std::io::Write;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tests::resp::{Client, Reply, encode, line};
use tests::{Node, Starter, eventually};

const MIB: f64 = 1024.0 * 1024.0;

fn resident(node: &Node) -> f64 {
    node.metric("vnode_resident_memory_bytes")
        .expect("the metric")
}

/// Asks for a value so many times, on a thread of its own because the node may stop reading.
fn ask_for_big(client: &Client, times: usize) -> JoinHandle<()> {
    let mut stream = client.stream().try_clone().unwrap();
    std::thread::spawn(move || {
        // The node may drop the client, and the test closes the connection at its end.
        drop(stream.write_all(&line("GET big").repeat(times)));
    })
}

/// Waits until the node has stopped answering: replies wait and nobody takes them.
fn wait_until_it_stalls(node: &Node, other: &mut Client) {
    let answered = || {
        node.metric(r#"vnode_commands_total{service="kv",command="GET",outcome="ok"}"#)
            .expect("the metric")
    };
    let (mut last, mut same) = (-1.0, 0);
    eventually("the node to stop", || {
        assert_eq!(other.run("PING"), Reply::Simple("PONG".into()));
        let now = answered();
        same = if now > 0.0 && now == last {
            same + 1
        } else {
            0
        };
        last = now;
        (same > 20).then_some(())
    });
}

#[test]
fn a_client_that_never_reads_does_not_fill_the_memory_and_others_are_served() {
    let node = Node::in_memory();
    let mut other = node.client();
    let value = "v".repeat(128 * 1024);
    assert_eq!(other.call(&["SET", "big", &value]), Reply::ok());
    let before = resident(&node);
    let greedy = node.client();
    // Answers to all of it would be 1.2 GiB.
    let asking = ask_for_big(&greedy, 10_000);
    wait_until_it_stalls(&node, &mut other);
    for turn in 0..50 {
        assert_eq!(other.run(&format!("SET k{turn} v")), Reply::ok());
        assert_eq!(other.run("DBSIZE"), Reply::Int(turn + 2));
    }
    assert_eq!(node.get("/healthz").0, 200);
    // The limit on waiting replies is 32 MiB; a buffer that doubles may have as much again in reserve.
    let grown = (resident(&node) - before) / MIB;
    greedy.stream().shutdown(std::net::Shutdown::Both).unwrap();
    asking.join().unwrap();
    assert!(
        grown < 128.0,
        "a client that does not read grew the node by {grown:.0} MiB"
    );
}

#[test]
fn many_small_replies_buy_no_room_for_large_ones() {
    let node = Node::in_memory();
    let mut other = node.client();
    assert_eq!(
        other.call(&["SET", "big", &"v".repeat(1 << 20)]),
        Reply::ok()
    );
    assert_eq!(other.run("SET small v"), Reply::ok());
    let before = resident(&node);
    let mut greedy = node.client();
    let small = vec![line("GET small"); 1000];
    assert_eq!(greedy.pipeline(&small).len(), 1000);
    let asking = ask_for_big(&greedy, 1200);
    wait_until_it_stalls(&node, &mut other);
    let grown = (resident(&node) - before) / MIB;
    // It may be gone already.
    drop(greedy.stream().shutdown(std::net::Shutdown::Both));
    asking.join().unwrap();
    // Four times the limit of 32 MiB, and as much again in the allocator's reserve.
    assert!(grown < 256.0, "it grew the node by {grown:.0} MiB");
}

#[test]
fn a_client_that_reads_again_gets_every_reply() {
    let node = Node::in_memory();
    let mut other = node.client();
    let value = "v".repeat(64 * 1024);
    assert_eq!(other.call(&["SET", "big", &value]), Reply::ok());
    let mut client = node.client();
    let asking = ask_for_big(&client, 1500);
    wait_until_it_stalls(&node, &mut other);
    for turn in 0..1500 {
        assert_eq!(client.reply(), value.as_str().into(), "{turn}");
    }
    asking.join().unwrap();
}

/// Room for the backlog of `stay_behind`.
const ROOM: &[&str] = &["--storage", "memory", "--output-buffer-bytes-max", "256MiB"];

/// Reads replies of 64 KiB, but always has more of them under way (100 MiB) than the system's own buffers hold.
fn stay_behind(client: &mut Client, value: &str, mut enough: impl FnMut(usize) -> bool) {
    const BEHIND: usize = 1600;
    client.send(&line("GET big").repeat(BEHIND));
    let mut read = 0;
    while !enough(read) {
        assert_eq!(client.try_reply(), Some(value.into()), "reply {read}");
        client.send(&line("GET big"));
        read += 1;
    }
    for _ in 0..BEHIND {
        assert_eq!(client.try_reply(), Some(value.into()));
    }
}

#[test]
fn a_client_that_is_always_a_little_behind_costs_no_more_as_time_goes_by() {
    let node = Starter::three(ROOM).start();
    let value = "v".repeat(64 * 1024);
    let mut client = node.client();
    assert_eq!(client.call(&["SET", "big", &value]), Reply::ok());
    let before = resident(&node);
    let mut grown = 0.0;
    // 1 GiB of replies goes through; never more than 100 MiB of it waits.
    stay_behind(&mut client, &value, |read| {
        let enough = read == 16_000;
        if enough {
            grown = (resident(&node) - before) / MIB;
        }
        enough
    });
    assert!(grown < 400.0, "it grew the node by {grown:.0} MiB");
}

#[test]
fn a_client_that_reads_slowly_and_steadily_is_not_dropped() {
    let node = Starter::three(&[ROOM, &["--request-read-timeout", "1s"]].concat()).start();
    let value = "v".repeat(64 * 1024);
    let mut client = node.client();
    assert_eq!(client.call(&["SET", "big", &value]), Reply::ok());
    let begun = Instant::now();
    stay_behind(&mut client, &value, |_| {
        begun.elapsed() > Duration::from_secs(3)
    });
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_dropped() {
    let flags = ["--storage", "memory", "--request-read-timeout", "300ms"];
    let node = Starter::three(&flags).start();
    let mut other = node.client();
    let value = "v".repeat(256 * 1024);
    assert_eq!(other.call(&["SET", "big", &value]), Reply::ok());
    let mut greedy = node.client();
    greedy.send(&line("GET big").repeat(300));
    eventually("the client to be dropped", || {
        let list = other.run("CLIENT LIST").text();
        (list.lines().count() == 1).then_some(())
    });
}

#[test]
fn announced_bytes_that_never_come_cost_no_more_than_the_value_would() {
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
    assert!(
        grown < 300.0,
        "200 announcements of 1 MiB grew the node by {grown:.0} MiB"
    );
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
    // The value that is under way and 64 KiB for each connection would be 44.
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
