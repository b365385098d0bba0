//! The cluster by HTTP: members, ring, changes, plans, transfers, events.
//!
//! Whatever the command line shows of the cluster comes from here.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use vnode_ring::{
    Change, ClusterMap, GuestCard, MapError, MapEvent, MemberStatus, NodeName, ReplicaKind, Resize,
    ResizeStage, Staged, View, preflist,
};

use super::problem::Problem;
use super::{Node, join, transfers, views};
use crate::node::Shared;
use vnode_cluster::ProposeError;
use vnode_cluster::join::JoinError;

/// What is left of a body that carries the events is at most this many.
const EVENTS_WAITING: usize = 64;

/// `GET /v1/cluster`.
pub(super) async fn cluster(State(node): Node) -> Json<Value> {
    let view = node.coordinator.view();
    let map = view.map();
    let future = map.future_owners();
    let voters = node.cluster.voters();
    let members: Vec<Value> = map
        .members()
        .iter()
        .map(|(name, member)| {
            let partitions = view.ring().partitions_of(name).count();
            let next = future.iter().filter(|owner| *owner == name).count();
            let guests: Vec<Value> = member
                .card
                .guests
                .iter()
                .map(|(name, guest)| served(map, name, guest))
                .collect();
            json!({
                "name": name,
                "status": member.status,
                "up": view.is_seen(name),
                "votes": voters.contains(name),
                "ring_share": share(partitions, &view),
                "pending_share": (!map.transfers().is_empty()).then(|| share(next, &view)),
                "partitions": partitions,
                "next_partitions": next,
                "guests": guests,
                "location": member.location,
                "weight": member.weight,
                "addresses": member.card.addresses,
            })
        })
        .collect();
    Json(json!({
        "as_seen_by": view.me(),
        "cluster": map.cluster().to_string(),
        "epoch": map.epoch(),
        "claimant": view.claimant(),
        "ring_size": view.ring().size(),
        "n": map.n(),
        "resize": map.resize().map(resize),
        "ready": map.transfers().is_empty() && map.resize().is_none() && view.unheard().is_empty() && !node.coordinator.is_draining(),
        "members": members,
        "staged": map.staged().iter().map(change).collect::<Vec<_>>(),
    }))
}

/// A resize under way.
fn resize(resize: &Resize) -> Value {
    let (filled, left) = match &resize.stage {
        ResizeStage::Filling { filled, .. } => (Some(filled), None),
        ResizeStage::Cleaning { left } => (None, Some(left)),
    };
    json!({
        "id": resize.id,
        "from": resize.from,
        "to": resize.to,
        "stage": resize.stage.word(),
        "filled": filled,
        "left": left,
    })
}

/// What a member runs of a service: what the cluster has agreed on, else what the node was started with.
fn served(map: &ClusterMap, name: &str, guest: &GuestCard) -> Value {
    let (current, next) = match map.versions().get(name) {
        Some(versions) => (
            Some(versions.current()),
            versions.under_way().map(|rollout| &rollout.to),
        ),
        None => (None, None),
    };
    let (version, digest) = match current {
        Some(release) => (&release.version, &release.digest),
        None => (&guest.version, &guest.digest),
    };
    json!({
        "name": name,
        "version": version,
        "digest": digest,
        "next_version": next.map(|release| &release.version),
        "next_digest": next.map(|release| &release.digest),
    })
}

/// A part of the ring, from 0 to 1.
pub(super) fn share(partitions: usize, view: &View) -> f64 {
    // At most 4096 of them.
    #[allow(clippy::cast_precision_loss, reason = "counts of partitions are small")]
    let partitions = partitions as f64;
    partitions / f64::from(view.ring().size().get())
}

pub(super) fn change(staged: &Staged) -> Value {
    let (action, more) = match &staged.change {
        Change::Join => ("join", None),
        Change::Leave => ("leave", None),
        Change::Replace { by } => ("replace", Some(("by", json!(by)))),
        Change::ForceReplace { by } => ("force-replace", Some(("by", json!(by)))),
        Change::ForceRemove => ("force-remove", None),
        Change::Location(location) => ("location", Some(("location", json!(location)))),
        Change::Weight(weight) => ("weight", Some(("weight", json!(weight)))),
        Change::Resize { partitions, .. } => ("resize", Some(("ring_size", json!(partitions)))),
    };
    let mut value = json!({ "action": action, "node": staged.node });
    if let (Value::Object(object), Some((key, more))) = (&mut value, more) {
        object.insert(key.into(), more);
    }
    value
}

