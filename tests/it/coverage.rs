//! Commands that ask the whole ring: KEYS, VALUES, DBSIZE, CLEAR and SCAN.

use std::collections::BTreeSet;

use tests::resp::{Client, Protocol, Reply, encode, line};
use tests::{Node, Starter};

/// Puts so many keys, the name of each made from its number.
fn fill(client: &mut Client, count: usize, name: impl Fn(usize) -> String) -> BTreeSet<String> {
    let names: BTreeSet<_> = (0..count).map(name).collect();
    let commands: Vec<_> = names
        .iter()
        .map(|name| encode(&["SET", name, name]))
        .collect();
    for reply in client.pipeline(&commands) {
        assert_eq!(reply, Reply::ok());
    }
    names
}

/// The texts of an array, each of them once.
fn distinct(reply: Reply) -> BTreeSet<String> {
    let items = reply.items();
    let texts: BTreeSet<_> = items.iter().map(Reply::text).collect();
    assert_eq!(texts.len(), items.len(), "something came twice");
    texts
}

/// Runs SCAN to its end: the keys in the order in which they came, and the number of pages.
fn scan(client: &mut Client, options: &str) -> (Vec<String>, usize) {
    let mut cursor = "0".to_owned();
    let mut keys = Vec::new();
    for page in 1.. {
        let items = client.run(&format!("SCAN {cursor}{options}")).items();
        let [next, found] = &items[..] else {
            panic!("{items:?}")
        };
        keys.extend(found.clone().items().iter().map(Reply::text));
        cursor = next.text();
        if cursor == "0" {
            return (keys, page);
        }
        assert!(page < 100_000, "the scan does not end");
    }
    unreachable!()
}

/// Runs SCAN to its end and expects exactly these keys, once each.
fn scans(client: &mut Client, options: &str, expected: &BTreeSet<String>) -> usize {
    let (keys, pages) = scan(client, options);
    let found: BTreeSet<_> = keys.iter().cloned().collect();
    assert_eq!(found.len(), keys.len(), "{options}: some key came twice");
    assert!(
        found == *expected,
        "{options}: {} of {} keys",
        found.len(),
        expected.len()
    );
    pages
}

#[test]
fn keys_values_and_dbsize_see_every_key_once() {
    let node = Node::in_memory();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut client = node.client_in(protocol);
        assert_eq!(client.run("KEYS *"), Reply::Array(vec![]));
        assert_eq!(client.run("VALUES"), Reply::Array(vec![]));
        assert_eq!(client.run("DBSIZE"), 0.into());
        let names = fill(&mut client, 700, |n| format!("key{n}"));
        assert_eq!(distinct(client.run("KEYS")), names);
        assert_eq!(distinct(client.run("KEYS *")), names);
        assert_eq!(distinct(client.run("VALUES")), names);
        assert_eq!(client.run("DBSIZE"), 700.into());
        assert_eq!(client.run("CLEAR"), Reply::ok());
        assert_eq!(client.run("DBSIZE"), 0.into());
        assert_eq!(client.run("GET key7"), Reply::Nil);
    }
}

#[test]
fn patterns_pick_keys_as_in_redis() {
    let node = Node::in_memory();
    let mut client = node.client();
    for key in ["hello", "hallo", "hillo", "help", "h*llo", "other"] {
        client.call(&["SET", key, "v"]);
    }
    let table: [(&str, &[&str]); 7] = [
        ("h?llo", &["hello", "hallo", "hillo", "h*llo"]),
        ("h[ae]llo", &["hello", "hallo"]),
        ("h[^e]llo", &["hallo", "hillo", "h*llo"]),
        ("h\\*llo", &["h*llo"]),
        ("he*", &["hello", "help"]),
        ("*o*", &["hello", "hallo", "hillo", "h*llo", "other"]),
        ("nothing", &[]),
    ];
    for (pattern, expected) in table {
        let expected: BTreeSet<_> = expected.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(
            distinct(client.run(&format!("KEYS {pattern}"))),
            expected,
            "{pattern}"
        );
        scans(&mut client, &format!(" MATCH {pattern}"), &expected);
    }
}

