//! A version that is tried beside the serving one, by HTTP: beginning it, what was seen of it, ending it. It is a matter of this node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vnode_ring::rollout::shadow::{Compared, Tally};
use vnode_ring::rollout::times::Times;
use vnode_ring::{PartitionId, Stage, Versions, View};

use super::Node;
use super::problem::Problem;
use super::rollouts::{found, load, served};
use crate::coordinator::shadows::Asked;
use crate::descriptor::CommandSpec;
use crate::node::Shared;
use crate::vnode::comparison::{Seen, Standing};
use crate::vnode::edition::Edition;
use crate::vnode::service::Service;

/// Partitions that are chosen when nobody says which.
const PARTITIONS: usize = 4;
/// How long it runs when nobody says.
const FOR: Duration = Duration::from_secs(30);
/// The longest that it may run: every call of it costs somebody time.
const FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How an operator wants it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wish {
    /// Which partitions, with commas between them.
    partitions: Option<String>,
    /// Part of those that the node owns, percent.
    share: Option<u8>,
    for_ms: Option<u64>,
}

/// `POST /v1/services/{service}/shadow`.
pub(super) async fn begin(
    State(node): Node,
    Path(service): Path<String>,
    wish: Result<Query<Wish>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Query(wish) = wish.map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint("partitions=3,7 or share=PERCENT, and for_ms=N can be asked for")
    })?;
    let body = body.map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint("the body is the component; component_bytes_max is the most that a node takes")
    })?;
    let service = found(&node, &service)?;
    let guest = load(&node, &service, body).await?;
    let view = node.coordinator.view();
    refuse_during_rollout(&view, &service)?;
    let running = served(&view, &service)?;
    let (reads, written) = (
        guest.descriptor().schema_reads_from,
        running.guest.descriptor().schema_writes,
    );
    if reads > written {
        let detail = format!(
            "version {} reads schemas from {reads} on, and {written} is stored",
            guest.descriptor().version
        );
        return Err(Problem::new(StatusCode::CONFLICT, detail)
            .hint("try a version that reads what is stored; an upgrade would be refused as well"));
    }
    let within = wish.for_ms.map_or(FOR, Duration::from_millis);
    if within.is_zero() || within > FOR_MAX {
        let detail = "for_ms: a shadow runs for some time, a day at most";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let partitions = chosen(&view, &wish)?;
    let tried = service.beside(guest);
    let begun = node
        .coordinator
        .begin_shadow(&service, running, tried, partitions, within);
    begun.map_err(|other| {
        let detail = format!("version {} is tried already", other.version());
        Problem::new(StatusCode::CONFLICT, detail)
            .hint("`host guest shadow --stop` or DELETE on this route ends it")
    })?;
    Ok((StatusCode::ACCEPTED, Json(shown(&node, &service)?)))
}

/// `GET /v1/services/{service}/shadow`.
pub(super) async fn report(
    State(node): Node,
    Path(service): Path<String>,
) -> Result<Json<Value>, Problem> {
    let service = found(&node, &service)?;
    Ok(Json(shown(&node, &service)?))
}

/// `DELETE /v1/services/{service}/shadow`.
pub(super) async fn end(
    State(node): Node,
    Path(service): Path<String>,
) -> Result<Json<Value>, Problem> {
    let service = found(&node, &service)?;
    node.coordinator.end_shadow(&service);
    Ok(Json(shown(&node, &service)?))
}

/// The canaries of a rollout have a shadow of their own.
fn refuse_during_rollout(view: &View, service: &Service) -> Result<(), Problem> {
    let versions = view.map().versions().get(service.name());
    match versions.and_then(Versions::under_way) {
        Some(rollout) if rollout.stage != Stage::Done => {
            let detail = format!(
                "a rollout to version {} is under way ({})",
                rollout.to.version, rollout.stage
            );
            Err(Problem::new(StatusCode::CONFLICT, detail).hint(
                "its canaries are compared with the old version; `host guest show` tells what was found",
            ))
        }
        _ => Ok(()),
    }
}

/// The partitions of this node that are meant.
fn chosen(view: &View, wish: &Wish) -> Result<BTreeSet<PartitionId>, Problem> {
    let unfit = |detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            .hint("`host ring` shows which node owns which partition; ask that node")
    };
    let owned: Vec<PartitionId> = view.ring().partitions_of(view.me()).collect();
    let count = match (&wish.partitions, wish.share) {
        (Some(_), Some(_)) => {
            return Err(unfit("either partitions or share, not both".into()));
        }
        (Some(listed), None) => {
            let size = view.ring().size();
            let mut chosen = BTreeSet::new();
            for word in listed.split(',') {
                let number = word.trim().parse().ok();
                let Some(partition) = number.and_then(|number| size.partition(number).ok()) else {
                    return Err(unfit(format!("partitions: there is no partition {word:?}")));
                };
                if !owned.contains(&partition) {
                    let owner = view.ring().owner(partition);
                    return Err(unfit(format!("partition {partition} is owned by {owner}")));
                }
                chosen.insert(partition);
            }
            return Ok(chosen);
        }
        (None, Some(percent @ 1..=100)) => (owned.len() * usize::from(percent) / 100).max(1),
        (None, Some(_)) => return Err(unfit("share: 1 to 100 percent".into())),
        (None, None) => PARTITIONS,
    };
    if owned.is_empty() {
        return Err(unfit("this node owns no partition".into()));
    }
    let count = count.min(owned.len());
    let spread = (0..count).filter_map(|nth| owned.get(nth * owned.len() / count));
    Ok(spread.copied().collect())
}

