//! Versions of one guest in three languages replace each other: Rust, Python, JavaScript and Rust again.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tests::resp::{Client, Reply};
use tests::{Cluster, Node, eventually};

use super::{AT_ANY_PACE, all_of_run, guest};

/// Keys of each kind that a writer has.
const KEYS: usize = 10;

/// Time of a writer between its commands, so that it leaves some to the compiler.
const THINKS: Duration = Duration::from_millis(5);

/// What a writer has left under each of its keys.
type Left = BTreeMap<String, Vec<u8>>;

/// A client that writes numbers and texts under keys that nobody else touches, and looks at every answer.
struct Writer {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Left>,
}

impl Writer {
    fn at(address: SocketAddr, name: String) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let stream = std::net::TcpStream::connect(address).expect("the node takes clients");
            let mut client = Client::new(stream);
            let mut left = Left::new();
            for round in 1_i64.. {
                for n in 0..KEYS {
                    counts(&mut client, &format!("{name}-number-{n}"), round, &mut left);
                    writes(&mut client, &format!("{name}-text-{n}"), round, &mut left);
                    std::thread::sleep(THINKS);
                }
                counted.fetch_add(1, Ordering::Relaxed);
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
            }
            left
        });
        Writer { stop, done, thread }
    }

    /// Waits until it has written all its keys so many times more.
    fn does(&self, more: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + more;
        eventually("a writer to go on", || {
            assert!(!self.thread.is_finished(), "an answer was wrong");
            (self.done.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    fn end(self) -> Left {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every answer was right")
    }
}

fn counts(client: &mut Client, key: &str, round: i64, left: &mut Left) {
    assert_eq!(
        client.run(&format!("POLYGLOT.INCR {key}")),
        Reply::Int(round),
        "{key}"
    );
    left.insert(key.to_owned(), round.to_string().into_bytes());
}

/// Bytes that are no text are kept, too; every third time the key is deleted.
fn writes(client: &mut Client, key: &str, round: i64, left: &mut Left) {
    let before = left.remove(key);
    let value = client.run(&format!("POLYGLOT.GET {key}"));
    assert_eq!(
        value,
        before.clone().map_or(Reply::Nil, Reply::Bulk),
        "{key}"
    );
    if round % 3 == 0 {
        let deleted = client.run(&format!("POLYGLOT.DEL {key}"));
        assert_eq!(deleted, Reply::Int(before.is_some().into()), "{key}");
        return;
    }
    let value = [&b"\0\xff\r\n"[..], round.to_string().as_bytes()].concat();
    let reply = client.call(&[b"POLYGLOT.SET", key.as_bytes(), &value]);
    assert_eq!(reply, Reply::ok(), "{key}");
    left.insert(key.to_owned(), value);
}

/// Runs a command, which every replica has to answer by that version.
fn answers(client: &mut Client, version: &str, words: &str, reply: &Reply) {
    let mut traced = client.run(&format!("VNODE.TRACE {words}")).items();
    let steps = traced.pop().expect("steps").items();
    assert_eq!(traced.first(), Some(reply), "{words}");
    assert!(!steps.is_empty(), "{words}");
    for step in steps {
        let step = step.items();
        assert_eq!(step.last(), Some(&version.into()), "{words}: {step:?}");
    }
}

/// Has another version take over. To compile an interpreter takes as long as it takes: each writer has to go on meanwhile.
fn upgrade(node: &Node, make: &str, writers: &[Writer]) {
    let endpoint = format!("http://{}", node.http);
    let words = ["guest", "upgrade", &guest(make), "--soak", "0s", "--wait"];
    let mut command = tests::command();
    let mut upgrading = command
        .args(["-e", &endpoint])
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    while upgrading.try_wait().expect("it is known").is_none() {
        writers.iter().for_each(|writer| writer.does(1));
    }
    let output = upgrading.wait_with_output().expect("its output is read");
    let shown = tests::text(&output);
    assert!(output.status.success(), "{make}: {shown}");
    assert!(shown.contains("done   8/8 partitions"), "{make}: {shown}");
}

/// All that the writers have left is there, and nothing else, whichever node is asked.
fn settle(node: &Node, left: &Left) {
    let mut client = node.client();
    for (key, value) in left {
        let reply = client.run(&format!("POLYGLOT.GET {key}"));
        assert_eq!(reply, Reply::Bulk(value.clone()), "{key} at {}", node.name);
    }
    let count = i64::try_from(left.len()).expect("few");
    assert_eq!(
        client.run("POLYGLOT.DBSIZE"),
        Reply::Int(count),
        "at {}",
        node.name
    );
    let mut keys: Vec<String> = client
        .run("POLYGLOT.KEYS")
        .items()
        .iter()
        .map(Reply::text)
        .collect();
    keys.sort();
    assert_eq!(keys, left.keys().cloned().collect::<Vec<_>>());
}

#[test]
fn guests_in_three_languages_replace_each_other_under_load() {
    let versions = [
        ("polyglot-rust", "1.0.0"),
        ("polyglot-python", "1.1.0"),
        ("polyglot-js", "1.2.0"),
        ("polyglot-rust", "1.0.0"),
    ];
    let folder = tests::root().join("target/guests");
    let is_there = |make: &str| folder.join(make).with_extension("wasm").exists();
    let missing = versions.iter().find(|(make, _)| !is_there(make));
    if let Some((make, _)) = missing {
        let skipped =
            format!("\n*** SKIPPED: {make} could not be built, so it was not swapped ***\n\n");
        // Straight to stderr: what a passing test prints is not shown.
        return std::io::stderr()
            .write_all(skipped.as_bytes())
            .expect("stderr");
    }
    let first = guest("polyglot-rust");
    // An instance of an interpreter takes some megabytes, so there are few.
    let flags = ["--vnode", &first, "--ring-size", "8", "--storage", "memory"];
    let cluster = Cluster::of(3, &[&flags, AT_ANY_PACE].concat());
    cluster.seated();
    let writers = cluster
        .nodes()
        .flat_map(|node| (0..2).map(move |n| Writer::at(node.resp, format!("{}-{n}", node.name))));
    let writers: Vec<Writer> = writers.collect();
    let mut client = cluster.node(2).client();
    let mut left = Left::new();
    for (nth, (make, version)) in (1..).zip(versions) {
        if nth > 1 {
            upgrade(cluster.node(1), make, &writers);
        }
        all_of_run(cluster.nodes(), "polyglot", version);
        writers.iter().for_each(|writer| writer.does(3));
        // It reads what those before it have left, and goes on with it.
        for (key, value) in &left {
            let value = Reply::Bulk(value.clone());
            answers(&mut client, version, &format!("POLYGLOT.GET {key}"), &value);
        }
        let counted = Reply::Int(nth);
        answers(&mut client, version, "POLYGLOT.INCR all", &counted);
        left.insert("all".into(), nth.to_string().into_bytes());
        let key = format!("of-{make}-{nth}");
        assert_eq!(
            client.run(&format!("POLYGLOT.SET {key} {version}")),
            Reply::ok()
        );
        left.insert(key, version.into());
    }
    for writer in writers {
        left.extend(writer.end());
    }
    cluster.nodes().for_each(|node| settle(node, &left));
}
