//! VNODE.TRACE, VNODE.WITH, VNODE.REPLICAS, VNODE.PREFLIST, VNODE.RING and VNODE.STATUS: the cluster as a Redis client sees it.

use std::sync::Arc;

use vnode_ring::{NodeName, ReplicaKind, preflist};

use crate::coordinator::Coordinator;
use crate::coordinator::trace::traced;
use crate::coordinator::wishes::Wished;
use crate::resp::Protocol;
use crate::resp::builtin::NodeCommand;
use crate::resp::value::Value;
use crate::vnode::failure::Failure;
use crate::vnode::service::Service;
use crate::vnode::words::Words;

/// Runs a command that asks vnodes: a RESP3 value, errors included.
pub(super) async fn ask(coordinator: &Coordinator, command: NodeCommand, words: &Words) -> Vec<u8> {
    let answer = match command {
        NodeCommand::Replicas => held(coordinator, words).await,
        _ => wished(coordinator, words).await,
    };
    answer.unwrap_or_else(|failure| {
        let mut out = Vec::new();
        failure.write(&mut out);
        out
    })
}

/// VNODE.TRACE and VNODE.WITH. A traced reply is `[reply, [[node, partition, kind, outcome, microseconds, version] ...]]`, and for a
/// command of the whole ring `[reply, [[node, partition, partial reply, version] ...]]`.
async fn wished(coordinator: &Coordinator, words: &Words) -> Result<Vec<u8>, Failure> {
    let Wished {
        target,
        words,
        wishes,
        traced: wants_trace,
    } = coordinator.wished(words)?;
    if !wants_trace {
        return Ok(coordinator.call(target, words, wishes).await);
    }
    let (reply, steps) = coordinator.call_traced(target, words, wishes).await;
    Ok(traced(&reply, &steps))
}

/// VNODE.REPLICAS: `[[node, partition, kind, [value ...], version] ...]`.
async fn held(coordinator: &Coordinator, words: &Words) -> Result<Vec<u8>, Failure> {
    let service = service_of(coordinator, words)?;
    let replicas = coordinator.replicas(service, words.get(1)).await?;
    let replicas = replicas.into_iter().map(|replica| {
        let values = match replica.values {
            Ok(values) => Value::Array(values.into_iter().map(Value::Bulk).collect()),
            Err(failure) => Value::error(failure.code(), failure.to_string()),
        };
        Value::Array(vec![
            Value::bulk(replica.node.as_str()),
            Value::Int(i64::from(replica.partition.number())),
            Value::simple(replica.role.word()),
            values,
            replica.version.map_or(Value::Nil, Value::bulk),
        ])
    });
    let mut out = Vec::new();
    Value::Array(replicas.collect()).encode(Protocol::Resp3, &mut out);
    Ok(out)
}

/// The service of `key [SERVICE service]`; the first one without a name.
fn service_of<'a>(
    coordinator: &'a Coordinator,
    words: &Words,
) -> Result<&'a Arc<Service>, Failure> {
    let service = match (words.len(), words.get(2).eq_ignore_ascii_case(b"service")) {
        (2, _) => coordinator.services().first(),
        (4, true) => std::str::from_utf8(words.get(3))
            .ok()
            .and_then(|name| coordinator.service(name)),
        _ => return Err(Failure::Usage("syntax error".into())),
    };
    service.ok_or_else(|| {
        let name = String::from_utf8_lossy(words.get(3)).into_owned();
        Failure::Usage(format!("there is no service '{name}'"))
    })
}

/// Runs one of the others: a RESP3 value, errors included.
pub(super) fn run(coordinator: &Coordinator, command: NodeCommand, words: &Words) -> Vec<u8> {
    let mut out = Vec::new();
    let value = match command {
        NodeCommand::Preflist => replicas(coordinator, words),
        // It has to wait, so it is run elsewhere.
        NodeCommand::Wished | NodeCommand::Replicas => {
            Err(Failure::Usage("nothing is asked here".into()))
        }
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
fn replicas(coordinator: &Coordinator, words: &Words) -> Result<Value, Failure> {
    let service = service_of(coordinator, words)?;
    let placement = &service.placement;
    let hash = placement
        .hash
        .hash(placement.service.as_bytes(), words.get(1));
    let view = coordinator.view();
    let up = |node: &NodeName| view.is_up(node);
    let replicas = preflist(view.ring(), &up, &hash, service.n());
    let replicas = replicas.into_iter().map(|replica| {
        Value::Array(vec![
            Value::Int(i64::from(replica.partition.number())),
            Value::bulk(replica.node.as_str()),
            Value::simple(match replica.kind {
                ReplicaKind::Primary => "primary",
                ReplicaKind::Fallback { .. } => "fallback",
            }),
        ])
    });
    Ok(Value::Array(replicas.collect()))
}

fn ring(coordinator: &Coordinator) -> Value {
    let view = coordinator.view();
    let ring = view.ring();
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
    let view = coordinator.view();
    let verdict = if coordinator.is_draining() {
        "degraded"
    } else {
        "ok"
    };
    Value::map([
        ("verdict", Value::bulk(verdict)),
        (
            "members",
            Value::Int(i64::try_from(view.nodes().len()).unwrap_or(i64::MAX)),
        ),
        (
            "partitions",
            Value::Int(i64::from(coordinator.ring_size().get())),
        ),
    ])
}
