//! Judges and converts replies that guests made: bytes that claim to be one RESP3 value.
//!
//! Guests are adversaries. [`check`] refuses whatever is not exactly one value of the kinds below, and everything after
//! it relies on that; nothing here allocates before it has checked. A value is read as a flat row of tokens (aggregates
//! in pre-order), so neither checking nor converting recurses.
//!
//! Kinds: `_ # : , ( + $ = - * % ~`. No attributes, pushes, streamed values, blob errors or RESP2 nulls.

use super::{Protocol, write};

/// How deep aggregates may nest.
pub const DEPTH_MAX: usize = 32;

/// Bytes of the shortest value on the wire: a null.
const VALUE_MIN: usize = 3;

/// What one reply may weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Bytes on the wire.
    pub bytes_max: usize,
    /// Values in it, aggregates and their members all counted.
    pub values_max: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            bytes_max: 256 << 20,
            values_max: 4 << 20,
        }
    }
}

/// A reply that the host does not pass on. The guest is at fault; retrying is pointless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// It ends before its value does.
    #[error("reply ends in the middle of a value")]
    Truncated,
    /// Something follows the value.
    #[error("{0} bytes follow the reply's only value")]
    Trailing(usize),
    /// A kind that does not exist, or that guests may not send.
    #[error("no value may start with byte {0:#04x}")]
    Kind(u8),
    /// A value that its kind does not allow.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Aggregates nest deeper than [`DEPTH_MAX`].
    #[error("aggregates nest deeper than {DEPTH_MAX}")]
    TooDeep,
    /// Beyond `values_max`.
    #[error("reply of more than {0} values")]
    TooMany(usize),
    /// Beyond `bytes_max`.
    #[error("reply of {bytes} bytes, the limit is {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// One step through a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    /// The number, and how the guest spelled it.
    Double(f64, &'a str),
    BigNumber(&'a str),
    Simple(&'a str),
    Bulk(&'a [u8]),
    Verbatim([u8; 3], &'a str),
    Error(&'a str, &'a str),
    /// Number of members.
    Array(usize),
    /// Number of *pairs*.
    Map(usize),
    /// Number of members.
    Set(usize),
}

/// Reads the first token of `bytes` and returns what follows it.
pub(super) fn token(bytes: &[u8]) -> Result<(Token<'_>, &[u8]), ReplyError> {
    let (kind, rest) = bytes.split_first().ok_or(ReplyError::Truncated)?;
    match kind {
        b'$' => {
            let (bulk, rest) = counted(rest, "bulk")?;
            return Ok((Token::Bulk(bulk), rest));
        }
        b'=' => {
            let (text, rest) = counted(rest, "verbatim string")?;
            return Ok((verbatim(text)?, rest));
        }
        b'_' | b'#' | b':' | b',' | b'(' | b'+' | b'-' | b'*' | b'%' | b'~' => {}
        other => return Err(ReplyError::Kind(*other)),
    }
    let (line, rest) = line(rest)?;
    let token = match kind {
        b'_' if line.is_empty() => Token::Nil,
        b'_' => return Err(ReplyError::Malformed("null")),
        b'#' => match line {
            b"t" => Token::Bool(true),
            b"f" => Token::Bool(false),
            _ => return Err(ReplyError::Malformed("boolean")),
        },
        b':' => Token::Int(integer(line).ok_or(ReplyError::Malformed("integer"))?),
        b',' => double(line).ok_or(ReplyError::Malformed("double"))?,
        b'(' => big_number(line).ok_or(ReplyError::Malformed("big number"))?,
        b'+' => Token::Simple(text(line, "simple string")?),
        b'-' => error(line)?,
        b'*' => Token::Array(members(line, 1, rest)?),
        b'%' => Token::Map(members(line, 2, rest)?),
        _ => Token::Set(members(line, 1, rest)?),
    };
    Ok((token, rest))
}

impl Token<'_> {
    /// How many values follow as its members.
    fn members(self) -> usize {
        match self {
            Token::Array(members) | Token::Set(members) => members,
            Token::Map(pairs) => pairs.saturating_mul(2),
            _ => 0,
        }
    }

    fn downgrade(self, out: &mut Vec<u8>) {
        let proto = Protocol::Resp2;
        match self {
            Token::Nil => write::nil(out, proto),
            Token::Bool(value) => write::boolean(out, value, proto),
            Token::Int(value) => write::int(out, value),
            Token::Bulk(bytes) => write::bulk(out, bytes),
            Token::Double(_, text) | Token::BigNumber(text) | Token::Verbatim(_, text) => {
                write::bulk(out, text.as_bytes());
            }
            Token::Simple(text) => write::simple(out, text),
            Token::Error(code, message) => write::error(out, code, message),
            Token::Array(members) => write::array(out, members),
            Token::Map(pairs) => write::map(out, pairs, proto),
            Token::Set(members) => write::set(out, members, proto),
        }
    }
}

/// Whether the bytes are exactly one well-formed RESP3 value within the limits.
pub fn check(resp3: &[u8], limits: &ReplyLimits) -> Result<(), ReplyError> {
    if resp3.len() > limits.bytes_max {
        return Err(ReplyError::TooLong {
            bytes: resp3.len(),
            max: limits.bytes_max,
        });
    }
    // Members that each open aggregate still lacks; the outermost is the reply itself.
    let mut open = [0_usize; DEPTH_MAX + 1];
    let mut depth = 0;
    let mut values = 0;
    let mut rest = resp3;
    loop {
        let (token, after) = token(rest)?;
        rest = after;
        values += 1;
        let members = token.members();
        if values > limits.values_max || members > limits.values_max.saturating_sub(values) {
            return Err(ReplyError::TooMany(limits.values_max));
        }
        if members > 0 {
            depth += 1;
            *open.get_mut(depth).ok_or(ReplyError::TooDeep)? = members;
            continue;
        }
        // A value is complete, and with it every aggregate whose last member it is.
        while depth > 0 {
            let lacking = open.get_mut(depth).ok_or(ReplyError::TooDeep)?;
            *lacking -= 1;
            if *lacking > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            break;
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(ReplyError::Trailing(rest.len()))
    }
}

/// Appends a checked value in the client's protocol: as it is where both protocols spell it the same, otherwise with the
/// newer types downgraded as Redis does.
///
/// What follows bytes that are not well formed is dropped, but [`check`] has seen to it that there are none.
pub fn transcode(resp3: &[u8], proto: Protocol, out: &mut Vec<u8>) {
    if proto == Protocol::Resp3 || matches!(resp3.first(), Some(b'+' | b':' | b'$' | b'-')) {
        out.extend_from_slice(resp3);
        return;
    }
    let mut rest = resp3;
    while let Ok((token, after)) = token(rest) {
        token.downgrade(out);
        rest = after;
    }
}

/// Splits off a line at CR LF; neither may stand in it alone.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), ReplyError> {
    let end = bytes
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
        .ok_or(ReplyError::Truncated)?;
    let (line, rest) = bytes.split_at_checked(end).ok_or(ReplyError::Truncated)?;
    Ok((line, after_crlf(rest)?))
}

fn after_crlf(bytes: &[u8]) -> Result<&[u8], ReplyError> {
    match bytes {
        [b'\r', b'\n', rest @ ..] => Ok(rest),
        [] | [b'\r'] => Err(ReplyError::Truncated),
        _ => Err(ReplyError::Malformed("line end")),
    }
}

/// Splits off bytes with their length in front.
fn counted<'a>(bytes: &'a [u8], kind: &'static str) -> Result<(&'a [u8], &'a [u8]), ReplyError> {
    let (length, rest) = line(bytes)?;
    let length = natural(length).ok_or(ReplyError::Malformed(kind))?;
    let (content, rest) = rest.split_at_checked(length).ok_or(ReplyError::Truncated)?;
    Ok((content, after_crlf(rest)?))
}

/// The length of an aggregate whose members start at `rest`. Never more than `rest` has room for, so that it may be
/// trusted for an allocation.
fn members(line: &[u8], values: usize, rest: &[u8]) -> Result<usize, ReplyError> {
    let count = natural(line).ok_or(ReplyError::Malformed("length of an aggregate"))?;
    match count.checked_mul(values * VALUE_MIN) {
        Some(bytes) if bytes <= rest.len() => Ok(count),
        _ => Err(ReplyError::Truncated),
    }
}

fn natural(digits: &[u8]) -> Option<usize> {
    usize::try_from(integer(digits)?).ok()
}

/// A decimal integer as Redis reads one: no plus sign, no leading zeros, no `-0`.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !(1..=19).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if digits.first() == Some(&b'0') && text.len() > 1 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn double(line: &[u8]) -> Option<Token<'_>> {
    let text = std::str::from_utf8(line).ok()?;
    let value = match text {
        "inf" => f64::INFINITY,
        "-inf" => f64::NEG_INFINITY,
        "nan" => f64::NAN,
        // What Rust reads beyond RESP3 (`infinity`, `.5`, `5.`) has other letters or lacks digits around the point.
        _ => {
            let legal = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let point = digits.split_once('.').is_none_or(|(_, fraction)| {
                fraction.starts_with(|first: char| first.is_ascii_digit())
            });
            if !line.iter().all(legal)
                || !digits.starts_with(|c: char| c.is_ascii_digit())
                || !point
            {
                return None;
            }
            text.parse().ok()?
        }
    };
    Some(Token::Double(value, text))
}

fn big_number(line: &[u8]) -> Option<Token<'_>> {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Token::BigNumber(std::str::from_utf8(line).ok()?))
}

fn verbatim(content: &[u8]) -> Result<Token<'_>, ReplyError> {
    match content {
        [a, b, c, b':', body @ ..] if [a, b, c].iter().all(|byte| byte.is_ascii_alphanumeric()) => {
            Ok(Token::Verbatim(
                [*a, *b, *c],
                text(body, "verbatim string")?,
            ))
        }
        _ => Err(ReplyError::Malformed("verbatim string")),
    }
}

/// An error's line: a code that programs can match, then anything.
fn error(line: &[u8]) -> Result<Token<'_>, ReplyError> {
    let line = text(line, "error")?;
    let (code, message) = line.split_once(' ').unwrap_or((line, ""));
    if !is_code(code) {
        return Err(ReplyError::Malformed("error code"));
    }
    Ok(Token::Error(code, message))
}

/// Whether the text can be the first word of an error: upper case, such as `WRONGTYPE`.
pub fn is_code(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
}

fn text<'a>(bytes: &'a [u8], kind: &'static str) -> Result<&'a str, ReplyError> {
    std::str::from_utf8(bytes).map_err(|_| ReplyError::Malformed(kind))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
