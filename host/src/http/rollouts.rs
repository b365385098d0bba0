//! Rollouts by HTTP: what another version would change, beginning it, how far it is, and what operators say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use vnode_ring::rollout::gate::Sample;
use vnode_ring::rollout::shadow::Expected;
use vnode_ring::{
    FIRST_SCHEMA, MapEvent, NodeName, Order, Release, Rollout, RolloutEvent, Stage, Terms,
    Versions, View,
};

use super::cluster::propose;
use super::problem::Problem;
use super::{Node, views};
use crate::coordinator::rollouts::{Gate, nodes};
use crate::descriptor::changes::Changes;
use crate::node::Shared;
use crate::vnode::edition::Edition;
use crate::vnode::service::Service;
use crate::wasm::Guest;

/// Part of the ring that moves first, percent, if nothing is said.
const CANARY_PERCENT: u8 = 5;

/// How an operator wants it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wish {
    /// Part of the ring that moves first, percent.
    canary: Option<u8>,
    all_at_once: bool,
    soak_ms: Option<u64>,
    force: bool,
    /// Commands that may answer something else, with commas between them, or `*`.
    expect_divergence: String,
    /// Only says what it would do.
    plan: bool,
}

/// `POST /v1/services/{service}/rollouts`.
pub(super) async fn begin(
    State(node): Node,
    Path(service): Path<String>,
    wish: Result<Query<Wish>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Query(wish) = wish.map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint("canary=PERCENT, all_at_once=true, soak_ms=N, force=true, expect_divergence=COMMANDS and plan=true can be asked for")
    })?;
    let body = body.map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint("the body is the component; component_bytes_max is the most that a node takes")
    })?;
    let service = found(&node, &service)?;
    let guest = load(&node, &service, body.clone()).await?;
    let view = node.coordinator.view();
    let from = served(&view, &service)?;
    let mut changes = Changes::new(
        from.guest.descriptor(),
        guest.descriptor(),
        guest.stores_from(),
    );
    let terms = terms(&node, &service, &wish, &guest)?;
    let (from, to) = (release(&from.guest), release(&guest));
    changes.needs_force.extend(unseen(&view, &to));
    if wish.plan {
        let mut plan = plan(&view, &service, (&from, &to), terms, &changes);
        if let Some(plan) = plan.as_object_mut() {
            plan.insert("migrates".into(), json!(guest.migrates()));
        }
        return Ok((StatusCode::OK, Json(plan)));
    }
    if !changes.needs_force.is_empty() && !wish.force {
        let why = changes.needs_force.join("; ");
        return Err(Problem::new(
            StatusCode::CONFLICT,
            format!("the rollout needs force: {why}"),
        )
        .hint("`host guest plan FILE` shows all changes; --force says that they are known"));
    }
    keep(&node, &service, guest, body).await?;
    let event = RolloutEvent::Begun {
        from,
        to,
        terms,
        by: node.name.clone(),
    };
    happen(&node, &service, event).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&node, &service).await?)))
}

/// The members of which nobody can say now whether they still hold what the new version does not read.
fn unseen(view: &View, to: &Release) -> Option<String> {
    let members = view.map().members().keys();
    let away = members.filter(|node| !view.is_up(node));
    let away: Vec<&str> = away.map(NodeName::as_str).collect();
    (to.schema_reads_from > FIRST_SCHEMA && !away.is_empty()).then(|| {
        format!(
            "{} cannot be asked whether values from before schema {} are left there, which {} does not read",
            away.join(", "),
            to.schema_reads_from,
            to.version
        )
    })
}

pub(super) fn found(node: &Shared, name: &str) -> Result<Arc<Service>, Problem> {
    let service = node.coordinator.service(name);
    service
        .cloned()
        .ok_or_else(|| views::no_service(node, Some(name)))
}

