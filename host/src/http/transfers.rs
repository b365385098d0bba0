//! Transfers by HTTP: what is on its way and why it is not there yet, and what operators say of that.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use vnode_ring::{MapEvent, NodeName, PartitionId, ResizeStage, TransferLimits, View};

use super::Node;
use super::cluster::propose;
use super::problem::Problem;
use crate::coordinator::Coordinator;
use crate::coordinator::hints::Hint;
use crate::coordinator::transfers::{Amount, Incoming, Kind, Phase, Transfer, Transfers, Which};
use crate::node::Shared;

/// Where the ids of hints begin among those of transfers.
const HINT_IDS: u64 = 1 << 48;
/// Where those of repairs do.
const REPAIR_IDS: u64 = 1 << 49;

/// What a transfer is, before it is said how far it is.
struct Row<'a> {
    id: u64,
    which: Which,
    service: Option<&'a str>,
    from: &'a NodeName,
    to: &'a NodeName,
    /// What there is of it here, if this node has it.
    held: Option<Amount>,
    /// Why it waits if it was not tried yet.
    reason: Option<String>,
}

impl Row<'_> {
    fn head(&self) -> Value {
        json!({
            "id": self.id,
            "kind": self.which.kind.as_str(),
            "service": self.service,
            "partition": self.which.partition,
            "from": self.from,
            "to": self.to,
        })
    }

    /// As this node, which sends it, knows it.
    fn of(&self, transfer: Option<&Transfer>, now: u64) -> Value {
        let held = self.held;
        let mut row = self.head();
        let rest = match transfer {
            None => json!({
                "state": "waiting", "phase": "waiting", "done_ratio": 0.0,
                "objects": held.map(|held| held.objects), "bytes": held.map(|held| held.bytes),
                "moved_objects": 0, "moved_bytes": 0, "rate_bytes_per_second": 0.0,
                "eta_seconds": null, "reason": self.reason, "since": null, "next_try": null,
            }),
            Some(one) => json!({
                "state": if one.is_running() { "running" } else { "waiting" },
                "phase": one.phase.as_str(),
                "done_ratio": one.done_ratio(),
                "objects": held.unwrap_or(one.total).objects,
                "bytes": held.unwrap_or(one.total).bytes,
                "moved_objects": one.moved.objects,
                "moved_bytes": one.moved.bytes,
                "rate_bytes_per_second": one.rate(now),
                "eta_seconds": one.eta(now),
                "reason": one.reason.clone().or_else(|| self.reason.clone()),
                "since": time(one.since_ms),
                "next_try": one.next_try_ms.map(time),
            }),
        };
        append(&mut row, rest);
        row
    }

    /// As this node, which receives it, has been told.
    fn received(&self, incoming: &Incoming, now: u64) -> Value {
        let (total, moved) = (incoming.total, incoming.moved);
        #[allow(clippy::cast_precision_loss, reason = "a share is an estimate")]
        let done = moved.objects as f64 / total.objects.max(1) as f64;
        let mut row = self.head();
        append(
            &mut row,
            json!({
                "state": "running", "phase": Phase::Copying.as_str(), "done_ratio": done.min(1.0),
                "objects": total.objects, "bytes": total.bytes,
                "moved_objects": moved.objects, "moved_bytes": moved.bytes,
                "rate_bytes_per_second": incoming.rate(now), "eta_seconds": null,
                "reason": null, "since": time(incoming.since_ms), "next_try": null,
            }),
        );
        row
    }
}

fn append(row: &mut Value, more: Value) {
    if let (Value::Object(row), Value::Object(more)) = (row, more) {
        row.extend(more);
    }
}

/// RFC 3339.
fn time(ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_millis(at).to_string()
}

