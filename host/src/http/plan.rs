//! Plans by HTTP: what the staged changes would do, what that would cost, and doing it.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use vnode_ring::{
    ClusterMap, Cure, MapEvent, Move, NodeName, Plan, PlanId, Resize, Spread, Stage, View,
};

use super::Node;
use super::cluster::{change, propose, refused, share};
use super::problem::Problem;
use crate::coordinator::holdings::Holdings;
use crate::coordinator::transfers::Amount;

/// What a node sends to others while it serves on: seen with objects of 100 bytes on two cores. Larger ones go faster.
const RATE_BYTES_PER_SECOND: u64 = 25_000_000;

/// `GET /v1/plan`.
pub(super) async fn plan(State(node): Node) -> Result<Json<Value>, Problem> {
    let view = node.coordinator.view();
    let plan = view.map().plan().map_err(refused)?;
    *node.shown_plan.lock().unwrap_or_else(|e| e.into_inner()) = Some(plan.id);
    let senders = plan.moves.iter().filter(|step| !step.lossy);
    let mut senders: BTreeSet<NodeName> = senders.map(|step| step.from.clone()).collect();
    if begun(&plan).is_some() {
        // Every node copies what it has.
        senders.extend(view.map().members().keys().cloned());
    }
    let holdings = node.coordinator.holdings(&senders).await;
    Ok(Json(plan_body(&view, &plan, &holdings)))
}

/// The resize that the plan begins, if it begins one.
fn begun(plan: &Plan) -> Option<&Resize> {
    plan.after.resize().filter(|resize| resize.is_filling())
}

/// What each node copies of its own rows when the ring is resized, as far as they have said.
fn copies(resize: &Resize, holdings: &BTreeMap<NodeName, Holdings>) -> Value {
    let (mut all, mut longest) = (Amount::default(), 0);
    for said in holdings.values() {
        let bytes = said.values().map(|amount| amount.bytes).sum::<u64>();
        all.objects += said.values().map(|amount| amount.objects).sum::<u64>();
        all.bytes += bytes;
        longest = longest.max(bytes);
    }
    json!({
        "from": resize.from, "to": resize.to,
        "objects": all.objects, "bytes": all.bytes, "estimated_seconds": seconds(longest),
    })
}

/// What an operator should know before a commit.
fn warnings(map: &ClusterMap) -> Vec<String> {
    let moving = map.versions().iter();
    let moving = moving.filter_map(|(service, versions)| Some((service, versions.under_way()?)));
    moving
        .filter(|(_, rollout)| rollout.stage != Stage::Done)
        .map(|(service, rollout)| {
            format!(
                "a rollout of {service} to {} is under way ({}): what moves now is missing among what it is judged by",
                rollout.to.version, rollout.stage
            )
        })
        .collect()
}

/// What some of the moves carry, as far as their owners have said.
#[derive(Clone, Copy, Default)]
struct Load {
    partitions: usize,
    unknown: usize,
    objects: u64,
    bytes: u64,
}

impl Load {
    fn add(&mut self, holding: Option<Amount>) {
        self.partitions += 1;
        match holding {
            Some(holding) => {
                self.objects += holding.objects;
                self.bytes += holding.bytes;
            }
            None => self.unknown += 1,
        }
    }
}

/// To the millisecond.
fn seconds(bytes: u64) -> f64 {
    let ms = bytes.saturating_mul(1000) / RATE_BYTES_PER_SECOND;
    ms as f64 / 1e3
}

/// What a move carries: nothing that is known of one whose owner is given up or does not answer.
fn held(step: &Move, holdings: &BTreeMap<NodeName, Holdings>) -> Option<Amount> {
    let said = holdings.get(&step.from).filter(|_| !step.lossy)?;
    Some(said.get(&step.partition).copied().unwrap_or_default())
}

