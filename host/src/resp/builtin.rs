//! Commands that no guest provides, and the door that every request passes.
//!
//! [`dispatch`] owns the order in which a request is judged (known, arity, authenticated) and Redis' words for each
//! refusal. Built-ins are pure: they read [`Facts`], change the [`Session`] and append a reply; whatever needs the node,
//! its guests or its connections is handed back as [`Next`].

mod client;
mod command;
mod config;
mod connection;
mod info;
mod table;
#[cfg(test)]
mod tests;

pub use table::TABLE;

use super::Protocol;
use super::catalog::{GuestCommand, Target};
use super::codec::Words;
use super::facts::Facts;
use super::session::Session;
use super::value::Value;
use super::write;

/// Bytes of a client's own words that an error repeats, as in Redis.
const ECHO_MAX: usize = 128;

/// A built-in command or subcommand.
#[derive(Debug)]
pub struct Builtin {
    /// Lower case; a subcommand's is `client|id`.
    pub name: &'static str,
    /// Number of words with the name, a subcommand's own included; -N means N or more.
    pub arity: i32,
    /// Group in COMMAND DOCS.
    pub group: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Arguments in a line, as in Redis' documentation.
    pub syntax: &'static str,
    /// Position of its key, if it has one.
    pub key: Option<u32>,
    /// Whether it runs before the client has authenticated.
    pub before_auth: Gate,
    /// Subcommands; empty for most.
    pub subcommands: &'static [Builtin],
    run: Run,
}

/// Whether a command needs an authenticated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Anybody may run it.
    Open,
    /// Refused with NOAUTH where a password is set and not given.
    Locked,
}

/// How a built-in is performed.
#[derive(Clone, Copy, Debug)]
enum Run {
    /// Here.
    Here(fn(&mut Call<'_>) -> After),
    /// By the node.
    Node(NodeCommand),
    /// By a subcommand.
    Subcommand,
}

/// Built-in commands that need the node. Their arity has been checked, their arguments have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// `VNODE.PREFLIST key [SERVICE s]`
    Preflist,
    /// `VNODE.TRACE command...`, `VNODE.WITH ... -- command...`
    Wished,
    /// `VNODE.REPLICAS key [SERVICE s]`
    Replicas,
    /// `VNODE.RING`
    Ring,
    /// `VNODE.STATUS`
    Status,
}

impl NodeCommand {
    /// Whether its reply has to wait for vnodes.
    pub fn asks_vnodes(self) -> bool {
        matches!(self, NodeCommand::Wished | NodeCommand::Replicas)
    }
}

/// What the caller does after [`dispatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// The reply has been appended.
    Replied(After),
    /// Nothing has been appended: the node answers.
    Node(NodeCommand),
    /// Nothing has been appended: the guest answers. Its arity has been checked.
    Guest(GuestCommand),
}

/// What becomes of connections after a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Continue,
    /// This one is closed once the reply is out.
    Close,
    /// Those with these ids are closed; if this one is among them, once the reply is out.
    Kill(Vec<u64>),
}

/// One call of a built-in.
struct Call<'a> {
    words: Words<'a>,
    session: &'a mut Session,
    facts: &'a Facts<'a>,
    out: &'a mut Vec<u8>,
}

impl<'a> Call<'a> {
    fn word(&self, position: usize) -> &'a [u8] {
        self.words.get(position).unwrap_or_default()
    }

    fn is(&self, position: usize, text: &str) -> bool {
        self.word(position).eq_ignore_ascii_case(text.as_bytes())
    }

    fn protocol(&self) -> Protocol {
        self.session.protocol()
    }

    fn ok(&mut self) -> After {
        write::ok(self.out);
        After::Continue
    }

    fn err(&mut self, message: &str) -> After {
        self.error("ERR", message)
    }

    fn error(&mut self, code: &str, message: &str) -> After {
        write::error(self.out, code, message);
        After::Continue
    }

    fn reply(&mut self, value: &Value) -> After {
        value.encode(self.protocol(), self.out);
        After::Continue
    }

    /// Text for people, in lines.
    fn text(&mut self, text: &str) -> After {
        write::verbatim(self.out, *b"txt", text, self.protocol());
        After::Continue
    }

    /// Lines for people, as the HELP subcommands give them.
    fn help(&mut self, command: &str, lines: &[&str]) -> After {
        let first = format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        let last = ["HELP", "    Prints this help."];
        let lines = std::iter::once(first.as_str())
            .chain(lines.iter().copied())
            .chain(last);
        self.reply(&Value::Array(lines.map(Value::simple).collect()))
    }
}

