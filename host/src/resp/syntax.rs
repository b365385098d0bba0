//! Reads a command's syntax line into the arguments that COMMAND DOCS lists.
//!
//! The line is written as in Redis' documentation: `key value [NX | XX] [EX seconds]`, `key [key ...]`, `<a | b>`. Words in
//! capitals are typed as they stand, others stand for a value. A line that makes no sense becomes one argument with the
//! line for its name: documentation is never worth an error, and guests write it.

use super::value::Value;

/// Longest line that is read, in bytes.
const LINE_MAX: usize = 1000;

/// How deep brackets may nest.
const DEPTH_MAX: usize = 6;

#[derive(Clone, Debug, PartialEq)]
struct Argument {
    name: String,
    kind: &'static str,
    token: Option<String>,
    optional: bool,
    multiple: bool,
    members: Vec<Argument>,
}

/// The arguments of that line for COMMAND DOCS.
pub(super) fn arguments(line: &str) -> Vec<Value> {
    read(line).iter().map(Argument::doc).collect()
}

fn read(line: &str) -> Vec<Argument> {
    let words = words(line);
    let mut rest = words.as_slice();
    match (line.len() <= LINE_MAX)
        .then(|| sequence(&mut rest, DEPTH_MAX))
        .flatten()
    {
        Some(arguments) if rest.is_empty() => arguments,
        _ => vec![Argument::new(line, "string")],
    }
}

impl Argument {
    fn new(name: &str, kind: &'static str) -> Self {
        Self {
            name: name.into(),
            kind,
            token: None,
            optional: false,
            multiple: false,
            members: Vec::new(),
        }
    }

    fn value(word: &str) -> Self {
        let name = word.trim_end_matches("...").trim_end_matches('…');
        let kind = match name {
            "key" | "k" => "key",
            "pattern" | "glob" => "pattern",
            _ => "string",
        };
        Self {
            multiple: name.len() < word.len(),
            ..Self::new(name, kind)
        }
    }

    /// One argument that stands for all of them.
    fn group(kind: &'static str, mut members: Vec<Self>) -> Self {
        match members.pop() {
            Some(only) if members.is_empty() => only,
            last => {
                members.extend(last);
                let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
                let name = names.join("-");
                Self {
                    members,
                    ..Self::new(&name, kind)
                }
            }
        }
    }

    fn doc(&self) -> Value {
        let mut pairs = vec![
            ("name", self.name.as_str().into()),
            ("type", self.kind.into()),
        ];
        if self.kind == "key" {
            pairs.push(("key_spec_index", Value::Int(0)));
        }
        if let Some(token) = &self.token {
            pairs.push(("token", token.as_str().into()));
        }
        let flags = [("optional", self.optional), ("multiple", self.multiple)];
        let flags: Vec<Value> = flags
            .iter()
            .filter(|(_, set)| *set)
            .map(|(flag, _)| Value::simple(*flag))
            .collect();
        if !flags.is_empty() {
            pairs.push(("flags", Value::Set(flags)));
        }
        if !self.members.is_empty() {
            pairs.push((
                "arguments",
                Value::array(self.members.iter().map(Self::doc)),
            ));
        }
        Value::map(pairs)
    }
}

