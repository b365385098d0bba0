//! `host guest upgrade`, `plan`, `pause`, `advance`, `finalize` and `rollback`: another version of a guest on a serving cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::{Terms, Upgrade};
use super::client::{Client, ClientError};
use super::guest::Inspection;
use super::output::Session;
use super::report::{Exit, Failure};
use super::services;

/// Time of the node to check and compile a component.
pub(super) const TAKE_IN: Duration = Duration::from_secs(120);
/// How often the node is asked how far it is.
const EVERY: Duration = Duration::from_millis(100);
/// What a gate says to whose version too few commands came.
const IDLE: &str = "too little traffic";
/// How long `--wait` waits at most when nobody says.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The answer of `…/rollouts/current`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Rollout {
    id: u64,
    service: String,
    from: Released,
    to: Released,
    state: String,
    stage: String,
    moved: usize,
    partitions: usize,
    waits_for: Vec<String>,
    unreachable: Vec<String>,
    paused: Option<String>,
    why: Option<String>,
    gate: Option<Gate>,
    soak_milliseconds: u64,
}

/// A version.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Released {
    schema_writes: u32,
    pub(super) version: String,
    digest: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Gate {
    state: String,
    text: String,
    watched_milliseconds: u64,
    new: Counted,
    old: Counted,
    compared: Compared,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Compared {
    compared: u64,
    differ: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counted {
    commands: u64,
    errors: u64,
    traps: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Plan {
    service: String,
    from: Released,
    to: Released,
    changes: Changes,
    way_back: bool,
    migrates: bool,
    canaries: Vec<u16>,
    stages: Vec<Stage>,
    soak_milliseconds: u64,
    warnings: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<Changed>,
    needs_force: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Changed {
    command: String,
    what: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stage {
    stage: String,
    partitions: usize,
}

/// `host guest plan`.
pub(super) fn plan(session: &mut Session<'_>, file: &Path, terms: &Terms) -> anyhow::Result<Exit> {
    let client = session.client_within(session.timeout().unwrap_or(TAKE_IN))?;
    let body = send_file(&client, file, terms, true)?;
    if session.wants_json() {
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let plan: Plan = client.view(body)?;
    let text = plan_text(session, &plan);
    session.print(&text)?;
    Ok(Exit::Ok)
}

/// `host guest upgrade`.
pub(super) fn upgrade(session: &mut Session<'_>, upgrade: &Upgrade) -> anyhow::Result<Exit> {
    let client = session.client_within(session.timeout().unwrap_or(TAKE_IN))?;
    let body = send_file(&client, &upgrade.file, &upgrade.terms, false)?;
    let rollout: Rollout = client.view(body.clone())?;
    if !upgrade.wait {
        return print(session, &rollout, &body);
    }
    follow(session, &client, &rollout)
}

/// `host guest pause`, `advance`, `finalize` and `rollback`.
pub(super) fn act(
    session: &mut Session<'_>,
    action: &str,
    service: Option<&str>,
) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let service = match service {
        Some(service) => service.to_owned(),
        None => moving(&client)?,
    };
    let path = format!("/v1/services/{service}/rollouts/current/{action}");
    let body = client.post(&path, &json!({}))?;
    let rollout: Rollout = client.view(body.clone())?;
    print(session, &rollout, &body)
}

/// The service with a rollout that is not over, or the only one that has had one.
fn moving(client: &Client) -> anyhow::Result<String> {
    let body: services::Body = client.view(client.get("/v1/services", &[])?)?;
    let open = body.services.iter().filter(|service| service.is_moving());
    let open: Vec<&str> = open.map(|service| service.name.as_str()).collect();
    match (open.as_slice(), body.services.as_slice()) {
        ([one], _) => Ok((*one).to_owned()),
        ([], [only]) => Ok(only.name.clone()),
        ([], _) => Err(Failure::new("no rollout is under way")
            .next("`host guest upgrade FILE` begins one; --service says which service is meant")
            .into()),
        (several, _) => {
            let names = several.join(", ");
            Err(
                Failure::usage(format!("several rollouts are under way: {names}"))
                    .next("say --service NAME")
                    .into(),
            )
        }
    }
}

/// Sends the component in a file, to be planned or rolled out.
fn send_file(client: &Client, file: &Path, terms: &Terms, plan: bool) -> anyhow::Result<Value> {
    let bytes = component(file)?;
    let service = match &terms.service {
        Some(service) => service.clone(),
        None => service_of(client, file)?,
    };
    Ok(send(client, &service, &bytes, terms, plan)?)
}

/// The bytes of a component.
pub(super) fn component(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file)
        .with_context(|| format!("cannot read the component\n  in: {}", file.display()))
}

/// Sends a component, to be planned or rolled out for a service.
pub(super) fn send(
    client: &Client,
    service: &str,
    bytes: &[u8],
    terms: &Terms,
    plan: bool,
) -> Result<Value, ClientError> {
    let mut query = Vec::new();
    if let Some(percent) = terms.canary {
        query.push(("canary", percent.to_string()));
    }
    if let Some(soak) = terms.soak {
        query.push(("soak_ms", soak.as_millis().to_string()));
    }
    for (name, wanted) in [
        ("all_at_once", terms.all_at_once),
        ("force", terms.force),
        ("plan", plan),
    ] {
        if wanted {
            query.push((name, "true".to_owned()));
        }
    }
    if let Some(commands) = &terms.expect_divergence {
        query.push(("expect_divergence", commands.clone()));
    }
    let path = format!("/v1/services/{service}/rollouts");
    client.post_bytes(&path, &query, bytes)
}

/// The only service of the node, else the one that the component says it is.
pub(super) fn service_of(client: &Client, file: &Path) -> anyhow::Result<String> {
    let body: services::Body = client.view(client.get("/v1/services", &[])?)?;
    match body.services.as_slice() {
        [only] => Ok(only.name.clone()),
        _ => Ok(Inspection::of(file)?.name),
    }
}

fn print(session: &mut Session<'_>, rollout: &Rollout, body: &Value) -> anyhow::Result<Exit> {
    if session.wants_json() {
        session.print_json(body)?;
    } else {
        session.print(&rollout_text(rollout))?;
    }
    Ok(Exit::Ok)
}

/// Shows how far a rollout is until it is done or back. One that is paused is waited for: somebody may let it go on.
pub(super) fn follow(
    session: &mut Session<'_>,
    client: &Client,
    begun: &Rollout,
) -> anyhow::Result<Exit> {
    let limit = session.timeout().unwrap_or(LIMIT);
    let begin = Instant::now();
    let mut shown = String::new();
    let mut unjudged: Vec<String> = Vec::new();
    let path = format!("/v1/services/{}/rollouts/current", begun.service);
    loop {
        let (body, rollout) = match look(client, &path) {
            Ok(found) => found,
            Err(error) if error.is_passing() && begin.elapsed() < limit => {
                std::thread::sleep(EVERY);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if rollout.id != begun.id {
            return Err(Failure::new("another rollout has begun")
                .next("`host guest show` tells how far it is")
                .into());
        }
        let line = progress(&rollout);
        if line != shown && !session.wants_json() {
            session.print(&format!("{line}\n"))?;
            shown.clone_from(&line);
        }
        if is_idle(&rollout) && !unjudged.contains(&rollout.stage) {
            unjudged.push(rollout.stage.clone());
        }
        let settled = rollout.waits_for.is_empty();
        match rollout.state.as_str() {
            "done" | "finalized" if settled => {
                if !unjudged.is_empty() && !session.wants_json() {
                    let stages = unjudged.join(", ");
                    session.print(&format!("too few commands came to judge it by: {stages}\n"))?;
                }
                return finish(session, &rollout, &body);
            }
            "rolled-back" => {
                finish(session, &rollout, &body)?;
                let why = rollout.why.unwrap_or_default();
                let what = format!("the rollout went back: {why}");
                return Err(Failure::new(what)
                    .next("everything runs the old version; `GET /v1/events` has the course of it")
                    .into());
            }
            _ => {}
        }
        if begin.elapsed() >= limit {
            let limit = humantime::format_duration(limit);
            return Err(Failure::ran_out(format!("not done within {limit}: {line}"))
                .next("it goes on; `host guest show` tells how far it is")
                .into());
        }
        std::thread::sleep(EVERY);
    }
}

fn look(client: &Client, path: &str) -> Result<(Value, Rollout), ClientError> {
    let body = client.get(path, &[])?;
    Ok((body.clone(), client.view(body)?))
}

fn finish(session: &mut Session<'_>, rollout: &Rollout, body: &Value) -> anyhow::Result<Exit> {
    if session.wants_json() {
        session.print_json(body)?;
    } else if rollout.state == "done" {
        let line =
            "`host guest finalize` gives the old version up, `host guest rollback` goes back\n";
        session.print(line)?;
    }
    Ok(Exit::Ok)
}

/// Whether the present stage is about to end unjudged.
fn is_idle(rollout: &Rollout) -> bool {
    rollout.gate.as_ref().is_some_and(|gate| gate.state == IDLE)
}

/// One line on how far it is, the same as long as nothing happens.
fn progress(rollout: &Rollout) -> String {
    let Rollout {
        service,
        stage,
        moved,
        partitions,
        ..
    } = rollout;
    let (from, to) = (&rollout.from.version, &rollout.to.version);
    let head = format!("{service} {from} -> {to}   {stage}   {moved}/{partitions} partitions");
    let mut notes = Vec::new();
    if !rollout.waits_for.is_empty() {
        notes.push(format!("waits for {}", rollout.waits_for.join(", ")));
    }
    if !rollout.unreachable.is_empty() {
        notes.push(format!("without {}", rollout.unreachable.join(", ")));
    }
    if let Some(why) = &rollout.paused {
        notes.push(format!("paused: {why}"));
    }
    if is_idle(rollout) {
        notes.push(IDLE.to_owned());
    }
    if let Some(why) = &rollout.why {
        notes.push(why.clone());
    }
    match notes.is_empty() {
        true => head,
        false => format!("{head}   {}", notes.join("; ")),
    }
}

/// The lines of `host guest show` about a rollout.
pub(super) fn rollout_text(rollout: &Rollout) -> String {
    let mut text = format!("rollout    {}   {}\n", progress(rollout), rollout.state);
    if let Some(gate) = &rollout.gate {
        let soak = humantime::format_duration(Duration::from_millis(rollout.soak_milliseconds));
        let (new, old, both) = (&gate.new, &gate.old, &gate.compared);
        text.push_str(&format!(
            "gate       {}: {}   {} of {soak}   new: {} commands, {} errors, {} traps   old: {}, {}, {}   {} of {} ended otherwise\n",
            gate.state,
            gate.text,
            humantime::format_duration(Duration::from_secs(gate.watched_milliseconds / 1000)),
            new.commands,
            new.errors,
            new.traps,
            old.commands,
            old.errors,
            old.traps,
            both.differ,
            both.compared
        ));
    }
    text
}

fn plan_text(session: &Session<'_>, plan: &Plan) -> String {
    let short = |released: &Released| released.digest.chars().take(12).collect::<String>();
    let title = format!(
        "{} {} -> {}",
        plan.service, plan.from.version, plan.to.version
    );
    let mut text = format!(
        "{}   sha256 {} -> {}\n",
        session.strong(&title),
        short(&plan.from),
        short(&plan.to)
    );
    let mut list = |label: &str, items: &[String]| {
        if !items.is_empty() {
            text.push_str(&format!("{label:<10} {}\n", items.join(", ")));
        }
    };
    list("added", &plan.changes.added);
    list("removed", &plan.changes.removed);
    let changed = plan.changes.changed.iter();
    let changed: Vec<String> = changed
        .map(|one| format!("{} ({})", one.command, one.what.join(", ")))
        .collect();
    list("changed", &changed);
    let (old, new) = (plan.from.schema_writes, plan.to.schema_writes);
    if old != new {
        let how = match (plan.migrates, plan.way_back) {
            (true, true) => {
                "values are migrated when they are read; they are stored anew when it is final"
            }
            (true, false) => {
                "values are migrated when they are read; it stores the new schema at once"
            }
            (false, _) => "values stay as they are until they are written",
        };
        list("schema", &[format!("{old} -> {new}   {how}")]);
    }
    let stages = plan.stages.iter();
    let stages: Vec<String> = stages
        .map(|stage| format!("{}: {} partitions", stage.stage, stage.partitions))
        .collect();
    list("stages", &stages);
    let canaries: Vec<String> = plan.canaries.iter().map(u16::to_string).collect();
    list("canaries", &canaries);
    let soak = humantime::format_duration(Duration::from_millis(plan.soak_milliseconds));
    let back = match plan.way_back {
        true => "any time before it is finalized, without loss",
        false => "none: the old version cannot read what the new one writes",
    };
    text.push_str(&format!("soak       {soak} each\nway back   {back}\n"));
    for warning in &plan.warnings {
        text.push_str(&format!("note       {warning}\n"));
    }
    for reason in &plan.changes.needs_force {
        text.push_str(&format!("{}   {reason}\n", session.bad("--force ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testing::FakeNode;
    use super::*;

    fn rollout(stage: &str, state: &str, moved: usize) -> Value {
        json!({
            "id": 7, "service": "kv", "state": state, "stage": stage, "moved": moved, "partitions": 64,
            "from": {"version": "0.1.0"}, "to": {"version": "0.2.0"}, "waits_for": [],
        })
    }

    #[test]
    fn an_operator_steers_the_rollout_under_way() {
        let services = json!({ "services": [
            {"name": "kv", "versions": {"rollout": {"state": "running"}}},
            {"name": "ping", "versions": null},
        ]});
        let node = FakeNode::with(&[services, rollout("canary", "paused", 3)]);
        let (exit, output, asked) = node.run("host guest pause");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(
            output,
            "rollout    kv 0.1.0 -> 0.2.0   canary   3/64 partitions   paused\n"
        );
        assert!(
            asked[1]
                .0
                .contains("/v1/services/kv/rollouts/current/pause"),
            "{asked:?}"
        );
    }

    #[test]
    fn waiting_shows_each_stage_once_and_fails_when_it_goes_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut back = rollout("rolled-back", "rolled-back", 0);
        back["why"] = json!("canary: 1 of 5 commands trapped");
        let node = FakeNode::with(&[
            rollout("distributing", "running", 0),
            rollout("canary", "running", 3),
            rollout("canary", "running", 3),
            back,
        ]);
        let line = format!(
            "host guest upgrade {} --service kv --wait",
            file.path().display()
        );
        let (exit, output, _) = node.run(&line);
        assert!(
            exit.unwrap_err()
                .to_string()
                .contains("1 of 5 commands trapped")
        );
        assert_eq!(
            output,
            "kv 0.1.0 -> 0.2.0   canary   3/64 partitions\n\
             kv 0.1.0 -> 0.2.0   rolled-back   0/64 partitions   canary: 1 of 5 commands trapped\n"
        );
    }
}
