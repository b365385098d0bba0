//! What the HTTP door shows of a node, as JSON. The command line and the dashboard print nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use serde_json::{Value, json};
use vnode_ring::{MemberStatus, View};

use super::problem::Problem;
use super::rollouts;
use crate::executor::seats::SeatView;
use crate::metrics::CommandTotals;
use crate::node::Shared;
use crate::stats::{EVERY, Sample};
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
    let view = node.coordinator.view();
    for (name, member) in view.map().members() {
        if view.is_seen(name) || member.status == MemberStatus::Down {
            continue;
        }
        let partitions = view.ring().partitions_of(name).count();
        problems.push(json!({
            "code": "member_unreachable",
            "text": format!("{name} is unreachable: {partitions} partitions are on fallbacks"),
            "since": since,
            "hint": format!("start it again; if it is gone for good: host cluster down {name}, then replace or force-remove it"),
        }));
    }
    let awaits = node.cluster.awaits();
    if !awaits.is_empty() {
        problems.push(json!({
            "code": "joining",
            "text": format!("this node has asked to join a cluster and waits for its map: {}", awaits.join(", ")),
            "since": since,
            "hint": "start one of these members; `host cluster leave` gives the join up and ends this node",
        }));
    }
    for (service, lacking) in lacking(&view) {
        problems.push(json!({
            "code": "service_missing",
            "text": format!("{} does not serve {service}, which other members do: commands fail where it has a replica", lacking.join(", ")),
            "since": since, "hint": format!("start it again with the guest of {service}, too"),
        }));
    }
    if view.claimant().is_none() {
        problems.push(json!({
            "code": "no_claimant",
            "text": "no claimant is known: changes of the cluster wait, commands go on",
            "since": since, "hint": "a majority of the voters has to be up",
        }));
    }
    for (service, versions) in view.map().versions() {
        if let Some(rollout) = versions.under_way()
            && let Some(why) = &rollout.paused
        {
            problems.push(json!({
                "code": "rollout_paused",
                "text": format!("the rollout of {service} to {} is paused: {why}", rollout.to.version),
                "since": since, "hint": "`host guest advance` goes on, `host guest rollback` goes back",
            }));
        }
    }
    let down: Vec<_> = node
        .coordinator
        .seats()
        .views(view.ring().size())
        .filter_map(|seat| Some((seat.service, seat.partition, seat.figures.down?)))
        .collect();
    if let Some((service, partition, why)) = down.first()
        && let Some(service) = node.coordinator.services().get(*service)
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
        "epoch": node.coordinator.view().map().epoch(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": node.started.elapsed().as_secs(),
        "storage": storage(node),
    })
}

/// The services that some members serve and others do not, with those others.
fn lacking(view: &View) -> BTreeMap<&str, Vec<&str>> {
    let members = view.map().members().iter();
    let serving = members.filter(|(_, member)| member.status == MemberStatus::Valid);
    let serving: Vec<_> = serving.collect();
    let services = serving
        .iter()
        .flat_map(|(_, member)| member.card.guests.keys());
    let services: BTreeSet<&str> = services.map(String::as_str).collect();
    let lacks = |service: &str| {
        let without = serving
            .iter()
            .filter(|(_, member)| !member.card.guests.contains_key(service));
        without.map(|(name, _)| name.as_str()).collect()
    };
    let all = services
        .into_iter()
        .map(|service| (service, lacks(service)));
    all.filter(|(_, lacking): &(_, Vec<&str>)| !lacking.is_empty())
        .collect()
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

/// `GET /v1/services`.
pub(super) fn services(node: &Shared) -> Value {
    let front = node.coordinator.front();
    let view = node.coordinator.view();
    let one = |(position, service): (usize, &Arc<Service>)| {
        let edition = front.edition(position).unwrap_or(service.first());
        let descriptor = edition.guest.descriptor();
        let commands: Vec<Value> = descriptor
            .commands
            .iter()
            .map(|spec| {
                let number = service.command_number(&spec.name).unwrap_or(u16::MAX);
                let totals = CommandTotals::of(service, number);
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
            "digest": edition.guest.digest(),
            "commands": commands,
            "n": service.replication.n,
            "r": service.replication.r,
            "w": service.replication.w,
            "demands": service.replication.demands,
            "merge": descriptor.merge,
            "schema_reads_from": descriptor.schema_reads_from,
            "schema_writes": descriptor.schema_writes,
            "partitions": view.ring().size(),
            "versions": rollouts::versions(&view, service),
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
pub(super) fn vnodes(node: &Shared) -> Value {
    let one = |seat: SeatView| {
        let service = node.coordinator.services().get(seat.service);
        let partition = seat.partition;
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
            "kind": if seat.owned { "primary" } else { "fallback" },
            "why": seat.figures.down,
            "mailbox": seat.mailbox,
            "version": seat.figures.version,
            "objects": seat.figures.store.live,
            "bytes": seat.figures.store.bytes,
            "guest_memory_bytes": seat.figures.memory_bytes,
            "traps": seat.figures.traps,
            "restarts": seat.figures.restarts,
            "overruns": seat.figures.overruns,
        })
    };
    let here = |seat: &SeatView| seat.owned || seat.figures.store.live > 0;
    let seats = node.coordinator.seats().views(node.coordinator.ring_size());
    let vnodes: Vec<Value> = seats.filter(here).map(one).collect();
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

/// The last minutes, second by second.
pub(super) fn stats(node: &Shared, since_ms: u64) -> Value {
    let services = node.coordinator.services();
    let sample = |sample: Sample| {
        let done = services
            .iter()
            .zip(&sample.services)
            .map(|(service, done)| {
                let done = json!({
                    "commands": done.commands,
                    "failed": done.failed,
                    "latency_p50_us": done.p50_us,
                    "latency_p99_us": done.p99_us,
                });
                (service.name().to_owned(), done)
            });
        let done: serde_json::Map<String, Value> = done.collect();
        json!({ "time": rfc3339(UNIX_EPOCH + Duration::from_millis(sample.at_ms)), "clients": sample.clients, "services": done })
    };
    let samples: Vec<Value> = node.stats.since(since_ms).into_iter().map(sample).collect();
    json!({ "node": node.name, "interval_seconds": EVERY.as_secs(), "samples": samples })
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
