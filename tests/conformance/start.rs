//! Guests that fail before their first command.

use crate::guests::{beside_kv, liar};
use tests::resp::Reply;

/// Asserts that a node with this liar does not start, and says why.
fn does_not_load(promise: &str, words: &[&str]) {
    let guest = liar(promise);
    let data = guest.folder().join("data");
    let node = [
        "--port",
        "0",
        "--data",
        tests::arg(&data),
        "--vnode",
        guest.arg(),
    ];
    for args in [&node[..], &["inspect", guest.arg()]] {
        let output = tests::run(args);
        let text = tests::text(&output);
        assert_eq!(output.status.code(), Some(1), "{promise}: {text}");
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("error: "), "{promise}: {text}");
        for word in words {
            assert!(
                first.contains(word),
                "{promise}: {word:?} is not in: {text}"
            );
        }
        assert!(!data.exists(), "{promise}: something was written");
    }
}

#[test]
fn a_guest_that_fails_in_describe_is_refused_with_its_own_words() {
    does_not_load(
        "describe-trap",
        &["failed in describe", "describe on purpose"],
    );
    does_not_load("describe-loop", &["failed in describe", "budget"]);
}

#[test]
fn a_descriptor_that_cannot_be_served_is_refused_with_the_field() {
    for (promise, words) in [
        ("no-commands", &["must have 1 to 256 commands", "has 0"][..]),
        ("many-commands", &["must have 1 to 256 commands", "has 300"]),
        ("bad-name", &["service name", "\"no name\""]),
        ("huge-name", &["service name", "\"\""]),
        ("host-name", &["\"Vnode\"", "the host's own"]),
        ("twice", &["GET", "twice"]),
        ("no-keys", &["GET", "keys"]),
        ("arity-zero", &["GET", "arity 0"]),
        ("schema", &["schema-reads-from 9", "schema-writes 1"]),
    ] {
        does_not_load(promise, words);
    }
}

#[test]
fn a_vnode_whose_init_fails_refuses_with_the_reason_and_the_rest_serves() {
    for (promise, why) in [
        ("init-trap", "init on purpose"),
        ("init-refuse", "the moon is in the wrong place"),
        ("init-loop", "budget"),
    ] {
        let guest = liar(promise);
        let node = beside_kv(guest.path(), &[]);
        let mut client = node.client();
        for call in ["LIAR.SET key value", "LIAR.GET key", "LIAR.LIST"] {
            let reply = client.run(call);
            assert!(reply.is_error("ERR"), "{promise}: {call}: {reply:?}");
            for word in ["does not start", "liar", why] {
                assert!(reply.text().contains(word), "{promise}: {call}: {reply:?}");
            }
        }
        assert_eq!(client.run("KV.SET key value"), Reply::ok());
        assert_eq!(client.run("KV.GET key"), "value".into());
        assert_eq!(node.get("/healthz").0, 200);
        let ended = node.terminate();
        assert_eq!(ended.status.code(), Some(0), "{promise}");
    }
}
