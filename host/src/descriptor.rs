//! What a guest says of itself, checked once at load: its name, its commands, and how they travel.
//!
//! The types mirror `wit/vnode.wit`. Everything past this module may rely on the checks: names are well formed, arities
//! and key positions agree, and each kind has the aggregate that it needs.

pub mod changes;

use serde::Serialize;

/// What a guest is. See `descriptor` in wit/vnode.wit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// Name of the service.
    pub name: String,
    /// Version of the guest, for people.
    pub version: String,
    /// Oldest schema of stored values that the guest reads.
    pub schema_reads_from: u32,
    /// Schema that it writes, the newest that it reads.
    pub schema_writes: u32,
    /// What becomes of concurrent versions.
    pub merge: MergePolicy,
    /// Its commands, in the order that `handle-batch` counts them.
    pub commands: Vec<CommandSpec>,
    /// Replication, if the guest asks for its own.
    #[serde(flatten)]
    pub quorum: Quorum,
}

/// Replicas, and how many of them a read and a write wait for. `None` is the level above: service, then cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quorum {
    /// Replicas of each key.
    pub n: Option<u32>,
    /// Replicas that a read waits for.
    pub r: Option<u32>,
    /// Replicas that a write waits for.
    pub w: Option<u32>,
}

/// One command. See `command-spec` in wit/vnode.wit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandSpec {
    /// Upper case.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// Arguments in a line, as in Redis' documentation.
    pub syntax: String,
    /// Number of words with the name; -N means N or more.
    pub arity: i32,
    /// How it travels.
    pub kind: CommandKind,
    /// Which arguments are keys.
    pub keys: Option<KeyRange>,
    /// Whether it never looks at the values under its keys.
    pub blind: bool,
    /// What becomes of several replies.
    pub aggregate: Aggregate,
    /// Replication, if not the service's.
    #[serde(flatten)]
    pub quorum: Quorum,
}

/// How a command travels. See `command-kind` in wit/vnode.wit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandKind {
    /// Once, on the merged view; may not write.
    Read,
    /// Once, on the coordinating replica; its batch goes to the others.
    Write,
    /// On every replica of the preference list.
    Each,
    /// On a minimal set of vnodes that covers the ring.
    Coverage,
    /// On every vnode, and may write.
    CoverageWrite,
    /// Without a key on a random partition.
    Any,
}

/// Which arguments are keys, as Redis counts them: the command's name is 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyRange {
    /// Position of the first key, at least 1.
    pub first: u32,
    /// Position of the last key; -1 is the last argument.
    pub last: i32,
    /// Distance from one key to the next, at least 1.
    pub step: u32,
    /// Put in front of a key when it is hashed.
    pub prefix: String,
}

/// What several replies become. See `aggregate` in wit/vnode.wit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// There is only ever one.
    Single,
    /// Integers are added.
    Sum,
    /// Arrays are joined.
    Concat,
    /// The first reply, once all are ok.
    AllOk,
    /// A page of a scan with a cursor as in Redis SCAN.
    Cursor,
}

/// What becomes of concurrent versions of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergePolicy {
    /// The latest by clock stays, the others are lost.
    LastWrite,
    /// All stay until a write replaces them.
    Siblings,
    /// The guest's `merge` joins them.
    Custom,
}

/// A descriptor that cannot be served. The message names the field and what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DescriptorError {
    /// The service's name has other characters, or none.
    #[error(
        "service name {0:?} must be 1 to 32 letters, digits, `-` or `_`, starting with a letter"
    )]
    ServiceName(String),
    /// The service's name is the host's own.
    #[error("service name {0:?} is the host's own, as in VNODE.RING; choose another NAME")]
    Reserved(String),
    /// No command at all, or more than the host takes.
    #[error("a guest must have 1 to {max} commands, this one has {count}")]
    CommandCount {
        /// Commands declared.
        count: usize,
        /// Most that the host takes.
        max: usize,
    },
    /// A command's name has other characters, or none.
    #[error(
        "command name {0:?} must be 1 to 32 of A-Z, 0-9, `.`, `-` or `_`, starting with a letter"
    )]
    CommandName(String),
    /// Two commands have one name.
    #[error("command {0} is declared twice")]
    Twice(String),
    /// Something about one command does not fit together.
    #[error("command {command}: {why}")]
    Command {
        /// Its name.
        command: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The schema range is empty.
    #[error("schema-reads-from {from} is newer than schema-writes {writes}")]
    Schema {
        /// Oldest schema read.
        from: u32,
        /// Schema written.
        writes: u32,
    },
}

/// Most commands of one guest; `handle-batch` counts them in 16 bits, people in fewer.
pub const COMMANDS_MAX: usize = 256;

/// Commands of the host's own begin with it.
const RESERVED: &str = "vnode";