/// `GET /v1/ring`.
pub(super) async fn ring(State(node): Node) -> Json<Value> {
    let view = node.coordinator.view();
    let ring = view.ring();
    let size = ring.size();
    let indexes: Vec<String> = size.partitions().map(|p| size.index_decimal(p)).collect();
    let pending: Vec<Value> = view
        .map()
        .transfers()
        .iter()
        .map(|(partition, transfer)| {
            let from = ring.owner(*partition);
            json!({
                "partition": partition,
                "from": from,
                "to": transfer.to,
                "phase": transfers::phase(&node, *partition, from),
            })
        })
        .collect();
    Json(json!({
        "size": size,
        "epoch": ring.epoch(),
        "hash": ring.hash(),
        "owners": ring.owners(),
        "pending": pending,
        "letters": ring.letters(),
        "indexes": indexes,
    }))
}

#[derive(Deserialize)]
pub(super) struct PreflistQuery {
    key: String,
    service: Option<String>,
    n: Option<u16>,
}

/// `GET /v1/ring/preflist`.
pub(super) async fn replicas(
    State(node): Node,
    query: Result<Query<PreflistQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query.map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint("ask with ?key=KEY, and if need be &service=NAME and &n=REPLICAS")
    })?;
    let service = match &query.service {
        Some(name) => node.coordinator.service(name),
        None => node.coordinator.services().first(),
    };
    let service = service.ok_or_else(|| views::no_service(&node, query.service.as_deref()))?;
    let n = query.n.or(Some(service.n())).unwrap_or(1);
    let view = node.coordinator.view();
    let placement = &service.placement;
    let key = query.key.as_bytes();
    let hash = placement.hash.hash(placement.service.as_bytes(), key);
    let up = |node: &NodeName| view.is_up(node);
    let replicas: Vec<Value> = preflist(view.ring(), &up, &hash, n)
        .into_iter()
        .map(|replica| {
            let (kind, instead_of) = match replica.kind {
                ReplicaKind::Primary => ("primary", None),
                ReplicaKind::Fallback { instead_of } => ("fallback", Some(instead_of)),
            };
            json!({
                "partition": replica.partition,
                "node": replica.node,
                "kind": kind,
                "instead_of": instead_of,
                "up": true,
            })
        })
        .collect();
    Ok(Json(json!({
        "key": query.key,
        "service": placement.service,
        "hash": hash.to_string(),
        "partition": view.ring().size().first_replica(&hash),
        "replicas": replicas,
    })))
}

/// A change to stage.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    action: String,
    /// The member that it is about; the node at the endpoint if left out.
    node: Option<String>,
    /// With `join`: peer or HTTP address of a member of the other cluster.
    address: Option<String>,
    /// With `replace` and `force-replace`: the node that joins.
    by: Option<String>,
    /// With `location`; left out or null for none.
    location: Option<String>,
    /// With `weight`.
    weight: Option<u16>,
    /// With `resize`: how many partitions.
    ring_size: Option<u16>,
}

/// `POST /v1/changes`.
pub(super) async fn stage(
    State(node): Node,
    body: Result<Json<Wish>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let Json(wish) = body.map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint(r#"send {"action": "leave", "node": "NAME"}; other actions are join, replace, force-replace, force-remove, down, location, weight and resize"#)
    })?;
    if wish.action == "join" {
        let address = wish
            .address
            .or(wish.node)
            .ok_or_else(|| missing("address"))?;
        let peer = join::peer_address(&address).await;
        node.cluster.join(&peer).await.map_err(not_joined)?;
        return Ok(Json(json!({
            "action": "join",
            "node": node.name,
            "address": address,
        })));
    }
    let about = match &wish.node {
        Some(name) => name_of(name)?,
        None => node.name.clone(),
    };
    if wish.action == "leave" && about == node.name && node.cluster.is_joining() {
        let withdrawn = node.cluster.give_up_joining().await;
        return Ok(Json(json!({
            "action": "leave",
            "node": node.name,
            "gives_up": true,
            "withdrawn": withdrawn,
        })));
    }
    let by = || name_of(wish.by.as_deref().ok_or_else(|| missing("by"))?);
    let change = match wish.action.as_str() {
        "leave" => Change::Leave,
        "replace" => Change::Replace { by: by()? },
        "force-replace" => Change::ForceReplace { by: by()? },
        "force-remove" => Change::ForceRemove,
        "location" => Change::Location(wish.location.clone()),
        "weight" => Change::Weight(wish.weight.ok_or_else(|| missing("weight"))?),
        "resize" => Change::Resize {
            partitions: wish.ring_size.ok_or_else(|| missing("ring_size"))?,
            n: replicas_of_all(&node)?,
        },
        "down" => return mark_down(&node, about).await,
        other => {
            let detail = format!("there is no action {other:?}");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).hint(
                "join, leave, replace, force-replace, force-remove, down, location, weight and resize are actions",
            ));
        }
    };
    let staged = Staged {
        node: about,
        change,
    };
    let view = node.coordinator.view();
    let member = view.map().members().get(&staged.node);
    let joins = member.is_some_and(|member| member.status == MemberStatus::Joining);
    let withdrawn = joins && staged.change == Change::Leave;
    let epoch = propose(&node, MapEvent::ChangeStaged(staged.clone())).await?;
    let mut body = change_with_epoch(&staged, epoch);
    if let Value::Object(body) = &mut body {
        let word = if withdrawn { "withdrawn" } else { "staged" };
        body.insert(word.into(), true.into());
    }
    Ok(Json(body))
}

