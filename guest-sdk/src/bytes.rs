//! Bytes that came out of the store or go into a reply, and the numbers in them.

use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

use crate::{Error, Result};

/// Bytes that are cheap to pass on: a value from [`store::get`](crate::store::get) goes into a reply without a copy.
///
/// They may be a part of the buffer that brought them. A vnode that keeps bytes in its own fields keeps
/// [`into_vec`](Self::into_vec) instead, or it keeps that whole buffer.
#[derive(Clone)]
pub struct Bytes(Form);

#[derive(Clone)]
enum Form {
    Owned(Vec<u8>),
    Part(Rc<Vec<u8>>, Range<usize>),
}

impl Bytes {
    pub(crate) fn part(buffer: &Rc<Vec<u8>>, range: Range<usize>) -> Self {
        Self(Form::Part(Rc::clone(buffer), range))
    }

    /// The bytes in memory of their own.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Form::Owned(bytes) => bytes,
            Form::Part(..) => self.to_vec(),
        }
    }

    /// The decimal integer that they spell, as Redis reads one.
    pub fn int(&self) -> Result<i64> {
        integer(self)
    }

    /// The text that they are in UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(self).map_err(|_| Error::err("value is not UTF-8 text"))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Owned(bytes) => bytes,
            Form::Part(buffer, range) => buffer.get(range.clone()).unwrap_or_default(),
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Form::Owned(bytes))
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for Bytes {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Self {
        bytes.into_vec()
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Bytes {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

/// The integer that `digits` spells: the shortest spelling only, so no `+1`, `01` or ` 1`.
pub(crate) fn integer(digits: &[u8]) -> Result<i64> {
    let (negative, rest) = match digits {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match rest {
        [b'0'] if !negative => return Ok(0),
        [] | [b'0', ..] => return Err(Error::not_an_integer()),
        _ => {}
    }
    let mut number: i64 = 0;
    for digit in rest {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if digit > 9 {
            return Err(Error::not_an_integer());
        }
        // Counted downwards: the least integer has no positive counterpart.
        number = number
            .checked_mul(10)
            .and_then(|n| n.checked_sub(digit))
            .ok_or_else(Error::not_an_integer)?;
    }
    if negative {
        Ok(number)
    } else {
        number.checked_neg().ok_or_else(Error::not_an_integer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_as_redis_reads_them() {
        for number in [0, 7, -7, 1200, i64::MAX, i64::MIN] {
            assert_eq!(integer(number.to_string().as_bytes()), Ok(number));
        }
        for text in [
            "",
            "-",
            "-0",
            "01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "x",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            assert_eq!(
                integer(text.as_bytes()),
                Err(Error::not_an_integer()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_part_equals_the_bytes_that_it_is() {
        let buffer = Rc::new(b"hello world".to_vec());
        let part = Bytes::part(&buffer, 6..11);
        assert_eq!(part, "world");
        assert_eq!(format!("{part:?}"), "\"world\"");
        assert_eq!(part.into_vec(), b"world");
    }
}
