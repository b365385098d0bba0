//! Calls of everything that a descriptor declares, made without knowing what any of it means.

use std::collections::BTreeSet;

use super::rig::number;
use crate::descriptor::{Aggregate, CommandKind, CommandSpec, Descriptor};
use crate::wasm::Limits;

/// Most steps of one script. A guest with very many commands has only some of its pairs played.
const STEPS_MAX: usize = 6000;

/// One call.
#[derive(Clone)]
pub(super) struct Step {
    /// Position in the descriptor.
    pub(super) command: u16,
    /// The words after the name.
    pub(super) args: Vec<Vec<u8>>,
    /// Place in the script: its time, its chance and its name in the cluster.
    pub(super) number: u64,
}

/// What the words of a call look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Text,
    Integer,
    Binary,
    Tagged,
    Empty,
    Huge,
}

const USUAL: [Words; 4] = [Words::Text, Words::Integer, Words::Binary, Words::Tagged];
const ALL: [Words; 6] = [
    Words::Text,
    Words::Integer,
    Words::Binary,
    Words::Tagged,
    Words::Empty,
    Words::Huge,
];

/// The commands that a script calls, and the limits that its words stay in.
pub(super) struct Commands<'a> {
    descriptor: &'a Descriptor,
    limits: &'a Limits,
    left_out: &'a BTreeSet<u16>,
}

impl<'a> Commands<'a> {
    pub(super) fn new(
        descriptor: &'a Descriptor,
        limits: &'a Limits,
        left_out: &'a BTreeSet<u16>,
    ) -> Commands<'a> {
        Commands {
            descriptor,
            limits,
            left_out,
        }
    }

    /// The commands and their positions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &'a CommandSpec)> {
        let commands = self.descriptor.commands.iter().enumerate();
        let left_out = self.left_out;
        commands
            .map(|(position, spec)| (number(position), spec))
            .filter(move |(position, _)| !left_out.contains(position))
    }

    /// Each command with the fewest words and with more, of every kind, and with the keywords of its syntax.
    pub(super) fn shapes(&self) -> Vec<Step> {
        let mut calls = Vec::new();
        for (command, spec) in self.iter() {
            for words in ALL {
                for count in counts(spec) {
                    calls.push((command, self.args(spec, count, words)));
                }
            }
            calls.extend(
                self.with_keywords(spec)
                    .into_iter()
                    .map(|args| (command, args)),
            );
        }
        numbered(calls)
    }

    /// Every command after every command that writes, on the same key, and then every shape.
    pub(super) fn pairs(&self) -> Vec<Step> {
        let mut pairs = Vec::new();
        for words in USUAL {
            for (writer, spec) in self.iter().filter(|(_, spec)| spec.writes()) {
                let Some(least) = counts(spec).next() else {
                    continue;
                };
                let write = (writer, self.args(spec, least, words));
                for (command, spec) in self.iter() {
                    for count in counts(spec).take(2) {
                        let call = (command, self.args(spec, count, words));
                        pairs.push([write.clone(), call]);
                    }
                }
            }
        }
        let every = (2 * pairs.len()).div_ceil(STEPS_MAX).max(1);
        let mut calls: Vec<_> = pairs.into_iter().step_by(every).flatten().collect();
        calls.extend(
            self.shapes()
                .into_iter()
                .map(|step| (step.command, step.args)),
        );
        numbered(calls)
    }

    /// Reads of all that the scripts above may have written.
    pub(super) fn reads(&self) -> Vec<Step> {
        let looks = |kind| matches!(kind, CommandKind::Read | CommandKind::Coverage);
        let steps = self.shapes().into_iter();
        let reads =
            steps.filter(|step| self.spec(step.command).is_some_and(|spec| looks(spec.kind)));
        numbered(reads.map(|step| (step.command, step.args)).collect())
    }

    /// One call of every command that writes a single key, with words of one kind.
    pub(super) fn writes(&self) -> Vec<Step> {
        let mut calls = Vec::new();
        for words in [Words::Text, Words::Integer, Words::Binary] {
            for (command, spec) in self.iter() {
                let keyed = matches!(spec.kind, CommandKind::Write | CommandKind::Each);
                if let (true, Some(least)) = (keyed, counts(spec).next()) {
                    calls.push((command, self.args(spec, least, words)));
                }
            }
        }
        numbered(calls)
    }

    /// The same with values that differ from one writer to the next.
    pub(super) fn writes_of(&self, writer: u64) -> Vec<Step> {
        let mut steps = self.writes();
        for step in &mut steps {
            for word in &mut step.args {
                if *word == self.value(Words::Text) {
                    word.extend_from_slice(writer.to_string().as_bytes());
                } else if *word == self.value(Words::Integer) {
                    *word = (3 + writer).to_string().into_bytes();
                } else if *word == self.value(Words::Binary) {
                    word.push(u8::try_from(writer).unwrap_or(0));
                }
            }
        }
        steps
    }

    /// Writes of `count` rows with values of `bytes`, by each command that takes a key and a value.
    pub(super) fn rows(&self, count: usize, bytes: usize) -> Vec<Step> {
        let mut calls = Vec::new();
        for (command, spec) in self
            .iter()
            .filter(|(_, spec)| spec.kind == CommandKind::Write)
        {
            let Some(least) = counts(spec).next() else {
                continue;
            };
            let keys: Vec<usize> = spec.key_positions(least).collect();
            if keys.len() != 1 || least < 3 {
                continue;
            }
            for nth in 0..count {
                let word = |position| {
                    if keys.contains(&position) {
                        format!("row:{nth}").into_bytes()
                    } else {
                        vec![b'v'; bytes]
                    }
                };
                calls.push((command, (1..least).map(word).collect()));
            }
        }
        numbered(calls)
    }

    /// One call of each coverage command; those that write come last.
    pub(super) fn coverage(&self) -> Vec<Step> {
        let of = |kind| self.iter().filter(move |(_, spec)| spec.kind == kind);
        let both = of(CommandKind::Coverage).chain(of(CommandKind::CoverageWrite));
        let calls = both.filter_map(|(command, spec)| {
            let least = counts(spec).next()?;
            Some((command, self.args(spec, least, Words::Integer)))
        });
        numbered(calls.collect())
    }

    /// The spec of a command.
    pub(super) fn spec(&self, command: u16) -> Option<&'a CommandSpec> {
        self.descriptor.commands.get(usize::from(command))
    }

    /// A call for people to read.
    pub(super) fn show(&self, step: &Step) -> String {
        let name = self
            .spec(step.command)
            .map_or("?", |spec| spec.name.as_str());
        let words = step.args.iter().map(|word| preview(word));
        std::iter::once(name.to_owned())
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn args(&self, spec: &CommandSpec, count: usize, words: Words) -> Vec<Vec<u8>> {
        let keys: Vec<usize> = spec.key_positions(count).collect();
        let word = |position: usize| match keys.iter().position(|key| *key == position) {
            Some(nth) => self.key(words, nth),
            // A client's cursor never reaches a guest unless it is a number.
            None if position == 1 && spec.aggregate == Aggregate::Cursor => b"0".to_vec(),
            None => self.value(words),
        };
        (1..count).map(word).collect()
    }

    /// Several keys of one command live together, so they are one key or share a tag.
    fn key(&self, words: Words, nth: usize) -> Vec<u8> {
        match words {
            Words::Text => b"key".to_vec(),
            Words::Integer => b"17".to_vec(),
            Words::Binary => b"\0\xff\r\n{}key".to_vec(),
            Words::Tagged => format!("{{tag}}{nth}").into_bytes(),
            Words::Empty => Vec::new(),
            Words::Huge => vec![b'k'; self.limits.key_bytes_max],
        }
    }

    fn value(&self, words: Words) -> Vec<u8> {
        match words {
            Words::Text | Words::Tagged => b"some value".to_vec(),
            Words::Integer => b"3".to_vec(),
            Words::Binary => (0..=255).collect(),
            Words::Empty => Vec::new(),
            Words::Huge => vec![b'v'; self.limits.value_bytes_max],
        }
    }

    /// Options by the words in capitals that the syntax names.
    fn with_keywords(&self, spec: &CommandSpec) -> Vec<Vec<Vec<u8>>> {
        let Some(least) = counts(spec).next() else {
            return Vec::new();
        };
        let start = self.args(spec, least, Words::Integer);
        let keyword =
            |word: &&str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        let words = spec.syntax.split(|c: char| !c.is_ascii_alphanumeric());
        let mut calls = Vec::new();
        for word in words.filter(keyword) {
            for value in [Some("1"), Some("-1"), Some("a*"), Some(""), None] {
                let mut args = start.clone();
                args.push(word.into());
                args.extend(value.map(|value| value.as_bytes().to_vec()));
                if spec.takes(args.len() + 1) && is_one_call(spec, args.len() + 1) {
                    calls.push(args);
                }
            }
        }
        calls
    }
}