/// Judges one request and answers it if a built-in can. `words` is not empty.
pub fn dispatch(
    words: Words<'_>,
    session: &mut Session,
    facts: &Facts<'_>,
    out: &mut Vec<u8>,
) -> Next {
    session.client.active_ms = facts.now_ms();
    if is_http(words.get(0).unwrap_or_default()) {
        write::error(
            out,
            "ERR",
            "this is the Redis port; HTTP has one of its own",
        );
        return Next::Replied(After::Close);
    }
    let Some(target) = admit(words, session, facts, out) else {
        return Next::Replied(After::Continue);
    };
    session.client.last = Some(target);
    let builtin = match target {
        Target::Guest(guest) => return Next::Guest(guest),
        Target::Builtin(builtin) => builtin,
    };
    match builtin.run {
        Run::Node(command) => Next::Node(command),
        Run::Here(run) => Next::Replied(run(&mut Call {
            words,
            session,
            facts,
            out,
        })),
        // `admit` has put the subcommand in its place.
        Run::Subcommand => {
            wrong_arity(builtin.name, out);
            Next::Replied(After::Continue)
        }
    }
}

/// Whether this is the beginning of an HTTP request that has a body or of its header. A web page may have a browser send
/// one here, and what stands in its body must not pass for commands; Redis ends such a connection as well.
fn is_http(name: &[u8]) -> bool {
    [&b"POST"[..], b"Host:"]
        .iter()
        .any(|first| name.eq_ignore_ascii_case(first))
}

/// Who answers, or the refusal appended.
fn admit(
    words: Words<'_>,
    session: &Session,
    facts: &Facts<'_>,
    out: &mut Vec<u8>,
) -> Option<Target> {
    let name = words.get(0).unwrap_or_default();
    let Some(mut target) = facts.catalog.find(name) else {
        unknown_command(words, out);
        return None;
    };
    if let (Target::Builtin(builtin), Some(word)) = (target, words.get(1))
        && !builtin.subcommands.is_empty()
    {
        let Some(subcommand) = builtin.subcommand(word) else {
            unknown_subcommand(builtin, word, out);
            return None;
        };
        target = Target::Builtin(subcommand);
    }
    let (fits, open) = match target {
        Target::Builtin(builtin) => (fits(builtin.arity, words.len()), builtin.before_auth),
        Target::Guest(guest) => {
            let spec = facts.catalog.guest(guest).map(|(_, spec)| spec);
            (
                spec.is_some_and(|spec| spec.takes(words.len())),
                Gate::Locked,
            )
        }
    };
    if !fits {
        match target {
            Target::Builtin(builtin) => wrong_arity(builtin.name, out),
            Target::Guest(_) => wrong_arity(&lossy(name).to_ascii_lowercase(), out),
        }
        return None;
    }
    if open == Gate::Locked && !session.authenticated {
        write::error(out, "NOAUTH", "Authentication required.");
        return None;
    }
    Some(target)
}

impl Builtin {
    /// The subcommand of that name, whatever its case.
    fn subcommand(&self, word: &[u8]) -> Option<&'static Builtin> {
        self.subcommands.iter().find(|subcommand| {
            let name = subcommand.name.rsplit('|').next().unwrap_or_default();
            name.as_bytes().eq_ignore_ascii_case(word)
        })
    }
}

/// Whether a call of so many words, the name included, agrees with the arity.
fn fits(arity: i32, words: usize) -> bool {
    let least = arity.unsigned_abs() as usize;
    if arity < 0 {
        words >= least
    } else {
        words == least
    }
}

/// Appends Redis' error for a name that nobody answers to.
pub fn unknown_command(words: Words<'_>, out: &mut Vec<u8>) {
    let mut message = b"unknown command '".to_vec();
    message.extend(
        words
            .iter()
            .take(1)
            .flat_map(|name| name.iter().take(ECHO_MAX)),
    );
    message.extend_from_slice(b"', with args beginning with: ");
    let start = message.len();
    for argument in words.skip(1).iter() {
        let room = ECHO_MAX.saturating_sub(message.len() - start);
        if room == 0 {
            break;
        }
        message.push(b'\'');
        message.extend(argument.iter().take(room));
        message.extend_from_slice(b"' ");
    }
    write::error(out, "ERR", &String::from_utf8_lossy(&message));
}

/// Appends Redis' error for a call with too few or too many arguments. `name` is lower case.
pub fn wrong_arity(name: &str, out: &mut Vec<u8>) {
    write::error(
        out,
        "ERR",
        &format!("wrong number of arguments for '{name}' command"),
    );
}

fn unknown_subcommand(builtin: &Builtin, word: &[u8], out: &mut Vec<u8>) {
    let message = if builtin.name == "cluster" {
        "this node is not a Redis Cluster: any node serves any key; see VNODE.RING".to_owned()
    } else {
        let (word, name) = (lossy(word), builtin.name.to_ascii_uppercase());
        format!("unknown subcommand '{word}'. Try {name} HELP.")
    };
    write::error(out, "ERR", &message);
}

/// A client's word for a message: text, and not too much of it.
fn lossy(word: &[u8]) -> String {
    String::from_utf8_lossy(word.get(..ECHO_MAX).unwrap_or(word)).into_owned()
}

/// An integer as Redis reads one.
fn integer(word: &[u8]) -> Option<i64> {
    super::wire::integer(word)
}
