//! `host config`: every setting with its default, the check of a file, and what is in force and why.

use std::path::Path;

use serde_json::json;

use super::output::Session;
use super::report::Exit;
use super::run_args::RunArgs;
use super::table::Table;
use crate::config::{Config, FileContents, Kind, Layers, Origin, SETTINGS, Setting};

/// A file with every setting, each as a comment.
pub(super) fn default(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    if session.wants_json() {
        return values(session, &Config::default());
    }
    session.print(&default_file())?;
    Ok(Exit::Ok)
}

fn default_file() -> String {
    let mut text = String::from(
        "# Settings of a node. Each is also a flag (--ring-size) and an environment variable (VNODE_RING_SIZE);\n\
         # flags win over variables, variables over this file. What is commented out has its default.\n",
    );
    let (limits, own): (Vec<_>, Vec<_>) = SETTINGS
        .iter()
        .partition(|setting| setting.key.starts_with("limits."));
    for setting in own {
        text.push_str(&entry(setting, setting.key));
    }
    text.push_str("\n[limits]\n");
    for setting in limits {
        text.push_str(&entry(setting, setting.flag.replace('-', "_").as_str()));
    }
    text.push_str(
        "\n# Replication of one service, by its name; what is left out is its guest's wish, then n, r and w above.\n\
         # [service.kv]\n# n = 3\n# r = 2\n# w = 2\n\
         # pr = 0   # so many of r have to be primaries; pw of w\n# pw = 0\n\
         # dw = 0   # so many of w have it on disk\n\
         # node_confirms = 0   # on so many different nodes; 0: as many as w, of those that can be reached\n\
         # request_timeout = \"1s\"\n\
         # last_write_wins = false   # true loses all but one of concurrent writes\n",
    );
    text
}

fn entry(setting: &Setting, name: &str) -> String {
    let value = (setting.show)(&Config::default());
    let value = match setting.kind {
        Kind::Number | Kind::Switch => value,
        Kind::List => "[\"kv\"]".into(),
        _ => toml::Value::from(value).to_string(),
    };
    format!("\n# {}\n#{name} = {value}\n", setting.help)
}

/// Reads a file as a node would.
pub(super) fn check(session: &mut Session<'_>, file: &Path) -> anyhow::Result<Exit> {
    let contents = FileContents::read(file)?;
    let config = Config::resolve(&Layers {
        file: contents,
        ..Layers::default()
    })?;
    let set = SETTINGS
        .iter()
        .filter(|setting| config.origin(setting.key) != Origin::Default)
        .count();
    if session.wants_json() {
        session.print_json(&json!({ "file": file, "ok": true, "settings": set, "services": config.services.len() }))?;
    } else {
        let ok = session.good("ok");
        let services = config.services.len();
        session.print(&format!(
            "{ok}  {}: {set} settings, {services} services\n",
            file.display()
        ))?;
    }
    Ok(Exit::Ok)
}

/// Effective values and where each came from.
pub(super) fn show(session: &mut Session<'_>, run: &RunArgs) -> anyhow::Result<Exit> {
    let config = run.resolve()?;
    if session.wants_json() {
        return values(session, &config);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "ORIGIN"]);
    for setting in SETTINGS {
        table.row([
            setting.key.into(),
            effective(setting, &config),
            config.origin(setting.key).to_string(),
        ]);
    }
    for (service, settings) in &config.services {
        let quorum = settings.quorum;
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let lossy = settings.last_write_wins.then(|| "true".to_owned());
        let time = settings.request_timeout.map(humantime::format_duration);
        let mut demands = settings.demands;
        let demands = demands.named().map(|(name, value)| {
            let value = (*value > 0).then(|| value.to_string());
            (name, value)
        });
        let rest = [
            ("request_timeout", time.map(|time| time.to_string())),
            ("last_write_wins", lossy),
        ];
        let numbers = [
            ("n", number(quorum.n)),
            ("r", number(quorum.r)),
            ("w", number(quorum.w)),
        ];
        for (name, value) in numbers.into_iter().chain(demands).chain(rest) {
            if let Some(value) = value {
                table.row([format!("service.{service}.{name}"), value, "file".into()]);
            }
        }
    }
    session.print(&table.to_string())?;
    Ok(Exit::Ok)
}

/// The value in force; what follows from other settings is shown, not left out.
fn effective(setting: &Setting, config: &Config) -> String {
    let shown = (setting.show)(config);
    match setting.key {
        // With port 0 the system has yet to pick.
        "name" if shown.is_empty() => match config.peer.port() {
            0 => "node@<peer address>".into(),
            _ => config.node_name(config.peer),
        },
        "data" if shown.is_empty() => {
            let name = match (&config.name, config.peer.port()) {
                (None, 0) => "<name>".into(),
                _ => config.node_name(config.peer),
            };
            format!("./{}", config.data_dir(&name).display())
        }
        _ => shown,
    }
}

fn values(session: &mut Session<'_>, config: &Config) -> anyhow::Result<Exit> {
    let settings: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            let origin = config.origin(setting.key).to_string();
            json!({
                "key": setting.key, "value": effective(setting, config), "origin": origin,
                "flag": format!("--{}", setting.flag), "env": setting.env, "help": setting.help,
            })
        })
        .collect();
    session.print_json(&json!({ "settings": settings, "services": config.services }))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_the_defaults_commented_or_not() {
        let file = default_file();
        let parse = |text: &str| {
            let contents = FileContents::parse(Path::new("default.toml"), text).unwrap();
            Config::resolve(&Layers {
                file: contents,
                ..Layers::default()
            })
            .unwrap()
        };
        assert_eq!(parse(&file), Config::default());
        // What has no default is an empty text there, which only stands for its place.
        let live = |line: &str| {
            line.starts_with('#') && !line.starts_with("# ") && !line.ends_with(" = \"\"")
        };
        let lines: Vec<&str> = file
            .lines()
            .map(|line| if live(line) { &line[1..] } else { line })
            .collect();
        let config = parse(&lines.join("\n"));
        for setting in SETTINGS.iter().filter(|setting| setting.key != "vnode") {
            assert_eq!(
                (setting.show)(&config),
                (setting.show)(&Config::default()),
                "{}",
                setting.key
            );
            let empty = (setting.show)(&config).is_empty();
            assert_eq!(
                config.origin(setting.key) == Origin::Default,
                empty,
                "{}",
                setting.key
            );
        }
        assert_eq!(config.vnodes.len(), 1);
    }
}
