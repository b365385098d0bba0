//! `kill -9` and a start again: what was acknowledged is there, and nothing is torn.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tests::resp::{Client, Reply, encode};
use tests::{Node, Starter, arg, eventually, finish, seed, text};

const WRITERS: usize = 3;

/// What one writer knows of its keys when the node is gone.
#[derive(Default)]
struct Notes {
    /// Versions by key: the last that was sent, and those that were acknowledged, with the time.
    keys: BTreeMap<String, (u64, Vec<(u64, Instant)>)>,
    /// The same for its counter: increments sent, and acknowledged sums.
    sent: i64,
    counted: Vec<(i64, Instant)>,
}

/// A value that shows when it is torn: its version, and a run of bytes whose length follows from it.
fn value(version: u64) -> String {
    let length = usize::try_from(version * 37 % 2000).unwrap();
    let letter = char::from(b'a' + u8::try_from(version % 26).unwrap());
    format!("{version}:{}", letter.to_string().repeat(length))
}

fn version_of(text: &str) -> u64 {
    let version = text.split(':').next().unwrap().parse().unwrap();
    assert_eq!(text, value(version), "a value is whole");
    version
}

/// Writes until the node is gone. Few keys, so that they are written again and again.
fn write(mut client: Client, writer: usize, from: u64) -> Notes {
    let mut notes = Notes::default();
    for batch in from.. {
        let versions: Vec<u64> = (batch * 8..batch * 8 + 8).collect();
        let mut bytes = Vec::new();
        for version in &versions {
            let key = format!("{writer}:{}", version % 50);
            bytes.extend(encode(&["SET", &key, &value(*version)]));
            notes.keys.entry(key).or_default().0 = *version;
        }
        bytes.extend(encode(&["INCR", &format!("counter:{writer}")]));
        notes.sent += 1;
        let sent = client.stream().write_all(&bytes);
        if sent.is_err() {
            return notes;
        }
        for version in &versions {
            match client.try_reply() {
                Some(reply) => assert_eq!(reply, Reply::ok()),
                None => return notes,
            }
            let key = format!("{writer}:{}", version % 50);
            notes
                .keys
                .get_mut(&key)
                .unwrap()
                .1
                .push((*version, Instant::now()));
        }
        match client.try_reply() {
            Some(reply) => notes.counted.push((reply.int(), Instant::now())),
            None => return notes,
        }
    }
    notes
}

/// Lets writers write until `enough`, kills the node, and returns what the writers know.
fn write_and_kill(
    mut node: Node,
    round: u64,
    enough: impl Fn(&Node) -> bool,
) -> (Vec<Notes>, Instant) {
    std::thread::scope(|scope| {
        let from = (round + 1) * 1_000_000;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let client = node.client();
                scope.spawn(move || write(client, writer, from))
            })
            .collect();
        eventually("enough writes", || enough(&node).then_some(()));
        let killed = Instant::now();
        node.kill();
        let notes = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect();
        (notes, killed)
    })
}

/// Checks that everything acknowledged `before` is there, or something newer that was sent.
fn check(node: &Node, notes: &[Notes], before: Instant) -> usize {
    let mut client = node.client();
    let mut checked = 0;
    for (writer, notes) in notes.iter().enumerate() {
        for (key, (sent, acknowledged)) in &notes.keys {
            let old = acknowledged.iter().filter(|(_, at)| *at <= before);
            let least = old.map(|(version, _)| *version).max();
            let found = match client.run(&format!("GET {key}")) {
                Reply::Nil => None,
                reply => Some(version_of(&reply.text())),
            };
            assert!(
                found >= least,
                "{key}: {found:?} is older than the acknowledged {least:?}"
            );
            assert!(found <= Some(*sent), "{key}: {found:?} was never sent");
            checked += usize::from(least.is_some());
        }
        let old = notes.counted.iter().filter(|(_, at)| *at <= before);
        let least = old.map(|(sum, _)| *sum).max().unwrap_or(0);
        let found = client.run(&format!("COUNT counter:{writer}")).int();
        assert!(
            found >= least,
            "counter {writer} went back from {least} to {found}"
        );
        let first = notes.counted.first().map_or(1, |(sum, _)| *sum);
        assert!(
            found < first + notes.sent,
            "counter {writer} counted {found}, too much"
        );
    }
    checked
}

#[test]
fn with_sync_always_nothing_acknowledged_is_lost_whenever_the_node_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    let start = || Starter::three(&["--sync", "always"]).data(&data).start();
    let mut node = start();
    for round in 0..4 {
        let counter = r#"vnode_commands_total{service="kv",command="SET",outcome="ok"}"#;
        let some = 300.0 + 500.0 * f64::from(u32::try_from(round).unwrap());
        let (notes, killed) =
            write_and_kill(node, round, |node| node.metric(counter).unwrap() > some);
        node = start();
        assert!(check(&node, &notes, killed + Duration::from_secs(60)) > 20);
    }
}

#[test]
fn with_sync_interval_all_that_is_older_than_the_interval_is_there_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    let start = || {
        Starter::three(&["--sync", "interval", "--sync-interval", "50ms"])
            .data(&data)
            .start()
    };
    let mut node = start();
    for round in 0..2 {
        let begun = Instant::now();
        let (notes, killed) = write_and_kill(node, round, |_| {
            begun.elapsed() > Duration::from_millis(1600)
        });
        node = start();
        // Twenty intervals: what a busy machine may take to get to the disk.
        assert!(check(&node, &notes, killed - Duration::from_secs(1)) > 20);
    }
}

