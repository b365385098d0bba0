//! What tests of the command line share: whole lines, and a node that gives canned answers.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use serde_json::Value;

use super::{Exit, Invocation, parse};

/// Parses a line as a shell without quotes would split it.
pub(super) fn parse_line(line: &str) -> Result<Invocation, clap::Error> {
    parse(line.split_whitespace().map(OsString::from))
}

/// Runs a command: exit code and output. Plain output, even if the tests run on a terminal, unless the line has a wish.
pub(super) fn execute(line: &str) -> (anyhow::Result<Exit>, String) {
    let mut out = Vec::new();
    let line = if line.contains("--color") {
        line.to_owned()
    } else {
        line.replacen("host", "host --color never", 1)
    };
    let exit = parse_line(&line).unwrap().execute(&mut out);
    (exit, String::from_utf8(out).unwrap())
}

/// A node that gives one canned answer to each request, and remembers what was asked.
pub(super) struct FakeNode {
    url: String,
    thread: JoinHandle<Vec<(String, String)>>,
}

impl FakeNode {
    pub(super) fn answering(answers: Vec<(u16, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|(status, body)| exchange(&listener, status, &body))
                .collect()
        });
        Self { url, thread }
    }

    pub(super) fn with(bodies: &[Value]) -> Self {
        Self::answering(bodies.iter().map(|body| (200, body.to_string())).collect())
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The requests to a node that was asked by way of another.
    pub(super) fn asked(self) -> Vec<(String, String)> {
        self.thread.join().unwrap()
    }

    /// Runs a command against the node: exit code, output, and the requests that it made.
    pub(super) fn run(self, line: &str) -> (anyhow::Result<Exit>, String, Vec<(String, String)>) {
        let (exit, output) = execute(&line.replacen("host", &format!("host -e {}", self.url), 1));
        (exit, output, self.asked())
    }
}

fn exchange(listener: &TcpListener, status: u16, body: &str) -> (String, String) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    lines.read_line(&mut head).unwrap();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        length = line
            .strip_prefix("content-length: ")
            .map_or(length, |n| n.parse().unwrap());
    }
    let mut sent = vec![0; length];
    lines.read_exact(&mut sent).unwrap();
    let size = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    (
        head.trim().trim_end_matches(" HTTP/1.1").into(),
        String::from_utf8(sent).unwrap(),
    )
}
