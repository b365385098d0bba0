//! VNODE.TRACE, VNODE.PREFLIST, VNODE.RING and VNODE.STATUS: the cluster as a Redis client sees it.

use vnode_ring::{NodeName, ReplicaKind, preflist};

use crate::coordinator::Coordinator;
use crate::resp::builtin::NodeCommand;
use crate::resp::catalog::Target;
use crate::resp::value::Value;
use crate::resp::{Protocol, write};
use crate::vnode::request::{Failure, Words};

/// VNODE.TRACE: runs a command of a guest. `[reply, [[node, partition, kind, outcome, microseconds] ...]]`, and for a command of
/// the whole ring `[reply, [[node, partition, partial reply] ...]]`.
pub(super) async fn trace(coordinator: &Coordinator, words: Words) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(Target::Guest(target)) = coordinator.catalog().find(words.get(0)) else {
        let name = String::from_utf8_lossy(words.get(0)).into_owned();
        let failure = Failure::Usage(format!(
            "'{name}' is no command of a guest; VNODE.HELP lists what can be traced"
        ));
        failure.write(&mut out);
        return out;
    };
    let (reply, steps) = coordinator.call_traced(target, words).await;
    write::array(&mut out, 2);
    out.extend_from_slice(&reply);
    write::array(&mut out, steps.len());
    for step in steps {
        let node = Value::bulk(step.node.as_str());
        let partition = Value::Int(i64::from(step.partition.0));
        if let Some((items, count)) = step.part {
            write::array(&mut out, 3);
            node.encode(Protocol::Resp3, &mut out);
            partition.encode(Protocol::Resp3, &mut out);
            write::array(&mut out, count);
            out.extend_from_slice(&items);
            continue;
        }
        let took = i64::try_from(step.took.as_micros()).unwrap_or(i64::MAX);
        let kind = Value::simple(step.kind());
        let outcome = Value::bulk(step.outcome);
        Value::Array(vec![node, partition, kind, outcome, Value::Int(took)])
            .encode(Protocol::Resp3, &mut out);
    }
    out
}

/// Runs one of the others: a RESP3 value, errors included.
pub(super) fn run(coordinator: &Coordinator, command: NodeCommand, words: &Words) -> Vec<u8> {
    let mut out = Vec::new();
    let value = match command {
        NodeCommand::Preflist => replicas(coordinator, words),
        // It has to wait, so it is run elsewhere.
        NodeCommand::Trace => Err(Failure::Usage("nothing is traced here".into())),
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
    let view = coordinator.view();
    let up = |node: &NodeName| view.is_up(node);
    let replicas = preflist(view.ring(), &up, &hash, n.unwrap_or(1));
    let replicas = replicas.into_iter().map(|replica| {
        Value::Array(vec![
            Value::Int(i64::from(replica.partition.0)),
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
