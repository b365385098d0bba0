//! A reply in JSON, printed as redis-cli prints replies.
//!
//! On a terminal strings are quoted and types named; in a pipe there are the bytes alone, one item a line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Bytes for JSON: text when they are UTF-8, else `{"base64": …}`.
pub(super) fn encode(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// What a JSON value of a reply stands for.
enum Item<'a> {
    Nil,
    Bytes(Vec<u8>),
    Error(String),
    Plain(String),
    Array(&'a [Value]),
    Map(&'a Map<String, Value>),
}

fn item(value: &Value) -> Item<'_> {
    match value {
        Value::Null => Item::Nil,
        Value::Bool(flag) => Item::Plain(format!("({flag})")),
        Value::Number(number) if number.is_f64() => Item::Plain(format!("(double) {number}")),
        Value::Number(number) => Item::Plain(format!("(integer) {number}")),
        Value::String(text) => Item::Bytes(text.as_bytes().to_vec()),
        Value::Array(items) => Item::Array(items),
        Value::Object(map) => single(map, "base64")
            .and_then(|text| STANDARD.decode(text.as_str()?).ok())
            .map(Item::Bytes)
            .or_else(|| single(map, "error").and_then(error).map(Item::Error))
            .unwrap_or(Item::Map(map)),
    }
}

/// The value of the only key of an object, if that is `key`.
fn single<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|_| map.len() == 1)
}

/// `ERR no`, from `{"code": "ERR", "message": "no"}`.
fn error(value: &Value) -> Option<String> {
    let (code, message) = (value["code"].as_str()?, value["message"].as_str()?);
    Some(format!("{code} {message}"))
}

/// Whether the whole reply is an error.
pub(super) fn is_error(value: &Value) -> bool {
    matches!(item(value), Item::Error(_))
}

/// For people.
pub(super) fn pretty(value: &Value) -> String {
    let mut text = String::new();
    write_pretty(&mut text, value, 0);
    text
}

fn write_pretty(text: &mut String, value: &Value, indent: usize) {
    match item(value) {
        Item::Nil => text.push_str("(nil)\n"),
        // JSON does not tell a status from a string, and OK is what a status says.
        Item::Bytes(bytes) if bytes == b"OK" => text.push_str("OK\n"),
        Item::Bytes(bytes) => text.push_str(&format!("{}\n", quoted(&bytes))),
        Item::Error(error) => text.push_str(&format!("(error) {error}\n")),
        Item::Plain(plain) => text.push_str(&format!("{plain}\n")),
        Item::Array([]) => text.push_str("(empty array)\n"),
        Item::Array(items) => {
            let width = items.len().to_string().len();
            for (at, value) in items.iter().enumerate() {
                let gap = if at > 0 { indent } else { 0 };
                text.push_str(&format!("{}{:>width$}) ", " ".repeat(gap), at + 1));
                write_pretty(text, value, indent + width + 2);
            }
        }
        Item::Map(map) if map.is_empty() => text.push_str("(empty hash)\n"),
        Item::Map(map) => {
            let width = map.len().to_string().len();
            for (at, (key, value)) in map.iter().enumerate() {
                let gap = if at > 0 { indent } else { 0 };
                let head = format!("{:>width$}# {} => ", at + 1, quoted(key.as_bytes()));
                text.push_str(&format!("{}{head}", " ".repeat(gap)));
                write_pretty(text, value, indent + head.chars().count());
            }
        }
    }
}

/// In double quotes, with what is not printable escaped: bytes of a user never steer the terminal.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x20..=0x7e => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\x{other:02x}")),
        }
    }
    text.push('"');
    text
}

/// For pipes: bytes as they are.
pub(super) fn raw(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_raw(&mut bytes, value);
    if bytes.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    bytes
}

fn write_raw(out: &mut Vec<u8>, value: &Value) {
    match item(value) {
        Item::Nil => {}
        Item::Bytes(bytes) => out.extend(bytes),
        Item::Error(error) => out.extend(error.bytes()),
        Item::Plain(_) => out.extend(value.to_string().bytes()),
        Item::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b'\n');
                }
                write_raw(out, value);
            }
        }
        Item::Map(map) => {
            for (at, (key, value)) in map.iter().enumerate() {
                out.extend((if at > 0 { "\n" } else { "" }).bytes());
                out.extend(key.bytes());
                out.push(b'\n');
                write_raw(out, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_look_as_in_redis_cli() {
        let cases = [
            (json!("OK"), "OK\n"),
            (
                json!("a \"b\"\n\u{1b}[31m"),
                "\"a \\\"b\\\"\\n\\x1b[31m\"\n",
            ),
            (json!(null), "(nil)\n"),
            (json!(3), "(integer) 3\n"),
            (json!(1.5), "(double) 1.5\n"),
            (json!(true), "(true)\n"),
            (json!({"base64": "/wA="}), "\"\\xff\\x00\"\n"),
            (
                json!({"error": {"code": "ERR", "message": "no"}}),
                "(error) ERR no\n",
            ),
            (json!([]), "(empty array)\n"),
            (json!({}), "(empty hash)\n"),
            (
                json!(["a", 1, null]),
                "1) \"a\"\n2) (integer) 1\n3) (nil)\n",
            ),
            (
                json!(["a", ["b", "c"]]),
                "1) \"a\"\n2) 1) \"b\"\n   2) \"c\"\n",
            ),
            (
                json!({"k": [1, 2]}),
                "1# \"k\" => 1) (integer) 1\n          2) (integer) 2\n",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(pretty(&value), expected, "{value}");
        }
        let ten = pretty(&json!(vec!["x"; 10]));
        assert!(
            ten.starts_with(" 1) \"x\"\n") && ten.ends_with("10) \"x\"\n"),
            "{ten}"
        );
    }

    #[test]
    fn a_pipe_gets_the_bytes_alone() {
        let cases: [(Value, &[u8]); 6] = [
            (json!("a"), b"a\n"),
            (json!(null), b"\n"),
            (json!({"base64": "/wA="}), b"\xff\x00\n"),
            (json!(["a", [1, true], null]), b"a\n1\ntrue\n"),
            (json!({"k": "v"}), b"k\nv\n"),
            (json!("line\n"), b"line\n"),
        ];
        for (value, expected) in cases {
            assert_eq!(raw(&value), expected, "{value}");
        }
    }

    #[test]
    fn bytes_survive_json() {
        assert_eq!(encode(b"plain"), json!("plain"));
        assert_eq!(encode(b"\xff\x00"), json!({"base64": "/wA="}));
        assert!(
            is_error(&json!({"error": {"code": "ERR", "message": ""}}))
                && !is_error(&json!({"error": "ERR"}))
        );
    }
}