fn shown(node: &Shared, service: &Service) -> Result<Value, Problem> {
    let asked = node.coordinator.shadow(service).ok_or_else(|| {
        let detail = format!("no version of {} was tried on this node", service.name());
        Problem::new(StatusCode::NOT_FOUND, detail).hint("`host guest shadow FILE` begins it")
    })?;
    Ok(body(node, service, &asked))
}

fn body(node: &Shared, service: &Service, asked: &Asked) -> Value {
    let comparison = &asked.comparison;
    let seen = comparison.seen();
    let ended = asked.ended.as_ref();
    let ran = ended.map_or_else(|| comparison.since.elapsed(), |(ran, _)| *ran);
    let examples = seen.commands.values();
    let examples: Vec<_> = examples.flat_map(|command| &command.examples).collect();
    json!({
        "service": service.name(),
        "node": node.name,
        "state": if asked.is_open() { "running" } else { "ended" },
        "why": ended.map(|(_, why)| why),
        "running": version(&asked.running),
        "shadow": version(&comparison.edition),
        "partitions": asked.partitions,
        "for_milliseconds": milliseconds(asked.within),
        "ran_milliseconds": milliseconds(ran),
        "total": tally(&seen.total()),
        "commands": commands(&seen),
        "not_compared": not_compared(asked, service),
        "examples": examples,
        "memory_bytes": {
            "running": seen.running_memory_bytes,
            "shadow": seen.shadow_memory_bytes,
        },
        "vnodes": vnodes(&seen),
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn version(edition: &Arc<Edition>) -> Value {
    json!({ "version": &**edition.version(), "digest": &**edition.digest() })
}

fn tally(tally: &Tally) -> Map<String, Value> {
    let counts = [
        ("compared", tally.compared),
        ("differ", tally.differ),
        ("replies_differ", tally.replies),
        ("effects_differ", tally.effects),
        ("errors", tally.errors),
        ("traps", tally.traps),
        ("overruns", tally.overruns),
    ];
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), json!(count)))
        .collect()
}

fn commands(seen: &Seen) -> Vec<Value> {
    let each = seen.commands.iter();
    each.map(|(name, command)| {
        let Compared {
            running,
            shadow,
            tally: counts,
            ..
        } = &command.compared;
        let mut row = tally(counts);
        let both = json!({ "running": times(running), "shadow": times(shadow) });
        row.insert("command".to_owned(), json!(name));
        row.insert("microseconds".to_owned(), both);
        Value::Object(row)
    })
    .collect()
}

fn times(times: &Times) -> Value {
    let us = |time: Duration| time.as_nanos() as f64 / 1e3;
    json!({
        "mean": times.mean().map(us),
        "p50": times.within(50).map(us),
        "p99": times.within(99).map(us),
    })
}

/// The commands that only one of the versions has, that travel in another way, or that concern the whole ring.
fn not_compared(asked: &Asked, service: &Service) -> Vec<Value> {
    let (running, tried) = (&asked.running, &asked.comparison.edition);
    let mut left_out = Vec::new();
    for (number, known) in (0..).zip(service.commands()) {
        let why = match (running.command(number), tried.command(number)) {
            (Some(own), Some(_)) if own.covers() => "it is about the whole ring",
            (Some(own), Some(others)) if own.is_as(others) => continue,
            (Some(_), Some(_)) => "the versions describe it otherwise",
            (Some(_), None) => "the new version does not have it",
            (None, _) => continue,
        };
        left_out.push(json!({ "command": known.name, "why": why }));
    }
    let has = |spec: &&CommandSpec| running.guest.descriptor().command(&spec.name).is_none();
    for spec in tried.guest.descriptor().commands.iter().filter(has) {
        let why = "only the new version has it";
        left_out.push(json!({ "command": spec.name, "why": why }));
    }
    left_out
}

fn vnodes(seen: &Seen) -> Vec<Value> {
    let each = seen.vnodes.iter();
    each.map(|(partition, standing)| {
        let (state, why) = match standing {
            Standing::Runs => ("running", None),
            Standing::Ended(why) => ("ended", why.as_ref()),
            Standing::GivenUp(why) => ("given up", Some(why)),
        };
        json!({ "partition": partition, "state": state, "why": why })
    })
    .collect()
}