/// Numbers of words to call a command with, the name included; the least first.
fn counts(spec: &CommandSpec) -> impl Iterator<Item = usize> {
    let least = spec.arity.unsigned_abs() as usize;
    let more: &[usize] = if spec.arity < 0 { &[0, 1, 2, 6] } else { &[0] };
    let counts = more.iter().map(move |more| least + more);
    counts
        .filter(|count| is_one_call(spec, *count))
        .collect::<Vec<_>>()
        .into_iter()
}

/// Whether a vnode sees a call of so many words as it is. One with several keys and an aggregate is taken apart.
fn is_one_call(spec: &CommandSpec, count: usize) -> bool {
    spec.aggregate == Aggregate::Single || spec.key_positions(count).nth(1).is_none()
}

fn numbered(calls: Vec<(u16, Vec<Vec<u8>>)>) -> Vec<Step> {
    let steps = (1..).zip(calls);
    steps
        .map(|(number, (command, args))| Step {
            command,
            args,
            number,
        })
        .collect()
}

/// Some of the bytes, as text in a line.
pub(super) fn preview(bytes: &[u8]) -> String {
    const LONGEST: usize = 48;
    let start = bytes.get(..LONGEST).unwrap_or(bytes);
    let text = start.escape_ascii();
    if bytes.len() > LONGEST {
        format!("{text}... ({} bytes)", bytes.len())
    } else if bytes.is_empty() {
        "\"\"".to_owned()
    } else {
        text.to_string()
    }
}
