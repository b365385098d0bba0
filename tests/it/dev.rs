//! `host dev` as the author of a guest meets it: what was saved is what answers, and nothing is left of it in the end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tests::resp::{Client, Reply};
use tests::{PATIENCE, arg, command, eventually, finish, guest, root, signal, text};

/// The command as a process, with a directory for temporary files of its own.
struct Dev {
    child: Child,
    said: Arc<Mutex<String>>,
    temporary: tempfile::TempDir,
}

impl Dev {
    fn start(args: &[&str]) -> Dev {
        let temporary = tempfile::tempdir().expect("a folder");
        let (output, writer) = std::io::pipe().expect("a pipe");
        let child = command()
            .arg("dev")
            .args(args)
            .env("TMPDIR", temporary.path())
            .env("CARGO_TARGET_DIR", target())
            // How busy the machine is decides nothing.
            .env("VNODE_REQUEST_TIMEOUT", "20s")
            .env("VNODE_COMMAND_BUDGET", "10s")
            .stdout(writer.try_clone().expect("a pipe"))
            .stderr(writer)
            .spawn()
            .expect("the program starts");
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut heard = heard.lock().expect("no reader panics");
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        Dev {
            child,
            said,
            temporary,
        }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no reader panics").clone()
    }

    /// Waits until it has said all these words so often.
    fn says(&self, times: usize, words: &[&str]) {
        self.says_within(PATIENCE, times, words);
    }

    fn says_within(&self, patience: Duration, times: usize, words: &[&str]) {
        let missing = |said: &str| {
            let mut words = words.iter();
            words
                .find(|words| said.matches(**words).count() < times)
                .copied()
        };
        let begin = Instant::now();
        while let Some(words) = missing(&self.said()) {
            assert!(
                begin.elapsed() < patience,
                "no {words:?} in: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where the nodes are, once they are ready.
    fn nodes(&self) -> Vec<(String, u16)> {
        // What guests are made of may have to be compiled first.
        self.says_within(5 * PATIENCE, 1, &["\nready "]);
        let said = self.said();
        let nodes = said.lines().filter_map(|line| {
            let (name, rest) = line.split_once("     redis-cli -p ")?;
            let port = rest.split(' ').next()?.parse().ok()?;
            Some((name.to_owned(), port))
        });
        nodes.collect()
    }

    /// Waits until it has ended. Then there is no node any more to which somebody is connected, and no data of one.
    fn leaves_nothing(&mut self, clients: &mut [Client]) -> ExitStatus {
        let status = eventually("the command to end", || {
            self.child.try_wait().expect("a child")
        });
        for client in clients {
            assert_eq!(client.try_reply(), None);
        }
        let left: Vec<_> = fs::read_dir(self.temporary.path())
            .expect("a folder")
            .collect();
        assert!(left.is_empty(), "{left:?}");
        status
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It has to end its nodes, which it could not if it were killed.
            signal("TERM", &self.child.id().to_string());
            drop(self.child.wait());
        }
    }
}

/// Guests are compiled where those of other tests are: all have the same dependencies.
fn target() -> PathBuf {
    root().join("target/test-guests")
}

/// A project of a guest that counts, with the dependencies that the repository has, which are compiled already.
fn project(folder: &Path, name: &str) -> PathBuf {
    let made = finish(
        command()
            .current_dir(folder)
            .args(["new", name, "--template", "counter"]),
    );
    assert!(made.status.success(), "{}", text(&made));
    let project = folder.join(name);
    fs::copy(root().join("Cargo.lock"), project.join("Cargo.lock")).expect("a lock file");
    project
}

fn client(port: u16) -> Client {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node takes clients");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    Client::new(stream)
}

/// The process of the node.
fn process(client: &mut Client) -> String {
    let info = client.run("INFO server").text();
    let process = info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"));
    process.expect("INFO has it").trim().to_owned()
}

/// Waits until a counter has this value, which only one version of the guest says.
fn counts(client: &mut Client, key: &str, wanted: i64) {
    eventually(&format!("{key} to be {wanted}"), || {
        let reply = client.run(&format!("COUNT {key}"));
        (reply == Reply::Int(wanted)).then_some(())
    });
}

#[test]
fn what_is_saved_is_what_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = project(folder.path(), "watched");
    let source = project.join("src/lib.rs");
    let first = fs::read_to_string(&source).expect("a source");
    let mut dev = Dev::start(&[arg(&project), "--port", "0", "--nodes", "2"]);
    let found = dev.nodes();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["node1", "node2"]);
    let mut clients: Vec<Client> = found.iter().map(|(_, port)| client(*port)).collect();
    let [one, other] = &mut clients[..] else {
        panic!("two nodes");
    };
    assert_eq!(one.run("INCR a"), Reply::Int(1));
    assert_eq!(other.run("COUNT a"), Reply::Int(1));

