//! Answers against the contract, by either door. None of them reaches a client, and none of their effects is kept.

use crate::guests::{beside_kv, liar};
use tests::resp::{Client, Reply};

/// Starts a node with this liar and lets `ask` talk to it; the neighbour has to be well before and after.
fn with_liar(promise: &str, ask: impl FnOnce(&mut Client)) {
    let guest = liar(promise);
    let node = beside_kv(guest.path(), &["--coverage-timeout", "3s"]);
    let client = &mut node.client();
    assert_eq!(client.run("KV.SET key neighbour"), Reply::ok());
    ask(client);
    assert_eq!(client.run("KV.GET key"), "neighbour".into(), "{promise}");
    assert_eq!(client.run("KV.KEYS"), ["key"].into(), "{promise}");
}

/// Asserts an error with this first word and this in its text.
fn fails(reply: &Reply, code: &str, word: &str) {
    assert!(
        reply.is_error(code) && reply.text().contains(word),
        "{code} {word}: {reply:?}"
    );
}

#[test]
fn an_honest_twin_of_the_liars_serves() {
    with_liar("honest", |client| {
        assert_eq!(client.run("LIAR.SET key value"), Reply::ok());
        assert_eq!(client.run("LIAR.GET key"), "value".into());
        assert_eq!(client.run("LIAR.GET none"), Reply::Nil);
        for value in ["a", "c", "b"] {
            assert_eq!(client.run(&format!("LIAR.ADD most {value}")), Reply::ok());
        }
        assert_eq!(client.run("LIAR.GET most"), "c".into());
        assert_eq!(client.run("LIAR.LIST").items().len(), 2);
    });
}

#[test]
fn answers_of_the_packed_door_that_cannot_be_read_are_asked_of_the_typed_one() {
    for promise in [
        "packed-trap",
        "packed-empty",
        "packed-noise",
        "packed-few",
        "packed-cut",
        "packed-many",
        "packed-lengths",
        "packed-effects",
        "packed-never",
    ] {
        with_liar(promise, |client| {
            for n in 0..3 {
                assert_eq!(
                    client.run(&format!("LIAR.SET key {n}")),
                    Reply::ok(),
                    "{promise}"
                );
                assert_eq!(
                    client.run("LIAR.GET key"),
                    Reply::from(n.to_string().as_str()),
                    "{promise}"
                );
            }
        });
    }
}

#[test]
fn replies_of_the_packed_door_that_are_not_one_value_are_traps() {
    for promise in ["packed-resp", "packed-resp-two", "packed-resp-cut"] {
        with_liar(promise, |client| {
            assert_eq!(client.run("LIAR.SET key value"), Reply::ok(), "{promise}");
            fails(&client.run("LIAR.GET key"), "GUESTTRAP", "contract");
            assert_eq!(client.run("LIAR.SET key value"), Reply::ok(), "{promise}");
        });
    }
}

#[test]
fn of_several_effects_on_one_key_the_last_one_counts() {
    with_liar("packed-again", |client| {
        for (key, value) in [
            ("a", "x"),
            ("a", "y"),
            ("b", "gone"),
            ("c", "z"),
            ("c", "gone"),
        ] {
            assert_eq!(client.run(&format!("LIAR.SET {key} {value}")), Reply::ok());
        }
        assert_eq!(client.run("LIAR.GET a"), "y".into());
        assert_eq!(client.run("LIAR.GET b"), Reply::Nil);
        assert_eq!(client.run("LIAR.GET c"), Reply::Nil);
        assert_eq!(client.run("LIAR.LIST"), Reply::Array(vec!["a".into()]));
    });
}

#[test]
fn effects_that_the_command_may_not_have_are_refused() {
    with_liar("packed-undeclared", |client| {
        fails(
            &client.run("LIAR.SET key value"),
            "GUESTTRAP",
            "key that the command does not have",
        );
        assert_eq!(client.run("LIAR.GET key"), Reply::Nil);
    });
    with_liar("packed-read-writes", |client| {
        fails(&client.run("LIAR.GET key"), "ERR", "does not write");
        assert_eq!(client.run("LIAR.LIST"), Reply::Array(vec![]));
    });
    with_liar("packed-code", |client| {
        assert_eq!(
            client.run("LIAR.SET key value"),
            Reply::Error("ERR first +second".into())
        );
    });
}

#[test]
fn replies_of_the_typed_door_that_are_not_one_value_are_traps() {
    for promise in ["two-values", "no-value", "line-break", "deep", "big-array"] {
        with_liar(promise, |client| {
            assert_eq!(client.run("LIAR.SET key value"), Reply::ok(), "{promise}");
            fails(&client.run("LIAR.GET key"), "GUESTTRAP", "contract");
            assert_eq!(client.run("LIAR.LIST"), ["key"].into(), "{promise}");
        });
    }
}

#[test]
fn pages_against_the_contract_fail_their_command_alone() {
    with_liar("list-half", |client| {
        fails(&client.run("LIAR.LIST"), "GUESTTRAP", "contract");
    });
    with_liar("list-writes", |client| {
        assert_eq!(client.run("LIAR.SET key value"), Reply::ok());
        fails(&client.run("LIAR.LIST"), "ERR", "does not write");
        assert_eq!(client.run("LIAR.GET key"), "value".into());
    });
    with_liar("same-cursor", |client| {
        let reply = client.run("LIAR.LIST");
        assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
    });
}
