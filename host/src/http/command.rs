//! Commands of guests by HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::problem::Problem;
use super::{Node, views};
use crate::coordinator::coverage::Part;
use crate::coordinator::trace::Step;
use crate::coordinator::wishes::Wishes;
use crate::descriptor::CommandKind;
use crate::node::Shared;
use crate::resp::catalog::{GuestCommand, Target};
use crate::resp::value::Value;
use crate::resp::wire::ReplyLimits;
use crate::vnode::failure::Failure;
use crate::vnode::words::Words;

/// What helps against a limit on sizes.
const SMALLER: &str = "send less at once; `host config show` has the limits";
/// Parts of a stream that wait for the client.
const STREAM_PARTS: usize = 4;

/// The body of a command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(default)]
    stream: bool,
    /// Whether the reply tells which replicas answered.
    #[serde(default)]
    trace: bool,
    /// Longest wait, milliseconds; never longer than the node's own.
    timeout_ms: Option<u32>,
    n: Option<u8>,
    r: Option<u8>,
    w: Option<u8>,
    pr: Option<u8>,
    pw: Option<u8>,
    dw: Option<u8>,
    node_confirms: Option<u8>,
    /// What is there of a coverage command's reply is enough.
    #[serde(default)]
    partial: bool,
}

impl Call {
    fn wishes(&self) -> Wishes {
        Wishes {
            n: self.n,
            r: self.r,
            w: self.w,
            pr: self.pr,
            pw: self.pw,
            dw: self.dw,
            node_confirms: self.node_confirms,
            timeout_ms: self.timeout_ms,
            partial: self.partial,
        }
    }
}

/// Bytes in JSON: text where it is text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Argument {
    Text(String),
    Number(serde_json::Number),
    Binary { base64: String },
}

impl Argument {
    fn bytes(&self) -> Result<Vec<u8>, Problem> {
        match self {
            Argument::Text(text) => Ok(text.clone().into_bytes()),
            Argument::Number(number) => Ok(number.to_string().into_bytes()),
            Argument::Binary { base64 } => BASE64_STANDARD.decode(base64).map_err(|error| {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    format!("an argument is not base64: {error}"),
                )
                .hint("send text as a string, other bytes in the standard alphabet with padding")
            }),
        }
    }
}

/// The body, if it arrives in time.
async fn read(request: Request, patience: Duration) -> Result<Call, Problem> {
    let body = tokio::time::timeout(patience, Json::from_request(request, &()));
    let body: Result<Json<Call>, JsonRejection> = body.await.map_err(|_| {
        let detail = format!("the body did not arrive in {patience:?} (request_read_timeout)");
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    })?;
    let Json(call) = body.map_err(|rejection| {
        Problem::new(rejection.status(), rejection.body_text())
            .hint(r#"send {"args": ["key", "value"]}"#)
    })?;
    Ok(call)
}

pub(super) async fn run(
    State(node): Node,
    Path((service, command)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let call = read(request, node.config.limits.request_read_timeout).await?;
    let target = target(&node, &service, &command)?;
    let mut words = vec![command.into_bytes()];
    for arg in &call.args {
        words.push(arg.bytes()?);
    }
    let limits = &node.coordinator.limits().requests;
    if words.len() > limits.args_max || words.iter().any(|word| word.len() > limits.arg_bytes_max) {
        let detail = format!(
            "more than {} arguments, or one of more than {} bytes (args_max, value_bytes_max)",
            limits.args_max, limits.arg_bytes_max
        );
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
            .code("TOOBIG")
            .hint(SMALLER));
    }
    let words = Words::copy(words.iter().map(Vec::as_slice));
    if call.stream {
        return stream(node, target, words);
    }
    let (reply, replicas) = answer(&node, target, words, &call).await?;
    let value = Value::parse(&reply, &ReplyLimits::default()).map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the reply cannot be read: {error}"),
        )
    })?;
    match value {
        Value::Error { code, message } => Err(refused(code, message)),
        value if call.trace => {
            Ok(Json(json!({ "value": value.to_json(), "replicas": replicas })).into_response())
        }
        value => Ok(Json(json!({ "value": value.to_json() })).into_response()),
    }
}

