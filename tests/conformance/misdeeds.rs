//! What a guest does against its host, command by command. It costs that command and nothing else.

use crate::guests::{beside_kv, rust};
use tests::Node;
use tests::resp::{Client, Reply, line};

fn node() -> Node {
    beside_kv(&rust("hostile"), &["--coverage-timeout", "3s"])
}

/// Asserts that both guests still serve, and have what they had.
fn all_is_well(client: &mut Client, key: &str) {
    assert_eq!(client.run(&format!("HOSTILE.GET {key}")), "kept".into());
    assert_eq!(
        client.run(&format!("HOSTILE.SET {key}:more more")),
        Reply::ok()
    );
    assert_eq!(client.run(&format!("KV.GET {key}")), "neighbour".into());
    assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
}

/// Runs one misdeed; it has to fail with this first word and these others, and leave no trace.
fn misdeed(client: &mut Client, call: &str, code: &str, words: &[&str]) {
    let key = call.split(' ').nth(1).unwrap_or_default();
    assert_eq!(client.run(&format!("HOSTILE.SET {key} kept")), Reply::ok());
    assert_eq!(client.run(&format!("KV.SET {key} neighbour")), Reply::ok());
    for _ in 0..2 {
        let reply = client.run(&format!("HOSTILE.{call}"));
        assert!(reply.is_error(code), "{call}: {reply:?}");
        for word in words {
            assert!(
                reply.text().contains(word),
                "{call}: {word:?} is not in {reply:?}"
            );
        }
        all_is_well(client, key);
    }
}

#[test]
fn traps_say_what_happened_and_nothing_of_the_command_stays() {
    let node = node();
    let client = &mut node.client();
    misdeed(
        client,
        "PANIC k1",
        "GUESTTRAP",
        &["hostile on purpose", "src/lib.rs", "nothing was stored"],
    );
    misdeed(client, "RECURSE k2", "GUESTTRAP", &["nothing was stored"]);
    misdeed(client, "ALLOC k3", "GUESTTRAP", &["nothing was stored"]);
    misdeed(client, "OOB k4", "GUESTTRAP", &["out of bounds"]);
    misdeed(client, "EXIT k5", "GUESTTRAP", &["exit"]);
    misdeed(
        client,
        "HOSTCALLS k6",
        "GUESTTRAP",
        &["host_calls_max", "10000"],
    );
    let traps = node.json("/v1/vnodes")["vnodes"]
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|vnode| vnode["traps"].as_u64())
        .sum::<u64>();
    assert!(traps >= 12, "{traps} traps are counted");
}

#[test]
fn a_loop_ends_with_its_budget() {
    let node = node();
    misdeed(
        &mut node.client(),
        "LOOP k",
        "TIMEOUT",
        &["200ms", "command_budget", "'loop'"],
    );
}

#[test]
fn what_is_too_big_is_refused_with_the_limit() {
    let node = node();
    let client = &mut node.client();
    misdeed(
        client,
        "BIGVALUE k1 1048577",
        "TOOBIG",
        &["1048577", "1048576", "value_bytes_max"],
    );
    misdeed(client, "BIGWRITES k3", "TOOBIG", &["memory_per_vnode"]);
    misdeed(
        client,
        "BIGREPLY k2 4200000",
        "TOOBIG",
        &["reply_bytes_max"],
    );
    let reply = client.run("HOSTILE.BIGREPLY k2 4194000");
    assert!(
        matches!(&reply, Reply::Bulk(bytes) if bytes.len() == 4_194_000),
        "just inside the limit"
    );
}

#[test]
fn writes_outside_the_contract_are_refused_and_not_kept() {
    let node = node();
    let client = &mut node.client();
    misdeed(client, "WRITEREAD k1", "ERR", &["does not write"]);
    misdeed(
        client,
        "FOREIGNKEY k2 elsewhere",
        "ERR",
        &["elsewhere", "partition"],
    );
    assert_eq!(client.run("HOSTILE.GET elsewhere"), Reply::Nil);
    // With one tag it is no foreign key.
    assert_eq!(client.run("HOSTILE.FOREIGNKEY {t}a {t}b"), Reply::ok());
}

