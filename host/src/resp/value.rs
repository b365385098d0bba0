//! A reply as a tree, for code that builds replies or looks into them.
//!
//! Owns [`Value`] and its forms: RESP2, RESP3 and JSON. Never on the path of a single guest's reply to a client:
//! [`super::wire`] passes that on without building a tree.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Protocol;
use super::wire::{self, ReplyError, ReplyLimits, Token};
use super::write;

/// One RESP3 value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
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
    /// A short text in one line, such as `OK`.
    Simple(String),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Text with a format.
    Verbatim {
        /// Three letters, `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: String,
    },
    /// A failure, by itself or inside an aggregate.
    Error {
        /// First word, for programs.
        code: String,
        /// The rest, for people.
        message: String,
    },
    /// Values in order.
    Array(Vec<Value>),
    /// Pairs in order.
    Map(Vec<(Value, Value)>),
    /// Values without order.
    Set(Vec<Value>),
}

impl Value {
    /// The usual reply of a command that only does something.
    pub fn ok() -> Self {
        Self::Simple("OK".into())
    }

    /// A short text in one line.
    pub fn simple(text: impl Into<String>) -> Self {
        Self::Simple(text.into())
    }

    /// Bytes or text.
    pub fn bulk(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// A failure.
    pub fn error(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Error {
            code: code.into(),
            message: message.into(),
        }
    }

    /// Values in order.
    pub fn array(members: impl IntoIterator<Item = impl Into<Value>>) -> Self {
        Self::Array(members.into_iter().map(Into::into).collect())
    }

    /// Values without order.
    pub fn set(members: impl IntoIterator<Item = impl Into<Value>>) -> Self {
        Self::Set(members.into_iter().map(Into::into).collect())
    }

    /// Pairs with text for keys.
    pub fn map(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let pair = |(key, value)| (Self::bulk(key), value);
        Self::Map(pairs.into_iter().map(pair).collect())
    }

    /// Reads one RESP3 value. Refuses what [`wire::check`] refuses.
    pub fn parse(resp3: &[u8], limits: &ReplyLimits) -> Result<Self, ReplyError> {
        wire::check(resp3, limits)?;
        Ok(read(resp3)?.0)
    }

    /// Appends the value in the client's protocol.
    pub fn encode(&self, proto: Protocol, out: &mut Vec<u8>) {
        match self {
            Self::Nil => write::nil(out, proto),
            Self::Bool(value) => write::boolean(out, *value, proto),
            Self::Int(value) => write::int(out, *value),
            Self::Double(value) => write::double(out, *value, proto),
            Self::BigNumber(digits) => write::big_number(out, digits, proto),
            Self::Simple(text) => write::simple(out, text),
            Self::Bulk(bytes) => write::bulk(out, bytes),
            Self::Verbatim { format, text } => write::verbatim(out, *format, text, proto),
            Self::Error { code, message } => write::error(out, code, message),
            Self::Array(members) => {
                write::array(out, members.len());
                members.iter().for_each(|member| member.encode(proto, out));
            }
            Self::Map(pairs) => {
                write::map(out, pairs.len(), proto);
                for (key, value) in pairs {
                    key.encode(proto, out);
                    value.encode(proto, out);
                }
            }
            Self::Set(members) => {
                write::set(out, members.len(), proto);
                members.iter().for_each(|member| member.encode(proto, out));
            }
        }
    }

    /// The value for HTTP: bytes are a string where they are UTF-8 and `{"base64": …}` where not, a map with texts for
    /// keys is an object and any other an array of pairs, numbers that JSON lacks are strings.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Nil => serde_json::Value::Null,
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Double(value) if value.is_finite() => json!(value),
            Self::Double(value) => json!(write::double_text(*value)),
            Self::BigNumber(text) | Self::Simple(text) | Self::Verbatim { text, .. } => json!(text),
            Self::Bulk(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => json!(text),
                Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
            },
            Self::Error { code, message } => {
                json!({ "error": { "code": code, "message": message } })
            }
            Self::Array(members) | Self::Set(members) => {
                members.iter().map(Self::to_json).collect()
            }
            Self::Map(pairs) => object(pairs).unwrap_or_else(|| {
                let pair = |(key, value): &(Self, Self)| json!([key.to_json(), value.to_json()]);
                pairs.iter().map(pair).collect()
            }),
        }
    }

    /// The text of a value that has one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Simple(text) | Self::BigNumber(text) | Self::Verbatim { text, .. } => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::bulk(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::bulk(text)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bulk(bytes)
    }
}

/// The map as a JSON object; `None` unless every key is a text and stands there once.
fn object(pairs: &[(Value, Value)]) -> Option<serde_json::Value> {
    let mut object = serde_json::Map::with_capacity(pairs.len());
    for (key, value) in pairs {
        let taken = object.insert(key.as_str()?.to_owned(), value.to_json());
        if taken.is_some() {
            return None;
        }
    }
    Some(object.into())
}

/// Builds the tree of a checked value; recursion is bounded because the check bounds the depth.
fn read(bytes: &[u8]) -> Result<(Value, &[u8]), ReplyError> {
    let (token, mut rest) = wire::token(bytes)?;
    let mut next = || {
        let (value, after) = read(rest)?;
        rest = after;
        Ok(value)
    };
    let value = match token {
        Token::Nil => Value::Nil,
        Token::Bool(value) => Value::Bool(value),
        Token::Int(value) => Value::Int(value),
        Token::Double(value, _) => Value::Double(value),
        Token::BigNumber(digits) => Value::BigNumber(digits.into()),
        Token::Simple(text) => Value::Simple(text.into()),
        Token::Bulk(bytes) => Value::Bulk(bytes.into()),
        Token::Verbatim(format, text) => Value::Verbatim {
            format,
            text: text.into(),
        },
        Token::Error(code, message) => Value::error(code, message),
        Token::Array(members) => {
            Value::Array((0..members).map(|_| next()).collect::<Result<_, _>>()?)
        }
        Token::Set(members) => Value::Set((0..members).map(|_| next()).collect::<Result<_, _>>()?),
        Token::Map(pairs) => {
            let pairs = (0..pairs).map(|_| Ok((next()?, next()?)));
            Value::Map(pairs.collect::<Result<_, _>>()?)
        }
    };
    Ok((value, rest))
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