fn plan_body(view: &View, plan: &Plan, holdings: &BTreeMap<NodeName, Holdings>) -> Value {
    let map = view.map();
    let future = &plan.owners;
    let mut names: Vec<&NodeName> = map.members().keys().collect();
    names.retain(|name| {
        view.ring().owners().contains(name) || plan.after.members().contains_key(*name)
    });
    let members: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let now = view.ring().partitions_of(name).count();
            let next = future.iter().filter(|owner| *owner == name).count();
            json!({
                "name": name,
                "status": plan.after.members().get(name).map(|member| member.status),
                "ring_share": share(now, view),
                "next_share": next as f64 / future.len().max(1) as f64,
                "partitions": now,
                "next_partitions": next,
            })
        })
        .collect();
    let mut pairs: BTreeMap<(&NodeName, &NodeName, bool), Load> = BTreeMap::new();
    // Each node sends one partition after another, and all of them do so at once.
    let mut senders: BTreeMap<&NodeName, u64> = BTreeMap::new();
    let mut total = Load::default();
    for step in &plan.moves {
        let held = held(step, holdings);
        let pair = (&step.from, &step.to, step.lossy);
        pairs.entry(pair).or_default().add(held);
        if !step.lossy {
            total.add(held);
            *senders.entry(&step.from).or_default() += held.unwrap_or_default().bytes;
        }
    }
    let longest = senders.values().copied().max().unwrap_or_default();
    let pairs: Vec<Value> = pairs
        .into_iter()
        .map(|((from, to, lossy), load)| {
            json!({
                "from": from, "to": to, "lossy": lossy,
                "partitions": load.partitions, "unknown_partitions": load.unknown,
                "objects": load.objects, "bytes": load.bytes,
                "estimated_seconds": seconds(load.bytes),
            })
        })
        .collect();
    let moves: Vec<Value> = plan
        .moves
        .iter()
        .map(|step| {
            let held = held(step, holdings);
            json!({
                "partition": step.partition, "from": step.from, "to": step.to, "lossy": step.lossy,
                "objects": held.map(|held| held.objects), "bytes": held.map(|held| held.bytes),
            })
        })
        .collect();
    json!({
        "id": plan.id.to_string(),
        "epoch": map.epoch(),
        "changes": plan.changes.iter().map(change).collect::<Vec<_>>(),
        "warnings": warnings(map),
        "members": members,
        "transfers": pairs,
        "moves": moves,
        "resize": begun(plan).map(|resize| copies(resize, holdings)),
        "total": {
            "partitions": total.partitions, "unknown_partitions": total.unknown,
            "objects": total.objects, "bytes": total.bytes,
            "estimated_seconds": seconds(longest), "rate_bytes_per_second": RATE_BYTES_PER_SECOND,
        },
        "safety": {
            "n": map.n(),
            "nodes": spread(&plan.safety.nodes),
            "locations": spread(&plan.safety.locations),
            "cures": plan.safety.cures.iter().map(cure).collect::<Vec<_>>(),
        },
    })
}

fn spread(spread: &Spread) -> Value {
    json!({
        "wanted": spread.wanted,
        "bad": spread.bad,
        "unavoidable": spread.unavoidable,
        "bad_after_loss": spread.after_loss,
    })
}

fn cure(cure: &Cure) -> String {
    match cure {
        Cure::AddNodes {
            count,
            location: Some(location),
        } => format!("{count} more nodes in {location}"),
        Cure::AddNodes { count: 1, .. } => "1 more node".into(),
        Cure::AddNodes { count, .. } => format!("{count} more nodes"),
        Cure::SmallerN { n } => format!("n={n}"),
    }
}

/// `POST /v1/plan/{id}/commit`; the id `shown` is that of the plan shown here last.
pub(super) async fn commit(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let shown = *node.shown_plan.lock().unwrap_or_else(|e| e.into_inner());
    let id: PlanId = match (id.as_str(), shown) {
        ("shown", Some(shown)) => shown,
        ("shown", None) => {
            let detail = "no plan was shown by this node";
            return Err(Problem::new(StatusCode::CONFLICT, detail)
                .hint("look at it first: `host cluster plan`"));
        }
        (text, _) => text.parse().map_err(|error: vnode_ring::NotPlanId| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
                .hint("`host cluster plan` names it")
        })?,
    };
    let epoch = propose(&node, MapEvent::PlanCommitted(id)).await?;
    Ok(Json(json!({ "id": id.to_string(), "epoch": epoch })))
}
