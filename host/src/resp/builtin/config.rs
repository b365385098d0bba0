//! CONFIG: the node's settings, and what Redis' tools ask for before they start.

use super::{After, Call};
use crate::resp::glob;
use crate::resp::value::Value;

/// Settings of Redis that its tools ask for, with what is true here: nothing is saved in Redis' ways.
const REDIS: &[(&str, &str)] = &[
    ("appendonly", "no"),
    ("databases", "1"),
    ("io-threads", "1"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("save", ""),
    ("timeout", "0"),
];

pub(super) fn get(call: &mut Call<'_>) -> After {
    let mut settings = (call.facts.settings)();
    for (name, value) in REDIS {
        if !settings.iter().any(|(known, _)| known == name) {
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    let patterns = call.words.skip(2);
    settings.retain(|(name, _)| {
        patterns
            .iter()
            .any(|pattern| glob::matches(pattern, name.as_bytes()))
    });
    let pairs = settings
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    call.reply(&Value::Map(pairs.collect()))
}

pub(super) fn refuse(call: &mut Call<'_>) -> After {
    call.err(
        "settings are fixed when the node starts: as a flag, as VNODE_* in the environment or in the --config file; \
         'host config show' lists them",
    )
}

pub(super) fn help(call: &mut Call<'_>) -> After {
    call.help(
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Refused: settings are fixed when the node starts.",
        ],
    )
}
