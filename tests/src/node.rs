//! A node as a process: started, asked, ended.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::Value;

use crate::resp::{Client, Protocol};
use crate::web::{self, Answer, Events, Pending};
use crate::{PATIENCE, clean, eventually, faulty_host, host, run, signal, template, text};

/// How to start a node.
pub struct Starter {
    name: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    data: Option<PathBuf>,
    wrapper: Vec<String>,
    fresh: bool,
    ports: bool,
    program: PathBuf,
}

impl Starter {
    /// With these flags, on free ports.
    pub fn new(args: &[&str]) -> Starter {
        Starter {
            name: "a@test".into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::new(),
            data: None,
            wrapper: Vec::new(),
            fresh: false,
            ports: true,
            program: host(),
        }
    }

    /// With the three guests on disk, and these flags.
    pub fn three(args: &[&str]) -> Starter {
        let guests = ["--vnode", "kv", "--vnode", "ping", "--vnode", "counter"];
        Starter::new(&[&guests[..], args].concat())
    }

    /// With another name than `a@test`.
    pub fn named(mut self, name: &str) -> Starter {
        self.name = name.into();
        self
    }

    /// In this data directory; without it, in one that goes away with the node.
    pub fn data(mut self, path: &Path) -> Starter {
        self.data = Some(path.to_owned());
        self
    }

    /// In a data directory that is not there yet, as at the very first start.
    pub fn fresh(mut self) -> Starter {
        self.fresh = true;
        self
    }

    /// Run by another program, which must become the node: these words go before the program's name.
    pub fn wrapped(mut self, words: &[&str]) -> Starter {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// With this variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Starter {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// As a program that ends at the places that have a file in this directory: `host/cluster/src/failpoint.rs` says how.
    pub fn faulty(mut self, places: &Path) -> Starter {
        self.program = faulty_host();
        self.env("VNODE_FAILPOINTS", &places.display().to_string())
    }

    /// Without `--port 0`, because the test chooses the ports.
    pub fn own_ports(mut self) -> Starter {
        self.ports = false;
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Node {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = self.data.unwrap_or_else(|| {
            let data = folder.path().join("data");
            // What a ring is made of stands in the directory and would contradict the flags.
            let own = |arg: &String| arg == "--ring-size" || arg == "--hash";
            if !self.fresh && !self.args.iter().any(own) {
                template::seed_named(&data, &self.name);
            }
            data
        });
        let mut command = match self.wrapper.split_first() {
            None => clean(Command::new(&self.program)),
            Some((program, words)) => {
                let mut command = clean(Command::new(program));
                command.args(words).arg(&self.program);
                command
            }
        };
        if self.ports {
            command.args(["--port", "0"]);
        }
        // Banner and log lines come through one pipe, in the order in which they were written.
        let (output, writer) = std::io::pipe().expect("a pipe");
        let child = command
            .args(["--name", &self.name, "--data"])
            .arg(&data)
            .args(&self.args)
            .envs(&self.env)
            .current_dir(folder.path())
            .stdout(writer.try_clone().expect("a pipe"))
            .stderr(writer)
            .spawn()
            .expect("the program starts");
        let child = Process(child);
        // The command holds our end of the pipe, which would never close.
        drop(command);
        let (banner, child, rest) = until_ready(output, child);
        let address = |label: &str| -> SocketAddr {
            let line = banner.lines().find_map(|line| line.strip_prefix(label));
            let word = line.and_then(|line| line.split_whitespace().next());
            let word = word.unwrap_or_else(|| panic!("no {label} in the banner\n{banner}"));
            word.trim_start_matches("http://")
                .parse()
                .expect("an address")
        };
        Node {
            name: self.name,
            resp: address("resp"),
            http: address("http"),
            peer: address("peer"),
            data,
            killed: false,
            child,
            banner,
            rest: Some(rest),
            _folder: folder,
        }
    }
}

/// Reads what a node prints until it is ready, and goes on reading: a pipe that nobody reads would stop the node once it is full.
fn until_ready(output: PipeReader, mut child: Process) -> (String, Process, JoinHandle<String>) {
    let (lines, heard) = mpsc::channel();
    let rest = std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while !line.starts_with("ready") {
            line.clear();
            // Nobody listens any more when it took too long.
            if output.read_line(&mut line).expect("the banner is text") == 0
                || lines.send(line.clone()).is_err()
            {
                break;
            }
        }
        drop(lines);
        let mut rest = String::new();
        drop(output.read_to_string(&mut rest));
        rest
    });
    let deadline = Instant::now() + PATIENCE;
    let mut banner = String::new();
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => banner.push_str(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the node was not ready in time\n{banner}"),
        }
    }
    if !banner.lines().any(|line| line.starts_with("ready")) {
        let status = child.0.wait().expect("the program ends");
        panic!("the node ended before it was ready: {status}\n{banner}");
    }
    (banner, child, rest)
}

