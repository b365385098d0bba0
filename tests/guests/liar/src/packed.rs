//! The packed door, by hand, as wit/batch.wit lays it out. Any frame that it cannot read is a panic.

use crate::breaks;

const GET: u16 = 0;
const SET: u16 = 1;

struct Frame<'a> {
    command: u16,
    args: Vec<&'a [u8]>,
    values: Vec<Option<&'a [u8]>>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().unwrap())
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = u32::from_le_bytes(self.take(4).try_into().unwrap());
        self.take(length as usize)
    }

    fn frame(&mut self) -> Frame<'a> {
        self.take(25);
        let command = self.u16();
        let args = (0..self.u16()).map(|_| self.bytes()).collect();
        let values = (0..self.u16())
            .map(|_| match self.take(1) {
                [1] => Some(self.bytes()),
                _ => None,
            })
            .collect();
        Frame {
            command,
            args,
            values,
        }
    }
}

pub(crate) fn answer(frames: &[u8]) -> Vec<u8> {
    if breaks("packed-trap") {
        panic!("packed on purpose");
    }
    if breaks("packed-empty") {
        return Vec::new();
    }
    if breaks("packed-noise") {
        return frames.iter().map(|byte| byte.wrapping_mul(31) | 4).collect();
    }
    let mut reader = Reader(frames);
    let mut answers = Vec::new();
    let mut last = 0;
    while !reader.0.is_empty() {
        last = answers.len();
        one(&reader.frame(), &mut answers);
    }
    if breaks("packed-few") {
        answers.truncate(last);
    }
    if breaks("packed-cut") {
        answers.pop();
    }
    if breaks("packed-many") {
        answers.push(2);
    }
    if breaks("packed-lengths") {
        return [vec![0, 0, 0], u32::MAX.to_le_bytes().to_vec()].concat();
    }
    if breaks("packed-effects") {
        return vec![0, 0xff, 0xff];
    }
    answers
}

fn one(frame: &Frame<'_>, out: &mut Vec<u8>) {
    // What the typed door does otherwise is left to it.
    let typed = [
        "forgets",
        "mine-only",
        "read-writes",
        "counts",
        "binary-trap",
        "packed-never",
    ];
    let deferred = typed.iter().any(|promise| breaks(promise));
    let replies = ["two-values", "no-value", "line-break", "deep", "big-array"];
    if deferred || replies.iter().any(|promise| breaks(promise)) {
        out.push(2);
        return;
    }
    match frame.command {
        GET => {
            let value = frame.values[0];
            effects(u16::from(breaks("packed-read-writes")), 0, b"seen", out);
            match value {
                _ if breaks("packed-resp") => bytes(b"hello", out),
                _ if breaks("packed-resp-two") => bytes(b"+a\r\n+b\r\n", out),
                _ if breaks("packed-resp-cut") => bytes(b"$5\r\nhel", out),
                _ if breaks("packed-reply") => bytes(b"$5\r\nother\r\n", out),
                None => bytes(b"_\r\n", out),
                Some(value) => {
                    let mut reply = format!("${}\r\n", value.len()).into_bytes();
                    reply.extend_from_slice(value);
                    reply.extend_from_slice(b"\r\n");
                    bytes(&reply, out);
                }
            }
        }
        SET if breaks("packed-code") => {
            out.push(1);
            bytes(b"two words\r\n+OK", out);
            bytes(b"first\r\n+second", out);
        }
        SET if breaks("packed-again") => {
            out.extend([0, 2, 0]);
            effect(0, Some(b"first"), out);
            effect(
                0,
                Some(frame.args[1]).filter(|value| *value != b"gone"),
                out,
            );
            bytes(b"+OK\r\n", out);
        }
        SET => {
            let key = if breaks("packed-undeclared") { 7 } else { 0 };
            let value = if breaks("packed-rows") {
                b"other"
            } else {
                frame.args[1]
            };
            effects(1, key, value, out);
            bytes(b"+OK\r\n", out);
        }
        _ => out.push(2),
    }
}

fn effects(count: u16, key: u16, value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&count.to_le_bytes());
    for _ in 0..count {
        effect(key, Some(value), out);
    }
}

/// A value to put, or none to delete.
fn effect(key: u16, value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(&key.to_le_bytes());
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        bytes(value, out);
    }
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    out.extend_from_slice(bytes);
}