/// Runs the command: its reply, and which replicas answered.
async fn answer(
    node: &Shared,
    target: GuestCommand,
    words: Words,
    call: &Call,
) -> Result<(Vec<u8>, Vec<Json_>), Problem> {
    let running = async {
        let (coordinator, wishes) = (&node.coordinator, call.wishes());
        match call.trace {
            true => coordinator.call_traced(target, words, wishes).await,
            false => (coordinator.call(target, words, wishes).await, Vec::new()),
        }
    };
    let (reply, steps) = match call.timeout_ms {
        None => running.await,
        Some(ms) => tokio::time::timeout(Duration::from_millis(ms.into()), running)
            .await
            .map_err(|_| {
                refused(
                    "TIMEOUT".into(),
                    format!("no answer within {ms}ms (timeout_ms); the command may still run"),
                )
            })?,
    };
    let replica = |step: &Step| {
        json!({
            "node": step.node,
            "partition": step.partition,
            "kind": step.role.word(),
            "outcome": step.outcome,
            "microseconds": u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX),
            "version": step.version,
        })
    };
    let replicas = steps.iter().map(replica).collect();
    Ok((reply, replicas))
}

fn target(node: &Shared, service: &str, command: &str) -> Result<GuestCommand, Problem> {
    if node.coordinator.service(service).is_none() {
        return Err(views::no_service(node, Some(service)));
    }
    let named = format!("{service}.{command}");
    let Some(Target::Guest(target)) = node.coordinator.front().catalog().find(named.as_bytes())
    else {
        let detail = format!("service {service:?} has no command {command:?}");
        return Err(
            Problem::new(StatusCode::NOT_FOUND, detail).hint("GET /v1/services lists the commands")
        );
    };
    Ok(target)
}

/// An error reply as a problem; the status tells whose turn it is.
fn refused(code: String, message: String) -> Problem {
    let (status, hint) = match code.as_str() {
        "BUSY" | "TRYAGAIN" | "LOADING" => (StatusCode::SERVICE_UNAVAILABLE, "retry with backoff"),
        "NOREPLICAS" | "CLUSTERDOWN" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too few replicas answer: GET /v1/status says why; some may keep what was written",
        ),
        "TIMEOUT" => (
            StatusCode::GATEWAY_TIMEOUT,
            "it may have run; ask what became of it before it is sent again",
        ),
        "TOOBIG" => (StatusCode::PAYLOAD_TOO_LARGE, SMALLER),
        "GUESTTRAP" => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the guest's fault; its panic is in the node's log",
        ),
        _ => (
            StatusCode::BAD_REQUEST,
            "GET /v1/services has the arguments of each command",
        ),
    };
    Problem::new(status, message).code(code).hint(hint)
}

/// A coverage command as JSON lines, each when it is there: bounded memory whatever the size of the answer.
fn stream(node: Arc<Shared>, target: GuestCommand, words: Words) -> Result<Response, Problem> {
    let front = node.coordinator.front();
    let spec = front.spec(target);
    let covers = spec.is_some_and(|spec| {
        matches!(
            spec.kind,
            CommandKind::Coverage | CommandKind::CoverageWrite
        )
    });
    if !covers || !spec.is_some_and(|spec| spec.takes(words.len())) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "only a coverage command with the right number of arguments can be streamed",
        )
        .hint("leave \"stream\" out"));
    }
    let (parts, received) = mpsc::channel(STREAM_PARTS);
    let name = node.name.clone();
    tokio::spawn(async move {
        node.coordinator.stream(target, &words, parts).await;
    });
    let lines = ReceiverStream::new(received).map(move |part| {
        let line = match part {
            Ok(part) => json!({
                "node": name,
                "partition": part.range.number(),
                "items": items(&part),
                "version": part.version,
            }),
            Err(failure) => json!({ "error": error(&failure) }),
        };
        Ok::<_, std::convert::Infallible>(format!("{line}\n"))
    });
    let kind = [(header::CONTENT_TYPE, "application/jsonl")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

fn items(part: &Part) -> Json_ {
    let mut array = Vec::new();
    crate::resp::write::array(&mut array, part.count);
    array.extend_from_slice(&part.items);
    Value::parse(&array, &ReplyLimits::default()).map_or(Json_::Null, |value| value.to_json())
}

fn error(failure: &Failure) -> Json_ {
    json!({ "code": failure.code(), "message": failure.to_string() })
}
