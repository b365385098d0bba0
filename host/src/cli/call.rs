//! `host call`: one command of a guest, for those without a Redis client.

use std::ffi::OsString;
use std::io::IsTerminal;

use serde_json::{Value, json};

use super::args::Call;
use super::output::Session;
use super::reply;
use super::report::{Exit, Failure};
use super::services::{Body, Service};
use super::table::Table;

/// Finds the service, runs the command, prints the reply.
pub(super) fn call(session: &mut Session<'_>, args: &Call) -> anyhow::Result<Exit> {
    let mut words = args.words.iter();
    let name = words
        .next()
        .map(|word| word.to_string_lossy().into_owned())
        .unwrap_or_default();
    let client = session.client()?;
    let body: Body = client.view(client.get("/v1/services", &[])?)?;
    let (service, command) = find(&body.services, &name)?;
    let path = format!("/v1/services/{service}/commands/{command}");
    let words: Vec<Value> = words.map(|word| reply::encode(&bytes(word))).collect();
    let mut call = json!({ "args": words });
    if let (true, Value::Object(call)) = (args.trace, &mut call) {
        call.insert("trace".into(), true.into());
    }
    let body = client.post(&path, &call)?;
    let value = body.get("value").unwrap_or(&Value::Null);
    if session.wants_json() {
        session.print_json(&body)?;
    } else if std::io::stdout().is_terminal() {
        session.print(&reply::pretty(value))?;
    } else {
        session.out.write_all(&reply::raw(value))?;
    }
    if args.trace && !session.wants_json() {
        session.print(&trace(&body))?;
    }
    Ok(if reply::is_error(value) {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

/// A line for each vnode that had a part.
fn trace(body: &Value) -> String {
    let mut table = Table::new(&[
        "NODE",
        "PARTITION",
        "KIND",
        "OUTCOME",
        "MICROSECONDS",
        "VERSION",
    ]);
    let replicas = body.get("replicas").and_then(Value::as_array);
    for replica in replicas.into_iter().flatten() {
        let cell = |name| match replica.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "-".into(),
            Some(other) => other.to_string(),
        };
        let names = [
            "node",
            "partition",
            "kind",
            "outcome",
            "microseconds",
            "version",
        ];
        table.row(names.map(cell));
    }
    table.to_string()
}

/// The bytes that the shell gave.
#[cfg(unix)]
fn bytes(word: &OsString) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    word.as_bytes().to_vec()
}

/// The bytes that the shell gave; elsewhere arguments are text.
#[cfg(not(unix))]
fn bytes(word: &OsString) -> Vec<u8> {
    word.to_string_lossy().into_owned().into_bytes()
}

/// Service and command for `SERVICE.COMMAND`, else for the first service with a command of that name.
fn find<'a>(services: &'a [Service], name: &str) -> Result<(&'a str, &'a str), Failure> {
    let of = |service: &'a Service, name: &str| {
        let mut commands = service.commands.iter();
        let found = commands.find(|command| command.name.eq_ignore_ascii_case(name));
        found.map(|command| (service.name.as_str(), command.name.as_str()))
    };
    let qualified = name.split_once('.').and_then(|(prefix, command)| {
        let service = services
            .iter()
            .find(|service| service.name.eq_ignore_ascii_case(prefix));
        service.and_then(|service| of(service, command))
    });
    let short = || services.iter().find_map(|service| of(service, name));
    qualified.or_else(short).ok_or_else(|| {
        let names = services
            .iter()
            .flat_map(|service| &service.commands)
            .map(|command| command.name.as_str());
        let known: Vec<&str> = names.take(24).collect();
        let next = if known.is_empty() {
            "this node serves no guest".to_owned()
        } else {
            format!(
                "this node has {}; `host guest show` explains them",
                known.join(" ")
            )
        };
        Failure::new(format!("unknown command {name:?}")).next(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_either_name_in_any_case() {
        let body: Body = serde_json::from_value(json!({"services": [
            {"name": "kv", "commands": [{"name": "GET"}, {"name": "A.B"}]},
            {"name": "ping", "commands": [{"name": "PING"}, {"name": "GET"}]},
        ]}))
        .unwrap();
        let find = |name| find(&body.services, name).ok();
        assert_eq!(find("get"), Some(("kv", "GET")));
        assert_eq!(find("PING.get"), Some(("ping", "GET")));
        assert_eq!(find("ping"), Some(("ping", "PING")));
        assert_eq!(find("kv.a.b"), Some(("kv", "A.B")));
        assert_eq!(find("a.b"), Some(("kv", "A.B")));
        assert_eq!(find("kv.ping"), None);
        assert_eq!(find(""), None);
    }
}