/// A process that ends with this, also when the test fails while the node starts.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A running node.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where Redis clients connect.
    pub resp: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where other nodes connect.
    pub peer: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
    /// What it printed until it was ready.
    pub banner: String,
    killed: bool,
    child: Process,
    rest: Option<JoinHandle<String>>,
    _folder: tempfile::TempDir,
}

/// How a node ended.
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed after the banner.
    pub printed: String,
}

impl Node {
    /// A node in memory with the three guests.
    pub fn in_memory() -> Node {
        Starter::three(&["--storage", "memory"]).start()
    }

    /// A Redis client of the `redis` crate.
    pub fn redis(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.resp)).expect("an address");
        let connection = client.get_connection().expect("the node takes clients");
        connection
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        connection
    }

    /// A client that shows replies as they are.
    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// The same in the wanted protocol.
    pub fn client_in(&self, protocol: Protocol) -> Client {
        let mut client = self.client();
        client.switch(protocol);
        client
    }

    /// A bare connection.
    pub fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.resp).expect("the node takes clients");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("delay can be switched off");
        stream
    }

    /// Sends these bytes on a connection of their own and reads until the node closes it or `enough` says so.
    pub fn talk(&self, bytes: &[u8], enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut socket = self.socket();
        // The node may close before it has read everything; what it said still counts.
        drop(socket.write_all(bytes));
        let mut heard = Vec::new();
        let mut chunk = [0; 4096];
        while !enough(&heard) {
            match socket.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(chunk.get(..count).expect("read inside")),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("no answer: {error}"),
            }
        }
        heard
    }

    /// GET by HTTP: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let answer = self.request("GET", path, None);
        (answer.status, answer.body)
    }

    /// GET of JSON.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// POST of JSON: status and body.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let answer = self.request("POST", path, Some(body));
        (answer.status, answer.body)
    }

    /// Any request; a body is said to be JSON.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        web::request(self.http, method, path, body)
    }

    /// Sends a request and does not wait for the answer.
    pub fn begin(&self, method: &str, path: &str, body: &str) -> Pending {
        Pending::begin(self.http, method, path, body)
    }

    /// What happens in the cluster as this node sees it, from what it kept of the past on.
    pub fn events(&self) -> Events {
        Events::of(self.http)
    }

    /// The value of a metric with exactly these labels, written as in the text.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// The command line against this node.
    pub fn cli(&self, args: &[&str]) -> Output {
        let endpoint = format!("http://{}", self.http);
        let mut all = vec!["--endpoint", &endpoint];
        all.extend_from_slice(args);
        run(&all)
    }

    /// The command line against this node, which has to succeed; returns what it printed.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    }

    /// The command line against this node, which has to refuse with these words.
    pub fn refuses(&self, args: &[&str], words: &[&str]) {
        let output = self.cli(args);
        let said = text(&output);
        assert!(!output.status.success(), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.0.kill().expect("the node was running");
        self.child.0.wait().expect("the node ends");
        self.killed = true;
    }

    /// Whether a test has killed it.
    pub fn is_killed(&self) -> bool {
        self.killed
    }

    /// Asks it to end, and goes on.
    pub fn ask_to_end(&self) {
        signal("TERM", &self.pid().to_string());
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.0.try_wait().expect("a child").is_some()
    }

    /// Waits until it ended.
    pub fn ended(mut self) -> Ended {
        let status = eventually("the node to end", || {
            self.child.0.try_wait().expect("a child")
        });
        let printed = self.rest.take().map(|rest| rest.join().expect("a reader"));
        Ended {
            status,
            printed: printed.unwrap_or_default(),
        }
    }

    /// Asks it to end, and waits until it did.
    pub fn terminate(self) -> Ended {
        self.ask_to_end();
        self.ended()
    }
}
