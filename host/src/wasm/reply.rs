//! The typed door's reply, a pre-order list of nodes, written as one RESP3 value.

use super::GuestError;
use super::bindings::vnode::host::types::Node;
use crate::resp::{Protocol, write};

const RESP3: Protocol = Protocol::Resp3;

/// Deepest nesting of a reply.
const DEPTH_MAX: usize = 32;

/// Appends the nodes to `out` as RESP3. Fails unless they are exactly `values` values (any number if none is given),
/// well-formed and within `bytes_max`. Returns the number of values.
pub(super) fn encode(
    nodes: &[Node],
    values: Option<usize>,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<usize, GuestError> {
    let start = out.len();
    let mut open: Vec<u64> = Vec::new();
    let mut complete = 0;
    for node in nodes {
        let members = write_node(node, out)?;
        if out.len() - start > bytes_max {
            return Err(GuestError::TooBig(format!(
                "reply of more than {bytes_max} bytes (reply_bytes_max)"
            )));
        }
        if members > 0 {
            open.push(members);
            if open.len() > DEPTH_MAX {
                return Err(GuestError::Contract(format!(
                    "reply nested more than {DEPTH_MAX} deep"
                )));
            }
            continue;
        }
        // A value is complete; so is every aggregate of which it was the last member.
        while let Some(rest) = open.last_mut() {
            *rest -= 1;
            if *rest > 0 {
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            complete += 1;
        }
    }
    match values {
        _ if !open.is_empty() => Err(GuestError::Contract(
            "reply ends inside an aggregate".into(),
        )),
        Some(wanted) if wanted != complete => Err(GuestError::Contract(format!(
            "reply has {complete} values, expected {wanted}"
        ))),
        _ => Ok(complete),
    }
}

/// Writes one node and says how many values belong to it.
fn write_node(node: &Node, out: &mut Vec<u8>) -> Result<u64, GuestError> {
    let members = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    match node {
        Node::Nil => write::nil(out, RESP3),
        Node::Boolean(value) => write::boolean(out, *value, RESP3),
        Node::Integer(number) => write::int(out, *number),
        Node::Double(number) => write::double(out, *number, RESP3),
        Node::BigNumber(digits) => {
            let magnitude = digits.strip_prefix('-').unwrap_or(digits);
            if magnitude.is_empty() || !magnitude.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(contract("big number with other characters than digits"));
            }
            write::big_number(out, digits, RESP3);
        }
        Node::Simple(text) => write::simple(out, one_line(text)?),
        Node::Error(error) => {
            write::error(out, one_line(&error.code)?, one_line(&error.message)?);
        }
        Node::Bulk(bytes) => write::bulk(out, bytes),
        Node::Verbatim((format, text)) => {
            let Ok(format) = <[u8; 3]>::try_from(format.as_bytes()) else {
                return Err(contract("verbatim format of other than three letters"));
            };
            write::verbatim(out, format, text, RESP3);
        }
        Node::Array(count) => {
            write::array(out, members(*count));
            return Ok(u64::from(*count));
        }
        Node::Set(count) => {
            write::set(out, members(*count), RESP3);
            return Ok(u64::from(*count));
        }
        Node::Map(pairs) => {
            write::map(out, members(*pairs), RESP3);
            return Ok(u64::from(*pairs) * 2);
        }
    }
    Ok(0)
}

fn one_line(text: &str) -> Result<&str, GuestError> {
    if text.contains(['\r', '\n']) {
        return Err(contract("line break in a simple string or error"));
    }
    Ok(text)
}

fn contract(flaw: &str) -> GuestError {
    GuestError::Contract(flaw.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resp3(nodes: &[Node]) -> Result<String, GuestError> {
        let mut out = Vec::new();
        encode(nodes, Some(1), 1000, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn aggregates_take_their_members_from_what_follows() {
        let nodes = [
            Node::Map(1),
            Node::Simple("k".into()),
            Node::Array(2),
            Node::Integer(-1),
            Node::Array(0),
        ];
        assert_eq!(resp3(&nodes).unwrap(), "%1\r\n+k\r\n*2\r\n:-1\r\n*0\r\n");
        assert_eq!(
            resp3(&[Node::Bulk(b"a\r".to_vec())]).unwrap(),
            "$2\r\na\r\r\n"
        );
        assert_eq!(resp3(&[Node::Double(f64::NAN)]).unwrap(), ",nan\r\n");
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        let refused: [&[Node]; 7] = [
            &[],
            &[Node::Nil, Node::Nil],
            &[Node::Array(2), Node::Nil],
            &[Node::Map(1), Node::Nil],
            &[Node::Simple("a\r\nb".into())],
            &[Node::BigNumber("1e5".into())],
            &[Node::Array(u32::MAX)],
        ];
        for nodes in refused {
            assert!(resp3(nodes).is_err(), "{nodes:?}");
        }
        let deep: Vec<Node> = std::iter::repeat_n(Node::Array(1), 1000).collect();
        assert!(resp3(&deep).is_err());
    }
}
