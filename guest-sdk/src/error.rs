//! Why a command was refused: the first word and the text of a client's error.

use std::borrow::Cow;
use std::fmt;

/// What a vnode's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal. Nothing that the command wrote is kept, and the client sees `-CODE message`.
///
/// A text becomes an `ERR`, so `?` and `.into()` work on plain strings:
///
/// ```
/// use guest_sdk::prelude::*;
///
/// let error: Error = "no such seat".into();
/// assert_eq!(error.to_string(), "ERR no such seat");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl Error {
    /// An error with its own first word, such as `WRONGTYPE`. What cannot stand in such a word is left out.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: word(code.into()),
            message: one_line(message.into()),
        }
    }

    /// An error of the general kind, `ERR`.
    pub fn err(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: Cow::Borrowed("ERR"),
            message: one_line(message.into()),
        }
    }

    /// Redis' words for an option that does not exist or does not fit.
    pub fn syntax() -> Self {
        Self::err("syntax error")
    }

    /// Redis' words for text where a 64-bit integer belongs.
    pub fn not_an_integer() -> Self {
        Self::err("value is not an integer or out of range")
    }

    /// Redis' words for a sum that leaves the 64-bit integers.
    pub fn overflow() -> Self {
        Self::err("increment or decrement would overflow")
    }

    /// The first word.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The text after the first word.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<&'static str> for Error {
    fn from(message: &'static str) -> Self {
        Self::err(message)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::err(message)
    }
}

/// For the functions that answer the operator in plain text, such as [`Vnode::init`](crate::Vnode::init).
impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}

/// The text without CR and LF, which would end a line of the protocol early.
pub(crate) fn one_line(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.contains(['\r', '\n']) {
        Cow::Owned(text.replace(['\r', '\n'], " "))
    } else {
        text
    }
}

fn word(code: Cow<'static, str>) -> Cow<'static, str> {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if !code.is_empty() && code.chars().all(fits) {
        return code;
    }
    let kept: String = code
        .chars()
        .map(|c| c.to_ascii_uppercase())
        .filter(|c| fits(*c))
        .collect();
    if kept.is_empty() {
        Cow::Borrowed("ERR")
    } else {
        Cow::Owned(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_one_word_and_a_message_one_line() {
        let error = Error::new("no auth!\r\n", "a\r\nb");
        assert_eq!((error.code(), error.message()), ("NOAUTH", "a  b"));
        assert_eq!(Error::new("", "x").code(), "ERR");
    }
}
