//! Guests that loop on every thread of the data world at once: what is not theirs goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::guests::{beside_kv, rust};
use tests::eventually;
use tests::resp::{Reply, line};

/// More than there are partitions, slow threads and executors.
const CONNECTIONS: usize = 24;
const ROUNDS: usize = 20;

#[test]
fn loops_on_all_partitions_stop_neither_health_nor_metrics_nor_neighbours() {
    let node = beside_kv(&rust("hostile"), &["--executors", "2", "--n", "1"]);
    let (stop, looped) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (node, stop, looped) = (&node, &stop, &looped);
            scope.spawn(move || {
                let mut client = node.client();
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.run(&format!("HOSTILE.LOOP key{connection}"));
                    assert!(
                        reply.is_error("TIMEOUT") || reply.is_error("BUSY"),
                        "{reply:?}"
                    );
                    looped.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("the first loops to end", || {
            (looped.load(Ordering::Relaxed) >= 4).then_some(())
        });
        let mut client = node.client();
        for round in 0..ROUNDS {
            assert_eq!(node.get("/healthz").0, 200);
            assert_eq!(node.get("/metrics").0, 200);
            assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
            // A command may meet its own deadline on a busy machine; it must not stay away.
            let set = format!("KV.SET key{round} {round}");
            eventually("a write of a neighbour", || {
                (client.run(&set) == Reply::ok()).then_some(())
            });
            let get = format!("KV.GET key{round}");
            let wanted = Reply::from(round.to_string().as_str());
            eventually("a read of a neighbour", || {
                (client.run(&get) == wanted).then_some(())
            });
        }
        let while_looping = looped.load(Ordering::Relaxed);
        eventually("loops to go on meanwhile", || {
            (looped.load(Ordering::Relaxed) > while_looping).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    // And the looping guest itself serves as soon as nobody loops.
    let mut client = node.client();
    for connection in 0..CONNECTIONS {
        assert_eq!(
            client.run(&format!("HOSTILE.GET key{connection}")),
            Reply::Nil
        );
        assert_eq!(
            client.run(&format!("HOSTILE.SET key{connection} v")),
            Reply::ok()
        );
    }
}

/// A merge has an hour here; on the only executor it would never come to an end.
#[test]
fn a_merge_that_loops_does_not_hold_its_executor() {
    let flags = ["--executors", "1", "--command-budget", "1h"];
    let node = beside_kv(&rust("hostile"), &flags);
    let mut client = node.client();
    for value in ["one", "two"] {
        let fork = format!("HOSTILE.FORK loop {value}");
        assert_eq!(client.run(&fork), Reply::ok());
    }
    let mut reader = node.client();
    reader.send(&line("HOSTILE.GET loop"));
    eventually("the merge to be stopped and moved", || {
        assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
        assert_eq!(client.run("KV.SET k v"), Reply::ok());
        let vnodes = node.json("/v1/vnodes");
        let mut vnodes = vnodes["vnodes"].as_array()?.iter();
        vnodes.find(|vnode| vnode["state"] == "working").map(drop)
    });
}

/// An instance that is made again starts where it may take its time.
#[test]
fn an_init_that_loops_does_not_hold_its_executor() {
    let flags = ["--executors", "1", "--command-budget", "1h"];
    let node = beside_kv(&rust("hostile"), &flags);
    let mut client = node.client();
    assert_eq!(client.run("HOSTILE.SET slow-init v"), Reply::ok());
    // After the panic a new instance has to start, which takes an hour.
    let mut panics = node.client();
    panics.send(&line("HOSTILE.PANIC {slow-init}").repeat(2));
    eventually("the guest to be started", || {
        assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
        assert_eq!(client.run("KV.SET k v"), Reply::ok());
        let vnodes = node.json("/v1/vnodes");
        let mut vnodes = vnodes["vnodes"].as_array()?.iter();
        vnodes.find(|vnode| vnode["state"] == "working").map(drop)
    });
    assert_eq!(client.run("KV.GET k"), "v".into());
}

/// Nothing is read while eight commands are under way; the time of the half request begins when it is read again.
#[test]
fn a_client_is_not_blamed_for_a_slow_guest() {
    const LOOPS: usize = 16;
    let flags = [
        "--command-budget",
        "100ms",
        "--request-read-timeout",
        "1s",
        "--pipeline-commands-max",
        "8",
        "--request-timeout",
        "1m",
    ];
    let node = beside_kv(&rust("hostile"), &flags);
    let mut client = node.client();
    client.send(&line("HOSTILE.LOOP key").repeat(LOOPS));
    client.send(b"KV.GE");
    for turn in 0..LOOPS {
        assert!(client.reply().is_error("TIMEOUT"), "{turn}");
    }
    client.send(b"T k\r\n");
    assert_eq!(client.reply(), Reply::Nil);
}

#[test]
fn a_command_for_the_whole_ring_is_answered_before_the_node_ends() {
    let flags = ["--command-budget", "500ms", "--drain-timeout", "1m"];
    let node = beside_kv(&rust("hostile"), &flags);
    let mut client = node.client();
    client.send(&line("HOSTILE.LOOPALL"));
    eventually("the command to be under way", || {
        let vnodes = node.json("/v1/vnodes");
        let mut vnodes = vnodes["vnodes"].as_array()?.iter();
        vnodes.find(|vnode| vnode["state"] == "working").map(drop)
    });
    node.ask_to_end();
    assert!(client.reply().is_error("TIMEOUT"));
    assert_eq!(node.terminate().status.code(), Some(0));
}
