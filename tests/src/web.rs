//! HTTP as tests speak it: a request and its answer, a request whose answer may never come, and the feed of events.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::PATIENCE;

/// An answer by HTTP.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its media type.
    pub kind: String,
    /// Its body.
    pub body: String,
}

pub(crate) fn request(address: SocketAddr, method: &str, path: &str, body: Option<&str>) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"));
    let sent = match body {
        None => agent.run(request.body(()).expect("a request")),
        Some(body) => {
            let request = request.header("content-type", "application/json");
            agent.run(request.body(body.to_owned()).expect("a request"))
        }
    };
    let mut response = sent.expect("the node answers HTTP");
    let kind = response
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok());
    Answer {
        kind: kind.unwrap_or_default().to_owned(),
        status: response.status().as_u16(),
        body: response.body_mut().read_to_string().expect("text"),
    }
}

/// A connection on which one request was sent.
fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the node takes clients");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    let length = body.len();
    let rest = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    stream
        .write_all(format!("{head}{rest}").as_bytes())
        .expect("the node reads");
    stream
}

/// A request that the node has, whose answer may never come: the node may be ended meanwhile.
pub struct Pending(TcpStream);

impl Pending {
    pub(crate) fn begin(address: SocketAddr, method: &str, path: &str, body: &str) -> Pending {
        Pending(send(address, method, path, body))
    }

    /// The status of the answer; none when the connection ends without one.
    pub fn status(mut self) -> Option<u16> {
        let mut answer = Vec::new();
        match self.0.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no answer: {error}"),
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.split(' ').nth(1)?.parse().ok()
    }
}

/// The feed of a node, which goes on until the node ends.
pub struct Events(BufReader<TcpStream>);

impl Events {
    pub(crate) fn of(address: SocketAddr) -> Events {
        Events(BufReader::new(send(address, "GET", "/v1/events", "")))
    }

    /// Waits for the first event that is about a newer map than the one of that epoch.
    pub fn after(&mut self, epoch: u64) -> Value {
        let found = self.find(|event| event["epoch"].as_u64() > Some(epoch));
        found.expect("the node lives until it has an event")
    }

    /// Waits for the first event with these words.
    pub fn wait_for(&mut self, words: &str) -> Value {
        let found = self.find(|event| {
            let text = event["text"].as_str();
            text.is_some_and(|text| text.contains(words))
        });
        found.expect("the node lives until it has an event")
    }
}

impl Iterator for Events {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("the feed is text") == 0 {
                return None;
            }
            // What else stands there are names and numbers of events, and the lengths of chunks.
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("an event is JSON"));
            }
        }
    }
}