#[test]
fn words_of_a_refusal_cannot_break_out_of_their_line() {
    let node = node();
    let mut client = node.client();
    let mut spell =
        |code: &str, message: &str| client.call(&["HOSTILE.SPELL", "key", code, message]).text();
    assert_eq!(spell("MINE", "is fine"), "MINE is fine");
    for code in ["two words", "low", "", "A\r\n+OK"] {
        let text = spell(code, "a\r\n+OK\r\nb");
        let (first, rest) = text.split_once(' ').expect("two words");
        assert!(
            first.bytes().all(|byte| byte.is_ascii_uppercase()) && !first.is_empty(),
            "{text:?}"
        );
        assert!(rest.ends_with("a +OK b"), "{text:?}");
    }
    for code in ["MOVED", "ASK", "NOAUTH"] {
        assert_eq!(spell(code, "1 10.0.0.1:6379"), "ERR 1 10.0.0.1:6379");
    }
    let long = spell("ERR", &"x".repeat(100_000));
    assert!(long.len() < 2000, "{} bytes", long.len());
    assert_eq!(client.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn a_new_instance_sees_nothing_of_the_command_that_ended_the_last_one() {
    let node = node();
    let mut client = node.client();
    for command in ["PANIC", "HOSTCALLS", "LOOP"] {
        let reply = client.run(&format!("HOSTILE.{command} key"));
        assert!(matches!(reply, Reply::Error(_)), "{command}: {reply:?}");
        assert_eq!(client.run("HOSTILE.SAW key"), 0.into(), "{command}");
        assert_eq!(client.run("HOSTILE.GET key"), Reply::Nil, "{command}");
    }
}

#[test]
fn a_flood_of_log_lines_is_cut_short() {
    let node = node();
    let mut client = node.client();
    assert_eq!(client.run("HOSTILE.LOGFLOOD key"), Reply::ok());
    let printed = node.terminate().printed;
    let lines = printed
        .lines()
        .filter(|line| line.contains("long long"))
        .count();
    assert!((1..=64).contains(&lines), "{lines} lines");
    assert!(
        printed.lines().all(|line| line.len() < 6000),
        "a line is too long"
    );
}

#[test]
fn an_instance_is_made_again_after_a_trap_and_remembers_nothing() {
    let node = node();
    let mut client = node.client();
    let before = client.run("HOSTILE.RAN key").int();
    assert!(client.run("HOSTILE.RAN key").int() > before);
    assert!(client.run("HOSTILE.PANIC key").is_error("GUESTTRAP"));
    assert_eq!(client.run("HOSTILE.RAN key").int(), 1);
}

#[test]
fn commands_that_share_a_call_with_a_trap_are_all_answered_and_kept() {
    let node = node();
    let mut client = node.client();
    let commands: Vec<Vec<u8>> = (0..100)
        .map(|n| match n % 10 {
            5 => line(&format!("HOSTILE.PANIC {{t}}{n}")),
            _ => line(&format!("HOSTILE.SET {{t}}{n} {n}")),
        })
        .collect();
    for (n, reply) in client.pipeline(&commands).into_iter().enumerate() {
        match n % 10 {
            5 => assert!(reply.is_error("GUESTTRAP"), "{n}: {reply:?}"),
            _ => assert_eq!(reply, Reply::ok(), "{n}"),
        }
    }
    for n in 0..100 {
        let wanted = if n % 10 == 5 {
            Reply::Nil
        } else {
            Reply::from(n.to_string().as_str())
        };
        assert_eq!(client.run(&format!("HOSTILE.GET {{t}}{n}")), wanted, "{n}");
    }
}

#[test]
fn a_merge_that_fails_costs_its_reader_and_a_write_heals_the_key() {
    let node = node();
    let mut client = node.client();
    for key in ["trap", "loop", "big"] {
        for value in ["one", "two"] {
            assert_eq!(
                client.run(&format!("HOSTILE.FORK {key} {value}")),
                Reply::ok()
            );
        }
        let reply = client.run(&format!("HOSTILE.GET {key}"));
        assert!(matches!(reply, Reply::Error(_)), "{key}: {reply:?}");
        assert_eq!(
            client.run(&format!("HOSTILE.SET {key} healed")),
            Reply::ok(),
            "{key}"
        );
        assert_eq!(
            client.run(&format!("HOSTILE.GET {key}")),
            "healed".into(),
            "{key}"
        );
    }
}

#[test]
fn coverage_without_end_ends_at_a_limit() {
    let node = node();
    let mut client = node.client();
    let reply = client.run("HOSTILE.PAGES");
    assert!(
        reply.is_error("TIMEOUT") || reply.is_error("TOOBIG"),
        "{reply:?}"
    );
    let reply = client.run("HOSTILE.LOOPALL");
    assert!(reply.is_error("TIMEOUT"), "{reply:?}");
    assert_eq!(client.run("HOSTILE.SET key value"), Reply::ok());
    assert_eq!(client.run("KV.SET key value"), Reply::ok());
}
