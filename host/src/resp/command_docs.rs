//! What COMMAND says of a command, built-in or a guest's: the shapes of COMMAND INFO and COMMAND DOCS.
//!
//! Pure description; who answers to a name is [`super::catalog`]'s to say.

use crate::descriptor::{CommandKind, CommandSpec, Descriptor, KeyRange};

use super::builtin::{Builtin, Gate, TABLE};
use super::catalog::{Catalog, Target};
use super::syntax;
use super::value::Value;

/// One command under one of its names.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: String,
    /// The service; `None` for a built-in.
    pub(super) module: Option<&'a str>,
    arity: i32,
    group: &'a str,
    summary: &'a str,
    syntax: &'a str,
    /// Version of the guest.
    since: Option<&'a str>,
    flags: Vec<&'static str>,
    keys: Option<Keys>,
    subcommands: &'static [Builtin],
}

#[derive(Clone, Copy, Debug)]
struct Keys {
    first: i64,
    last: i64,
    step: i64,
}

/// All commands: built-ins, then guests' in order, each under all its names.
pub(super) fn entries(catalog: &Catalog) -> Vec<Entry<'_>> {
    let guests = catalog.listed().into_iter();
    let guests = guests.map(|listed| Entry::guest(listed.name, listed.service, listed.command));
    TABLE.iter().map(Entry::builtin).chain(guests).collect()
}

/// The command of that name, or the subcommand of a name such as `client|id`.
pub(super) fn entry<'a>(catalog: &'a Catalog, name: &[u8]) -> Option<Entry<'a>> {
    let (command, subcommand) = match name.iter().position(|byte| *byte == b'|') {
        Some(bar) => (name.get(..bar)?, true),
        None => (name, false),
    };
    match catalog.find(command)? {
        Target::Builtin(builtin) if subcommand => {
            let mut subcommands = builtin.subcommands.iter();
            subcommands
                .find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
                .map(Entry::builtin)
        }
        Target::Builtin(builtin) => Some(Entry::builtin(builtin)),
        Target::Guest(_) if subcommand => None,
        Target::Guest(guest) => {
            let (service, spec) = catalog.guest(guest)?;
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            Some(Entry::guest(name, service, spec))
        }
    }
}

impl<'a> Entry<'a> {
    fn builtin(builtin: &'static Builtin) -> Self {
        let mut flags = vec!["noscript", "loading", "stale", "fast"];
        if builtin.before_auth == Gate::Open {
            flags.push("no_auth");
        }
        let keys = builtin.key.map(i64::from);
        Self {
            name: builtin.name.into(),
            module: None,
            arity: builtin.arity,
            group: builtin.group,
            summary: builtin.summary,
            syntax: builtin.syntax,
            since: None,
            flags,
            keys: keys.map(|key| Keys {
                first: key,
                last: key,
                step: 1,
            }),
            subcommands: builtin.subcommands,
        }
    }

    fn guest(name: String, service: &'a Descriptor, command: &'a CommandSpec) -> Self {
        let flags = match command.kind {
            CommandKind::Read | CommandKind::Coverage => vec!["readonly"],
            CommandKind::Write | CommandKind::Each | CommandKind::CoverageWrite => vec!["write"],
            CommandKind::Any => Vec::new(),
        };
        let keys = |keys: &KeyRange| Keys {
            first: keys.first.into(),
            last: keys.last.into(),
            step: keys.step.into(),
        };
        Self {
            name,
            module: Some(&service.name),
            arity: command.arity,
            group: &service.name,
            summary: &command.summary,
            syntax: &command.syntax,
            since: Some(&service.version),
            flags,
            keys: command.keys.as_ref().map(keys),
            subcommands: &[],
        }
    }

    fn writes(&self) -> bool {
        self.flags.contains(&"write")
    }

    /// Categories as Redis' access control lists name them.
    pub(super) fn categories(&self) -> Vec<String> {
        let access = if self.writes() {
            Some("@write")
        } else {
            self.flags.contains(&"readonly").then_some("@read")
        };
        let speed = if self.flags.contains(&"fast") {
            "@fast"
        } else {
            "@slow"
        };
        let group = format!("@{}", self.group.to_ascii_lowercase());
        let names = access.into_iter().chain([speed]).map(str::to_owned);
        names.chain([group]).collect()
    }

    /// The entry of COMMAND INFO: ten elements since Redis 7.
    pub(super) fn info(&self) -> Value {
        let keys = self.keys.unwrap_or(Keys {
            first: 0,
            last: 0,
            step: 0,
        });
        let simple = |text: &&'static str| Value::simple(*text);
        Value::Array(vec![
            self.name.as_str().into(),
            Value::Int(self.arity.into()),
            Value::Set(self.flags.iter().map(simple).collect()),
            Value::Int(keys.first),
            Value::Int(keys.last),
            Value::Int(keys.step),
            Value::Set(self.categories().into_iter().map(Value::Simple).collect()),
            Value::Set(Vec::new()),
            Value::Set(self.keys.iter().map(|keys| self.key_spec(*keys)).collect()),
            Value::Set(
                self.subcommands
                    .iter()
                    .map(|sub| Entry::builtin(sub).info())
                    .collect(),
            ),
        ])
    }

    /// Where the keys are, as Redis 7 says it: `lastkey` counts from the first key, or from the end when negative.
    fn key_spec(&self, keys: Keys) -> Value {
        let flags = if self.writes() {
            ["RW", "update"]
        } else {
            ["RO", "access"]
        };
        let last = if keys.last < 0 {
            keys.last
        } else {
            keys.last - keys.first
        };
        let range = Value::map([
            ("lastkey", Value::Int(last)),
            ("keystep", Value::Int(keys.step)),
            ("limit", Value::Int(0)),
        ]);
        let typed = |kind: &str, spec: Value| Value::map([("type", kind.into()), ("spec", spec)]);
        Value::map([
            ("flags", Value::Set(flags.map(Value::simple).into())),
            (
                "begin_search",
                typed("index", Value::map([("index", Value::Int(keys.first))])),
            ),
            ("find_keys", typed("range", range)),
        ])
    }

    /// The entry of COMMAND DOCS. `version` is the host's, for built-ins.
    pub(super) fn docs(&self, version: &str) -> Value {
        let mut pairs = vec![
            ("summary", self.summary.into()),
            ("since", self.since.unwrap_or(version).into()),
            ("group", self.group.into()),
        ];
        if let Some(module) = self.module {
            pairs.push(("module", module.into()));
        }
        let arguments = syntax::arguments(self.syntax);
        if !arguments.is_empty() {
            pairs.push(("arguments", Value::Array(arguments)));
        }
        if !self.subcommands.is_empty() {
            let doc =
                |sub: &'static Builtin| (Value::bulk(sub.name), Entry::builtin(sub).docs(version));
            pairs.push((
                "subcommands",
                Value::Map(self.subcommands.iter().map(doc).collect()),
            ));
        }
        Value::map(pairs)
    }
}
