//! The store's commands, one key at a time.

use tests::Node;
use tests::resp::{Client, Protocol, Reply, line};
use vnode_ring::{Context, Dot};

const BOTH: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];

/// Every command that has keys, and what it answers when the store is empty at first.
fn script() -> Vec<(&'static str, Reply)> {
    let nil = Reply::Nil;
    let some_and_none = Reply::Array(vec!["1".into(), Reply::Nil, "2".into(), "1".into()]);
    vec![
        ("GET a", nil.clone()),
        ("SET a 1", Reply::ok()),
        ("PUT b 2", Reply::ok()),
        ("GET a", "1".into()),
        ("kv.get b", "2".into()),
        ("Kv.Get b", "2".into()),
        ("EXISTS a b c a", 3.into()),
        ("MGET a c b a", some_and_none),
        ("SET a 3", Reply::ok()),
        ("DELETE a", "3".into()),
        ("DELETE a", nil.clone()),
        ("GET a", nil),
        ("DEL a b b c", 1.into()),
        ("EXISTS b", 0.into()),
        ("KV.SET {t}x 1", Reply::ok()),
        ("SET {t}y 2", Reply::ok()),
        ("MGET {t}y {t}x", ["2", "1"].into()),
        ("DEL {t}x {t}y {t}z", 2.into()),
    ]
}

#[test]
fn every_command_of_a_key_answers_as_in_the_contract() {
    let node = Node::in_memory();
    for protocol in BOTH {
        let mut client = node.client_in(protocol);
        for (words, expected) in script() {
            assert_eq!(client.run(words), expected, "{protocol:?} {words}");
        }
    }
}

#[test]
fn a_pipeline_answers_what_the_same_commands_answer_one_by_one() {
    let node = Node::in_memory();
    for protocol in BOTH {
        let mut client = node.client_in(protocol);
        // Commands for one key stay in order and those with several wait, so nothing may differ.
        let commands: Vec<_> = script().iter().map(|(words, _)| line(words)).collect();
        let replies = client.pipeline(&commands);
        for (reply, (words, expected)) in replies.into_iter().zip(script()) {
            assert_eq!(reply, expected, "{protocol:?} {words}");
        }
    }
}

#[test]
fn nothing_is_a_null_of_the_protocol_that_the_client_speaks() {
    let node = Node::in_memory();
    let two = node.talk(b"GET a\r\nQUIT\r\n", |_| false);
    assert_eq!(String::from_utf8_lossy(&two), "$-1\r\n+OK\r\n");
    let three = node.talk(b"HELLO 3\r\nGET a\r\nQUIT\r\n", |_| false);
    assert!(
        three.ends_with(b"_\r\n+OK\r\n"),
        "{}",
        String::from_utf8_lossy(&three)
    );
}

#[test]
fn any_bytes_are_a_key_and_a_value() {
    let node = Node::in_memory();
    let mut client = node.client();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(client.call(&[b"SET", &all[..], &all[..]]), Reply::ok());
    assert_eq!(client.call(&[b"GET", &all[..]]), Reply::Bulk(all.clone()));
    assert_eq!(client.run("KEYS").items(), [Reply::Bulk(all.clone())]);
    assert_eq!(client.call(&[b"SET", &b"\r\n\0"[..], b""]), Reply::ok());
    assert_eq!(client.call(&[b"GET", &b"\r\n\0"[..]]), "".into());
    assert_eq!(client.call(&[b"DEL", &all[..], b"\r\n\0"]), 2.into());
}

#[test]
fn the_empty_key_is_a_key() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(client.call(&["SET", "", "nobody"]), Reply::ok());
    assert_eq!(client.call(&["GET", ""]), "nobody".into());
    assert_eq!(client.call(&["DEL", ""]), 1.into());
}

#[test]
fn keys_and_values_up_to_their_limits_are_stored_and_longer_ones_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    let key = |length| "k".repeat(length);
    assert_eq!(client.call(&["SET", &key(4096), "v"]), Reply::ok());
    assert_eq!(client.call(&["GET", &key(4096)]), "v".into());
    for command in ["SET", "PUT"] {
        let refused = client.call(&[command, &key(4097), "v"]);
        assert!(refused.is_error("TOOBIG"), "{command}: {refused:?}");
        let text = refused.text();
        assert!(text.contains("4097") && text.contains("4096"), "{text}");
    }
    assert!(
        client
            .call(&["VPUT", &key(4097), "v", ""])
            .is_error("TOOBIG")
    );
    let longest = "v".repeat(1 << 20);
    assert_eq!(client.call(&["SET", "big", &longest]), Reply::ok());
    assert_eq!(client.call(&["GET", "big"]), longest.as_str().into());
    assert_eq!(client.call(&["MGET", "big", "none"]).items().len(), 2);
    assert_eq!(
        client.run("DBSIZE"),
        2.into(),
        "what is refused is not stored"
    );
}

