//! VNODE.PREFLIST, VNODE.RING and VNODE.STATUS: the cluster as a Redis client sees it.

use vnode_ring::primaries;

use crate::coordinator::Coordinator;
use crate::resp::Protocol;
use crate::resp::builtin::NodeCommand;
use crate::resp::value::Value;
use crate::vnode::request::{Failure, Words};

/// Runs one of them: a RESP3 value, errors included.
pub(super) fn run(coordinator: &Coordinator, command: NodeCommand, words: &Words) -> Vec<u8> {
    let mut out = Vec::new();
    let value = match command {
        NodeCommand::Preflist => preflist(coordinator, words),
        NodeCommand::Ring => Ok(ring(coordinator)),
        NodeCommand::Status => Ok(status(coordinator)),
    };
    match value {
        Ok(value) => value.encode(Protocol::Resp3, &mut out),
        Err(failure) => failure.write(&mut out),
    }
    out
}

/// `[[partition, node, kind] ...]`, in the order in which replicas are asked.
fn preflist(coordinator: &Coordinator, words: &Words) -> Result<Value, Failure> {
    let service = match (words.len(), words.get(2).eq_ignore_ascii_case(b"service")) {
        (2, _) => coordinator.services().first(),
        (4, true) => std::str::from_utf8(words.get(3))
            .ok()
            .and_then(|name| coordinator.service(name)),
        _ => return Err(Failure::Usage("syntax error".into())),
    };
    let Some(service) = service else {
        let name = String::from_utf8_lossy(words.get(3)).into_owned();
        return Err(Failure::Usage(format!("there is no service '{name}'")));
    };
    let placement = &service.placement;
    let hash = placement
        .hash
        .hash(placement.service.as_bytes(), words.get(1));
    let n = service.quorum.n.and_then(|n| u16::try_from(n).ok());
    let replicas = primaries(coordinator.ring(), &hash, n.unwrap_or(1));
    let replicas = replicas.into_iter().map(|replica| {
        Value::Array(vec![
            Value::Int(i64::from(replica.partition.0)),
            Value::bulk(replica.node.as_str()),
            Value::simple("primary"),
        ])
    });
    Ok(Value::Array(replicas.collect()))
}

fn ring(coordinator: &Coordinator) -> Value {
    let ring = coordinator.ring();
    let owners = ring.owners().iter().map(|node| Value::bulk(node.as_str()));
    Value::map([
        ("size", Value::Int(i64::from(ring.size().get()))),
        (
            "epoch",
            Value::Int(i64::try_from(ring.epoch()).unwrap_or(i64::MAX)),
        ),
        ("hash", Value::bulk(ring.hash().to_string())),
        ("owners", Value::Array(owners.collect())),
    ])
}

fn status(coordinator: &Coordinator) -> Value {
    let verdict = if coordinator.is_draining() {
        "degraded"
    } else {
        "ok"
    };
    Value::map([
        ("verdict", Value::bulk(verdict)),
        ("members", Value::Int(1)),
        (
            "partitions",
            Value::Int(i64::from(coordinator.ring().size().get())),
        ),
    ])
}
