//! Many commands on one connection: answered in order, each key's in turn, however the bytes are cut.

use std::io::{Read, Write};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tests::resp::{Client, Reply, encode, line};
use tests::{Node, Starter};

#[test]
fn each_read_of_a_key_sees_the_write_before_it() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut commands = Vec::new();
    for turn in 0..500 {
        commands.push(line(&format!("SET k {turn}")));
        commands.push(line("GET k"));
    }
    let replies = client.pipeline(&commands);
    for (turn, pair) in replies.chunks(2).enumerate() {
        assert_eq!(pair, [Reply::ok(), turn.to_string().as_str().into()]);
    }
}

#[test]
fn a_reply_is_in_the_protocol_of_its_request() {
    let node = Node::in_memory();
    let client = node.client();
    let mut stream = client.stream();
    stream
        .write_all(b"GET none\r\nHELLO 3\r\nGET none\r\nHELLO 2\r\nGET none\r\nQUIT\r\n")
        .unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("$-1\r\n%"), "{said}");
    let nils: Vec<_> = said
        .split("\r\n")
        .filter(|line| matches!(*line, "$-1" | "_"))
        .collect();
    assert_eq!(nils, ["$-1", "_", "$-1"]);
}

#[test]
fn commands_of_every_kind_answer_in_the_order_in_which_they_came() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut commands = Vec::new();
    for turn in 0..100 {
        commands.extend([
            line(&format!("SET k{turn} {turn}")),
            line(&format!("ECHO {turn}")),
            line(&format!("GET k{turn}")),
            line(&format!("MGET k0 k{turn} none")),
            line("INCR turns"),
            line("NOPE"),
            line("DBSIZE"),
            line("GET"),
            line(&format!("PING.PING {turn}")),
            line("EXISTS k0 k0"),
        ]);
    }
    let replies = client.pipeline(&commands);
    for (turn, replies) in replies.chunks(10).enumerate() {
        let (number, text) = (i64::try_from(turn).unwrap(), turn.to_string());
        let text: Reply = text.as_str().into();
        assert_eq!(replies[0], Reply::ok());
        assert_eq!(replies[1], text);
        assert_eq!(replies[2], text);
        assert_eq!(replies[3], Reply::Array(vec!["0".into(), text, Reply::Nil]));
        assert_eq!(replies[4], Reply::Int(number + 1));
        assert!(replies[5].text().starts_with("ERR unknown command 'NOPE'"));
        assert_eq!(replies[6], Reply::Int(number + 1));
        assert!(
            replies[7]
                .text()
                .starts_with("ERR wrong number of arguments")
        );
        assert_eq!(replies[8].clone().items()[1], Reply::Int(number + 1));
        assert_eq!(replies[9], 2.into());
    }
}

#[test]
fn a_hundred_thousand_commands_in_one_go_are_all_answered() {
    const COMMANDS: i64 = 100_000;
    let node = Node::in_memory();
    let client = node.client();
    let mut writer = client.stream().try_clone().unwrap();
    let mut client = client;
    // The node does not read for ever without being read from, so both happen at once.
    let sender = std::thread::spawn(move || {
        let all = line("INCR n").repeat(usize::try_from(COMMANDS).unwrap());
        writer.write_all(&all).unwrap();
    });
    for expected in 1..=COMMANDS {
        assert_eq!(client.reply(), Reply::Int(expected));
    }
    sender.join().unwrap();
}

#[test]
fn commands_come_byte_by_byte_and_mean_the_same() {
    let node = Node::in_memory();
    let mut client = node.client();
    let all = [
        line("SET k v"),
        line("GET k"),
        b"MGET k \"k\" none\r\n".to_vec(),
        line("INCR n"),
        line("DBSIZE"),
        b"*0\r\n\r\nPING\r\n".to_vec(),
    ];
    for byte in all.concat() {
        client.send(&[byte]);
    }
    let expected = [
        Reply::ok(),
        "v".into(),
        Reply::Array(vec!["v".into(), "v".into(), Reply::Nil]),
        1.into(),
        1.into(),
        Reply::Simple("PONG".into()),
    ];
    for expected in expected {
        assert_eq!(client.reply(), expected);
    }
}