#[test]
fn deleted_keys_stay_deleted_and_versions_stay_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    let start = || Starter::three(&["--sync", "always"]).data(&data).start();
    let mut node = start();
    let mut client = node.client();
    for n in 0..100 {
        client.run(&format!("SET k{n} v"));
        client.run(&format!("SET {{tag}}{n} v"));
    }
    for n in 0..50 {
        assert_eq!(client.run(&format!("DEL k{n}")), 1.into());
    }
    client.call(&["VPUT", "cart", "milk", ""]);
    client.call(&["VPUT", "cart", "bread", ""]);
    let versions = client.run("VGET cart");
    node.kill();
    let mut node = start();
    let mut client = node.client();
    assert_eq!(client.run("DBSIZE"), 151.into());
    assert_eq!(client.run("EXISTS k0 k49 k50 k99"), 2.into());
    assert_eq!(
        client.run("VGET cart"),
        versions,
        "contexts outlive a crash"
    );
    assert_eq!(client.run("CLEAR"), Reply::ok());
    node.kill();
    assert_eq!(start().client().run("DBSIZE"), 0.into());
}

#[test]
fn a_restart_keeps_name_ring_and_contents_of_an_idle_node() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut node = Starter::three(&["--ring-size", "16", "--hash", "etf-sha1"])
        .data(&data)
        .start();
    let mut client = node.client();
    assert_eq!(client.run("SET k v"), Reply::ok());
    let ring = node.json("/v1/ring");
    let preflist = node.json("/v1/ring/preflist?key=k");
    let on_disk = Instant::now();
    eventually("the interval to pass", || {
        (on_disk.elapsed() > Duration::from_secs(1)).then_some(())
    });
    node.kill();
    let node = Starter::three(&[]).data(&data).start();
    // Its addresses are others now, which becomes a change of the map; who owns what is not.
    let mut again = node.json("/v1/ring");
    assert!(again["epoch"].as_u64() >= ring["epoch"].as_u64());
    again["epoch"] = ring["epoch"].clone();
    assert_eq!(again, ring);
    assert_eq!(node.json("/v1/ring/preflist?key=k"), preflist);
    assert_eq!(node.json("/v1/cluster")["members"][0]["name"], "a@test");
    assert_eq!(node.client().run("GET k"), "v".into());
}

/// Tries to start on a directory, and expects a refusal with these words.
fn refused(data: &Path, flags: &[&str], words: &[&str]) {
    let start = [
        "--vnode",
        "kv",
        "--port",
        "0",
        "--name",
        "a@test",
        "--data",
        arg(&data),
    ];
    let output = finish(tests::command().args(start).args(flags));
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{flags:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{flags:?}: {word}: {said}");
    }
}

#[test]
fn what_the_ring_is_made_of_cannot_change() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    let node = Starter::three(&["--sync", "always"]).data(&data).start();
    assert_eq!(node.client().run("SET k v"), Reply::ok());
    assert!(node.terminate().status.success());
    refused(
        &data,
        &["--ring-size", "128"],
        &["ring_size", "64", "128", "\n  next: "],
    );
    refused(&data, &["--hash", "etf-sha1"], &["hash", "v1", "etf-sha1"]);
    let node = Starter::three(&["--ring-size", "64", "--hash", "v1"])
        .data(&data)
        .start();
    assert_eq!(node.client().run("GET k"), "v".into());
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_and_does_the_first_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    let mut node = Starter::three(&["--sync", "always"]).data(&data).start();
    let mut client = node.client();
    assert_eq!(client.run("SET k v"), Reply::ok());
    for _ in 0..3 {
        refused(&data, &[], &["in use by another process"]);
        assert_eq!(client.run("GET k"), "v".into());
        assert_eq!(client.run("INCR n"), client.run("COUNT n"));
    }
    node.kill();
    // The lock went with the process, whatever became of it.
    let node = Starter::three(&[]).data(&data).start();
    assert_eq!(node.client().run("GET k"), "v".into());
    assert_eq!(node.client().run("COUNT n"), 3.into());
}

#[test]
fn damaged_files_of_the_compile_cache_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 4] = [
        ("a flipped bit", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("a cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("nothing", Vec::clear),
        ("zeros", |bytes| bytes.fill(0)),
    ];
    for (what, damage) in damage {
        for entry in std::fs::read_dir(data.join("cache")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
        let node = Starter::three(&["--sync", "always"]).data(&data).start();
        let mut client = node.client();
        assert!(matches!(client.run("INCR n"), Reply::Int(_)), "{what}");
        assert!(node.terminate().status.success());
    }
    std::fs::remove_dir_all(data.join("cache")).unwrap();
    let node = Starter::three(&[]).data(&data).start();
    assert_eq!(node.client().run("COUNT n"), 4.into());
}

#[test]
fn a_torn_end_of_the_journal_is_dropped_and_all_before_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    let start = || Starter::three(&["--sync", "always"]).data(&data).start();
    let mut node = start();
    for (turn, garbage) in [&b"\xa7vnr"[..], &[0; 100], &[0xff; 4096]]
        .into_iter()
        .enumerate()
    {
        let mut client = node.client();
        for n in 0..20 {
            assert_eq!(client.run(&format!("SET k{turn}:{n} v")), Reply::ok());
        }
        node.kill();
        let logs = std::fs::read_dir(data.join("store/journal")).unwrap();
        let mut logs: Vec<_> = logs.map(|log| log.unwrap().path()).collect();
        logs.sort();
        let last = logs.last().unwrap();
        let torn = [std::fs::read(last).unwrap(), garbage.to_vec()].concat();
        std::fs::write(last, torn).unwrap();
        node = start();
        let all = i64::try_from(20 * (turn + 1)).unwrap();
        assert_eq!(node.client().run("DBSIZE"), all.into());
    }
}
