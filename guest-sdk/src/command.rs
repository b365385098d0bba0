//! One call of a command: its words, and what the host knows besides.

use crate::bytes::integer;
use crate::spec::CommandSpec;
use crate::{Error, Reply, Result};

/// One call of a command that [`COMMANDS`](crate::Vnode::COMMANDS) lists. Its number of words already agrees with the
/// declared arity.
///
/// Positions count as Redis counts them: word 0 is the name, word 1 the first argument.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    spec: &'a CommandSpec,
    words: &'a [&'a [u8]],
    context: Context<'a>,
}

/// What the host knows of one call besides its words. It is the only clock and the only source of chance: the same
/// command in the same context gives the same answer.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Wall clock of the coordinating node when it took the command, milliseconds since 1970.
    pub now_ms: u64,
    /// Random bits for this command.
    pub seed: u64,
    /// Names the command in the whole cluster; a retry inside the cluster keeps it.
    pub request_id: u64,
    /// The partition whose vnode runs the command.
    pub partition: u32,
    /// Name of the node that runs the command.
    pub node: &'a str,
    /// What part this vnode plays for the key.
    pub replica: Replica,
}

/// What part a vnode plays for the key of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replica {
    /// It owns a place in the key's preference list.
    Primary,
    /// It stands in for an owner that cannot be reached.
    Fallback,
}

/// Who an instance is. Fixed for its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the service.
    pub service: String,
    /// The partition served.
    pub partition: u32,
    /// The partition's boundary in the 160-bit ring, decimal.
    pub partition_index: String,
    /// Number of partitions of the ring.
    pub ring_size: u32,
    /// Name of the node.
    pub node: String,
    /// Unique to this vnode's life on its disk: two vnodes that can write concurrently never share it.
    pub actor: u64,
}

/// The first partition of a ring of 64, for tests.
impl Default for Identity {
    fn default() -> Self {
        Self {
            service: "test".into(),
            partition: 0,
            partition_index: "0".into(),
            ring_size: 64,
            node: "node@127.0.0.1".into(),
            actor: 1,
        }
    }
}

impl<'a> Command<'a> {
    pub(crate) fn new(spec: &'a CommandSpec, words: &'a [&'a [u8]], context: Context<'a>) -> Self {
        Self {
            spec,
            words,
            context,
        }
    }

    /// The name as `COMMANDS` spells it, whatever case the client used.
    pub fn name(&self) -> &'a str {
        self.spec.name
    }

    /// Number of words, the name included.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Time, chance and place.
    pub fn context(&self) -> &Context<'a> {
        &self.context
    }

    /// The word at `position`, if the client sent one.
    pub fn get(&self, position: usize) -> Option<&'a [u8]> {
        self.words.get(position).copied()
    }

    /// The word at `position`.
    pub fn bytes(&self, position: usize) -> Result<&'a [u8]> {
        self.get(position).ok_or_else(|| self.wrong_arity())
    }

    /// The word at `position`, which must be text.
    pub fn text(&self, position: usize) -> Result<&'a str> {
        let word = self.bytes(position)?;
        std::str::from_utf8(word).map_err(|_| Error::err("value is not UTF-8 text"))
    }

    /// The word at `position`, which must be a decimal 64-bit integer.
    pub fn int(&self, position: usize) -> Result<i64> {
        integer(self.bytes(position)?)
    }

    /// The word at `position`, which must be a number.
    pub fn float(&self, position: usize) -> Result<f64> {
        let text = self.text(position).ok();
        let number = text.and_then(|text| text.parse().ok());
        number
            .filter(|number: &f64| !number.is_nan())
            .ok_or_else(|| Error::err("value is not a valid float"))
    }

    /// All words from `position` on.
    pub fn rest(&self, position: usize) -> &'a [&'a [u8]] {
        self.words.get(position..).unwrap_or_default()
    }

    /// The words that the spec declares to be keys.
    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let words = self.words;
        let positions = self.spec.key_positions(words.len());
        positions.filter_map(|position| words.get(position).copied())
    }

    /// Whether the word at `position` is this keyword, whatever its case.
    pub fn is(&self, position: usize, keyword: &str) -> bool {
        self.get(position)
            .is_some_and(|word| word.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    /// Redis' words for a call with too few or too many arguments.
    pub fn wrong_arity(&self) -> Error {
        Error::err(format!(
            "wrong number of arguments for '{}' command",
            self.name().to_ascii_lowercase()
        ))
    }

    /// The answer for a command that `COMMANDS` lists and `handle` has no arm for.
    pub fn unknown(&self) -> Result<Reply> {
        Err(Error::err(format!(
            "command '{}' is declared but not handled",
            self.name()
        )))
    }
}