#[test]
fn a_client_that_has_said_all_and_half_closes_still_gets_its_answers() {
    let node = Node::in_memory();
    // As `printf … | nc` does it. Many times, because the end could lose the race with the answers.
    for turn in 0..300 {
        let mut client = node.client();
        let commands: Vec<_> = (0..50).map(|n| line(&format!("SET k{n} {turn}"))).collect();
        client.send(&commands.concat());
        client.stream().shutdown(std::net::Shutdown::Write).unwrap();
        for n in 0..50 {
            assert_eq!(
                client.try_reply(),
                Some(Reply::ok()),
                "turn {turn}, command {n}"
            );
        }
        assert_eq!(client.try_reply(), None);
    }
}

#[test]
fn more_commands_than_may_be_under_way_wait_and_none_is_lost() {
    let node = Starter::three(&["--storage", "memory", "--pipeline-commands-max", "3"]).start();
    let mut client = node.client();
    let commands: Vec<_> = (0..300).map(|n| line(&format!("SET k{n} v"))).collect();
    assert_eq!(client.pipeline(&commands), vec![Reply::ok(); 300]);
    assert_eq!(client.run("DBSIZE"), 300.into());
}

/// One command with a reply that depends on nothing but the commands before it.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let key = || {
        prop_oneof![
            Just(b"a".to_vec()),
            Just(b"{t}1".to_vec()),
            Just(b"{t}2".to_vec()),
            Just(b"\r\n$3\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..12),
        ]
    };
    let value = || {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            (0..30_000_usize).prop_map(|length| vec![b'v'; length]),
        ]
    };
    let word = |name: &'static str| Just(name.as_bytes().to_vec());
    prop_oneof![
        3 => (key(), value()).prop_map(|(k, v)| encode(&[b"SET".to_vec(), k, v])),
        3 => key().prop_map(|k| encode(&[b"GET".to_vec(), k])),
        1 => (key(), key()).prop_map(|(a, b)| encode(&[b"DEL".to_vec(), a, b])),
        1 => (key(), key()).prop_map(|(a, b)| encode(&[b"MGET".to_vec(), a, b])),
        1 => (key(), key()).prop_map(|(a, b)| encode(&[b"EXISTS".to_vec(), a, b])),
        1 => value().prop_map(|v| encode(&[b"ECHO".to_vec(), v])),
        1 => prop_oneof![word("DBSIZE"), word("KEYS"), word("PING"), word("GET"), word("NOPE"), word("CLEAR")]
            .prop_map(|name| encode(&[name])),
        1 => Just(b"SET inline \"a\\x00b\"\r\n".to_vec()),
        1 => Just(b"*-1\r\n\r\n*0\r\nexists inline\n".to_vec()),
        1 => Just(b"HELLO 3\r\n".to_vec()),
        1 => Just(b"HELLO 2\r\n".to_vec()),
    ]
}

/// All that the node answers to these pieces, sent one after another.
fn heard(node: &Node, pieces: &[&[u8]]) -> Vec<Reply> {
    let mut other = node.client();
    assert_eq!(other.run("CLEAR"), Reply::ok());
    let mut client: Client = node.client();
    let mut writer = client.stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in pieces {
                writer.write_all(piece).unwrap();
                // By the time this is answered the node has most likely looked at the piece.
                assert_eq!(other.run("PING"), Reply::Simple("PONG".into()));
            }
            writer.write_all(b"ECHO end-of-this-run\r\n").unwrap();
        });
        let mut replies = Vec::new();
        loop {
            // The only thing that differs from connection to connection.
            let reply = match client.reply() {
                map @ Reply::Map(_) => Reply::Simple(map.at("server").unwrap().text()),
                Reply::Array(items) if items.first() == Some(&"server".into()) => items[1].clone(),
                reply => reply,
            };
            if reply == "end-of-this-run".into() {
                return replies;
            }
            replies.push(reply);
        }
    })
}

#[test]
fn replies_are_the_same_wherever_the_bytes_are_cut() {
    let node = Node::in_memory();
    let sequences = (
        proptest::collection::vec(command(), 1..40),
        proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    );
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&sequences, |(commands, cuts)| {
        let bytes = commands.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let (whole, cut) = (heard(&node, &[&bytes]), heard(&node, &pieces));
        prop_assert_eq!(whole, cut);
        Ok(())
    });
    outcome.unwrap();
}
