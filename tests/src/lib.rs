//! The harness: real `host` processes on free ports with fresh directories.
//!
//! Nothing here sleeps for a fixed time: it waits for a condition, with a deadline that only a broken node meets.
//! Every process that is started is ended, also when a test fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails its test by panicking"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie inside the repository")
        .to_owned()
}

/// The program under test; `make build` makes it.
pub fn host() -> PathBuf {
    let path = root().join("target/release/host");
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}

/// A guest of the repository; `make build` makes it.
pub fn guest(name: &str) -> PathBuf {
    let path = root().join("target/guests").join(name).with_extension("wasm");
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    Command::new(host())
        .args(args)
        .env("NO_COLOR", "1")
        .output()
        .expect("the program starts")
}

/// How to start a node.
pub struct Starter {
    args: Vec<String>,
    data: Option<PathBuf>,
}

impl Starter {
    /// With these flags, on free ports.
    pub fn new(args: &[&str]) -> Starter {
        Starter {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            data: None,
        }
    }

    /// In this data directory; without it, in one that goes away with the node.
    pub fn data(mut self, path: &Path) -> Starter {
        self.data = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Node {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = self.data.unwrap_or_else(|| folder.path().join("data"));
        let mut child = Command::new(host())
            .args(["--port", "0", "--name", "a@test", "--data"])
            .arg(&data)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut banner = String::new();
        while !banner.lines().any(|line| line.starts_with("ready")) {
            let read = stdout.read_line(&mut banner).expect("the banner is text");
            if read == 0 {
                let status = child.wait().expect("the program ends");
                panic!("the node ended before it was ready: {status}\n{banner}");
            }
        }
        let address = |label: &str| -> SocketAddr {
            let line = banner.lines().find_map(|line| line.strip_prefix(label));
            let word = line.and_then(|line| line.split_whitespace().next());
            let word = word.unwrap_or_else(|| panic!("no {label} in the banner\n{banner}"));
            word.trim_start_matches("http://").parse().expect("an address")
        };
        Node {
            resp: address("resp"),
            http: address("http"),
            child,
            banner,
            stdout,
            _folder: folder,
        }
    }
}

/// A running node.
pub struct Node {
    /// Where Redis clients connect.
    pub resp: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// What it printed until it was ready.
    pub banner: String,
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Node {
    /// A node in memory with the three guests.
    pub fn in_memory() -> Node {
        Starter::new(&[
            "--vnode", "kv", "--vnode", "ping", "--vnode", "counter", "--storage", "memory",
        ])
        .start()
    }

    /// A Redis client.
    pub fn redis(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.resp)).expect("an address");
        let connection = client.get_connection().expect("the node takes clients");
        connection
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        connection
    }

    /// A bare connection.
    pub fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.resp).expect("the node takes clients");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
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
        answer(agent().get(format!("http://{}{path}", self.http)).call())
    }

    /// GET of JSON.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// POST of JSON: status and body.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let request = agent()
            .post(format!("http://{}{path}", self.http))
            .header("content-type", "application/json");
        answer(request.send(body))
    }

    /// The command line against this node.
    pub fn cli(&self, args: &[&str]) -> Output {
        let endpoint = format!("http://{}", self.http);
        let mut all = vec!["--endpoint", &endpoint];
        all.extend_from_slice(args);
        run(&all)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().expect("the node was running");
        self.child.wait().expect("the node ends");
    }

    /// Asks it to end, and waits until it did.
    pub fn terminate(mut self) -> ExitStatus {
        let killed = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(killed.success());
        let status = eventually("the node to end", || self.child.try_wait().expect("a child"));
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        self.banner.push_str(&rest);
        status
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut response = response.expect("the node answers HTTP");
    let body = response.body_mut().read_to_string().expect("text");
    (response.status().as_u16(), body)
}
