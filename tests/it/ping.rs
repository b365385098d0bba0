//! The ping service of the second tutorial: it says where it runs.

use std::collections::BTreeSet;

use tests::Node;
use tests::resp::{Protocol, Reply};

#[test]
fn ping_says_its_partition_and_node() {
    let node = Node::in_memory();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut client = node.client_in(protocol);
        let items = client.run("ping.ping").items();
        assert_eq!(items[0], Reply::Simple("pong".into()));
        assert!((0..64).contains(&items[1].int()), "{items:?}");
        assert_eq!(items[2], "a@test".into());
        assert_eq!(items.len(), 3);
    }
}

#[test]
fn a_number_is_counted_on_by_the_vnode_that_its_hash_names() {
    let node = Node::in_memory();
    let ring = node.json("/v1/ring");
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut client = node.client_in(protocol);
        let mut indexes = BTreeSet::new();
        for number in 0..40 {
            let items = client.run(&format!("PING.PING {number}")).items();
            assert_eq!(items[0], Reply::Simple("pong".into()));
            assert_eq!(items[1], Reply::Int(number + 1));
            assert_eq!(items[2], "a@test".into());
            let path = format!("/v1/ring/preflist?service=ping&key=ping{number}");
            let partition = node.json(&path)["partition"].as_u64().unwrap();
            let index = ring["indexes"][usize::try_from(partition).unwrap()]
                .as_str()
                .unwrap();
            match (protocol, &items[3]) {
                (Protocol::Resp2, Reply::Bulk(text)) => assert_eq!(text, index.as_bytes()),
                (Protocol::Resp3, Reply::Big(text)) => assert_eq!(text, index),
                other => panic!("{other:?}"),
            }
            assert_eq!(
                client.run(&format!("PING.PING {number}")).items(),
                items,
                "always there"
            );
            indexes.insert(index.to_owned());
        }
        assert!(
            indexes.len() > 20,
            "numbers spread over the ring: {}",
            indexes.len()
        );
    }
}

#[test]
fn pings_without_a_number_go_anywhere() {
    let node = Node::in_memory();
    let mut client = node.client();
    let partitions: BTreeSet<_> = (0..300)
        .map(|_| client.run("PING.PING").items()[1].int())
        .collect();
    assert!(
        partitions.len() > 32,
        "{} of 64 partitions",
        partitions.len()
    );
}

#[test]
fn the_short_name_ping_stays_that_of_redis() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
    assert_eq!(client.run("PING hello"), "hello".into());
    assert_eq!(client.run("ping 7"), "7".into());
}

#[test]
fn what_is_no_number_is_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    let table = [
        ("PING.PING x", "ERR value is not an integer or out of range"),
        (
            "PING.PING 1.5",
            "ERR value is not an integer or out of range",
        ),
        (
            "PING.PING 9223372036854775808",
            "ERR value is not an integer or out of range",
        ),
        (
            "PING.PING 9223372036854775807",
            "ERR increment or decrement would overflow",
        ),
        (
            "PING.PING 1 2",
            "ERR wrong number of arguments for 'ping' command",
        ),
    ];
    for (words, expected) in table {
        assert_eq!(client.run(words), Reply::Error(expected.into()), "{words}");
    }
    assert_eq!(client.run("PING.PING -1").items()[1], 0.into());
}
