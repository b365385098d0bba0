//! HTTP, the front door for people and programs that manage a node: API, metrics, health.
//!
//! It runs on the control threads and reads snapshots, so it answers while every guest loops. Only commands wait for
//! guests, and they have a deadline.

mod cluster;
mod command;
mod guard;
pub mod join;
mod plan;
mod problem;
mod rollouts;
mod serve;
mod shadow;
mod transfers;
mod views;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::problem::Problem;
use crate::node::Shared;
use crate::resp::codec::REQUEST_BYTES_MAX;
use crate::store::Health;

type Node = State<Arc<Shared>>;

/// Serves HTTP on the listener until `end` says so, and what it has begun to its end.
pub async fn serve(
    listener: tokio::net::TcpListener,
    shared: Arc<Shared>,
    end: oneshot::Receiver<()>,
) {
    let limits = shared.config.limits.clone();
    serve::serve(listener, router(shared), &limits, end).await;
}

/// Every route.
pub fn router(shared: Arc<Shared>) -> Router {
    let component_bytes_max = shared.config.limits.component_bytes_max;
    Router::new()
        .route(
            "/",
            get(|| async { Html(include_str!("../ui/index.html")) }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/cluster", get(cluster::cluster))
        .route("/v1/ring", get(cluster::ring))
        .route("/v1/ring/preflist", get(cluster::replicas))
        .route("/v1/transfers", get(transfers::list))
        .route("/v1/transfers/limit", post(transfers::limit))
        .route("/v1/transfers/pause", post(transfers::pause))
        .route("/v1/transfers/resume", post(transfers::resume))
        .route("/v1/transfers/repair", post(transfers::repair))
        .route("/v1/changes", post(cluster::stage).delete(cluster::clear))
        .route("/v1/plan", get(plan::plan))
        .route("/v1/plan/{id}/commit", post(plan::commit))
        .route("/v1/events", get(cluster::events))
        .route("/v1/stats", get(stats))
        .route("/v1/services", get(services))
        .route("/v1/vnodes", get(vnodes))
        .route(
            "/v1/services/{service}/commands/{command}",
            post(command::run),
        )
        .route(
            "/v1/services/{service}/rollouts",
            post(rollouts::begin).layer(DefaultBodyLimit::max(component_bytes_max)),
        )
        .route(
            "/v1/services/{service}/rollouts/current",
            get(rollouts::current),
        )
        .route(
            "/v1/services/{service}/rollouts/current/{action}",
            post(rollouts::act),
        )
        .route(
            "/v1/services/{service}/shadow",
            post(shadow::begin)
                .layer(DefaultBodyLimit::max(component_bytes_max))
                .get(shadow::report)
                .delete(shadow::end),
        )
        .route("/v1/node/drain", post(drain))
        .route("/v1/openapi.json", get(openapi))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "there is no such route")
                .hint("GET /v1/openapi.json lists the routes")
        })
        .method_not_allowed_fallback(|method: Method| async move {
            let detail = format!("this route does not take {method}");
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
                .hint("GET /v1/openapi.json lists the routes and their methods")
        })
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(axum::middleware::from_fn(guard::same_site))
        .with_state(shared)
}

async fn metrics(State(node): Node) -> Result<Response, Problem> {
    let text = node.metrics.text().map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics cannot be written",
        )
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[derive(Deserialize)]
struct Readyz {
    verbose: Option<String>,
}

async fn readyz(State(node): Node, Query(query): Query<Readyz>) -> Response {
    let checks = [
        ("draining", !node.coordinator.is_draining()),
        ("storage", matches!(node.engine.health(), Health::Good)),
        // Until then commands for the vnodes of a dead one fail, which others know better.
        ("peers", node.coordinator.view().unheard().is_empty()),
    ];
    let ready = checks.iter().all(|(_, good)| *good);
    let mut text = String::new();
    for (name, good) in checks {
        if query.verbose.is_some() || !good {
            let mark = if good { "+" } else { "-" };
            let word = if good { "ok" } else { "failed" };
            text.push_str(&format!("[{mark}]{name} {word}\n"));
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text).into_response()
}

async fn status(State(node): Node) -> Json<Value> {
    Json(views::status(&node))
}

async fn services(State(node): Node) -> Json<Value> {
    Json(views::services(&node))
}

#[derive(Deserialize)]
struct StatsQuery {
    since: Option<String>,
}

async fn stats(State(node): Node, Query(query): Query<StatsQuery>) -> Result<Json<Value>, Problem> {
    let since_ms = match &query.since {
        None => 0,
        Some(text) => {
            let time = humantime::parse_rfc3339_weak(text).map_err(|_| {
                let detail = format!("since: {text:?} is not a time");
                Problem::new(StatusCode::BAD_REQUEST, detail)
                    .hint("write it as 2026-01-31T12:00:00Z, or leave it out for all that is kept")
            })?;
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }
    };
    Ok(Json(views::stats(&node, since_ms)))
}

#[derive(Deserialize)]
struct VnodesQuery {
    node: Option<String>,
}

async fn vnodes(
    State(node): Node,
    Query(query): Query<VnodesQuery>,
) -> Result<Json<Value>, Problem> {
    if let Some(name) = query.node.filter(|name| name != node.name.as_str()) {
        return Err(
            Problem::new(StatusCode::NOT_FOUND, format!("there is no node {name:?}"))
                .hint("GET /v1/cluster lists the members"),
        );
    }
    Ok(Json(views::vnodes(&node)))
}

async fn drain(State(node): Node) -> (StatusCode, Json<Value>) {
    node.drain.notify_one();
    (
        StatusCode::ACCEPTED,
        Json(json!({ "node": node.name, "draining": true })),
    )
}

async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        include_str!("http/openapi.json"),
    )
}
