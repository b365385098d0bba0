//! The host's side of the two doors: frames in, answers out, replies raised from nodes and from RESP3.

use crate::bindings::vnode::host::types::{self, Node};
use crate::spec::CommandSpec;
use crate::{Error, Format, Reply, Result, Vnode};

/// What came back for one frame.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The declared keys that change, each with its new value or none, and the reply.
    Done {
        effects: Vec<(usize, Option<Vec<u8>>)>,
        reply: Reply,
    },
    /// The command goes through the typed door.
    Deferred,
}

/// One frame for `command`; `value` has what the store answers for a key.
pub(super) fn frame<T: Vnode>(
    command: &types::Command,
    spec: &CommandSpec,
    value: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let position = T::COMMANDS.iter().position(|other| other.name == spec.name);
    let context = &command.context;
    let mut frame = Vec::new();
    for number in [context.now_ms, context.seed, context.request_id] {
        frame.extend(number.to_le_bytes());
    }
    frame.push(u8::from(context.replica == types::ReplicaKind::Fallback));
    frame.extend(short(position.unwrap_or(usize::MAX)));
    frame.extend(short(command.args.len()));
    for arg in &command.args {
        bytes(arg, &mut frame);
    }
    let positions = spec.key_positions(command.args.len() + 1);
    let keys: Vec<_> = positions
        .filter_map(|position| command.args.get(position - 1))
        .collect();
    frame.extend(short(keys.len()));
    for key in keys {
        if spec.blind {
            frame.push(2);
            continue;
        }
        match value(key) {
            None => frame.push(0),
            Some(value) => {
                frame.push(1);
                bytes(&value, &mut frame);
            }
        }
    }
    frame
}

/// Reads the one answer in `answers`.
pub(super) fn answer(answers: &[u8]) -> Result<Answer> {
    let mut reader = Reader(answers);
    let answer = reader
        .answer()
        .ok_or("the answer does not follow the layout of batch.wit")??;
    if reader.0.is_empty() {
        Ok(answer)
    } else {
        Err("bytes follow the answer".into())
    }
}

/// The reply in a pre-order list of nodes.
pub(super) fn raise(nodes: types::Reply) -> Result<Reply> {
    match <[Reply; 1]>::try_from(raise_all(nodes)?) {
        Ok([reply]) => Ok(reply),
        Err(replies) => Err(Error::err(format!(
            "{} replies instead of one",
            replies.len()
        ))),
    }
}

/// The values in a pre-order list of nodes.
pub(super) fn raise_all(nodes: types::Reply) -> Result<Vec<Reply>> {
    let mut nodes = nodes.into_iter();
    let mut replies = Vec::new();
    while !nodes.as_slice().is_empty() {
        replies.push(raise_one(&mut nodes).ok_or("an aggregate has fewer members than it says")?);
    }
    Ok(replies)
}

fn raise_one(nodes: &mut std::vec::IntoIter<Node>) -> Option<Reply> {
    let next = nodes.next()?;
    let mut many = |count: u32| {
        (0..count)
            .map(|_| raise_one(nodes))
            .collect::<Option<Vec<_>>>()
    };
    Some(match next {
        Node::Nil => Reply::Nil,
        Node::Boolean(truth) => Reply::Bool(truth),
        Node::Integer(number) => Reply::Int(number),
        Node::Double(number) => Reply::Double(number),
        Node::BigNumber(digits) => Reply::BigNumber(digits),
        Node::Simple(text) => Reply::simple(text),
        Node::Bulk(bytes) => Reply::bulk(bytes),
        Node::Verbatim((letters, text)) => Reply::Verbatim(format(&letters)?, text),
        Node::Error(error) => Reply::Error(error.into()),
        Node::Array(count) => Reply::Array(many(count)?),
        Node::Set(count) => Reply::Set(many(count)?),
        Node::Map(count) => Reply::Map(pairs(many(count.checked_mul(2)?)?)),
    })
}

fn pairs(members: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut members = members.into_iter();
    std::iter::from_fn(|| members.next().zip(members.next())).collect()
}

fn format(letters: &str) -> Option<Format> {
    match letters {
        "txt" => Some(Format::Text),
        "mkd" => Some(Format::Markdown),
        _ => None,
    }
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()
}