#[test]
fn scan_gives_every_key_exactly_once_whatever_count_says() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(scan(&mut client, ""), (vec![], 1));
    let names = fill(&mut client, 1000, |n| format!("key:{n}"));
    let mut pages = Vec::new();
    for options in [
        " COUNT 1",
        "",
        " COUNT 37",
        " COUNT 1000",
        " count 99999999",
    ] {
        pages.push(scans(&mut client, options, &names));
    }
    assert!(
        pages.is_sorted_by(|a, b| a >= b),
        "a larger COUNT takes no more pages: {pages:?}"
    );
    assert!(
        pages[0] > 60,
        "COUNT 1 does not give everything at once: {pages:?}"
    );
    let some: BTreeSet<_> = names
        .iter()
        .filter(|key| key.contains('7'))
        .cloned()
        .collect();
    for options in [" MATCH *7*", " COUNT 5 MATCH *7*", " MATCH *7* COUNT 500"] {
        scans(&mut client, options, &some);
    }
}

#[test]
fn a_group_of_keys_with_one_tag_is_scanned_whole_though_larger_than_count() {
    let node = Node::in_memory();
    let mut client = node.client();
    // More than a page of any command, all in one partition and with one hash.
    let mut names = fill(&mut client, 2500, |n| format!("{{tag}}:{n}"));
    names.extend(fill(&mut client, 200, |n| format!("key:{n}")));
    for options in ["", " COUNT 5", " COUNT 1000"] {
        scans(&mut client, options, &names);
    }
    assert_eq!(distinct(client.run("KEYS")), names);
    assert_eq!(client.run("DBSIZE"), 2700.into());
    assert_eq!(client.run("CLEAR"), Reply::ok());
    assert_eq!(client.run("DBSIZE"), 0.into());
}

#[test]
fn keys_that_are_there_all_the_time_are_scanned_while_others_come_and_go() {
    let node = Node::in_memory();
    let mut client = node.client();
    let names = fill(&mut client, 300, |n| format!("stays:{n}"));
    let mut cursor = "0".to_owned();
    let mut found = Vec::new();
    for page in 0.. {
        client.run(&format!("SET passes:{page} x"));
        client.run(&format!("DEL passes:{}", page / 2));
        let items = client.run(&format!("SCAN {cursor} MATCH stays:*")).items();
        found.extend(items[1].clone().items().iter().map(Reply::text));
        cursor = items[0].text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), names.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
}

#[test]
fn a_cursor_goes_on_on_any_connection_and_any_number_is_a_cursor() {
    let node = Node::in_memory();
    let names = fill(&mut node.client(), 100, |n| format!("key:{n}"));
    let mut cursor = "0".to_owned();
    let mut found = BTreeSet::new();
    loop {
        let items = node.client().run(&format!("SCAN {cursor}")).items();
        found.extend(items[1].clone().items().iter().map(Reply::text));
        cursor = items[0].text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found, names);
    let mut client = node.client();
    for cursor in ["1", "18446744073709551615", "9223372036854775808"] {
        assert_eq!(
            client.run(&format!("SCAN {cursor}")).items().len(),
            2,
            "{cursor}"
        );
    }
    assert!(client.run("SCAN 18446744073709551616").is_error("ERR"));
}

#[test]
fn an_answer_beyond_the_limit_is_refused_and_says_what_helps() {
    let node = Starter::three(&["--storage", "memory", "--coverage-items-max", "100"]).start();
    let mut client = node.client();
    let names = fill(&mut client, 101, |n| format!("key:{n}"));
    for command in ["KEYS", "VALUES"] {
        let reply = client.run(command);
        assert!(reply.is_error("TOOBIG"), "{reply:?}");
        let text = reply.text();
        assert!(
            text.contains("100") && text.contains("coverage_items_max"),
            "{text}"
        );
        assert!(text.contains("SCAN"), "{text}");
    }
    scans(&mut client, "", &names);
    client.run("DEL key:0");
    assert_eq!(client.run("KEYS").items().len(), 100);
}

#[test]
fn coverage_sees_every_write_before_it_in_a_pipeline_and_none_after_it() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut commands = Vec::new();
    for turn in 0..50 {
        commands.push(line(&format!("SET k{turn} v")));
        commands.push(line("DBSIZE"));
    }
    commands.push(line("CLEAR"));
    commands.push(line("DBSIZE"));
    commands.push(line("SET last v"));
    let replies = client.pipeline(&commands);
    for turn in 0..50 {
        assert_eq!(
            replies[2 * turn + 1],
            Reply::Int(i64::try_from(turn).unwrap() + 1)
        );
    }
    assert_eq!(replies[100..], [Reply::ok(), 0.into(), Reply::ok()]);
    assert_eq!(client.run("KEYS"), ["last"].into());
}
