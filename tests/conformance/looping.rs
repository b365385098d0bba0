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
    let node = beside_kv(&rust("hostile"), &["--executors", "2"]);
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
