//! What changes for clients and for stored values when one version of a guest replaces another.
//!
//! A pure comparison of two descriptors. What cannot be undone, or what clients of the old version would stumble over, an operator
//! has to ask for in so many words.

use serde::Serialize;

use super::{CommandSpec, Descriptor};

/// The difference between two versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Commands that only the new version has.
    pub added: Vec<String>,
    /// Commands that only the old version has.
    pub removed: Vec<String>,
    /// Commands of both that differ, and in what.
    pub changed: Vec<Changed>,
    /// Why this needs `--force`; empty if it does not.
    pub needs_force: Vec<String>,
}

/// A command that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its name.
    pub command: String,
    /// In what, each as `arity 2 -> 3`.
    pub what: Vec<String>,
}

impl Changes {
    /// What replacing `old` by `new` changes; the oldest schema in which the new version can have stored what it writes is
    /// `stores_from`.
    pub fn new(old: &Descriptor, new: &Descriptor, stores_from: u32) -> Changes {
        let mut changes = Changes::default();
        for spec in &new.commands {
            match old.command(&spec.name) {
                None => changes.added.push(spec.name.clone()),
                Some((_, before)) => changes.compare(before, spec),
            }
        }
        for spec in &old.commands {
            if new.command(&spec.name).is_none() {
                let name = &spec.name;
                changes.needs_force.push(format!(
                    "command {name} is removed; its clients will be refused"
                ));
                changes.removed.push(spec.name.clone());
            }
        }
        if new.merge != old.merge {
            changes.needs_force.push(format!(
                "concurrent writes are merged by {} instead of {}; replicas of both versions would differ",
                word(&new.merge),
                word(&old.merge)
            ));
        }
        if new.schema_reads_from > old.schema_writes {
            changes.needs_force.push(format!(
                "it reads schemas from {} on, and {} is stored; values would be lost to it",
                new.schema_reads_from, old.schema_writes
            ));
        } else if new.schema_writes < old.schema_writes {
            changes.needs_force.push(format!(
                "it reads schemas up to {}, and {} is stored; it would be refused these values",
                new.schema_writes, old.schema_writes
            ));
        } else if stores_from > old.schema_writes {
            changes.needs_force.push(format!(
                "it stores schema {stores_from}, which the version before reads only up to {}: there is no way back. Let a version that reads both come first, or one that migrates back",
                old.schema_writes
            ));
        }
        changes
    }

    fn compare(&mut self, old: &CommandSpec, new: &CommandSpec) {
        let mut what = Vec::new();
        let mut differs = |name: &str, old: String, new: String| {
            let differs = old != new;
            if differs {
                what.push(format!("{name} {old} -> {new}"));
            }
            differs
        };
        // Where a command goes and what its replies become has to be the same for both versions, or a client would see now one and
        // now the other.
        let travels = [
            ("kind", word(&old.kind), word(&new.kind)),
            ("keys", word(&old.keys), word(&new.keys)),
            ("aggregate", word(&old.aggregate), word(&new.aggregate)),
        ];
        let mut other_way = false;
        for (name, old, new) in travels {
            other_way |= differs(name, old, new);
        }
        let narrower = !admits(old.arity, new.arity);
        differs("arity", old.arity.to_string(), new.arity.to_string());
        differs("blind", old.blind.to_string(), new.blind.to_string());
        differs("replicas", word(&old.quorum), word(&new.quorum));
        let name = &new.name;
        if other_way {
            self.needs_force.push(format!(
                "command {name} travels in another way; while both versions run, clients see now one and now the other"
            ));
        }
        if narrower {
            self.needs_force.push(format!(
                "command {name} takes fewer numbers of arguments; some of its clients will be refused"
            ));
        }
        if !what.is_empty() {
            self.changed.push(Changed {
                command: name.clone(),
                what,
            });
        }
    }
}

/// Whether every number of words that `old` takes, `new` takes too. -N is N or more.
fn admits(old: i32, new: i32) -> bool {
    match (old, new) {
        (old, new) if old == new => true,
        (_, new) if new < 0 => new.unsigned_abs() <= old.unsigned_abs(),
        _ => false,
    }
}

/// As the API spells it.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Aggregate, CommandKind, KeyRange, MergePolicy, Quorum};
    use super::*;

    fn command(name: &str, arity: i32) -> CommandSpec {
        CommandSpec {
            name: name.into(),
            summary: String::new(),
            syntax: String::new(),
            arity,
            kind: CommandKind::Write,
            keys: Some(KeyRange {
                first: 1,
                last: 1,
                step: 1,
                prefix: String::new(),
            }),
            blind: false,
            aggregate: Aggregate::Single,
            quorum: Quorum::default(),
        }
    }

    fn guest(commands: Vec<CommandSpec>) -> Descriptor {
        Descriptor {
            name: "kv".into(),
            version: "1".into(),
            schema_reads_from: 1,
            schema_writes: 1,
            merge: MergePolicy::Siblings,
            commands,
            quorum: Quorum::default(),
        }
    }

    #[test]
    fn what_is_added_or_widened_needs_no_force() {
        let old = guest(vec![command("GET", 2), command("SET", 3)]);
        let new = guest(vec![
            command("SET", -3),
            command("TTL", 2),
            command("GET", 2),
        ]);
        let changes = Changes::new(&old, &new, 1);
        assert_eq!(changes.added, ["TTL"]);
        assert_eq!(changes.removed, Vec::<String>::new());
        assert_eq!(changes.changed[0].what, ["arity 3 -> -3"]);
        assert_eq!(changes.needs_force, Vec::<String>::new());
    }

    #[test]
    fn what_clients_or_replicas_would_stumble_over_needs_force() {
        let old = guest(vec![command("GET", 2), command("SET", -3)]);
        let reasons = |new: &Descriptor| Changes::new(&old, new, new.schema_writes).needs_force;
        let cases: [(&str, Descriptor); 6] = [
            ("removed", guest(vec![command("GET", 2)])),
            (
                "fewer numbers",
                guest(vec![command("GET", 2), command("SET", 3)]),
            ),
            (
                "another way",
                guest(vec![
                    CommandSpec {
                        kind: CommandKind::Read,
                        ..command("GET", 2)
                    },
                    command("SET", -3),
                ]),
            ),
            (
                "merged by last-write",
                Descriptor {
                    merge: MergePolicy::LastWrite,
                    ..old.clone()
                },
            ),
            (
                "no way back",
                Descriptor {
                    schema_writes: 2,
                    ..old.clone()
                },
            ),
            (
                "lost to it",
                Descriptor {
                    schema_reads_from: 2,
                    schema_writes: 2,
                    ..old.clone()
                },
            ),
        ];
        let newer = Descriptor {
            schema_writes: 2,
            ..old.clone()
        };
        let back = Changes::new(&newer, &old, 1).needs_force;
        assert!(back.len() == 1 && back[0].contains("refused"), "{back:?}");
        // What migrates back may come.
        assert_eq!(
            Changes::new(&old, &newer, 1).needs_force,
            Vec::<String>::new()
        );
        for (words, new) in cases {
            let reasons = reasons(&new);
            assert!(
                reasons.len() == 1 && reasons[0].contains(words),
                "{words}: {reasons:?}"
            );
        }
    }
}