/// The line's words, with brackets and bars as words of their own.
fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace()
        .flat_map(|word| word.split_inclusive(['[', ']', '<', '>', '|']))
        .flat_map(|piece| match piece.char_indices().next_back() {
            Some((at, '[' | ']' | '<' | '>' | '|')) => {
                let (word, mark) = piece.split_at_checked(at).unwrap_or((piece, ""));
                [word, mark]
            }
            _ => [piece, ""],
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// Arguments up to a closing bracket, a bar or the end, which stays in `rest`.
fn sequence(rest: &mut &[&str], depth: usize) -> Option<Vec<Argument>> {
    let mut arguments: Vec<Argument> = Vec::new();
    while let Some((word, after)) = rest.split_first() {
        if matches!(*word, "]" | ">" | "|") {
            break;
        }
        *rest = after;
        match *word {
            "[" => optional(rest, depth, &mut arguments)?,
            "<" => arguments.push(one_of(rest, ">", depth)?.0),
            "..." | "…" => arguments.last_mut()?.multiple = true,
            literal if is_literal(literal) => arguments.push(token(literal, rest)),
            word => arguments.push(Argument::value(word)),
        }
    }
    Some(arguments)
}

/// What stands in square brackets. `key [key ...]` is one argument that repeats.
fn optional(rest: &mut &[&str], depth: usize, before: &mut Vec<Argument>) -> Option<()> {
    let (mut argument, members) = one_of(rest, "]", depth)?;
    let at = before.len().checked_sub(members.len());
    let repeated = at.and_then(|at| before.get(at..)).is_some_and(|earlier| {
        members.last().is_some_and(|last| last.multiple)
            && earlier
                .iter()
                .zip(&members)
                .all(|(a, b)| (&a.name, &a.token) == (&b.name, &b.token))
    });
    if repeated {
        let earlier = before.split_off(at?);
        argument = Argument {
            multiple: true,
            ..Argument::group("block", earlier)
        };
    } else {
        argument.optional = true;
        if argument.kind == "block" && members.last().is_some_and(|last| last.multiple) {
            argument.multiple = true;
            if let Some(last) = argument.members.last_mut() {
                last.multiple = false;
            }
        }
    }
    before.push(argument);
    Some(())
}

/// Alternatives up to the closing bracket, as one argument, and the members of the only one there is.
fn one_of(rest: &mut &[&str], close: &str, depth: usize) -> Option<(Argument, Vec<Argument>)> {
    let depth = depth.checked_sub(1)?;
    let mut alternatives = Vec::new();
    loop {
        let members = sequence(rest, depth)?;
        if members.is_empty() {
            return None;
        }
        let (end, after) = rest.split_first()?;
        *rest = after;
        alternatives.push(Argument::group("block", members.clone()));
        if *end == close {
            let only = if alternatives.len() == 1 {
                members
            } else {
                Vec::new()
            };
            return Some((Argument::group("oneof", alternatives), only));
        }
        if *end != "|" {
            return None;
        }
    }
}

/// A word typed as it stands, with the value that follows it if one does.
fn token(literal: &str, rest: &mut &[&str]) -> Argument {
    if let Some((word, after)) = rest.split_first()
        && !matches!(*word, "[" | "]" | "<" | ">" | "|" | "..." | "…")
        && !is_literal(word)
        && literal != "--"
    {
        *rest = after;
        let mut argument = Argument::value(word);
        argument.token = Some(literal.into());
        return argument;
    }
    Argument {
        token: Some(literal.into()),
        ..Argument::new(&literal.to_ascii_lowercase(), "pure-token")
    }
}

fn is_literal(word: &str) -> bool {
    !word.contains(|c: char| c.is_lowercase()) && !word.starts_with(['.', '…'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments as redis-cli prints them.
    fn shown(arguments: &[Argument], separator: &str) -> String {
        arguments
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(separator)
    }

    fn show(argument: &Argument) -> String {
        let inner = match argument.kind {
            "pure-token" => String::new(),
            "block" => shown(&argument.members, " "),
            "oneof" => shown(&argument.members, "|"),
            _ => argument.name.clone(),
        };
        let mut text = argument
            .token
            .iter()
            .cloned()
            .chain((!inner.is_empty()).then_some(inner));
        let mut text = text.by_ref().collect::<Vec<_>>().join(" ");
        if argument.multiple {
            text = format!("{text} [{text} ...]");
        }
        if argument.optional {
            format!("[{text}]")
        } else {
            text
        }
    }

    #[test]
    fn lines_come_out_as_redis_cli_shows_them() {
        let table = [
            ("", ""),
            ("key", "key"),
            (
                "key value [NX | XX] [EX seconds]",
                "key value [NX|XX] [EX seconds]",
            ),
            ("key [key ...]", "key [key ...]"),
            ("key value [key value ...]", "key value [key value ...]"),
            (
                "cursor [COUNT n] [MATCH glob]",
                "cursor [COUNT n] [MATCH glob]",
            ),
            ("key…", "key [key ...]"),
            ("[glob]", "[glob]"),
            ("<a | B c> [d e ...]", "a|B c [d e [d e ...]]"),
            (
                "[N n] [PARTIAL] -- command [arg ...]",
                "[N n] [PARTIAL] -- command [arg [arg ...]]",
            ),
            ("key [", "key ["),
            ("]", "]"),
            ("[]", "[]"),
        ];
        for (line, expected) in table {
            assert_eq!(shown(&read(line), " "), expected, "{line}");
        }
        assert_eq!(read(&"[".repeat(500)).len(), 1);
        assert_eq!(read(&"a ".repeat(5000)).len(), 1);
    }
}
