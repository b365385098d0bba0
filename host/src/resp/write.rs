//! Appends replies to an output buffer, token by token.
//!
//! Owns the spelling of every RESP type in both protocols, and the downgrade of the newer types for RESP2. An aggregate
//! is its header followed by its members. No text that is put in here can break the framing: CR and LF in a line become
//! spaces, as in Redis.

use super::Protocol;

/// A short text, such as `OK`.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    line(out, text);
}

/// The reply of most commands that only do something.
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// An error. Its first word, `code`, is for programs; the rest is for people.
pub fn error(out: &mut Vec<u8>, code: &str, message: &str) {
    out.push(b'-');
    out.extend(code.bytes().map(unbroken));
    if !message.is_empty() {
        out.push(b' ');
    }
    line(out, message);
}

/// A signed integer.
pub fn int(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    decimal(out, value);
}

/// A count as an integer.
pub fn count(out: &mut Vec<u8>, value: usize) {
    int(out, i64::try_from(value).unwrap_or(i64::MAX));
}

/// Bytes.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// No value.
pub fn nil(out: &mut Vec<u8>, proto: Protocol) {
    out.extend_from_slice(match proto {
        Protocol::Resp2 => b"$-1\r\n".as_slice(),
        Protocol::Resp3 => b"_\r\n".as_slice(),
    });
}

/// True or false; 1 or 0 in RESP2.
pub fn boolean(out: &mut Vec<u8>, value: bool, proto: Protocol) {
    out.extend_from_slice(match (proto, value) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// A floating point number; a bulk in RESP2.
pub fn double(out: &mut Vec<u8>, value: f64, proto: Protocol) {
    scalar(out, b',', &double_text(value), proto);
}

/// A decimal integer of any length; a bulk in RESP2.
pub fn big_number(out: &mut Vec<u8>, digits: &str, proto: Protocol) {
    scalar(out, b'(', digits, proto);
}

/// Text with a three-letter format; a bulk without the format in RESP2.
pub fn verbatim(out: &mut Vec<u8>, format: [u8; 3], text: &str, proto: Protocol) {
    if proto == Protocol::Resp2 {
        return bulk(out, text.as_bytes());
    }
    header(out, b'=', text.len().saturating_add(4));
    out.extend_from_slice(&format);
    out.push(b':');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The next `members` values form an array.
pub fn array(out: &mut Vec<u8>, members: usize) {
    header(out, b'*', members);
}

/// The next `members` values form a set; an array in RESP2.
pub fn set(out: &mut Vec<u8>, members: usize, proto: Protocol) {
    let kind = if proto == Protocol::Resp3 { b'~' } else { b'*' };
    header(out, kind, members);
}

/// The next `pairs` pairs of values form a map; a flat array in RESP2.
pub fn map(out: &mut Vec<u8>, pairs: usize, proto: Protocol) {
    match proto {
        Protocol::Resp2 => header(out, b'*', pairs.saturating_mul(2)),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// The number as RESP3 spells it, without exponent where that is readable.
pub(super) fn double_text(value: f64) -> String {
    if value.is_nan() {
        "nan".into()
    } else if value.is_infinite() {
        if value > 0.0 { "inf" } else { "-inf" }.into()
    } else if value == 0.0 || (1e-5..1e17).contains(&value.abs()) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

fn scalar(out: &mut Vec<u8>, kind: u8, text: &str, proto: Protocol) {
    match proto {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => {
            out.push(kind);
            line(out, text);
        }
    }
}

fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    decimal(out, i64::try_from(length).unwrap_or(i64::MAX));
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().map(unbroken));
    out.extend_from_slice(b"\r\n");
}

fn unbroken(byte: u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') {
        b' '
    } else {
        byte
    }
}

/// The number and CR LF. By hand, because formatting machinery would cost more than the rest of a short reply.
fn decimal(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0_u8; 20];
    let mut left = value.unsigned_abs();
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}
