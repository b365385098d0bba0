//! Inline requests: one line of words, as people type them into telnet.

use super::{Args, Limits, Progress, ProtocolError, TooBig};

/// Finds one inline request at the front of the buffer.
pub(super) fn parse(
    buf: &[u8],
    limits: &Limits,
    args: &mut Args,
) -> Result<Progress, ProtocolError> {
    // The line end may be two bytes; `contains` is much faster than `position`, and usually all that runs.
    let window = buf
        .get(..limits.inline_bytes_max.saturating_add(2))
        .unwrap_or(buf);
    let newline = if window.contains(&b'\n') {
        window.iter().position(|byte| *byte == b'\n')
    } else {
        None
    };
    let Some(newline) = newline else {
        let held = window.strip_suffix(b"\r").unwrap_or(window).len();
        if held > limits.inline_bytes_max {
            return Err(ProtocolError::InlineTooBig);
        }
        return Ok(Progress::Incomplete {
            needed: buf.len() + 1,
        });
    };
    let line = window.get(..newline).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > limits.inline_bytes_max {
        return Err(ProtocolError::InlineTooBig);
    }
    split(line, limits, args)?;
    Ok(Progress::Complete {
        consumed: newline + 1,
    })
}

/// Splits a line into words as redis-cli does, and Redis with inline requests: `"…"` with backslash escapes, `'…'` with
/// `\'` only, and quotes may open within a word but must close at its end.
fn split(line: &[u8], limits: &Limits, args: &mut Args) -> Result<(), ProtocolError> {
    args.inline = true;
    let mut rest = line;
    loop {
        let Some(start_of_word) = rest.iter().position(|byte| !is_space(*byte)) else {
            return Ok(());
        };
        rest = rest.get(start_of_word..).unwrap_or_default();
        if args.spans.len() == limits.args_max {
            let count = limits.args_max + 1;
            return Err(TooBig::Arguments {
                count,
                max: limits.args_max,
            }
            .into());
        }
        let start = args.unquoted.len();
        rest = word(rest, &mut args.unquoted).ok_or(ProtocolError::UnbalancedQuotes)?;
        let bytes = args.unquoted.len() - start;
        if bytes > limits.arg_bytes_max {
            return Err(TooBig::Argument {
                bytes,
                max: limits.arg_bytes_max,
            }
            .into());
        }
        args.spans.push(start..args.unquoted.len());
    }
}

/// Appends one word without its quotes and returns what follows it; `None` when its quotes are unbalanced.
fn word<'a>(line: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = line;
    loop {
        let Some((byte, after)) = rest.split_first() else {
            return Some(rest);
        };
        rest = after;
        match byte {
            b' ' | b'\t' | b'\r' => return Some(rest),
            b'"' => return closed(double_quoted(rest, out)?),
            b'\'' => return closed(single_quoted(rest, out)?),
            _ => out.push(*byte),
        }
    }
}

fn double_quoted<'a>(quoted: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = quoted;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high)? << 4 | hex(*low)?);
                after
            }
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn single_quoted<'a>(quoted: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = quoted;
    loop {
        rest = match rest {
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                out.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

/// A closing quote ends the word: nothing or a space must follow.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest.first() {
        Some(byte) if !is_space(*byte) => None,
        _ => Some(rest),
    }
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

/// C's `isspace`, which Redis uses between words.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