    // The same version with other contents, which also refuses one key and fails at another.
    let counted = "\"COUNT\" => Ok(Reply::int(count))";
    assert!(first.contains(counted), "{first}");
    let answer = "\"COUNT\" if key == b\"no\" => Err(Error::overflow()),
            \"COUNT\" => { if key == b\"boom\" { divide(count) } Ok(Reply::int(count + 1000)) }";
    let divide =
        "#[inline(never)]\nfn divide(by: i64) {\n    assert!(by > 0, \"by nothing\");\n}\n";
    let second = format!("{}\n{divide}", first.replace(counted, answer));
    fs::write(&source, &second).expect("the source is written");
    counts(one, "a", 1001);
    counts(other, "a", 1001);
    dev.says(1, &["src/lib.rs changed", "swapped to sha256 "]);
    let refused = one.run("COUNT no");
    assert!(refused.is_error("ERR"), "{refused:?}");
    let words = refused.text();
    dev.says(
        1,
        &["version=", "command=COUNT", &format!("refused: {words}")],
    );
    let failed = one.run("COUNT boom");
    assert!(failed.is_error("GUESTTRAP"), "{failed:?}");
    let line = second
        .lines()
        .position(|line| line.contains("assert!"))
        .expect("a line")
        + 1;
    dev.says(
        1,
        &[
            &format!("panicked at src/lib.rs:{line}:"),
            "by nothing",
            &format!("watched::divide (watched/src/lib.rs:{line}) < "),
        ],
    );

    // What does not compile changes nothing.
    fs::write(&source, format!("{second}oops")).expect("the source is written");
    dev.says(
        1,
        &["--> src/lib.rs:", "not swapped: the one before serves on"],
    );
    assert_eq!(one.run("COUNT a"), Reply::Int(1001));
    fs::write(&source, second.replace("1000", "2000")).expect("the source is written");
    counts(other, "a", 2001);
    dev.says(2, &["swapped to sha256 "]);

    signal("INT", &dev.child.id().to_string());
    let status = dev.leaves_nothing(&mut clients);
    assert_eq!(status.code(), Some(0), "{}", dev.said());
}

#[test]
fn a_component_is_watched_until_its_node_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mine.wasm");
    fs::copy(guest("counter"), &file).expect("a component");
    let mut dev = Dev::start(&[arg(&file), "--port", "0"]);
    let found = dev.nodes();
    let (name, port) = found.first().expect("a node");
    assert_eq!((name.as_str(), found.len()), ("node1", 1));
    let mut client = client(*port);
    assert_eq!(client.run("INCR a"), Reply::Int(1));
    let node = process(&mut client);

    // Another guest is no version of this one.
    fs::copy(guest("kv"), &file).expect("a component");
    dev.says(
        1,
        &[
            "mine.wasm changed",
            "a guest of kv, not of counter",
            "not swapped",
        ],
    );
    assert_eq!(client.run("INCR a"), Reply::Int(2));
    fs::copy(guest("counter"), &file).expect("a component");
    dev.says(1, &["the component is the same as before"]);

    signal("KILL", &node);
    let status = dev.leaves_nothing(&mut [client]);
    assert_eq!(status.code(), Some(1));
    dev.says(
        1,
        &["error: node1 ended by itself: signal: 9", "\n  next: "],
    );
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let file = guest("counter");
    let mut dev = Dev::start(&[arg(&file), "--port", &port.to_string()]);
    let status = dev.leaves_nothing(&mut []);
    assert_eq!(status.code(), Some(1));
    let port = format!("127.0.0.1:{port}");
    dev.says(
        1,
        &[
            &port,
            "in use",
            "error: node1 ended by itself: exit status: 1",
        ],
    );
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = arg(&folder.path()).to_owned();
    for args in [
        &[empty.as_str()][..],
        &["missing.wasm"],
        &[&empty, "--nodes", "0"],
        &[arg(&guest("counter")), "--nodes", "3", "--port", "65520"],
    ] {
        let mut dev = Dev::start(args);
        let status = dev.leaves_nothing(&mut []);
        assert_eq!(status.code(), Some(2), "{args:?}: {}", dev.said());
        dev.says(1, &["error: "]);
    }
}
