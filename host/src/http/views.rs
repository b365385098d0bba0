//! What the HTTP door shows of a node, as JSON. The command line and the dashboard print nothing else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use vnode_ring::{Ring, primaries};

use super::problem::Problem;
use crate::executor::{Executor, Message};
use crate::metrics::CommandTotals;
use crate::node::Shared;
use crate::store::Health;
use crate::vnode::service::Service;

/// Time for an executor to answer; one that runs a guest looks up again within a fraction of it.
const INSPECT_WITHIN: Duration = Duration::from_secs(2);

/// `GET /v1/status`.
pub(super) async fn status(node: &Shared) -> Value {
    let mut problems = Vec::new();
    let since = rfc3339(SystemTime::now());
    if node.coordinator.is_draining() {
        problems.push(json!({
            "code": "draining", "text": "the node is draining: it finishes what is under way and ends",
            "since": since, "hint": "wait for it to end, or start it again afterwards",
        }));
    }
    if let Health::ReadOnly { path, why } = node.engine.health() {
        problems.push(json!({
            "code": "storage_read_only",
            "text": format!("writes are refused: {why} ({})", path.display()),
            "since": since, "hint": "make room on the disk or replace it; reads go on",
        }));
    }
    let down: Vec<_> = inspect(node, |executor| {
        let mut down = Vec::new();
        executor.vnodes(|_, vnode, _| {
            if let Some(vnode) = vnode
                && let Some(why) = vnode.down()
            {
                down.push((
                    vnode.service().name().to_owned(),
                    vnode.partition(),
                    why.to_owned(),
                ));
            }
        });
        down
    })
    .await
    .into_iter()
    .flatten()
    .flatten()
    .collect();
    if let Some((service, partition, why)) = down.first() {
        problems.push(json!({
            "code": "vnodes_down",
            "text": format!("{} vnodes do not start, the first is {service} {partition}: {why}", down.len()),
            "since": since, "hint": "look at the guest's init; the node tries again with each command",
        }));
    }
    let verdict = if problems.is_empty() {
        "ok"
    } else {
        "degraded"
    };
    json!({
        "verdict": verdict,
        "problems": problems,
        "as_seen_by": node.name,
        "epoch": node.coordinator.ring().epoch(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": node.started.elapsed().as_secs(),
        "storage": storage(node),
    })
}

fn storage(node: &Shared) -> Value {
    use crate::config::StorageKind;
    match node.config.storage {
        StorageKind::Memory => json!({ "backend": "memory", "sync": null }),
        StorageKind::Disk => json!({
            "backend": "disk",
            "sync": node.config.sync,
            "sync_interval_milliseconds": node.config.sync_interval.as_millis(),
        }),
    }
}

/// `GET /v1/cluster`.
pub(super) fn cluster(node: &Shared) -> Value {
    let ring = node.coordinator.ring();
    let guests: Vec<Value> = node
        .coordinator
        .services()
        .iter()
        .map(|service| {
            let descriptor = service.guest.descriptor();
            json!({ "name": descriptor.name, "version": descriptor.version, "digest": service.guest.digest() })
        })
        .collect();
    let partitions = ring.partitions_of(&node.name).count();
    json!({
        "epoch": ring.epoch(),
        "claimant": node.name,
        "ring_size": ring.size(),
        "ready": !node.coordinator.is_draining(),
        "members": [{
            "name": node.name,
            "status": "valid",
            "up": true,
            "ring_share": partitions as f64 / f64::from(ring.size().get()),
            "pending_share": null,
            "partitions": partitions,
            "next_partitions": partitions,
            "guests": guests,
            "location": node.config.location,
            "addresses": {
                "resp": node.addresses.resp,
                "http": node.addresses.http,
                "peer": node.config.advertised(node.addresses.peer),
            },
        }],
        "staged": [],
    })
}

/// `GET /v1/ring`.
pub(super) fn ring(ring: &Ring) -> Value {
    let size = ring.size();
    let indexes: Vec<String> = size.partitions().map(|p| size.index_decimal(p)).collect();
    json!({
        "size": size,
        "epoch": ring.epoch(),
        "hash": ring.hash(),
        "owners": ring.owners(),
        "pending": [],
        "letters": ring.letters(),
        "indexes": indexes,
    })
}

/// `GET /v1/ring/preflist`.
pub(super) fn preflist(node: &Shared, service: &Service, key: &str, n: u16) -> Value {
    let ring = node.coordinator.ring();
    let placement = &service.placement;
    let hash = placement
        .hash
        .hash(placement.service.as_bytes(), key.as_bytes());
    let replicas: Vec<Value> = primaries(ring, &hash, n)
        .into_iter()
        .map(|replica| {
            json!({
                "partition": replica.partition,
                "node": replica.node,
                "kind": "primary",
                "up": true,
            })
        })
        .collect();
    json!({
        "key": key,
        "service": placement.service,
        "hash": hash.to_string(),
        "partition": ring.size().first_replica(&hash),
        "replicas": replicas,
    })
}

/// `GET /v1/services`.
pub(super) fn services(node: &Shared) -> Value {
    let one = |(position, service): (usize, &Arc<Service>)| {
        let descriptor = service.guest.descriptor();
        let commands: Vec<Value> = descriptor
            .commands
            .iter()
            .enumerate()
            .map(|(command, spec)| {
                let totals = CommandTotals::of(&node.counters, position, command);
                let mut spec = serde_json::to_value(spec).unwrap_or_default();
                if let Value::Object(spec) = &mut spec {
                    spec.insert("calls".into(), totals.calls().into());
                    spec.insert("errors".into(), (totals.calls() - totals.ok).into());
                }
                spec
            })
            .collect();
        json!({
            "name": descriptor.name,
            "version": descriptor.version,
            "digest": service.guest.digest(),
            "commands": commands,
            "n": service.quorum.n,
            "r": service.quorum.r,
            "w": service.quorum.w,
            "merge": descriptor.merge,
            "schema_reads_from": descriptor.schema_reads_from,
            "schema_writes": descriptor.schema_writes,
            "partitions": service.placement.ring_size,
        })
    };
    let services: Vec<Value> = node
        .coordinator
        .services()
        .iter()
        .enumerate()
        .map(one)
        .collect();
    json!({ "services": services })
}

/// `GET /v1/vnodes`.
pub(super) async fn vnodes(node: &Shared) -> Value {
    let name = node.name.clone();
    let services: Vec<_> = node.coordinator.services().to_vec();
    let ring_size = usize::from(node.coordinator.ring().size().get());
    let answers = inspect(node, move |executor| {
        let mut vnodes = Vec::new();
        executor.vnodes(|seat, vnode, mailbox| {
            let service = services.get(seat / ring_size);
            let mut row = json!({
                "service": service.map(|service| service.name()),
                "partition": seat % ring_size,
                "node": name,
                "state": "running",
                "mailbox": mailbox,
                "version": service.map(|service| service.guest.descriptor().version.clone()),
            });
            // One that is away works on a slow thread and can only be asked when it is back.
            let more = match vnode {
                None => json!({ "state": "working" }),
                Some(vnode) => {
                    let stats = vnode.stats();
                    json!({
                        "state": if vnode.down().is_some() { "down" } else { "running" },
                        "why": vnode.down(),
                        "objects": stats.live,
                        "bytes": stats.bytes,
                        "guest_memory_bytes": vnode.memory_bytes(),
                        "traps": vnode.traps,
                        "restarts": vnode.restarts,
                        "overruns": vnode.overruns,
                    })
                }
            };
            if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
                row.extend(more);
            }
            vnodes.push((seat, row));
        });
        vnodes
    })
    .await;
    let silent = answers.iter().filter(|answer| answer.is_none()).count();
    let mut rows: Vec<_> = answers.into_iter().flatten().flatten().collect();
    rows.sort_by_key(|(seat, _)| *seat);
    let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    json!({ "vnodes": rows, "executors_not_answering": silent })
}

/// The problem of a service that is not there.
pub(super) fn no_service(node: &Shared, name: Option<&str>) -> Problem {
    let names: Vec<&str> = node
        .coordinator
        .services()
        .iter()
        .map(|service| service.name())
        .collect();
    let detail = format!("there is no service {:?}", name.unwrap_or_default());
    Problem::new(StatusCode::NOT_FOUND, detail)
        .hint(format!("this node serves {}", names.join(", ")))
}

/// Asks every executor; none where one did not answer in time.
async fn inspect<T: Send + 'static>(
    node: &Shared,
    look: impl Fn(&mut Executor) -> T + Clone + Send + 'static,
) -> Vec<Option<T>> {
    let mut asked = Vec::new();
    for inbox in node.coordinator.inboxes() {
        let (answer, answered) = oneshot::channel();
        let look = look.clone();
        inbox.send(Message::Inspect(Box::new(move |executor| {
            // Nobody waits any more when the request timed out.
            drop(answer.send(look(executor)));
        })));
        asked.push(answered);
    }
    let mut answers = Vec::new();
    for answered in asked {
        let answer = tokio::time::timeout(INSPECT_WITHIN, answered).await;
        answers.push(answer.ok().and_then(Result::ok));
    }
    answers
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
