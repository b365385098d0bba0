//! Finds replies in what a node has sent, without copying them. RESP2 and RESP3, so that other servers can be measured too.

/// One reply at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// No value.
    Nil,
    /// An integer.
    Int(i64),
    /// A short text.
    Simple(&'a [u8]),
    /// Bytes.
    Bulk(&'a [u8]),
    /// A failure, its first word first.
    Error(&'a [u8]),
    /// Values; the bytes of all of them.
    Array(&'a [u8]),
    /// Anything else that is well-formed.
    Other,
}

/// Bytes that are no reply; the connection cannot be brought back into step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not RESP")]
pub(super) struct Malformed;

/// Longest line of a reply without its end, and most bytes of one value: what a node would never send.
const LINE_MAX: usize = 64 << 10;
const BULK_MAX: usize = 1 << 30;

/// The first reply and how many bytes it takes; `None` if it has not arrived as a whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    let Some(head) = head(bytes)? else {
        return Ok(None);
    };
    let Head {
        reply,
        members,
        length,
    } = head;
    if members == 0 {
        return Ok(Some((reply, length)));
    }
    // Members of members are counted as they are met, so nothing here recurses.
    let (mut left, mut at) = (members, length);
    while left > 0 {
        let rest = bytes.get(at..).ok_or(Malformed)?;
        let Some(next) = self::head(rest)? else {
            return Ok(None);
        };
        at += next.length;
        left = left.saturating_sub(1).saturating_add(next.members);
    }
    let inner = bytes.get(length..at).ok_or(Malformed)?;
    let reply = match reply {
        Reply::Array(_) => Reply::Array(inner),
        _ => Reply::Other,
    };
    Ok(Some((reply, at)))
}

/// A value without its members.
struct Head<'a> {
    reply: Reply<'a>,
    members: usize,
    length: usize,
}

fn head(bytes: &[u8]) -> Result<Option<Head<'_>>, Malformed> {
    let Some((kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(end) = rest.iter().take(LINE_MAX).position(|byte| *byte == b'\r') else {
        return match rest.len() < LINE_MAX {
            true => Ok(None),
            false => Err(Malformed),
        };
    };
    let (line, after) = rest.split_at_checked(end).ok_or(Malformed)?;
    match after.get(1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(Malformed),
    }
    let length = end + 3;
    let whole = |reply| Head {
        reply,
        members: 0,
        length,
    };
    Ok(Some(match kind {
        b'+' => whole(Reply::Simple(line)),
        b'-' => whole(Reply::Error(line)),
        b':' => whole(Reply::Int(integer(line)?)),
        b'_' => whole(Reply::Nil),
        b'#' | b',' | b'(' => whole(Reply::Other),
        b'$' | b'=' => match integer(line)? {
            -1 => whole(Reply::Nil),
            size => return bulk(bytes, length, size),
        },
        b'*' | b'~' | b'%' => match integer(line)? {
            -1 => whole(Reply::Nil),
            count => {
                let count = usize::try_from(count).map_err(|_| Malformed)?;
                let reply = if *kind == b'*' {
                    Reply::Array(&[])
                } else {
                    Reply::Other
                };
                let members = if *kind == b'%' {
                    count.saturating_mul(2)
                } else {
                    count
                };
                Head {
                    reply,
                    members,
                    length,
                }
            }
        },
        _ => return Err(Malformed),
    }))
}

fn bulk(bytes: &[u8], at: usize, size: i64) -> Result<Option<Head<'_>>, Malformed> {
    let size = usize::try_from(size).ok().filter(|size| *size <= BULK_MAX);
    let end = at + size.ok_or(Malformed)?;
    let Some(tail) = bytes.get(end..end + 2) else {
        return Ok(None);
    };
    if tail != b"\r\n" {
        return Err(Malformed);
    }
    let reply = Reply::Bulk(bytes.get(at..end).ok_or(Malformed)?);
    Ok(Some(Head {
        reply,
        members: 0,
        length: end + 2,
    }))
}

fn integer(digits: &[u8]) -> Result<i64, Malformed> {
    let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resp::Protocol;
    use crate::resp::value::Value;

    fn one(bytes: &[u8]) -> Reply<'_> {
        let (reply, length) = parse(bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        reply
    }

    #[test]
    fn every_kind_is_found() {
        assert_eq!(one(b"+OK\r\n"), Reply::Simple(b"OK"));
        assert_eq!(one(b"-ERR no\r\n"), Reply::Error(b"ERR no"));
        assert_eq!(one(b":-7\r\n"), Reply::Int(-7));
        assert_eq!(one(b"$-1\r\n"), Reply::Nil);
        assert_eq!(one(b"_\r\n"), Reply::Nil);
        assert_eq!(one(b"*-1\r\n"), Reply::Nil);
        assert_eq!(one(b"$0\r\n\r\n"), Reply::Bulk(b""));
        assert_eq!(one(b"$4\r\na\r\nb\r\n"), Reply::Bulk(b"a\r\nb"));
        assert_eq!(one(b"*0\r\n"), Reply::Array(b""));
        assert_eq!(
            one(b"*2\r\n$1\r\n0\r\n*1\r\n:1\r\n"),
            Reply::Array(b"$1\r\n0\r\n*1\r\n:1\r\n")
        );
        assert_eq!(one(b"%1\r\n+a\r\n:1\r\n"), Reply::Other);
        assert_eq!(one(b"#t\r\n"), Reply::Other);
        assert_eq!(one(b"=5\r\ntxt:a\r\n"), Reply::Bulk(b"txt:a"));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            &b"hello\r\n"[..],
            b"+OK\rx",
            b"$3\r\nabcde",
            b"$-2\r\n",
            b":x\r\n",
            b"$99999999999\r\n",
            b"*-2\r\n",
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(parse(&[b'+'; LINE_MAX + 1]), Err(Malformed));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            "[a-z ]{0,9}".prop_map(Value::Simple),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bulk),
            "[a-z]{1,9}".prop_map(|text| Value::error("ERR", text)),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(inner, 0..4).prop_map(Value::Set),
                prop::collection::vec(pair, 0..3).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_reply_ends_where_it_ends_however_much_has_arrived(value in value(), resp3: bool, more in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            value.encode(if resp3 { Protocol::Resp3 } else { Protocol::Resp2 }, &mut bytes);
            let length = bytes.len();
            bytes.extend(more);
            prop_assert_eq!(parse(&bytes).unwrap().map(|(_, length)| length), Some(length));
            for part in 0..length {
                prop_assert_eq!(parse(&bytes[..part]), Ok(None), "{} of {}", part, length);
            }
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = parse(&bytes);
        }
    }
}
