//! Between the contract's types and this crate's.

use crate::bindings::exports::vnode::host::vnode as wit;
use crate::bindings::vnode::host::types::{self, Node};
use crate::command::Replica;
use crate::error::one_line;
use crate::reply::is_decimal;
use crate::spec::{Aggregate, CommandSpec, Kind};
use crate::{Error, Identity, Reply};

/// A reply in pre-order.
pub(crate) fn lower(reply: Reply) -> types::Reply {
    // Nearly every reply is one node.
    let mut nodes = Vec::with_capacity(1);
    push(reply, &mut nodes);
    nodes
}

/// Several replies, one after another.
pub(crate) fn lower_all(replies: Vec<Reply>) -> types::Reply {
    let mut nodes = Vec::with_capacity(replies.len());
    for reply in replies {
        push(reply, &mut nodes);
    }
    nodes
}

fn push(reply: Reply, nodes: &mut Vec<Node>) {
    nodes.push(match reply {
        Reply::Nil => Node::Nil,
        Reply::Bool(truth) => Node::Boolean(truth),
        Reply::Int(number) => Node::Integer(number),
        Reply::Double(number) => Node::Double(number),
        Reply::BigNumber(digits) if is_decimal(&digits) => Node::BigNumber(digits),
        Reply::BigNumber(other) => Node::Bulk(other.into_bytes()),
        Reply::Simple(text) => Node::Simple(one_line(text).into_owned()),
        Reply::Bulk(bytes) => Node::Bulk(bytes.into_vec()),
        Reply::Verbatim(format, text) => Node::Verbatim((format.letters().to_owned(), text)),
        Reply::Error(refusal) => Node::Error(error(refusal)),
        Reply::Array(items) => return aggregate(Node::Array(count(items.len())), items, nodes),
        Reply::Set(items) => return aggregate(Node::Set(count(items.len())), items, nodes),
        Reply::Map(pairs) => {
            nodes.push(Node::Map(count(pairs.len())));
            for (key, value) in pairs {
                push(key, nodes);
                push(value, nodes);
            }
            return;
        }
    });
}

fn aggregate(head: Node, items: Vec<Reply>, nodes: &mut Vec<Node>) {
    nodes.reserve(items.len().saturating_add(1));
    nodes.push(head);
    for item in items {
        push(item, nodes);
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(crate) fn error(error: Error) -> types::Error {
    types::Error {
        code: error.code().to_owned(),
        message: error.message().to_owned(),
    }
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        Self::new(error.code, error.message)
    }
}

pub(crate) fn replica(replica: types::ReplicaKind) -> Replica {
    match replica {
        types::ReplicaKind::Primary => Replica::Primary,
        types::ReplicaKind::Fallback => Replica::Fallback,
    }
}

pub(crate) fn identity(identity: wit::Identity) -> Identity {
    Identity {
        service: identity.service,
        partition: identity.partition,
        partition_index: identity.partition_index,
        ring_size: identity.ring_size,
        node: identity.node,
        actor: identity.actor,
    }
}

pub(crate) fn spec(spec: &CommandSpec) -> wit::CommandSpec {
    wit::CommandSpec {
        name: spec.name.to_owned(),
        summary: spec.summary.to_owned(),
        syntax: spec.syntax.to_owned(),
        arity: spec.arity,
        kind: match spec.kind {
            Kind::Read => wit::CommandKind::Read,
            Kind::Write => wit::CommandKind::Write,
            Kind::Each => wit::CommandKind::Each,
            Kind::Coverage => wit::CommandKind::Coverage,
            Kind::CoverageWrite => wit::CommandKind::CoverageWrite,
            Kind::Any => wit::CommandKind::Any,
        },
        keys: spec.keys.map(|keys| wit::KeyRange {
            first: keys.first,
            last: keys.last,
            step: keys.step,
            prefix: keys.prefix.to_owned(),
        }),
        blind: spec.blind,
        aggregate: match spec.aggregate {
            Aggregate::Single => wit::Aggregate::Single,
            Aggregate::Sum => wit::Aggregate::Sum,
            Aggregate::Concat => wit::Aggregate::Concat,
            Aggregate::AllOk => wit::Aggregate::AllOk,
            Aggregate::Cursor => wit::Aggregate::Cursor,
        },
        n: spec.quorum.n,
        r: spec.quorum.r,
        w: spec.quorum.w,
    }
}
