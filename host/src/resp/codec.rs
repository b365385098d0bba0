//! Finds requests in a connection's read buffer, without copying them.
//!
//! Owns the request grammar (multibulk and inline) and its limits, which are checked before anything is allocated. Never
//! reads a socket and keeps no state between calls: the same bytes give the same requests however they are chunked.
//! Redis 7.0 is the reference for what is accepted and for the words of errors; the one difference is that the two
//! bytes after a length or an argument must be CR and LF, where Redis skips any two.

mod inline;

use std::ops::Range;

use super::write;

/// Largest length that Redis takes for an argument (`proto-max-bulk-len`); beyond it a length is malformed, not big.
const BULK_MAX: i64 = 512 * 1024 * 1024;

/// Bytes of the shortest argument on the wire: `$0`, CR LF, CR LF.
const ARGUMENT_MIN: usize = 6;

/// Bytes of a request with many arguments; one value may weigh as much.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What one request may weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one argument; beyond: `TOOBIG`.
    pub arg_bytes_max: usize,
    /// Arguments of one request with the command's name; beyond: `TOOBIG`.
    pub args_max: usize,
    /// Bytes of an inline request without its line end; beyond: `Protocol error: too big inline request`.
    pub inline_bytes_max: usize,
    /// Bytes of a whole request on the wire; beyond: `TOOBIG`.
    pub request_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            arg_bytes_max: 1 << 20,
            args_max: 1024,
            inline_bytes_max: 64 << 10,
            request_bytes_max: REQUEST_BYTES_MAX,
        }
    }
}

/// What [`parse`] found at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One request. It has no arguments at all when it was an empty line, `*0` or `*-1`: there is nothing to answer.
    Complete {
        /// Bytes it took of the buffer.
        consumed: usize,
    },
    /// The buffer ends before the request does.
    Incomplete {
        /// Parsing again is pointless before the buffer holds so many bytes in all: always more than it holds now, and
        /// in the middle of an argument all of that argument.
        needed: usize,
    },
}

/// Bytes that are no request. The connection cannot be brought back into step: answer with [`Self::reply`] and close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// `*` without a decimal number and CR LF, or with an absurd one.
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// `$` without a decimal number and CR LF, or with a negative or absurd one.
    #[error("invalid bulk length")]
    BulkLength,
    /// Something else where the next argument should start.
    #[error("expected '$', got '{}'", printable(*.0))]
    ExpectedDollar(u8),
    /// An argument that is longer than it said.
    #[error("expected CRLF after an argument")]
    ExpectedCrlf,
    /// A line that is longer than `inline_bytes_max`.
    #[error("too big inline request")]
    InlineTooBig,
    /// A quote that is not closed, or closed in the middle of a word.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A well-formed request beyond a limit.
    #[error(transparent)]
    TooBig(#[from] TooBig),
}

/// A request beyond one of [`Limits`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooBig {
    /// Beyond `arg_bytes_max`.
    #[error("argument of {bytes} bytes, the limit is {max}")]
    Argument {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Beyond `args_max`.
    #[error("request of {count} arguments, the limit is {max}")]
    Arguments {
        /// How many it has; for an inline request, how many were read before giving up.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Beyond `request_bytes_max`.
    #[error("request of at least {bytes} bytes, the limit is {max}")]
    Request {
        /// What it would take at least.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl ProtocolError {
    /// Appends the error: `-TOOBIG …`, after which [`Skip`] finds the next request, or `-ERR Protocol error: …`, after which
    /// nothing can be found.
    pub fn reply(&self, out: &mut Vec<u8>) {
        match self {
            Self::TooBig(big) => write::error(out, "TOOBIG", &big.to_string()),
            _ => write::error(out, "ERR", &format!("Protocol error: {self}")),
        }
    }
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() {
        char::from(byte)
    } else {
        '?'
    }
}

/// Where the arguments of the request parsed last are. Reused from one request to the next, so that a connection
/// allocates once.
#[derive(Clone, Debug, Default)]
pub struct Args {
    spans: Vec<Range<usize>>,
    /// Arguments of an inline request: quoting makes them differ from the bytes in the buffer.
    unquoted: Vec<u8>,
    inline: bool,
}

impl Args {
    /// Where the words are in the parsed bytes; none for an inline request, whose words may differ from what was sent.
    pub fn spans(&self) -> Option<&[Range<usize>]> {
        (!self.inline).then_some(&self.spans)
    }

    /// The arguments themselves. `buf` is the buffer that was parsed, with the request still at its front.
    pub fn of<'a>(&'a self, buf: &'a [u8]) -> Words<'a> {
        Words {
            spans: &self.spans,
            bytes: if self.inline { &self.unquoted } else { buf },
        }
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.unquoted.clear();
        self.inline = false;
    }
}

/// The words of one request: the command's name and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    spans: &'a [Range<usize>],
    bytes: &'a [u8],
}

impl<'a> Words<'a> {
    /// Words that lie at these places of `bytes`.
    pub fn new(spans: &'a [Range<usize>], bytes: &'a [u8]) -> Self {
        Words { spans, bytes }
    }

    /// Number of words with the name.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is nothing to answer.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The word at that position; 0 is the command's name.
    pub fn get(&self, position: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.spans.get(position)?.clone())
    }

    /// All words in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.spans
            .iter()
            .map(move |span| bytes.get(span.clone()).unwrap_or_default())
    }

    /// The words after the first `count`, for commands that carry another.
    #[must_use]
    pub fn skip(&self, count: usize) -> Words<'a> {
        Words {
            spans: self.spans.get(count..).unwrap_or_default(),
            bytes: self.bytes,
        }
    }

    /// All words as slices.
    pub fn to_vec(&self) -> Vec<&'a [u8]> {
        self.iter().collect()
    }
}