#[test]
fn reads_of_keys_over_the_limit_are_refused_as_writes_are() {
    let node = Node::in_memory();
    let mut client = node.client();
    let key = "k".repeat(4097);
    for command in ["GET", "DEL", "DELETE", "EXISTS", "MGET", "VGET"] {
        let reply = client.call(&[command, &key]);
        assert!(reply.is_error("TOOBIG"), "{command}: {reply:?}");
    }
    assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn wrong_calls_are_refused_in_the_words_of_redis() {
    let node = Node::in_memory();
    let mut client = node.client();
    let arity = |name| format!("ERR wrong number of arguments for '{name}' command");
    let table = [
        ("GET", arity("get")),
        ("GET a b", arity("get")),
        ("kv.get", arity("kv.get")),
        ("SET a", arity("set")),
        ("PUT a 1 NX", arity("put")),
        ("DEL", arity("del")),
        ("MGET", arity("mget")),
        ("VPUT a 1", arity("vput")),
        ("KEYS a b", arity("keys")),
        ("SET a 1 EX 10", "ERR syntax error".into()),
        ("SET a 1 NX", "ERR syntax error".into()),
        ("SCAN", arity("scan")),
        ("SCAN x", "ERR invalid cursor".into()),
        ("SCAN -1", "ERR invalid cursor".into()),
        ("SCAN 0 COUNT", "ERR syntax error".into()),
        ("SCAN 0 COUNT 0", "ERR syntax error".into()),
        (
            "SCAN 0 COUNT x",
            "ERR value is not an integer or out of range".into(),
        ),
        (
            "NOPE a b",
            "ERR unknown command 'NOPE', with args beginning with: 'a' 'b' ".into(),
        ),
        (
            "kv.nope",
            "ERR unknown command 'kv.nope', with args beginning with: ".into(),
        ),
    ];
    for (words, expected) in table {
        assert_eq!(client.run(words), Reply::Error(expected), "{words}");
    }
    assert_eq!(client.run("DBSIZE"), 0.into());
}

/// Context and values of VGET.
fn versions(client: &mut Client, key: &str) -> (String, Vec<String>) {
    let items = client.call(&["VGET", key]).items();
    let [context, values] = &items[..] else {
        panic!("{items:?}")
    };
    let mut values: Vec<_> = values.clone().items().iter().map(Reply::text).collect();
    values.sort();
    (context.text(), values)
}

#[test]
fn writes_that_did_not_know_of_each_other_stay_side_by_side() {
    for protocol in BOTH {
        let node = Node::in_memory();
        let mut client = node.client_in(protocol);
        assert_eq!(versions(&mut client, "cart"), (String::new(), vec![]));
        let first = client.call(&["VPUT", "cart", "milk", ""]).text();
        assert_eq!(
            versions(&mut client, "cart"),
            (first.clone(), vec!["milk".into()])
        );
        client.call(&["VPUT", "cart", "bread", ""]);
        let (both, values) = versions(&mut client, "cart");
        assert_eq!(values, ["bread", "milk"]);
        assert_eq!(client.run("GET cart"), "bread".into(), "the latest");
        // It knew of milk only, so bread stays.
        client.call(&["VPUT", "cart", "eggs", &first]);
        assert_eq!(versions(&mut client, "cart").1, ["bread", "eggs"]);
        let merged = client.call(&["VPUT", "cart", "all", &both]).text();
        assert_eq!(versions(&mut client, "cart").1, ["all", "eggs"]);
        // What it answered does not cover eggs, which it had not seen: a context beside others names nothing new.
        client.call(&["VPUT", "cart", "more", &merged]);
        assert_eq!(versions(&mut client, "cart").1, ["all", "eggs", "more"]);
        assert_eq!(client.run("SET cart plain"), Reply::ok());
        assert_eq!(versions(&mut client, "cart").1, ["plain"]);
        assert_eq!(client.run("DEL cart"), 1.into());
        assert_eq!(versions(&mut client, "cart").1, [""; 0]);
    }
}

#[test]
fn the_context_that_vput_answers_is_good_for_the_next_vput() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut context = String::new();
    for turn in 0..20 {
        let value = format!("v{turn}");
        context = client.call(&["VPUT", "k", &value, &context]).text();
        assert_eq!(versions(&mut client, "k"), (context.clone(), vec![value]));
    }
}

#[test]
fn a_context_that_nobody_gave_is_refused_and_nothing_is_stored() {
    let node = Node::in_memory();
    let mut client = node.client();
    for context in ["no hex", "0", "00ff", "ffffffff", &"ff".repeat(2000)] {
        let reply = client.call(&["VPUT", "k", "v", context]);
        assert!(reply.is_error("ERR"), "{context}: {reply:?}");
    }
    assert_eq!(client.run("EXISTS k"), 0.into());
}

/// Such a context would cover every write to come, so that each of them would be lost to the next writer.
#[test]
fn a_context_of_the_future_is_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(client.run("SET k v"), Reply::ok());
    let given = client.run("VGET k").items()[0].text();
    let bytes = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
    let token: Vec<u8> = given
        .as_bytes()
        .chunks(2)
        .map(|pair| bytes(std::str::from_utf8(pair).unwrap()))
        .collect();
    let mut context = Context::from_token(&token).unwrap();
    let actor = context.dots().next().unwrap().actor;
    context.insert(Dot {
        actor,
        seq: u64::MAX,
    });
    let forged: String = context
        .to_token()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let reply = client.call(&["VPUT", "k", "lost", &forged]);
    assert!(
        reply.is_error("ERR") && reply.text().contains("not made yet"),
        "{reply:?}"
    );
    assert_eq!(client.run("GET k"), "v".into());
    assert!(matches!(
        client.call(&["VPUT", "k", "new", &given]),
        Reply::Bulk(_)
    ));
}

#[test]
fn services_do_not_see_each_others_keys() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(client.run("SET k text"), Reply::ok());
    assert_eq!(client.run("INCR k"), 1.into());
    assert_eq!(client.run("GET k"), "text".into());
    assert_eq!(client.run("CLEAR"), Reply::ok());
    assert_eq!(client.run("COUNT k"), 1.into());
}
