//! A Redis client that hides nothing: requests are bytes, replies are shown as they came.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What every connection starts with.
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+`
    Simple(String),
    /// `-`, first word and all.
    Error(String),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `(`
    Big(String),
    /// `=`, without the format.
    Text(String),
    /// Any of the three ways to say nothing.
    Nil,
    /// `*`
    Array(Vec<Reply>),
    /// `%`
    Map(Vec<(Reply, Reply)>),
    /// `~`
    Set(Vec<Reply>),
    /// `#`
    Bool(bool),
}

impl Reply {
    /// `+OK`
    pub fn ok() -> Reply {
        Reply::Simple("OK".into())
    }

    /// The members of an array.
    pub fn items(self) -> Vec<Reply> {
        match self {
            Reply::Array(items) | Reply::Set(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }

    /// What is under a key of a map, which RESP2 writes as an array.
    pub fn at(&self, key: &str) -> Option<&Reply> {
        let is = |found: &Reply| *found == Reply::from(key) || *found == Reply::Simple(key.into());
        match self {
            Reply::Map(pairs) => pairs
                .iter()
                .find(|(found, _)| is(found))
                .map(|(_, value)| value),
            Reply::Array(items) => items
                .chunks_exact(2)
                .find(|pair| pair.first().is_some_and(is))
                .and_then(|pair| pair.last()),
            other => panic!("no map: {other:?}"),
        }
    }

    /// Bytes as text.
    pub fn text(&self) -> String {
        match self {
            Reply::Bulk(bytes) => String::from_utf8(bytes.clone()).expect("UTF-8"),
            Reply::Simple(text) | Reply::Error(text) | Reply::Text(text) | Reply::Big(text) => {
                text.clone()
            }
            other => panic!("no text: {other:?}"),
        }
    }

    /// The number.
    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(number) => *number,
            other => panic!("no number: {other:?}"),
        }
    }

    /// Whether it is an error with that first word.
    pub fn is_error(&self, code: &str) -> bool {
        matches!(self, Reply::Error(text) if text.split(' ').next() == Some(code))
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }
}

impl From<i64> for Reply {
    fn from(number: i64) -> Reply {
        Reply::Int(number)
    }
}

impl<const N: usize> From<[&str; N]> for Reply {
    fn from(items: [&str; N]) -> Reply {
        Reply::Array(items.map(Reply::from).into())
    }
}

/// A command as clients send it.
pub fn encode(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A command of words without spaces.
pub fn line(words: &str) -> Vec<u8> {
    encode(&words.split(' ').collect::<Vec<_>>())
}

/// A connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// A client on this connection.
    pub fn new(stream: TcpStream) -> Client {
        Client {
            reader: BufReader::new(stream),
        }
    }

    /// Changes the protocol.
    pub fn switch(&mut self, protocol: Protocol) {
        let number = match protocol {
            Protocol::Resp2 => "2",
            Protocol::Resp3 => "3",
        };
        let reply = self.call(&["HELLO", number]);
        assert!(reply.at("server").is_some(), "{reply:?}");
    }

    /// Runs one command.
    pub fn call(&mut self, words: &[impl AsRef<[u8]>]) -> Reply {
        self.send(&encode(words));
        self.reply()
    }

    /// Runs one command of words without spaces.
    pub fn run(&mut self, words: &str) -> Reply {
        self.send(&line(words));
        self.reply()
    }

    /// Sends all of them at once, and then reads as many replies.
    pub fn pipeline(&mut self, commands: &[Vec<u8>]) -> Vec<Reply> {
        self.send(&commands.concat());
        commands.iter().map(|_| self.reply()).collect()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.reader
            .get_mut()
            .write_all(bytes)
            .expect("the node reads");
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Waits for a reply.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("the node answers")
    }

    /// Waits for a reply; none when the node closed the connection.
    pub fn try_reply(&mut self) -> Option<Reply> {
        match self.read() {
            Ok(reply) => Some(reply),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => None,
                _ => panic!("no answer: {error}"),
            },
        }
    }

    /// Runs one command on a node that may die or stop meanwhile. After an error nobody knows what became of the command, and
    /// the connection is of no more use.
    ///
    /// # Errors
    /// The connection broke, or its time was over.
    pub fn attempt(&mut self, words: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        self.reader.get_mut().write_all(&encode(words))?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Reply> {
        Reply::read(&mut self.reader)
    }
}

impl Reply {
    /// Reads one.
    ///
    /// # Errors
    /// Those of the input, and [`ErrorKind::UnexpectedEof`] when it ends before the reply does.
    pub fn read(input: &mut impl BufRead) -> io::Result<Reply> {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line)?;
        let line = line.strip_suffix(b"\r\n");
        let line = line.ok_or(ErrorKind::UnexpectedEof)?;
        let text = String::from_utf8_lossy(line).into_owned();
        let (kind, rest) = text.split_at_checked(1).expect("a reply has a kind");
        let number = || {
            rest.parse::<i64>()
                .unwrap_or_else(|_| panic!("no number: {text:?}"))
        };
        Ok(match kind {
            "+" => Reply::Simple(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Int(number()),
            "(" => Reply::Big(rest.into()),
            "_" => Reply::Nil,
            "#" => Reply::Bool(rest == "t"),
            "$" | "=" => match usize::try_from(number()) {
                Err(_) => Reply::Nil,
                Ok(length) => Reply::bulk(input, kind, length)?,
            },
            "*" | "~" => match usize::try_from(number()) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let items = (0..length).map(|_| Reply::read(input));
                    let items = items.collect::<io::Result<_>>()?;
                    match kind {
                        "*" => Reply::Array(items),
                        _ => Reply::Set(items),
                    }
                }
            },
            "%" => {
                let length = usize::try_from(number()).unwrap_or(0);
                let pair = |_| Ok((Reply::read(input)?, Reply::read(input)?));
                Reply::Map((0..length).map(pair).collect::<io::Result<_>>()?)
            }
            _ => panic!("no reply: {text:?}"),
        })
    }

    fn bulk(input: &mut impl BufRead, kind: &str, length: usize) -> io::Result<Reply> {
        let mut bytes = vec![0; length + 2];
        input.read_exact(&mut bytes)?;
        assert!(bytes.ends_with(b"\r\n"), "a bulk ends with its length");
        bytes.truncate(length);
        Ok(match kind {
            "$" => Reply::Bulk(bytes),
            _ => Reply::Text(String::from_utf8(bytes.split_off(4)).expect("UTF-8")),
        })
    }
}
