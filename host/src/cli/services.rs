//! `host guest show`, and the table of commands that `host inspect` prints too.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::client::Client;
use super::output::Session;
use super::report::Exit;
use super::rollout::{Released, Rollout, rollout_text};
use super::table::{Table, optional};

/// The answer of `/v1/services`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Body {
    pub(super) services: Vec<Service>,
}

/// One service.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) name: String,
    version: String,
    pub(super) digest: String,
    pub(super) commands: Vec<CommandView>,
    n: Option<u32>,
    r: Option<u32>,
    w: Option<u32>,
    merge: String,
    schema_reads_from: u32,
    schema_writes: u32,
    versions: Option<Versions>,
}

/// Which versions of a service the cluster runs.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Versions {
    /// How many partitions run each.
    running: BTreeMap<String, usize>,
    past: Vec<Released>,
    rollout: Option<Value>,
}

impl Service {
    /// Whether a rollout of it is not over.
    pub(super) fn is_moving(&self) -> bool {
        let rollout = self.versions.as_ref().and_then(|one| one.rollout.as_ref());
        let state = rollout.and_then(|rollout| rollout["state"].as_str());
        state.is_some_and(|state| !matches!(state, "finalized" | "rolled-back"))
    }
}

/// A command as the API shows it; the same keys as `descriptor::CommandSpec`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CommandView {
    pub(super) name: String,
    summary: String,
    syntax: String,
    arity: i32,
    kind: String,
    keys: Option<Keys>,
    n: Option<u32>,
    r: Option<u32>,
    w: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    first: u32,
    last: i32,
    step: u32,
}

/// All guests of the node.
pub(super) fn show(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.get("/v1/services", &[])?;
    if session.wants_json() {
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let body: Body = client.view(body)?;
    for (at, service) in body.services.iter().enumerate() {
        let gap = if at > 0 { "\n" } else { "" };
        let text = text(session, service);
        session.print(&format!("{gap}{text}"))?;
        if let Some(versions) = &service.versions {
            let text = versions_text(&client, &service.name, versions)?;
            session.print(&text)?;
        }
    }
    Ok(Exit::Ok)
}

/// What runs where, and how far the last rollout is.
fn versions_text(client: &Client, service: &str, versions: &Versions) -> anyhow::Result<String> {
    let running = versions.running.iter();
    let running: Vec<String> = running
        .map(|(version, partitions)| format!("{version} on {partitions} partitions"))
        .collect();
    let mut text = format!("runs       {}\n", running.join(", "));
    let past: Vec<&str> = versions
        .past
        .iter()
        .map(|one| one.version.as_str())
        .collect();
    if !past.is_empty() {
        text.push_str(&format!("before     {}\n", past.join(", ")));
    }
    if versions.rollout.is_some() {
        let path = format!("/v1/services/{service}/rollouts/current");
        let rollout: Rollout = client.view(client.get(&path, &[])?)?;
        text.push_str(&rollout_text(&rollout));
    }
    Ok(text)
}

fn text(session: &Session<'_>, service: &Service) -> String {
    let title = session.strong(&format!("{} {}", service.name, service.version));
    let number =
        |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    format!(
        "{title}   sha256 {}\nn={} r={} w={}   merge {}   schema writes {}, reads from {}\n{}",
        service.digest,
        number(service.n),
        number(service.r),
        number(service.w),
        service.merge,
        service.schema_writes,
        service.schema_reads_from,
        commands(&service.commands)
    )
}

/// One line for each command; a number that is not the command's own is `-`.
pub(super) fn commands(commands: &[CommandView]) -> Table {
    let mut table = Table::new(&[
        "COMMAND", ">ARITY", "KIND", "KEY", ">N", ">R", ">W", "SUMMARY",
    ]);
    for command in commands {
        let syntax = if command.syntax.is_empty() {
            String::new()
        } else {
            format!(" [{}]", command.syntax)
        };
        table.row([
            command.name.clone(),
            command.arity.to_string(),
            command.kind.clone(),
            command.keys.as_ref().map(Keys::text).unwrap_or_default(),
            optional(command.n),
            optional(command.r),
            optional(command.w),
            format!("{}{syntax}", command.summary),
        ]);
    }
    table
}

impl Keys {
    /// `1`, `1..-1`, or `1..-1/2` when keys and values take turns.
    fn text(&self) -> String {
        let single = i64::from(self.first) == i64::from(self.last);
        match (single, self.step) {
            (true, _) => self.first.to_string(),
            (false, 0 | 1) => format!("{}..{}", self.first, self.last),
            (false, step) => format!("{}..{}/{step}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_line_up() {
        let json = serde_json::json!([
            {"name": "GET", "arity": 2, "kind": "read", "keys": {"first": 1, "last": 1, "step": 1, "prefix": ""},
             "r": 2, "summary": "Value of key", "syntax": "key"},
            {"name": "MSET", "arity": -3, "kind": "write", "keys": {"first": 1, "last": -1, "step": 2}, "summary": "Set"},
            {"name": "KEYS", "arity": -1, "kind": "coverage", "keys": null, "n": null, "summary": "", "syntax": ""},
        ]);
        let views: Vec<CommandView> = serde_json::from_value(json).unwrap();
        assert_eq!(
            commands(&views).to_string(),
            "\
COMMAND  ARITY  KIND      KEY      N  R  W  SUMMARY
GET          2  read      1        -  2  -  Value of key [key]
MSET        -3  write     1..-1/2  -  -  -  Set
KEYS        -1  coverage  -        -  -  -  -
"
        );
    }
}