/// `GET /v1/transfers`.
pub(super) async fn list(State(node): Node) -> Json<Value> {
    let coordinator = &node.coordinator;
    let (view, now) = (coordinator.view(), coordinator.steady_ms());
    let (mut hints, mut kept) = (coordinator.hints(), coordinator.kept());
    // The ring may be resized at any moment.
    for held in [&mut hints, &mut kept] {
        held.retain(|hint| view.ring().size().contains(hint.partition));
    }
    let held: Vec<_> = view.map().transfers().keys().collect();
    let held = held.into_iter().map(|one| (*one, coordinator.held(*one)));
    let held: std::collections::BTreeMap<_, _> = held.collect();
    let transfers = coordinator.transfers();
    let mut rows = Vec::new();
    for (partition, pending) in view.map().transfers() {
        let from = view.ring().owner(*partition);
        let which = Which {
            kind: Kind::Ownership,
            partition: *partition,
            service: None,
        };
        let here = (from == view.me())
            .then(|| held.get(partition).copied())
            .flatten();
        let row = Row {
            id: pending.attempt,
            which,
            service: None,
            from,
            to: &pending.to,
            held: here,
            reason: Some(reason(
                &view,
                from,
                &pending.to,
                here.map(|held| held.objects),
            )),
        };
        let mut incoming = transfers.incoming(now);
        let incoming = incoming.find(|(sender, one, _)| *sender == from && *one == which);
        rows.push(match incoming {
            Some((_, _, incoming)) => row.received(incoming, now),
            None => row.of(transfers.all().get(&which), now),
        });
    }
    rows.extend(hints.iter().map(|hint| {
        let owner = view.ring().owner(hint.partition);
        let row = Row {
            id: HINT_IDS + hint.seat as u64,
            which: hint.which(),
            service: Some(hint.service.name()),
            from: view.me(),
            to: owner,
            held: Some(Amount {
                objects: hint.objects,
                bytes: hint.bytes,
            }),
            reason: (!view.is_seen(owner)).then(|| format!("{owner} is not up")),
        };
        let tried = transfers.all().get(&hint.which());
        row.of(tried.filter(|_| view.is_seen(owner)), now)
    }));
    let repairs = transfers.all().iter();
    let repairs = repairs.filter(|(which, _)| which.kind == Kind::Repair);
    rows.extend(repairs.map(|(which, repair)| {
        let row = Row {
            id: REPAIR_IDS + u64::from(which.partition.number()),
            which: *which,
            service: None,
            from: &repair.from,
            to: &repair.to,
            held: None,
            reason: None,
        };
        row.of(Some(repair), now)
    }));
    rows.extend(resizing(coordinator, &view, now));
    let running = |row: &&Value| row["state"] == "running";
    let running = rows.iter().filter(running).count();
    Json(json!({
        "running": running,
        "transfers": rows,
        "retained": kept.iter().map(retained).collect::<Vec<_>>(),
        "limits": limits(&transfers, view.map().transfer_limits()),
    }))
}

/// How far this node is with a resize.
fn resizing(coordinator: &Coordinator, view: &View, now: u64) -> Option<Value> {
    let resize = view.map().resize()?;
    let me = view.me();
    let (phase, reason) = match &resize.stage {
        ResizeStage::Cleaning { .. } if resize.is_left(me) => (Phase::Cleanup, None),
        ResizeStage::Cleaning { left } => (
            Phase::Waiting,
            left.first()
                .map(|node| format!("{node} still has rows by the old numbers")),
        ),
        ResizeStage::Filling { .. } if !view.map().transfers().is_empty() => (
            Phase::Waiting,
            Some("partitions move first, so that every node has all that it is to join".into()),
        ),
        ResizeStage::Filling { .. } if !resize.has_filled(me) => (Phase::Copying, None),
        ResizeStage::Filling { filled, .. } => {
            let mut members = view.map().members().keys();
            let other = members.find(|node| !filled.contains(*node));
            (
                Phase::Dual,
                other.map(|node| format!("{node} still copies its rows")),
            )
        }
    };
    let progress = coordinator.resizing().clone();
    let (total, moved) = (progress.total, progress.moved);
    let seconds = now.saturating_sub(progress.since_ms) as f64 / 1e3;
    let rate = moved.bytes as f64 / seconds.max(1e-3);
    let left = total.bytes.saturating_sub(moved.bytes) as f64;
    let copies = phase == Phase::Copying;
    let ratio = moved.bytes as f64 / total.bytes.max(1) as f64;
    Some(json!({
        "id": resize.id, "kind": Kind::Resize.as_str(), "service": null, "partition": null,
        "from": me, "to": me,
        "from_size": resize.from, "to_size": resize.to,
        "state": if phase == Phase::Waiting { "waiting" } else { "running" },
        "phase": phase.as_str(),
        "done_ratio": if copies { ratio.min(1.0) } else { 1.0 },
        "objects": total.objects, "bytes": total.bytes,
        "moved_objects": moved.objects, "moved_bytes": moved.bytes,
        "rate_bytes_per_second": if copies { rate } else { 0.0 },
        "eta_seconds": (copies && rate > 0.0).then(|| left / rate),
        "reason": progress.reason.or(reason), "since": null, "next_try": null,
    }))
}

/// Rows that stay for a while after their partition went to another owner.
fn retained(hint: &Hint) -> Value {
    let left = hint
        .kept_until
        .map(|until| until.saturating_duration_since(Instant::now()));
    json!({
        "service": hint.service.name(),
        "partition": hint.partition,
        "objects": hint.objects,
        "bytes": hint.bytes,
        "seconds_left": left.map(|left| left.as_secs()),
    })
}

