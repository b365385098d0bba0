//! The counter service: no increment is lost, and no sum leaves its range.

use std::collections::BTreeSet;

use tests::resp::{Protocol, Reply, line};
use tests::{Node, Starter};

#[test]
fn every_command_answers_the_sum() {
    let node = Node::in_memory();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut client = node.client_in(protocol);
        let key = format!("{protocol:?}");
        let table = [
            ("COUNT", "", 0),
            ("INCR", "", 1),
            ("counter.incr", "", 2),
            ("INCRBY", " 40", 42),
            ("DECR", "", 41),
            ("DECRBY", " 50", -9),
            ("INCRBY", " -1", -10),
            ("INCRBY", " 0", -10),
            ("COUNT", "", -10),
        ];
        for (command, amount, expected) in table {
            let reply = client.run(&format!("{command} {key}{amount}"));
            assert_eq!(reply, Reply::Int(expected), "{command}{amount}");
        }
    }
}

#[test]
fn a_thousand_increments_in_a_pipeline_count_to_a_thousand_in_order() {
    let node = Node::in_memory();
    let mut client = node.client();
    let replies = client.pipeline(&vec![line("INCR hits"); 1000]);
    let expected: Vec<_> = (1..=1000).map(Reply::Int).collect();
    assert_eq!(replies, expected);
    assert_eq!(client.run("COUNT hits"), 1000.into());
}

#[test]
fn clients_that_count_at_the_same_time_lose_nothing() {
    let node = Node::in_memory();
    let seen: Vec<i64> = std::thread::scope(|scope| {
        let count = || {
            let replies = node.client().pipeline(&vec![line("INCR shared"); 250]);
            replies.iter().map(Reply::int).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    // Each increment saw a sum of its own: none overwrote another.
    assert_eq!(
        seen.into_iter().collect::<BTreeSet<_>>(),
        (1..=1000).collect()
    );
    assert_eq!(node.client().run("COUNT shared"), 1000.into());
}

/// More executors than cores, all after one vnode: whoever finds it taken leaves its commands behind those that wait.
#[test]
fn executors_that_want_one_vnode_keep_the_order_of_every_client() {
    const CLIENTS: usize = 12;
    const WAVES: usize = 40;
    const WAVE: usize = 25;
    let node = Starter::three(&["--storage", "memory", "--executors", "6"]).start();
    let seen: Vec<Vec<i64>> = std::thread::scope(|scope| {
        let count = || {
            let mut client = node.client();
            let wave = vec![line("INCR shared"); WAVE];
            (0..WAVES)
                .flat_map(|_| client.pipeline(&wave))
                .map(|reply| reply.int())
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(count)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for own in &seen {
        assert!(
            own.is_sorted_by(|a, b| a < b),
            "a client's commands changed places"
        );
    }
    let all: BTreeSet<i64> = seen.into_iter().flatten().collect();
    let total = i64::try_from(CLIENTS * WAVES * WAVE).unwrap();
    assert_eq!(all, (1..=total).collect());
}

#[test]
fn a_sum_out_of_range_is_refused_and_changes_nothing() {
    let node = Node::in_memory();
    let mut client = node.client();
    let overflow = Reply::Error("ERR increment or decrement would overflow".into());
    assert_eq!(
        client.run(&format!("INCRBY up {}", i64::MAX)),
        i64::MAX.into()
    );
    for words in ["INCR up", "INCRBY up 5", "DECRBY up -1"] {
        assert_eq!(client.run(words), overflow, "{words}");
        assert_eq!(client.run("COUNT up"), i64::MAX.into());
    }
    assert_eq!(client.run("DECR up"), (i64::MAX - 1).into());
    assert_eq!(
        client.run(&format!("INCRBY down {}", i64::MIN)),
        i64::MIN.into()
    );
    assert_eq!(client.run("DECR down"), overflow);
    assert_eq!(client.run("INCR down"), (i64::MIN + 1).into());
}

#[test]
fn what_is_no_number_is_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    let integer = Reply::Error("ERR value is not an integer or out of range".into());
    for amount in [
        "x",
        "1.5",
        "+1",
        "01",
        "",
        "9223372036854775808",
        "1e3",
        "0x10",
    ] {
        assert_eq!(client.call(&["INCRBY", "k", amount]), integer, "{amount}");
    }
    for words in ["INCR", "INCR k k", "INCRBY k", "COUNT"] {
        let text = client.run(words).text();
        assert!(
            text.starts_with("ERR wrong number of arguments for '"),
            "{words}: {text}"
        );
    }
    assert_eq!(client.run("COUNT k"), 0.into());
}