impl Descriptor {
    /// Checks that the descriptor can be served.
    pub fn check(&self) -> Result<(), DescriptorError> {
        if !is_name(&self.name, |c| {
            c.is_ascii_alphanumeric() || c == '-' || c == '_'
        }) {
            return Err(DescriptorError::ServiceName(self.name.clone()));
        }
        if self.name.eq_ignore_ascii_case(RESERVED) {
            return Err(DescriptorError::Reserved(self.name.clone()));
        }
        if self.schema_reads_from > self.schema_writes {
            return Err(DescriptorError::Schema {
                from: self.schema_reads_from,
                writes: self.schema_writes,
            });
        }
        if self.commands.is_empty() || self.commands.len() > COMMANDS_MAX {
            return Err(DescriptorError::CommandCount {
                count: self.commands.len(),
                max: COMMANDS_MAX,
            });
        }
        let mut names = std::collections::BTreeSet::new();
        for command in &self.commands {
            if !names.insert(command.name.as_str()) {
                return Err(DescriptorError::Twice(command.name.clone()));
            }
            command.check()?;
        }
        Ok(())
    }

    /// The command of that name, whatever its case, and its position.
    pub fn command(&self, name: &str) -> Option<(usize, &CommandSpec)> {
        self.commands
            .iter()
            .enumerate()
            .find(|(_, spec)| spec.name.eq_ignore_ascii_case(name))
    }
}

impl CommandSpec {
    /// Whether the other says the same to whoever runs it; what people read may differ.
    pub fn is_as(&self, other: &CommandSpec) -> bool {
        let unread = |spec: &CommandSpec| CommandSpec {
            summary: String::new(),
            syntax: String::new(),
            ..spec.clone()
        };
        unread(self) == unread(other)
    }

    /// Whether `words`, the name included, agrees with the arity.
    pub fn takes(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 {
            words >= arity
        } else {
            words == arity
        }
    }

    /// Whether it looks at the values under its keys.
    pub fn looks(&self) -> bool {
        self.keys.is_some() && !self.blind
    }

    /// Whether it is about the whole ring.
    pub fn covers(&self) -> bool {
        matches!(
            self.kind,
            CommandKind::Coverage | CommandKind::CoverageWrite
        )
    }

    /// Whether running it may change what is stored.
    pub fn writes(&self) -> bool {
        matches!(
            self.kind,
            CommandKind::Write | CommandKind::Each | CommandKind::CoverageWrite
        )
    }

    /// Positions of the keys in a call of so many words, the name included.
    pub fn key_positions(&self, words: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, last, step) = match &self.keys {
            None => (1, 0, 1),
            Some(keys) => {
                let last = match usize::try_from(keys.last) {
                    Ok(position) => position.min(words.saturating_sub(1)),
                    Err(_) => words.saturating_sub(keys.last.unsigned_abs() as usize),
                };
                (keys.first as usize, last, keys.step.max(1) as usize)
            }
        };
        (first..=last).step_by(step)
    }

    fn check(&self) -> Result<(), DescriptorError> {
        if !is_name(&self.name, |c| {
            c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_')
        }) {
            return Err(DescriptorError::CommandName(self.name.clone()));
        }
        match self.flaw() {
            None => Ok(()),
            Some(why) => Err(DescriptorError::Command {
                command: self.name.clone(),
                why,
            }),
        }
    }

    fn flaw(&self) -> Option<String> {
        use CommandKind::{Coverage, CoverageWrite, Each, Read, Write};
        if self.arity == 0 {
            return Some("arity 0 leaves no room for the name; the least is 1".into());
        }
        let keyed = matches!(self.kind, Read | Write | Each);
        match &self.keys {
            None if keyed => return Some(format!("kind {:?} needs its keys declared", self.kind)),
            Some(_) if matches!(self.kind, Coverage | CoverageWrite) => {
                return Some("a coverage command has no keys".into());
            }
            Some(keys) if keys.first == 0 || keys.step == 0 => {
                return Some("key positions start at 1 and steps are at least 1".into());
            }
            None if self.blind => return Some("only a command with keys can be blind".into()),
            Some(keys) if keyed && self.arity.unsigned_abs() <= keys.first => {
                return Some(format!(
                    "arity {} has no room for the key at position {}",
                    self.arity, keys.first
                ));
            }
            _ => {}
        }
        let covers = matches!(self.kind, Coverage | CoverageWrite);
        match self.aggregate {
            Aggregate::Single if covers => {
                Some("a coverage command needs an aggregate: sum, concat, all-ok or cursor".into())
            }
            Aggregate::Cursor if self.kind != Coverage => {
                Some("the cursor aggregate belongs to kind coverage".into())
            }
            Aggregate::Cursor if !self.takes(2) => {
                Some("the cursor aggregate needs argument 1 for the cursor".into())
            }
            _ => None,
        }
    }
}

fn is_name(name: &str, legal: impl Fn(char) -> bool) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(legal)
}
