//! What is malformed or too big: refused clearly, at no cost to anybody else.

use std::io::{Read, Write};

use tests::resp::{Reply, encode, line};
use tests::{Node, Starter, eventually};

/// Sends it after a good command and expects the good answer, the error, and the end.
fn refused(node: &Node, bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(bytes.get(..40).unwrap_or(bytes)).into_owned();
    let heard = node.talk(&[&line("ECHO before"), bytes].concat(), |_| false);
    let heard = String::from_utf8(heard).unwrap();
    let error = heard.strip_prefix("$6\r\nbefore\r\n");
    let error = error.unwrap_or_else(|| panic!("{shown:?}: {heard:?}"));
    let error = error
        .strip_suffix("\r\n")
        .unwrap_or_else(|| panic!("{shown:?}: {heard:?}"));
    assert!(
        !error.contains('\n'),
        "{shown:?}: one error and nothing more: {heard:?}"
    );
    error.to_owned()
}

#[test]
fn malformed_requests_are_refused_and_only_their_connection_ends() {
    let node = Node::in_memory();
    let mut neighbour = node.client();
    let multibulk = "-ERR Protocol error: invalid multibulk length";
    let bulk = "-ERR Protocol error: invalid bulk length";
    let table: [(&[u8], &str); 19] = [
        (b"*2147483648\r\n", multibulk),
        (b"*99999999999999999999\r\n", multibulk),
        (b"*x\r\n", multibulk),
        (b"*1x\r\n", multibulk),
        (b"*1\n$4\nPING\n", multibulk),
        (b"*\r\n", multibulk),
        (b"*1\r\n$-5\r\n", bulk),
        (b"*1\r\n$-1\r\n", bulk),
        (b"*1\r\n$99999999999\r\n", bulk),
        (b"*1\r\n$99999999999999999999\r\n", bulk),
        (b"*1\r\n$4x\r\n", bulk),
        (b"*1\r\n$4\nPING\r\n", bulk),
        (
            b"*1\r\n:1\r\n",
            "-ERR Protocol error: expected '$', got ':'",
        ),
        (
            b"*1\r\n*1\r\n$4\r\nPING\r\n",
            "-ERR Protocol error: expected '$', got '*'",
        ),
        (
            b"*1\r\n\0\r\n",
            "-ERR Protocol error: expected '$', got '?'",
        ),
        (
            b"*1\r\n$4\r\nPINGxx",
            "-ERR Protocol error: expected CRLF after an argument",
        ),
        (
            b"*1\r\n$2\r\nPING\r\n",
            "-ERR Protocol error: expected CRLF after an argument",
        ),
        (
            b"SET k \"v\r\n",
            "-ERR Protocol error: unbalanced quotes in request",
        ),
        (
            b"SET k 'v'x\r\n",
            "-ERR Protocol error: unbalanced quotes in request",
        ),
    ];
    for (bytes, expected) in table {
        assert_eq!(
            refused(&node, bytes),
            expected,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
        assert_eq!(neighbour.run("SET k v"), Reply::ok());
        assert_eq!(neighbour.run("GET k"), "v".into());
    }
}

#[test]
fn deep_nesting_is_refused_at_its_first_level() {
    let node = Node::in_memory();
    let nested = b"*1\r\n".repeat(100_000);
    let heard = node.talk(&nested, |_| false);
    // The rest may still be on its way when the node hangs up, which can eat the error but never the node.
    assert!(heard.is_empty() || heard.starts_with(b"-ERR Protocol error"));
    assert_eq!(node.client().run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn counts_below_one_are_requests_of_nothing_as_in_redis() {
    let node = Node::in_memory();
    let heard = node.talk(b"*-2\r\n*0\r\n*-1\r\n\r\n\n   \r\nPING\r\nQUIT\r\n", |_| {
        false
    });
    assert_eq!(String::from_utf8_lossy(&heard), "+PONG\r\n+OK\r\n");
}

#[test]
fn an_endless_line_is_refused() {
    let node = Node::in_memory();
    let heard = node.talk(&vec![b'a'; 65 * 1024 + 2], |_| false);
    let heard = String::from_utf8_lossy(&heard);
    assert_eq!(heard, "-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn zero_bytes_are_bytes_like_any_other() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.send(b"\0\r\n*1\r\n$1\r\n\0\r\nPING\r\n");
    for _ in 0..2 {
        assert!(
            client
                .reply()
                .text()
                .starts_with("ERR unknown command '\0'")
        );
    }
    assert_eq!(client.reply(), Reply::Simple("PONG".into()));
    assert_eq!(client.call(&[&b"SET"[..], b"\0", b"\0\0"]), Reply::ok());
    assert_eq!(client.call(&[&b"GET"[..], b"\0"]), "\0\0".into());
}

#[test]
fn a_line_break_in_a_name_does_not_break_the_error_about_it() {
    let node = Node::in_memory();
    let mut client = node.client();
    let reply = client.call(&["NO\r\n+OK", "\r\n-ERR"]);
    assert!(
        reply.text().starts_with("ERR unknown command 'NO  +OK'"),
        "{reply:?}"
    );
    assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn a_value_over_the_limit_is_refused_with_both_numbers_after_it_was_sent_whole() {
    let node = Node::in_memory();
    let mut neighbour = node.client();
    for size in [(1 << 20) + 1, 3 << 20] {
        let mut client = node.client();
        let request = encode(&[b"SET", &b"k"[..], &vec![b'v'; size]]);
        // What clients do: they send the whole request and only then look for the reply.
        let sent = client.stream().write_all(&request);
        let reply = client.try_reply();
        let Some(Reply::Error(text)) = &reply else {
            panic!("{size}: {sent:?}, {reply:?}")
        };
        assert!(text.starts_with("TOOBIG "), "{text}");
        assert!(
            text.contains(&size.to_string()) && text.contains("1048576"),
            "{text}"
        );
    }
    assert_eq!(neighbour.run("EXISTS k"), 0.into());
}

#[test]
fn what_is_too_big_fails_alone_and_the_commands_around_it_are_answered() {
    let node = Node::in_memory();
    let too_long = encode(&[b"SET", &b"k"[..], &vec![b'v'; (1 << 20) + 1]]);
    let too_many = encode(&vec!["DEL"; 1025]);
    for big in [too_long, too_many] {
        let mut client = node.client();
        client.send(
            &[
                line("SET before 1"),
                big,
                line("SET after 2"),
                line("GET after"),
            ]
            .concat(),
        );
        assert_eq!(client.try_reply(), Some(Reply::ok()));
        let reply = client.try_reply();
        assert!(
            reply.as_ref().is_some_and(|reply| reply.is_error("TOOBIG")),
            "{reply:?}"
        );
        assert_eq!(client.try_reply(), Some(Reply::ok()));
        assert_eq!(client.try_reply(), Some("2".into()));
    }
}

#[test]
fn more_arguments_than_the_limit_are_refused_with_both_numbers() {
    let node = Node::in_memory();
    let most: Vec<_> = std::iter::once("DEL")
        .chain((1..1024).map(|_| "k"))
        .collect();
    assert_eq!(node.client().call(&most), 0.into());
    let mut client = node.client();
    let more: Vec<_> = std::iter::once("DEL")
        .chain((1..1025).map(|_| "k"))
        .collect();
    client.send(&encode(&more));
    let Some(Reply::Error(text)) = client.try_reply() else {
        panic!("no answer")
    };
    assert!(text.starts_with("TOOBIG "), "{text}");
    assert!(text.contains("1025") && text.contains("1024"), "{text}");
}

#[test]
fn half_a_command_and_then_nothing_is_forgotten() {
    let node = Node::in_memory();
    let whole = line("SET half value");
    for length in 1..whole.len() {
        let mut client = node.client();
        client.send(&whole[..length]);
    }
    eventually("the connections to be forgotten", || {
        (node.metric("vnode_resp_connections")? < 1.0).then_some(())
    });
    assert_eq!(node.client().run("EXISTS half"), 0.into());
}

#[test]
fn a_request_that_never_becomes_whole_ends_its_connection_and_others_live_on() {
    let node = Starter::three(&["--storage", "memory", "--request-read-timeout", "200ms"]).start();
    let mut idle = node.client();
    assert_eq!(idle.run("PING"), Reply::Simple("PONG".into()));
    let mut stuck = node.client();
    stuck.send(b"*2\r\n$3\r\nGET\r\n$1");
    assert_eq!(stuck.try_reply(), None, "it is closed without a word");
    // Silence between requests is no fault, however long.
    assert_eq!(idle.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn clients_beyond_the_limit_are_told_so_and_can_come_when_others_left() {
    let node = Starter::three(&["--storage", "memory", "--connections-max", "3"]).start();
    let mut clients: Vec<_> = (0..3).map(|_| node.client()).collect();
    for client in &mut clients {
        assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
    }
    let mut fourth = node.client();
    let text = fourth.reply().text();
    assert_eq!(text, "ERR max number of clients reached");
    assert_eq!(fourth.try_reply(), None);
    clients.pop();
    let mut fourth = eventually("room for one more", || {
        let mut client = node.client();
        client.stream().set_nonblocking(false).ok()?;
        (client.run("PING") == Reply::Simple("PONG".into())).then_some(client)
    });
    assert_eq!(fourth.run("SET k v"), Reply::ok());
}

#[test]
fn the_limits_are_settings() {
    let flags = [
        "--key-bytes-max",
        "8",
        "--value-bytes-max",
        "16",
        "--args-max",
        "4",
    ];
    let node = Starter::three(&[&["--storage", "memory"], &flags[..]].concat()).start();
    let mut client = node.client();
    assert_eq!(client.run("SET 12345678 1234567890123456"), Reply::ok());
    assert!(client.run("SET 123456789 v").is_error("TOOBIG"));
    assert!(
        node.client()
            .run("SET k 12345678901234567")
            .is_error("TOOBIG")
    );
    assert!(node.client().run("DEL 1 2 3 4").is_error("TOOBIG"));
}

/// A web page may have a browser post to this port: what stands in the body must not run.
#[test]
fn a_browser_is_shown_the_door() {
    let node = Node::in_memory();
    for request in [
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET hacked yes\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET hacked yes\r\n",
    ] {
        let client = node.client();
        let mut stream = client.stream();
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.ends_with("HTTP has one of its own\r\n"), "{said}");
    }
    assert_eq!(node.client().run("EXISTS hacked"), 0.into());
}