fn change_with_epoch(staged: &Staged, epoch: u64) -> Value {
    let mut body = change(staged);
    if let Value::Object(body) = &mut body {
        body.insert("epoch".into(), epoch.into());
    }
    body
}

/// Replicas of every service. A ring is divided by that number, so there has to be one.
fn replicas_of_all(node: &Shared) -> Result<u16, Problem> {
    let services = node.coordinator.services();
    let n = services.first().map_or(1, |service| service.n());
    match services.iter().find(|service| service.n() != n) {
        None => Ok(n),
        Some(other) => {
            let (name, found) = (other.name(), other.n());
            let detail = format!(
                "{name} has n={found} and another service n={n}; a ring is resized only if all services have the same, not yet otherwise"
            );
            Err(Problem::new(StatusCode::CONFLICT, detail)
                .hint("`n` and [service.NAME] in the file of settings say how many replicas a service has"))
        }
    }
}

/// Down is said at once: nobody is to wait for the node any more.
async fn mark_down(node: &Shared, about: NodeName) -> Result<Json<Value>, Problem> {
    if node.coordinator.view().is_seen(&about) {
        let detail = format!("{about} is up");
        return Err(Problem::new(StatusCode::CONFLICT, detail)
            .hint("only a node that is unreachable can be marked down; `host cluster leave` lets it go in good order"));
    }
    let epoch = propose(node, MapEvent::MarkedDown(about.clone())).await?;
    Ok(Json(
        json!({ "action": "down", "node": about, "epoch": epoch }),
    ))
}

/// `DELETE /v1/changes`.
pub(super) async fn clear(State(node): Node) -> Result<Json<Value>, Problem> {
    let epoch = propose(&node, MapEvent::StagedCleared).await?;
    Ok(Json(json!({ "staged": [], "epoch": epoch })))
}

/// `GET /v1/events`: server-sent events, from the kept ones on; `Last-Event-ID` goes on where a client was.
pub(super) async fn events(State(node): Node, headers: HeaderMap) -> Response {
    let since = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let (lines, received) = mpsc::channel(EVENTS_WAITING);
    let cluster = std::sync::Arc::clone(&node.cluster);
    tokio::spawn(async move {
        let mut last = cluster.feed().last();
        let mut shown: u64 = since;
        loop {
            for event in cluster.feed().since(shown) {
                shown = event.id;
                let data = serde_json::to_string(&*event).unwrap_or_default();
                let text = format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind);
                if lines.send(text).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = last.changed() => if changed.is_err() { return },
                () = lines.closed() => return,
            }
        }
    });
    let body = ReceiverStream::new(received).map(Ok::<_, std::convert::Infallible>);
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(body)).into_response()
}

pub(super) async fn propose(node: &Shared, event: MapEvent) -> Result<u64, Problem> {
    let epoch = node
        .cluster
        .propose(event)
        .await
        .map_err(|error| match error {
            ProposeError::Refused(error) => refused(error),
            error => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).hint(
                "`host cluster status` shows who is up; changes need a majority of the voters",
            ),
        })?;
    // Whoever asks this node next sees what he has changed.
    let mut views = node.coordinator.views();
    drop(views.wait_for(|view| view.map().epoch() >= epoch).await);
    Ok(epoch)
}

pub(super) fn refused(error: MapError) -> Problem {
    let status = match error {
        MapError::NotMember { .. } => StatusCode::NOT_FOUND,
        MapError::Location => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::CONFLICT,
    };
    Problem::new(status, error.to_string())
}

fn not_joined(error: JoinError) -> Problem {
    let status = match error {
        JoinError::Cluster(_) => StatusCode::INTERNAL_SERVER_ERROR,
        JoinError::Dial(_) | JoinError::Silent { .. } => StatusCode::BAD_GATEWAY,
        _ => StatusCode::CONFLICT,
    };
    Problem::new(status, error.to_string())
}

fn name_of(name: &str) -> Result<NodeName, Problem> {
    NodeName::new(name)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

fn missing(field: &str) -> Problem {
    let detail = format!("{field:?} is missing");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}