/// Checks and compiles a component, and starts it once.
pub(super) async fn load(
    node: &Shared,
    service: &Arc<Service>,
    body: Bytes,
) -> Result<Arc<Guest>, Problem> {
    let unfit = |why: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)
            .hint("`host inspect FILE` and `host check FILE` tell more of a component")
    };
    let library = Arc::clone(node.coordinator.library());
    let loaded = tokio::task::spawn_blocking(move || library.load(&body)).await;
    let guest = match loaded {
        Ok(Ok(guest)) => guest,
        Ok(Err(error)) => return Err(unfit(error.to_string())),
        Err(error) => return Err(unfit(error.to_string())),
    };
    let checked = node.coordinator.check_version(service, &guest).await;
    checked.map_err(unfit)?;
    let n = guest.descriptor().quorum.n;
    let has = u32::from(service.n());
    match n.filter(|n| *n != has && u32::from(node.coordinator.view().map().n()) != has) {
        Some(n) => Err(unfit(format!(
            "it wants n={n}, and keys of the service have {has} replicas; that is no matter of versions"
        ))),
        None => Ok(guest),
    }
}

/// Keeps a component where other nodes get it from.
async fn keep(
    node: &Shared,
    service: &Service,
    guest: Arc<Guest>,
    bytes: Bytes,
) -> Result<(), Problem> {
    let (library, kept) = (Arc::clone(node.coordinator.library()), Arc::clone(&guest));
    let written = tokio::task::spawn_blocking(move || library.keep(&kept, &bytes)).await;
    let written = written.map_err(|error| error.to_string());
    written
        .and_then(|written| written.map_err(|error| error.to_string()))
        .map_err(|why| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why)
                .hint("the component could not be kept, so nothing was begun; look at the disk of this node")
        })?;
    node.coordinator.add_version(service, guest);
    Ok(())
}

/// What runs now, which a rollout would replace.
pub(super) fn served(view: &View, service: &Service) -> Result<Arc<Edition>, Problem> {
    let Some(versions) = view.map().versions().get(service.name()) else {
        return Ok(Arc::clone(service.first()));
    };
    let release = match versions.under_way() {
        Some(rollout) if rollout.stage == Stage::Done => &rollout.to,
        _ => versions.current(),
    };
    service.edition(&release.digest).ok_or_else(|| {
        let detail = format!("version {} is not on this node yet", release.version);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).hint("retry, or ask another node")
    })
}

fn release(guest: &Guest) -> Release {
    let descriptor = guest.descriptor();
    Release {
        digest: guest.digest().to_owned(),
        version: descriptor.version.clone(),
        schema_reads_from: descriptor.schema_reads_from,
        schema_writes: descriptor.schema_writes,
        schema_stores_from: guest.stores_from(),
        bytes: guest.bytes() as u64,
    }
}

fn terms(node: &Shared, service: &Service, wish: &Wish, guest: &Guest) -> Result<Terms, Problem> {
    let canary_percent = wish.canary.unwrap_or(CANARY_PERCENT);
    if !(1..=100).contains(&canary_percent) || (wish.canary.is_some() && wish.all_at_once) {
        let detail = "canary is 1 to 100 percent, and not for a rollout that is all at once";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let soak = node.config.limits.rollout_soak;
    let few = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    Ok(Terms {
        n: service.n(),
        w: few(service.replication.w),
        canary_percent,
        all_at_once: wish.all_at_once,
        soak_ms: wish
            .soak_ms
            .unwrap_or_else(|| u64::try_from(soak.as_millis()).unwrap_or(u64::MAX)),
        forced: wish.force,
        expected: expected(&wish.expect_divergence, guest)?,
    })
}

/// The commands that are meant to answer something else.
fn expected(wish: &str, guest: &Guest) -> Result<Expected, Problem> {
    match wish {
        "" => return Ok(Expected::Nothing),
        "*" => return Ok(Expected::Anything),
        _ => {}
    }
    let names = wish.split(',').map(|name| name.trim().to_uppercase());
    let names: BTreeSet<String> = names.collect();
    let unknown = |name: &&String| guest.descriptor().command(name).is_none();
    match names.iter().find(unknown) {
        Some(name) => {
            let detail = format!("expect_divergence: the new version has no command {name:?}");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
                .hint("name commands with commas between them, or * for all"))
        }
        None => Ok(Expected::Of(names)),
    }
}

