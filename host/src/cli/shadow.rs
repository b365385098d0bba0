//! `host guest shadow`: a version on live commands whose effects are thrown away, and how it compares.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::args;
use super::client::Client;
use super::output::Session;
use super::report::{Exit, Failure};
use super::rollout::{Released, TAKE_IN, component, service_of};
use super::services;
use super::table::{Table, size};

/// How often the node is asked what was seen.
const EVERY: Duration = Duration::from_millis(200);

/// The answer of `/v1/services/{service}/shadow`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Report {
    service: String,
    state: String,
    why: Option<String>,
    running: Released,
    shadow: Released,
    partitions: Vec<u16>,
    ran_milliseconds: u64,
    total: Tally,
    commands: Vec<Command>,
    not_compared: Vec<Reason>,
    examples: Vec<Example>,
    memory_bytes: Memory,
    vnodes: Vec<VnodeView>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tally {
    compared: u64,
    differ: u64,
    replies_differ: u64,
    effects_differ: u64,
    errors: u64,
    traps: u64,
    overruns: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Command {
    command: String,
    #[serde(flatten)]
    tally: Tally,
    microseconds: Sides<Times>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sides<T> {
    running: T,
    shadow: T,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Times {
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    command: String,
    why: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Example {
    command: String,
    key: String,
    what: String,
    running: String,
    shadow: String,
}

type Memory = Sides<u64>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct VnodeView {
    partition: u16,
    state: String,
    why: Option<String>,
}

/// Begins a shadow and waits for its end; without a file shows what runs, or ran last.
pub(super) fn shadow(session: &mut Session<'_>, wish: &args::Shadow) -> anyhow::Result<Exit> {
    let client = session.client_within(session.timeout().unwrap_or(TAKE_IN))?;
    let service = match (&wish.service, &wish.file) {
        (Some(service), _) => service.clone(),
        (None, Some(file)) => service_of(&client, file)?,
        (None, None) => tried_service(&client)?,
    };
    let path = path_of(&service);
    let body = match &wish.file {
        Some(file) => tried(session, &client, &path, file, wish)?,
        None if wish.stop => client.delete(&path)?,
        None => client.get(&path, &[])?,
    };
    let report: Report = client.view(body.clone())?;
    if session.wants_json() {
        session.print_json(&body)?;
    } else {
        let text = text(session, &report);
        session.print(&text)?;
    }
    verdict(&report, wish.file.is_some())
}

/// Has the node try the component in a file, and waits until it has.
fn tried(
    session: &mut Session<'_>,
    client: &Client,
    path: &str,
    file: &Path,
    wish: &args::Shadow,
) -> anyhow::Result<Value> {
    let mut query = Vec::new();
    if let Some(partitions) = &wish.partitions {
        let words: Vec<String> = partitions.iter().map(u16::to_string).collect();
        query.push(("partitions", words.join(",")));
    }
    if let Some(share) = wish.share {
        query.push(("share", share.to_string()));
    }
    if let Some(within) = wish.within {
        query.push(("for_ms", within.as_millis().to_string()));
    }
    let mut body = client.post_bytes(path, &query, &component(file)?)?;
    if !session.wants_json() {
        let begun: Report = client.view(body.clone())?;
        session.print(&format!("{}\n", head(&begun)))?;
    }
    while body.get("state").and_then(Value::as_str) == Some("running") {
        std::thread::sleep(EVERY);
        body = client.get(path, &[])?;
    }
    Ok(body)
}

/// The only service of the node, else the only one of which a version was tried.
fn tried_service(client: &Client) -> anyhow::Result<String> {
    let body: services::Body = client.view(client.get("/v1/services", &[])?)?;
    let mut names: Vec<String> = body.services.into_iter().map(|one| one.name).collect();
    if names.len() > 1 {
        names.retain(|name| client.get(&path_of(name), &[]).is_ok());
    }
    match names.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::new("no version was tried on this node")
            .next("`host guest shadow FILE` begins it")
            .into()),
        several => Err(Failure::usage(format!(
            "versions of several services were tried: {}",
            several.join(", ")
        ))
        .next("say --service NAME")
        .into()),
    }
}

fn path_of(service: &str) -> String {
    format!("/v1/services/{service}/shadow")
}

/// Scripts go by the exit code, so a version that does something else, or was not seen to do anything, is a failure.
fn verdict(report: &Report, is_over: bool) -> anyhow::Result<Exit> {
    let Tally {
        compared,
        differ,
        traps,
        overruns,
        ..
    } = report.total;
    if differ + traps + overruns > 0 {
        return Ok(Exit::Failed);
    }
    if compared == 0 && is_over {
        // "0 differ" would read as a pass.
        return Err(Failure::new("no command was compared")
            .next("choose partitions that are asked for something (--partitions, --share), or a longer time (--for)")
            .into());
    }
    Ok(Exit::Ok)
}

fn head(report: &Report) -> String {
    let listed: Vec<String> = report.partitions.iter().map(u16::to_string).collect();
    let partitions = match listed.len() {
        0..=8 => format!("partitions {}", listed.join(", ")),
        many => format!("{many} partitions"),
    };
    let (running, shadow) = (&report.running.version, &report.shadow.version);
    let service = &report.service;
    format!("{service} {running}, beside it {shadow}   {partitions}")
}

fn text(session: &Session<'_>, report: &Report) -> String {
    let ran = Duration::from_secs(report.ran_milliseconds / 1000);
    let ran = humantime::format_duration(ran);
    let state = match &report.why {
        Some(why) => format!("{}: {why}", report.state),
        None => report.state.clone(),
    };
    let mut text = format!("{}   {ran}   {state}\n", session.strong(&head(report)));
    text.push_str(&commands(&report.commands).to_string());
    let mut line = |label: &str, words: String| text.push_str(&format!("{label:<10} {words}\n"));
    for example in &report.examples {
        let Example {
            command,
            key,
            what,
            running,
            shadow,
        } = example;
        line(
            "differs",
            format!("{command} {key}   {what} {running}, beside {shadow}"),
        );
    }
    for vnode in report.vnodes.iter().filter(|vnode| vnode.why.is_some()) {
        let why = vnode.why.as_deref().unwrap_or_default();
        line(
            "failed",
            format!("partition {} {}: {why}", vnode.partition, vnode.state),
        );
    }
    for left_out in &report.not_compared {
        line(
            "left out",
            format!("{}: {}", left_out.command, left_out.why),
        );
    }
    let Memory { running, shadow } = report.memory_bytes;
    line(
        "memory",
        format!(
            "{}, beside {}, at most, of an instance",
            size(running),
            size(shadow)
        ),
    );
    let Tally {
        compared,
        differ,
        replies_differ,
        effects_differ,
        errors,
        traps,
        overruns,
    } = report.total;
    text.push_str(&format!(
        "{compared} compared, {differ} differ ({replies_differ} replies, {effects_differ} effects), {errors} refused, {traps} trapped, {overruns} too slow\n"
    ));
    text
}

fn commands(commands: &[Command]) -> Table {
    let mut table = Table::new(&[
        "COMMAND",
        ">COMPARED",
        ">REPLIES",
        ">EFFECTS",
        ">REFUSED",
        ">TRAPS",
        ">SLOW",
        ">P50",
        ">BESIDE",
        ">P99",
        ">BESIDE",
    ]);
    let us = |value: Option<f64>| value.map_or_else(String::new, |us| format!("{us:.1}us"));
    for Command {
        command,
        tally,
        microseconds: Sides { running, shadow },
    } in commands
    {
        table.row([
            command.clone(),
            tally.compared.to_string(),
            tally.replies_differ.to_string(),
            tally.effects_differ.to_string(),
            tally.errors.to_string(),
            tally.traps.to_string(),
            tally.overruns.to_string(),
            us(running.p50),
            us(shadow.p50),
            us(running.p99),
            us(shadow.p99),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::FakeNode;
    use super::*;

    fn report(state: &str, differ: u64) -> Value {
        let total = json!({"compared": 40, "differ": differ, "replies_differ": differ});
        let mut row = total.clone();
        row["command"] = json!("GET");
        row["microseconds"] =
            json!({"running": {"p50": 1.25, "p99": 2.0}, "shadow": {"p50": 3.0, "p99": null}});
        json!({
            "service": "kv", "state": state, "running": {"version": "1"}, "shadow": {"version": "2"},
            "partitions": [3, 7], "ran_milliseconds": 30_100, "total": total, "commands": [row],
            "examples": [{"command": "GET", "key": "k7", "what": "reply", "running": "5", "shadow": "6"}],
            "not_compared": [{"command": "TTL", "why": "only the new version has it"}],
            "memory_bytes": {"running": 1024, "shadow": 2048},
            "vnodes": [{"partition": 3, "state": "given up", "why": "GET: guest used its budget"}],
        })
    }

    #[test]
    fn a_version_is_tried_until_its_time_is_over_and_what_differs_is_an_exit_code() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut ended = report("ended", 4);
        ended["why"] = json!("its time is over");
        let node = FakeNode::with(&[report("running", 0), report("running", 2), ended]);
        let line = format!(
            "host guest shadow {} --service kv --partitions 3,7 --for 30s",
            file.path().display()
        );
        let (exit, output, asked) = node.run(&line);
        assert_eq!(exit.unwrap(), Exit::Failed);
        assert_eq!(
            output,
            "\
kv 1, beside it 2   partitions 3, 7
kv 1, beside it 2   partitions 3, 7   30s   ended: its time is over
COMMAND  COMPARED  REPLIES  EFFECTS  REFUSED  TRAPS  SLOW    P50  BESIDE    P99  BESIDE
GET            40        4        0        0      0     0  1.2us   3.0us  2.0us       -
differs    GET k7   reply 5, beside 6
failed     partition 3 given up: GET: guest used its budget
left out   TTL: only the new version has it
memory     1.0 KiB, beside 2.0 KiB, at most, of an instance
40 compared, 4 differ (4 replies, 0 effects), 0 refused, 0 trapped, 0 too slow
"
        );
        let path = "/v1/services/kv/shadow?partitions=3%2C7&for_ms=30000";
        assert!(asked[0].0.contains(path), "{asked:?}");
    }

    #[test]
    fn a_version_that_nobody_asked_anything_has_not_passed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let node = FakeNode::with(&[json!({"state": "ended"})]);
        let line = format!("host guest shadow {} --service kv", file.path().display());
        let error = node.run(&line).0.unwrap_err();
        assert!(error.to_string().contains("no command was compared"));
    }
}
