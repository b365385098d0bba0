//! What the HTTP door shows of a node, as JSON. The command line and the dashboard print nothing else.

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::StatusCode;
use serde_json::{Value, json};
use vnode_ring::{PartitionId, Ring, primaries};

use super::problem::Problem;
use crate::executor::seats::SeatView;
use crate::metrics::CommandTotals;
use crate::node::Shared;
use crate::store::Health;
use crate::vnode::service::Service;

/// `GET /v1/status`.
pub(super) fn status(node: &Shared) -> Value {
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
    let down: Vec<_> = node
        .coordinator
        .seats()
        .views()
        .filter_map(|(number, seat)| Some((number, seat.figures.down?)))
        .collect();
    if let Some((number, why)) = down.first()
        && let (Some(service), partition) = of_seat(node, *number)
    {
        let service = service.name();
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

/// Service and partition of a seat.
fn of_seat(node: &Shared, number: usize) -> (Option<&Arc<Service>>, PartitionId) {
    let ring_size = usize::from(node.coordinator.ring().size().get());
    let partition = u16::try_from(number % ring_size).unwrap_or(u16::MAX);
    let service = node.coordinator.services().get(number / ring_size);
    (service, PartitionId(partition))
}

/// `GET /v1/vnodes`.
pub(super) fn vnodes(node: &Shared) -> Value {
    let one = |(number, seat): (usize, SeatView)| {
        let (service, partition) = of_seat(node, number);
        let state = match (&seat.figures.down, seat.lent) {
            (Some(_), _) => "down",
            (None, true) => "working",
            (None, false) => "running",
        };
        json!({
            "service": service.map(|service| service.name()),
            "partition": partition,
            "node": node.name,
            "state": state,
            "why": seat.figures.down,
            "mailbox": seat.mailbox,
            "version": service.map(|service| service.guest.descriptor().version.clone()),
            "objects": seat.figures.store.live,
            "bytes": seat.figures.store.bytes,
            "guest_memory_bytes": seat.figures.memory_bytes,
            "traps": seat.figures.traps,
            "restarts": seat.figures.restarts,
            "overruns": seat.figures.overruns,
        })
    };
    let vnodes: Vec<Value> = node.coordinator.seats().views().map(one).collect();
    json!({ "vnodes": vnodes })
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

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