fn limits(transfers: &Transfers, cluster: TransferLimits) -> Value {
    let limits = transfers.limits();
    json!({
        "in": limits.in_max,
        "out": limits.out_max,
        "bytes_per_second": limits.bytes_per_second,
        "paused": transfers.paused().is_some(),
        "cluster": cluster,
        "node": transfers.own_limits(),
    })
}

/// How far a partition is on its way, as far as this node knows.
pub(super) fn phase(node: &Shared, partition: PartitionId, from: &NodeName) -> &'static str {
    let which = Which {
        kind: Kind::Ownership,
        partition,
        service: None,
    };
    let transfers = node.coordinator.transfers();
    let mut incoming = transfers.incoming(node.coordinator.steady_ms());
    match transfers.all().get(&which) {
        Some(transfer) => transfer.phase.as_str(),
        None if incoming.any(|(sender, one, _)| sender == from && one == which) => {
            Phase::Copying.as_str()
        }
        None => Phase::Waiting.as_str(),
    }
}

/// Why a transfer that was not tried is not done.
fn reason(view: &View, from: &NodeName, to: &NodeName, objects: Option<u64>) -> String {
    match objects {
        _ if !view.is_seen(from) => format!("{from}, which owns it, is unreachable"),
        _ if !view.is_seen(to) => format!("{to}, which is to own it, is unreachable"),
        Some(0) => "it is about to be handed over".into(),
        Some(objects) => format!("{from} serves it on: it holds {objects} objects"),
        None => format!("{from} has not handed it over yet; ask there for more"),
    }
}

/// What an operator says of limits. What is left out stays as it is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Said {
    out: Option<u16>,
    r#in: Option<u16>,
    bytes_per_second: Option<u64>,
    /// For this node alone, until it ends; else for all nodes, for good.
    here: bool,
}

type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, Problem> {
    body.map(|Json(body)| body).map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint(r#"send {"out": 4, "in": 4, "bytes_per_second": 0, "here": false} to limit, {"partition": 17} to repair"#)
    })
}

/// `POST /v1/transfers/limit`.
pub(super) async fn limit(State(node): Node, said: Body<Said>) -> Result<Json<Value>, Problem> {
    let said = body(said)?;
    if said.out == Some(0) || said.r#in == Some(0) {
        let detail = "a limit of 0 would never end; transfers can be paused";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            .hint("`host transfers pause` holds them until `host transfers resume`"));
    }
    change(&node, said.here, |limits| {
        limits.out_max = said.out.or(limits.out_max);
        limits.in_max = said.r#in.or(limits.in_max);
        limits.bytes_per_second = said.bytes_per_second.or(limits.bytes_per_second);
    })
    .await
}

/// Where it holds.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Where {
    here: bool,
}

/// `POST /v1/transfers/pause`.
pub(super) async fn pause(State(node): Node, place: Body<Where>) -> Result<Json<Value>, Problem> {
    change(&node, body(place)?.here, |limits| limits.paused = true).await
}

/// `POST /v1/transfers/resume`.
pub(super) async fn resume(State(node): Node, place: Body<Where>) -> Result<Json<Value>, Problem> {
    change(&node, body(place)?.here, |limits| limits.paused = false).await
}

async fn change(
    node: &Shared,
    here: bool,
    change: impl FnOnce(&mut TransferLimits),
) -> Result<Json<Value>, Problem> {
    if here {
        let mut transfers = node.coordinator.transfers();
        let mut limits = transfers.own_limits();
        change(&mut limits);
        transfers.set_own_limits(limits);
    } else {
        let mut limits = node.coordinator.view().map().transfer_limits();
        change(&mut limits);
        propose(node, MapEvent::TransfersLimited(limits)).await?;
    }
    let cluster = node.coordinator.view().map().transfer_limits();
    let transfers = node.coordinator.transfers();
    Ok(Json(json!({ "limits": limits(&transfers, cluster) })))
}

/// Which partition to fill again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Repair {
    partition: u32,
}

/// `POST /v1/transfers/repair`.
pub(super) async fn repair(
    State(node): Node,
    wanted: Body<Repair>,
) -> Result<Json<Value>, Problem> {
    let number = body(wanted)?.partition;
    let known = node.coordinator.ring_size().partition(number);
    let partition =
        known.map_err(|error| Problem::new(StatusCode::NOT_FOUND, error.to_string()))?;
    match node.coordinator.repair(partition).await {
        Ok(owner) => Ok(Json(json!({ "partition": partition, "node": owner }))),
        Err(why) => Err(Problem::new(StatusCode::CONFLICT, why)
            .hint("`host transfers` shows what is under way, `host ring partition` who owns it")),
    }
}
