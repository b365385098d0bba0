//! What a command answers: one RESP3 value.

use std::borrow::Cow;

use crate::{Bytes, Error};

/// One RESP3 value.
///
/// Most replies are one builder away, and whatever has a plain meaning converts: an integer, bytes, text, an option
/// (none is nil), a vector (an array).
///
/// ```
/// use guest_sdk::prelude::*;
///
/// assert_eq!(Reply::from(None::<Bytes>), Reply::nil());
/// assert_eq!(Reply::array([Reply::bulk("a"), Reply::int(1)]), Reply::Array(vec!["a".into(), 1.into()]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// No value.
    Nil,
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A floating point number, infinities and NaN included.
    Double(f64),
    /// A decimal integer of any length.
    BigNumber(String),
    /// A short text, such as `OK`. CR and LF in it become spaces on the way out.
    Simple(Cow<'static, str>),
    /// Bytes.
    Bulk(Bytes),
    /// Text with the format that it is in.
    Verbatim(Format, String),
    /// An error inside an aggregate. A command that fails as a whole returns `Err` instead.
    Error(Error),
    /// Values in order.
    Array(Vec<Reply>),
    /// Keys and their values, in order.
    Map(Vec<(Reply, Reply)>),
    /// Values without an order.
    Set(Vec<Reply>),
}

/// What kind of text a verbatim reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    Text,
    /// Markdown.
    Markdown,
}

impl Format {
    pub(crate) fn letters(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Markdown => "mkd",
        }
    }
}

impl Reply {
    /// `OK`.
    pub fn ok() -> Self {
        Self::simple("OK")
    }

    /// No value.
    pub fn nil() -> Self {
        Self::Nil
    }

    /// A signed integer.
    pub fn int(number: i64) -> Self {
        Self::Int(number)
    }

    /// The length of something.
    pub fn count(count: usize) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Bytes.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// A short text on one line.
    pub fn simple(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Simple(text.into())
    }

    /// Plain text of any length, which clients show unquoted.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Verbatim(Format::Text, text.into())
    }

    /// A decimal integer of any length; anything else is sent as bytes.
    pub fn big_number(digits: impl Into<String>) -> Self {
        Self::BigNumber(digits.into())
    }

    /// An error among other values.
    pub fn error(error: impl Into<Error>) -> Self {
        Self::Error(error.into())
    }

    /// Values in order.
    pub fn array<R: Into<Self>>(items: impl IntoIterator<Item = R>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }

    /// Keys and their values.
    pub fn map<K: Into<Self>, V: Into<Self>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let pairs = pairs.into_iter();
        Self::Map(
            pairs
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }

    /// Values without an order.
    pub fn set<R: Into<Self>>(items: impl IntoIterator<Item = R>) -> Self {
        Self::Set(items.into_iter().map(Into::into).collect())
    }

    /// The members of an array or a set; none for any other value.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) | Self::Set(items) => items,
            _ => &[],
        }
    }

    /// The bytes of a text or bulk reply.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) => Some(bytes),
            Self::Simple(text) => Some(text.as_bytes()),
            Self::Verbatim(_, text) | Self::BigNumber(text) => Some(text.as_bytes()),
            _ => None,
        }
    }
}

/// Whether `digits` may stand where the protocol wants a big number.
pub(crate) fn is_decimal(digits: &str) -> bool {
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl From<i64> for Reply {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<i32> for Reply {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u32> for Reply {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for Reply {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<f64> for Reply {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<Bytes> for Reply {
    fn from(bytes: Bytes) -> Self {
        Self::Bulk(bytes)
    }
}

impl From<Vec<u8>> for Reply {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bulk(bytes.into())
    }
}

impl From<&[u8]> for Reply {
    fn from(bytes: &[u8]) -> Self {
        Self::Bulk(bytes.into())
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Self::Bulk(text.into())
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::Bulk(text.into())
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Vec<Reply>> for Reply {
    fn from(items: Vec<Reply>) -> Self {
        Self::Array(items)
    }
}

impl<T: Into<Reply>> From<Option<T>> for Reply {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nil, Into::into)
    }
}

/// A text or bulk reply equals the text that it holds, which makes tests short.
impl PartialEq<str> for Reply {
    fn eq(&self, text: &str) -> bool {
        self.as_bytes() == Some(text.as_bytes())
    }
}

impl PartialEq<&str> for Reply {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
    }
}

impl PartialEq<i64> for Reply {
    fn eq(&self, number: &i64) -> bool {
        matches!(self, Self::Int(mine) if mine == number)
    }
}
