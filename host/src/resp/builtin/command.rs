//! COMMAND and its subcommands, and VNODE.HELP.

use super::{After, Call, TABLE};
use crate::resp::catalog::Target;
use crate::resp::command_docs::{Entry, entries, entry};
use crate::resp::glob;
use crate::resp::value::Value;
use crate::resp::write;

pub(super) fn all(call: &mut Call<'_>) -> After {
    let entries = entries(call.facts.catalog)
        .iter()
        .map(Entry::info)
        .collect();
    call.reply(&Value::Array(entries))
}

pub(super) fn count(call: &mut Call<'_>) -> After {
    write::count(call.out, entries(call.facts.catalog).len());
    After::Continue
}

pub(super) fn info(call: &mut Call<'_>) -> After {
    if call.words.len() == 2 {
        return all(call);
    }
    let catalog = call.facts.catalog;
    let names = call.words.skip(2);
    let infos = names
        .iter()
        .map(|name| entry(catalog, name).map_or(Value::Nil, |e| e.info()));
    call.reply(&Value::Array(infos.collect()))
}

pub(super) fn docs(call: &mut Call<'_>) -> After {
    let catalog = call.facts.catalog;
    let names = call.words.skip(2);
    let entries = if names.is_empty() {
        entries(catalog)
    } else {
        names
            .iter()
            .filter_map(|name| entry(catalog, name))
            .collect()
    };
    let version = call.facts.version;
    let docs = entries
        .iter()
        .map(|entry| (entry.name.as_str().into(), entry.docs(version)));
    call.reply(&Value::Map(docs.collect()))
}

pub(super) fn list(call: &mut Call<'_>) -> After {
    let filter = match call.words.len() {
        2 => None,
        5 if call.is(2, "FILTERBY") => Some(call.word(4)),
        _ => return call.err("syntax error"),
    };
    let mut entries = entries(call.facts.catalog);
    if let Some(filter) = filter {
        if call.is(3, "MODULE") {
            entries.retain(|entry| entry.module.is_some_and(|name| name.as_bytes() == filter));
        } else if call.is(3, "ACLCAT") {
            let category = [b"@", filter].concat();
            let has = |name: &str| name.as_bytes().eq_ignore_ascii_case(&category);
            entries.retain(|entry| entry.categories().iter().any(|name| has(name)));
        } else if call.is(3, "PATTERN") {
            entries.retain(|entry| glob::matches(filter, entry.name.as_bytes()));
        } else {
            return call.err("syntax error");
        }
    }
    call.reply(&Value::array(entries.into_iter().map(|entry| entry.name)))
}

pub(super) fn getkeys(call: &mut Call<'_>) -> After {
    let words = call.words.skip(2);
    let Some(target) = words.get(0).and_then(|name| call.facts.catalog.find(name)) else {
        return call.err("Invalid command specified");
    };
    let (fits, positions): (bool, Vec<usize>) = match target {
        Target::Builtin(builtin) => {
            let positions = builtin
                .key
                .iter()
                .map(|position| *position as usize)
                .collect();
            (super::fits(builtin.arity, words.len()), positions)
        }
        Target::Guest(guest) => match call.facts.catalog.guest(guest) {
            Some((_, spec)) => (
                spec.takes(words.len()),
                spec.key_positions(words.len()).collect(),
            ),
            None => (false, Vec::new()),
        },
    };
    if !fits {
        return call.err("Invalid number of arguments specified for command");
    }
    if positions.is_empty() {
        return call.err("The command has no key arguments");
    }
    let keys = positions
        .into_iter()
        .filter_map(|position| words.get(position))
        .map(Value::bulk);
    call.reply(&Value::Array(keys.collect()))
}

pub(super) fn help(call: &mut Call<'_>) -> After {
    call.help(
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return details about all commands.",
            "COUNT",
            "    Return the total number of commands.",
            "LIST [FILTERBY (MODULE <service>|ACLCAT <category>|PATTERN <pattern>)]",
            "    Return a list of all commands.",
            "INFO [<command-name> ...]",
            "    Return details about multiple commands, or about all.",
            "DOCS [<command-name> ...]",
            "    Return documentation of multiple commands, or of all.",
            "GETKEYS <full-command>",
            "    Return the keys from a full command.",
        ],
    )
}

/// What this node offers beyond Redis, for people.
pub(super) fn vnode_help(call: &mut Call<'_>) -> After {
    let ours = TABLE
        .iter()
        .filter(|builtin| builtin.group == "vnode")
        .map(|builtin| {
            describe(
                &builtin.name.to_ascii_uppercase(),
                builtin.syntax,
                builtin.summary,
            )
        });
    let catalog = call.facts.catalog;
    let guests = catalog.services().iter().flat_map(|service| {
        let title = format!("Service {} {}:", service.name, service.version);
        let commands = service.commands.iter().map(|command| {
            let name = format!("{}.{}", service.name.to_ascii_uppercase(), command.name);
            describe(&name, &command.syntax, &command.summary)
        });
        std::iter::once(title).chain(commands)
    });
    let title = std::iter::once("Commands of the node:".to_owned());
    let last = "COMMAND DOCS has all commands, HELP <command> in redis-cli shows one.".to_owned();
    let lines = title.chain(ours).chain(guests).chain([last]);
    call.reply(&Value::Array(lines.map(Value::simple).collect()))
}

fn describe(name: &str, syntax: &str, summary: &str) -> String {
    let gap = if syntax.is_empty() { "" } else { " " };
    format!("    {name}{gap}{syntax}: {summary}")
}
