//! `host vnode`: the vnodes of a node.

use serde::Deserialize;
use serde_json::{Value, json};

use super::output::Session;
use super::report::{Exit, Failure};
use super::table::{Table, size};

/// The answer of `/v1/vnodes`. Each vnode stays JSON, so that one that is shown alone has all its keys.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Body {
    pub(super) vnodes: Vec<Value>,
}

/// All vnodes of the node.
pub(super) fn list(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.get("/v1/vnodes", &[])?;
    if session.wants_json() {
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let body: Body = client.view(body)?;
    session.print(&table(&body.vnodes).to_string())?;
    Ok(Exit::Ok)
}

/// One vnode as `SERVICE/PARTITION`, or all of a partition.
pub(super) fn show(session: &mut Session<'_>, id: &str) -> anyhow::Result<Exit> {
    let (service, number) = match id.rsplit_once('/') {
        Some((service, number)) => (Some(service), number),
        None => (None, id),
    };
    let Ok(partition) = number.parse::<u32>() else {
        return Err(Failure::usage(format!("{id:?} is not a vnode"))
            .next("write SERVICE/PARTITION such as kv/14, or a partition alone; `host vnode list` shows all")
            .into());
    };
    let client = session.client()?;
    let body: Body = client.view(client.get("/v1/vnodes", &[])?)?;
    let wanted = |vnode: &Value| {
        let same = |service| {
            vnode["service"]
                .as_str()
                .is_some_and(|own| own.eq_ignore_ascii_case(service))
        };
        vnode["partition"] == json!(partition) && service.is_none_or(same)
    };
    let found: Vec<Value> = body.vnodes.into_iter().filter(wanted).collect();
    if found.is_empty() {
        return Err(Failure::new(format!("this node has no vnode {id}"))
            .next(
                "`host vnode list` shows those it has; `host ring partition ID` shows who owns one",
            )
            .into());
    }
    if session.wants_json() {
        session.print_json(&json!({ "vnodes": found }))?;
        return Ok(Exit::Ok);
    }
    for (at, vnode) in found.iter().enumerate() {
        let mut rows = Table::new(&["", ""]);
        for (key, value) in vnode.as_object().into_iter().flatten() {
            rows.row([key.clone(), plain(value)]);
        }
        let gap = if at > 0 { "\n" } else { "" };
        session.print(&format!("{gap}{rows}"))?;
    }
    Ok(Exit::Ok)
}

/// One line for each vnode.
pub(super) fn table(vnodes: &[Value]) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        ">PARTITION",
        "NODE",
        "STATE",
        ">MAILBOX",
        ">OBJECTS",
        ">SIZE",
        "VERSION",
        ">TRAPS",
        ">RESTARTS",
    ]);
    for vnode in vnodes {
        let cell = |key: &str| plain(&vnode[key]);
        table.row([
            cell("service"),
            cell("partition"),
            cell("node"),
            cell("state"),
            cell("mailbox"),
            cell("objects"),
            vnode["bytes"].as_u64().map(size).unwrap_or_default(),
            cell("version"),
            cell("traps"),
            cell("restarts"),
        ]);
    }
    table
}

/// A JSON value as a cell.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
