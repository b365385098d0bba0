//! What is asked of nodes before the measuring begins, one answer after the other: who they are, and to take the keys.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::BenchError;
use super::reply::{self, Reply};
use super::worker::Shared;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Keys that are filled in one go.
const BATCH: u64 = 500;

/// A node as it was before the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Where it takes Redis clients.
    pub(crate) address: String,
    /// Its name, if it is one of ours.
    pub(crate) name: Option<String>,
    /// Its version: ours, or Redis'.
    pub(crate) version: Option<String>,
    /// Its process, where it says so and runs on this machine.
    pub(crate) process_id: Option<u32>,
}

/// A connection, ready for small requests.
///
/// # Errors
/// Nobody takes it in time.
pub(super) fn connect(node: SocketAddr) -> Result<TcpStream, BenchError> {
    let stream = TcpStream::connect_timeout(&node, CONNECT).and_then(|stream| {
        stream.set_nodelay(true)?;
        Ok(stream)
    });
    stream.map_err(|source| BenchError::Connect { node, source })
}

/// Asks a node who it is.
///
/// # Errors
/// It does not answer, or with an error.
pub(super) fn facts(node: SocketAddr, timeout: Duration) -> Result<NodeFacts, BenchError> {
    let mut line = Line::new(node, timeout)?;
    let text = line.ask(
        b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n",
        |reply| match reply {
            Reply::Bulk(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            Reply::Error(words) => Err(String::from_utf8_lossy(words).into_owned()),
            _ => Err("INFO is answered by something else than text".into()),
        },
    )?;
    Ok(read_facts(node, &text))
}

fn read_facts(node: SocketAddr, info: &str) -> NodeFacts {
    let field = |name: &str| {
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let local = node.ip().is_loopback();
    NodeFacts {
        address: node.to_string(),
        name: field("node"),
        version: field("vnode_host_version")
            .or_else(|| Some(format!("redis {}", field("redis_version")?))),
        process_id: field("process_id")
            .filter(|_| local)
            .and_then(|id| id.parse().ok()),
    }
}

/// Fills every `lanes`-th key through one node, beginning with the `lane`-th.
///
/// # Errors
/// The node does not take them all.
pub(super) fn fill(
    node: SocketAddr,
    shared: &Shared,
    lane: u64,
    lanes: u64,
    timeout: Duration,
) -> Result<(), BenchError> {
    let mut line = Line::new(node, timeout)?;
    let mut keys = (lane..shared.keys.count())
        .step_by(usize::try_from(lanes).unwrap_or(1))
        .peekable();
    let mut requests = Vec::new();
    while keys.peek().is_some() {
        requests.clear();
        let mut asked = 0;
        for key in keys.by_ref().take(usize::try_from(BATCH).unwrap_or(1)) {
            shared.load(key, &mut requests);
            asked += 1;
        }
        line.send(&requests)?;
        for _ in 0..asked {
            line.hear(|reply| match reply {
                Reply::Simple(b"OK") => Ok(()),
                Reply::Error(words) => Err(String::from_utf8_lossy(words).into_owned()),
                _ => Err("a put is answered by something else than OK".into()),
            })?;
        }
    }
    Ok(())
}

/// A connection that waits for each answer.
struct Line {
    node: SocketAddr,
    stream: TcpStream,
    heard: Vec<u8>,
    /// Bytes of `heard` that have been taken.
    taken: usize,
}

impl Line {
    fn new(node: SocketAddr, timeout: Duration) -> Result<Self, BenchError> {
        let stream = connect(node)?;
        let waits = stream
            .set_read_timeout(Some(timeout))
            .and_then(|()| stream.set_write_timeout(Some(timeout)));
        waits.map_err(|source| BenchError::Connect { node, source })?;
        Ok(Self {
            node,
            stream,
            heard: Vec::new(),
            taken: 0,
        })
    }

    fn ask<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(Reply<'_>) -> Result<T, String>,
    ) -> Result<T, BenchError> {
        self.send(request)?;
        self.hear(read)
    }

    fn send(&mut self, requests: &[u8]) -> Result<(), BenchError> {
        self.stream
            .write_all(requests)
            .map_err(|error| self.broken(&error))
    }

    fn hear<T>(&mut self, read: impl Fn(Reply<'_>) -> Result<T, String>) -> Result<T, BenchError> {
        let mut chunk = [0; 16 << 10];
        loop {
            let waiting = self.heard.get(self.taken..).unwrap_or_default();
            match reply::parse(waiting) {
                Ok(Some((reply, length))) => {
                    let answer = read(reply).map_err(|words| BenchError::Refused {
                        node: self.node,
                        words,
                    });
                    self.taken += length;
                    return answer;
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(BenchError::Refused {
                        node: self.node,
                        words: error.to_string(),
                    });
                }
            }
            self.heard.drain(..self.taken);
            self.taken = 0;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.broken(&ErrorKind::UnexpectedEof.into())),
                Ok(count) => self
                    .heard
                    .extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn broken(&self, error: &std::io::Error) -> BenchError {
        let words = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer in time".into(),
            _ => error.to_string(),
        };
        BenchError::Refused {
            node: self.node,
            words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_says_who_a_node_is_and_only_a_neighbours_process_counts() {
        let text = "# Server\r\nredis_version:7.0.0\r\nvnode_host_version:0.1.0\r\nnode:a@x\r\nprocess_id:42\r\n";
        let facts = read_facts("127.0.0.1:1".parse().unwrap(), text);
        assert_eq!(facts.name.as_deref(), Some("a@x"));
        assert_eq!(facts.version.as_deref(), Some("0.1.0"));
        assert_eq!(facts.process_id, Some(42));
        assert_eq!(
            read_facts("10.0.0.1:1".parse().unwrap(), text).process_id,
            None
        );
        let redis = read_facts(
            "127.0.0.1:1".parse().unwrap(),
            "redis_version:7.0.15\r\nprocess_id:7\r\n",
        );
        assert_eq!(
            (redis.name, redis.version.as_deref()),
            (None, Some("redis 7.0.15"))
        );
    }
}