/// Looks for one request at the front of `buf` and leaves its arguments in `args`.
///
/// After an error or [`Progress::Incomplete`] the arguments mean nothing.
pub fn parse(buf: &[u8], limits: &Limits, args: &mut Args) -> Result<Progress, ProtocolError> {
    args.clear();
    match buf.first() {
        None => Ok(Progress::Incomplete { needed: 1 }),
        Some(b'*') => multibulk(buf, limits, &mut args.spans),
        Some(_) => inline::parse(buf, limits, args),
    }
}

fn multibulk(
    buf: &[u8],
    limits: &Limits,
    spans: &mut Vec<Range<usize>>,
) -> Result<Progress, ProtocolError> {
    let (count, mut at) = match header(buf, 1) {
        Header::Number { value, next } if value <= i64::from(i32::MAX) => (value, next),
        Header::Partial => {
            return Ok(Progress::Incomplete {
                needed: buf.len() + 1,
            });
        }
        _ => return Err(ProtocolError::MultibulkLength),
    };
    // Negative counts are requests without arguments, in Redis too.
    let count = usize::try_from(count).unwrap_or(0);
    if count > limits.args_max {
        let max = limits.args_max;
        return Err(TooBig::Arguments { count, max }.into());
    }
    within(at + count * ARGUMENT_MIN, limits)?;
    for left in (0..count).rev() {
        let partial = Progress::Incomplete {
            needed: buf.len() + 1,
        };
        match buf.get(at) {
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::ExpectedDollar(*other)),
            None => return Ok(partial),
        }
        let (bytes, start) = match header(buf, at + 1) {
            Header::Number { value, next } if (0..=BULK_MAX).contains(&value) => (value, next),
            Header::Partial => return Ok(partial),
            _ => return Err(ProtocolError::BulkLength),
        };
        let bytes = usize::try_from(bytes).map_err(|_| ProtocolError::BulkLength)?;
        if bytes > limits.arg_bytes_max {
            let max = limits.arg_bytes_max;
            return Err(TooBig::Argument { bytes, max }.into());
        }
        let end = start + bytes;
        within(end + 2 + left * ARGUMENT_MIN, limits)?;
        match buf.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(ProtocolError::ExpectedCrlf),
            None => return Ok(Progress::Incomplete { needed: end + 2 }),
        }
        spans.push(start..end);
        at = end + 2;
    }
    Ok(Progress::Complete { consumed: at })
}

/// Passes over a request that is too big, without keeping any of it, so that the connection can go on.
#[derive(Debug, Default)]
pub struct Skip {
    /// Arguments still to come; none before the request's first line was seen.
    arguments: Option<usize>,
    /// Bytes of the present argument still to come, its line end included.
    bytes: usize,
}

impl Skip {
    /// Starts at the request at the front of `buf`; none where its end cannot be known, as for an inline request.
    pub fn over(buf: &[u8]) -> Option<Skip> {
        buf.starts_with(b"*").then(Skip::default)
    }

    /// Takes what is there of the request. Returns how many bytes that was, and whether it was the rest.
    pub fn feed(&mut self, buf: &[u8]) -> Result<(usize, bool), ProtocolError> {
        let mut at = 0;
        loop {
            let here = self.bytes.min(buf.len() - at);
            at += here;
            self.bytes -= here;
            let (kind, flaw) = match self.arguments {
                _ if self.bytes > 0 => return Ok((at, false)),
                Some(0) => return Ok((at, true)),
                Some(_) => (b'$', ProtocolError::BulkLength),
                None => (b'*', ProtocolError::MultibulkLength),
            };
            match buf.get(at) {
                None => return Ok((at, false)),
                Some(found) if *found != kind => return Err(flaw),
                Some(_) => {}
            }
            let (number, next) = match header(buf, at + 1) {
                Header::Number { value, next } => (usize::try_from(value).map_err(|_| flaw)?, next),
                Header::Partial => return Ok((at, false)),
                Header::Malformed => return Err(flaw),
            };
            at = next;
            match &mut self.arguments {
                None => self.arguments = Some(number),
                Some(left) => {
                    *left -= 1;
                    self.bytes = number.saturating_add(2);
                }
            }
        }
    }
}

/// Refuses a request as soon as its least size is known, so that nobody makes room for it. Called wherever that size
/// grows, whether or not the bytes are here yet: otherwise the error would depend on how they are chunked.
fn within(bytes: usize, limits: &Limits) -> Result<(), TooBig> {
    let max = limits.request_bytes_max;
    if bytes > max {
        return Err(TooBig::Request { bytes, max });
    }
    Ok(())
}

enum Header {
    Number { value: i64, next: usize },
    Partial,
    Malformed,
}

/// The decimal number at `at`, ended by CR LF. As strict as Redis: no plus sign, no leading zeros, nothing around it.
fn header(buf: &[u8], at: usize) -> Header {
    let rest = buf.get(at..).unwrap_or_default();
    let negative = rest.first() == Some(&b'-');
    let digits = rest.get(usize::from(negative)..).unwrap_or_default();
    let mut value: i64 = 0;
    for (position, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' if position == 0 || value != 0 => {
                let digit = i64::from(byte - b'0');
                match value
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(digit))
                {
                    Some(sum) => value = sum,
                    None => return Header::Malformed,
                }
            }
            b'\r' if position > 0 && !(negative && value == 0) => {
                return match digits.get(position + 1) {
                    Some(b'\n') => Header::Number {
                        value: if negative { -value } else { value },
                        next: at + usize::from(negative) + position + 2,
                    },
                    Some(_) => Header::Malformed,
                    None => Header::Partial,
                };
            }
            _ => return Header::Malformed,
        }
    }
    Header::Partial
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