/// The same for people: `*` is all.
fn expected_names(expected: &Expected) -> Vec<&str> {
    match expected {
        Expected::Nothing => Vec::new(),
        Expected::Anything => vec!["*"],
        Expected::Of(names) => names.iter().map(String::as_str).collect(),
    }
}

/// What a rollout would do.
fn plan(
    view: &View,
    service: &Service,
    (from, to): (&Release, &Release),
    terms: Terms,
    changes: &Changes,
) -> Value {
    let soak_ms = terms.soak_ms;
    let preview = Rollout::preview((from.clone(), to.clone()), terms, view.ring());
    let stages: Vec<Value> = preview
        .stages_left()
        .into_iter()
        .filter(|stage| *stage != Stage::Done)
        .map(|stage| json!({ "stage": stage.to_string(), "partitions": preview.moved_in(stage) }))
        .collect();
    let mut warnings = Vec::new();
    let moving = view.map().transfers().len();
    if moving > 0 {
        warnings.push(format!(
            "{moving} partitions are on their way to other owners"
        ));
    }
    let versions = view.map().versions().get(service.name());
    if let Some(before) = versions.and_then(Versions::under_way)
        && before.stage == Stage::Done
    {
        let (from, to) = (&before.from.version, &before.to.version);
        warnings.push(format!(
            "the rollout from {from} to {to} becomes final with it: there is no way back to {from} then"
        ));
    }
    if from.digest == to.digest {
        warnings.push("it is the version that runs: there is nothing to roll out".into());
    }
    let (_, unreachable) = nodes(view, service.name(), &preview);
    for node in unreachable {
        warnings.push(format!(
            "{node} cannot be reached; it gets the version when it is back"
        ));
    }
    json!({
        "service": service.name(),
        "from": released(from),
        "to": released(to),
        "changes": changes,
        "way_back": to.leads_back_to(from),
        "canaries": canaries(preview.order()),
        "stages": stages,
        "soak_milliseconds": soak_ms,
        "warnings": warnings,
    })
}

fn canaries(order: &Order) -> Vec<u16> {
    let canaries = order.partitions.iter().take(order.canaries.into());
    canaries.map(|partition| partition.number()).collect()
}

fn released(release: &Release) -> Value {
    json!({
        "version": release.version,
        "digest": release.digest,
        "bytes": release.bytes,
        "schema_reads_from": release.schema_reads_from,
        "schema_writes": release.schema_writes,
        "schema_stores_from": release.schema_stores_from,
    })
}

/// `GET /v1/services/{service}/rollouts/current`.
pub(super) async fn current(
    State(node): Node,
    Path(service): Path<String>,
) -> Result<Json<Value>, Problem> {
    let service = found(&node, &service)?;
    Ok(Json(shown(&node, &service).await?))
}

/// `POST /v1/services/{service}/rollouts/current/{action}`.
pub(super) async fn act(
    State(node): Node,
    Path((service, action)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let service = found(&node, &service)?;
    let view = node.coordinator.view();
    let rollout = rollout_of(&view, &service)?;
    let id = rollout.id;
    let event = match action.as_str() {
        "pause" => RolloutEvent::Paused {
            id,
            why: "an operator asked for it".into(),
        },
        "advance" if rollout.paused.is_some() => RolloutEvent::Resumed { id },
        "advance" => RolloutEvent::Advanced {
            id,
            step: rollout.step,
            unreachable: nodes(&view, service.name(), rollout).1,
        },
        "finalize" => RolloutEvent::Finalized { id },
        "rollback" => RolloutEvent::RolledBack {
            id,
            why: "an operator asked for it".into(),
        },
        other => {
            let detail = format!("there is no action {other:?}");
            return Err(Problem::new(StatusCode::NOT_FOUND, detail)
                .hint("advance, pause, finalize and rollback are actions"));
        }
    };
    happen(&node, &service, event).await?;
    Ok(Json(shown(&node, &service).await?))
}

async fn happen(node: &Shared, service: &Service, event: RolloutEvent) -> Result<(), Problem> {
    let service = service.name().to_owned();
    propose(node, MapEvent::Rollout { service, event }).await?;
    Ok(())
}

fn rollout_of<'a>(view: &'a View, service: &Service) -> Result<&'a Rollout, Problem> {
    let versions = view.map().versions().get(service.name());
    versions.and_then(Versions::rollout).ok_or_else(|| {
        let detail = format!("{} has had no rollout", service.name());
        Problem::new(StatusCode::NOT_FOUND, detail).hint("`host guest upgrade FILE` begins one")
    })
}