/// What is left to read; every function answers none when the layout does not hold.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn answer(&mut self) -> Option<Result<Answer>> {
        match self.take(1)? {
            [0] => {
                let count = self.u16()?;
                let effects = (0..count).map(|_| self.effect()).collect::<Option<_>>()?;
                let mut wire = Reader(self.bytes()?);
                let reply = wire.reply().filter(|_| wire.0.is_empty())?;
                Some(Ok(Answer::Done { effects, reply }))
            }
            [1] => {
                let code = String::from_utf8(self.bytes()?.to_vec()).ok()?;
                let message = String::from_utf8(self.bytes()?.to_vec()).ok()?;
                Some(Err(Error::new(code, message)))
            }
            [2] => Some(Ok(Answer::Deferred)),
            _ => None,
        }
    }

    fn effect(&mut self) -> Option<(usize, Option<Vec<u8>>)> {
        let key = usize::from(self.u16()?);
        match self.take(1)? {
            [0] => Some((key, None)),
            [1] => Some((key, Some(self.bytes()?.to_vec()))),
            _ => None,
        }
    }

    /// One RESP3 value.
    fn reply(&mut self) -> Option<Reply> {
        let (sign, head) = self.line()?;
        let count = || head.parse::<usize>().ok();
        Some(match sign {
            b'_' => Reply::Nil,
            b'#' => Reply::Bool(head == "t"),
            b':' => Reply::Int(head.parse().ok()?),
            b',' => Reply::Double(head.parse().ok()?),
            b'(' => Reply::big_number(head),
            b'+' => Reply::simple(head.to_owned()),
            b'-' => {
                let (code, message) = head.split_once(' ')?;
                Reply::Error(Error::new(code.to_owned(), message.to_owned()))
            }
            b'$' => Reply::bulk(self.blob(count()?)?),
            b'=' => {
                let text = String::from_utf8(self.blob(count()?)?.to_vec()).ok()?;
                let (letters, text) = text.split_once(':')?;
                Reply::Verbatim(format(letters)?, text.to_owned())
            }
            b'*' => Reply::Array(self.replies(count()?)?),
            b'~' => Reply::Set(self.replies(count()?)?),
            b'%' => Reply::Map(pairs(self.replies(count()?.checked_mul(2)?)?)),
            _ => return None,
        })
    }

    fn replies(&mut self, count: usize) -> Option<Vec<Reply>> {
        (0..count).map(|_| self.reply()).collect()
    }

    fn line(&mut self) -> Option<(u8, &'a str)> {
        let end = self.0.windows(2).position(|pair| pair == b"\r\n")?;
        let (sign, text) = self.blob(end)?.split_first()?;
        Some((*sign, std::str::from_utf8(text).ok()?))
    }

    /// So many bytes, and the end of the line behind them.
    fn blob(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.take(length)?;
        (self.take(2)? == b"\r\n").then_some(bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        self.take(length.try_into().ok()?)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{convert, resp};

    /// Every shape of reply, some within others.
    fn replies() -> Vec<Reply> {
        let mut replies = vec![
            Reply::nil(),
            true.into(),
            i64::MIN.into(),
            (-0.5).into(),
            f64::INFINITY.into(),
            Reply::big_number("1461501637330902918203684832716283019655932542976"),
            Reply::ok(),
            Reply::bulk([0, 13, 10, 255].as_slice()),
            Reply::bulk(""),
            Reply::text("many\r\nlines"),
            Reply::Verbatim(Format::Markdown, "# a: b".into()),
            Reply::error(Error::new("WRONGTYPE", "no list")),
            Reply::Array(vec![]),
        ];
        replies.push(Reply::Array(replies.clone()));
        replies.push(Reply::Set(replies.clone()));
        replies.push(Reply::map(
            replies.iter().cloned().zip(replies.iter().rev().cloned()),
        ));
        replies
    }

    #[test]
    fn no_reply_is_lost_on_either_way() {
        for reply in replies() {
            assert_eq!(raise(convert::lower(reply.clone())), Ok(reply.clone()));
            let mut wire = Vec::new();
            resp::write(&reply, &mut wire);
            assert_eq!(Reader(&wire).reply(), Some(reply));
        }
    }

    #[test]
    fn an_answer_cut_short_is_refused() {
        let mut whole = vec![0, 1, 0, 0, 0, 1, 1, 0, 0, 0, b'v', 5, 0, 0, 0];
        whole.extend(b"+OK\r\n");
        let done = Answer::Done {
            effects: vec![(0, Some(b"v".to_vec()))],
            reply: Reply::ok(),
        };
        assert_eq!(answer(&whole), Ok(done));
        for end in 0..whole.len() {
            assert!(answer(&whole[..end]).is_err(), "{end}");
        }
    }
}