async fn shown(node: &Shared, service: &Service) -> Result<Value, Problem> {
    let gate = node.coordinator.gate(service.name()).await;
    let view = node.coordinator.view();
    let rollout = rollout_of(&view, service)?;
    Ok(body(&view, service, rollout, gate))
}

fn body(view: &View, service: &Service, rollout: &Rollout, gate: Option<Gate>) -> Value {
    let (waits_for, unreachable) = nodes(view, service.name(), rollout);
    let state = match rollout.stage {
        Stage::RolledBack if !waits_for.is_empty() => "rolling-back",
        Stage::RolledBack => "rolled-back",
        Stage::Finalized => "finalized",
        _ if rollout.paused.is_some() => "paused",
        Stage::Done => "done",
        _ => "running",
    };
    let gate = gate.filter(|_| !rollout.stage.is_over());
    json!({
        "service": service.name(),
        "id": rollout.id,
        "epoch": view.map().epoch(),
        "from": released(&rollout.from),
        "to": released(&rollout.to),
        "state": state,
        "stage": rollout.stage.to_string(),
        "step": rollout.step,
        "moved": rollout.moved().len(),
        "partitions": view.ring().size(),
        "canaries": canaries(rollout.order()),
        "waits_for": waits_for,
        "unreachable": unreachable,
        "paused": rollout.paused,
        "why": rollout.why,
        "gate": gate.map(|gate| json!({
            "state": gate.state,
            "text": gate.text,
            "watched_milliseconds": gate.watched_ms,
            "new": counted(&gate.new),
            "old": counted(&gate.old),
            "compared": gate.compared,
        })),
        "soak_milliseconds": rollout.terms.soak_ms,
        "all_at_once": rollout.terms.all_at_once,
        "forced": rollout.terms.forced,
        "expected_divergence": expected_names(&rollout.terms.expected),
    })
}

fn counted(sample: &Sample) -> Value {
    json!({
        "commands": sample.commands,
        "errors": sample.errors,
        "traps": sample.traps,
        "p99_microseconds": sample.p99_us(),
    })
}

/// As much of a digest as people compare.
fn digest_start(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// What `GET /v1/services` adds for a service whose versions the cluster has agreed on.
pub(super) fn versions(view: &View, service: &Service) -> Value {
    let Some(versions) = view.map().versions().get(service.name()) else {
        return Value::Null;
    };
    let mut running: BTreeMap<String, usize> = BTreeMap::new();
    let mut partitions = Vec::new();
    let at_hand = versions.at_hand();
    for partition in view.ring().size().partitions() {
        let release = versions.assigned(partition);
        let alike = at_hand.iter().filter(|one| one.version == release.version);
        // Guests need not count up; their digests tell them apart.
        let name = match alike.count() {
            1 => release.version.clone(),
            _ => format!("{} {}", release.version, digest_start(&release.digest)),
        };
        *running.entry(name.clone()).or_default() += 1;
        partitions.push(name);
    }
    let rollout = versions
        .rollout()
        .map(|rollout| body(view, service, rollout, None));
    json!({
        "current": released(versions.current()),
        "past": versions.past().iter().map(released).collect::<Vec<_>>(),
        "running": running,
        "partitions": partitions,
        "rollout": rollout,
    })
}
