//! A vnode without a host: commands in, replies out, rows in memory.
//!
//! [`TestVnode`] treats a vnode as the host does: the arity is checked, each command is a transaction, the pages of a
//! coverage command are joined, and [`restart`](TestVnode::restart) keeps the rows and nothing else. Commands go
//! through the packed door first, as in a host, unless [`through`](TestVnode::through) says otherwise.
//!
//! ```
//! use guest_sdk::prelude::*;
//! use guest_sdk::testing::TestVnode;
//!
//! #[derive(Default)]
//! struct Register;
//!
//! impl Vnode for Register {
//!     const NAME: &'static str = "register";
//!     const MERGE: Merge = Merge::LastWrite;
//!     const COMMANDS: &'static [CommandSpec] = &[write("SWAP").arity(3).key(1).syntax("key value")];
//!
//!     fn handle(&mut self, command: &Command) -> Result<Reply> {
//!         let old = store::get(command.bytes(1)?)?;
//!         store::put(command.bytes(1)?, command.bytes(2)?)?;
//!         Ok(old.into())
//!     }
//! }
//!
//! let mut register = TestVnode::<Register>::new();
//! assert_eq!(register.call("swap a 1")?, Reply::nil());
//! assert_eq!(register.call(["SWAP", "a", "two words"])?, "1");
//! assert_eq!(register.value("a"), Some(b"two words".to_vec()));
//! assert!(register.call("SWAP a").is_err());
//! # Ok::<(), Error>(())
//! ```

mod doors;
mod words;

use std::collections::BTreeMap;

use crate::bindings::vnode::host::types;
use crate::door::{self, Instance};
use crate::memory::{Access, Memory, hash, within};
use crate::spec::{Aggregate, CommandSpec};
use crate::{Error, Identity, Page, Reply, Result, Vnode, check};

pub use words::Words;

/// Which way commands reach the vnode. The answers must not differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// Packed, and through the typed door when the command is deferred: what a host does.
    #[default]
    Batch,
    /// Typed: what a host does for guests in other languages.
    Typed,
}

/// A vnode, its rows, and what the host would know.
#[derive(Debug)]
pub struct TestVnode<T> {
    identity: Identity,
    instance: Option<Instance<T>>,
    memory: Memory,
    door: Door,
    now_ms: u64,
    calls: u64,
}

impl<T: Vnode> Default for TestVnode<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Vnode> TestVnode<T> {
    /// A vnode without rows, on the first partition of a ring of 64.
    pub fn new() -> Self {
        Self::with(Identity {
            service: T::NAME.to_owned(),
            ..Identity::default()
        })
    }

    /// A vnode without rows at this place.
    pub fn with(identity: Identity) -> Self {
        const { check::<T>() };
        Self {
            memory: Memory::new(identity.actor, T::MERGE),
            identity,
            instance: None,
            door: Door::default(),
            now_ms: 1_700_000_000_000,
            calls: 0,
        }
    }

    /// The same vnode, called through this door.
    pub fn through(mut self, door: Door) -> Self {
        self.door = door;
        self
    }

    /// Sends a command as a client would; `"GET a"` and `["GET", "a"]` are the same. A coverage command is answered
    /// from all its pages.
    pub fn call(&mut self, words: impl Words) -> Result<Reply> {
        let words = words.words();
        let spec = Self::spec(&words)?;
        if spec.covers() {
            return self.cover(spec, &words);
        }
        if self.door == Door::Batch
            && let Some(reply) = self.call_batch(spec, &words)
        {
            return reply;
        }
        let command = self.command(spec, &words);
        let reply = self.transact(access(spec, &words), |instance| {
            door::handle(instance, &command)
        })?;
        doors::raise(reply)
    }

    /// Runs one page of a coverage command.
    pub fn page(&mut self, words: impl Words, cursor: Option<&[u8]>) -> Result<Page> {
        let words = words.words();
        let spec = Self::spec(&words)?;
        self.one_page(spec, &words, cursor)
    }

    /// Ends the instance, as a crash or a swap does. The next call makes a new one from the rows.
    pub fn restart(&mut self) {
        self.instance = None;
    }

    /// Sets the clock, in milliseconds since 1970.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The stored value of a key, as `store::get` answers it.
    pub fn value(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.memory.get(key.as_ref())
    }

    /// All rows by key.
    pub fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.memory.sorted()
    }

    /// Takes in the rows of another replica, as handoff, repair and anti-entropy do. Give the two different
    /// `actor`s, or they take each other's writes for their own.
    pub fn merge_from(&mut self, other: &Self) {
        self.memory.merge(&other.memory);
    }

    fn spec(words: &[Vec<u8>]) -> Result<&'static CommandSpec> {
        let name = words
            .first()
            .map(|word| String::from_utf8_lossy(word))
            .unwrap_or_default();
        let short = match name.split_once('.') {
            Some((service, short)) if service.eq_ignore_ascii_case(T::NAME) => short,
            _ => &*name,
        };
        let spec = T::COMMANDS
            .iter()
            .find(|spec| spec.name.eq_ignore_ascii_case(short));
        let spec = spec.ok_or_else(|| Error::err(format!("unknown command '{name}'")))?;
        if !spec.takes(words.len()) {
            let name = spec.name.to_ascii_lowercase();
            return Err(Error::err(format!(
                "wrong number of arguments for '{name}' command"
            )));
        }
        Ok(spec)
    }

    fn command(&mut self, spec: &CommandSpec, words: &[Vec<u8>]) -> types::Command {
        self.calls += 1;
        types::Command {
            name: spec.name.to_owned(),
            args: words.iter().skip(1).cloned().collect(),
            context: types::Context {
                now_ms: self.now_ms,
                seed: seed(self.calls),
                request_id: self.calls,
                partition: self.identity.partition,
                node: self.identity.node.clone(),
                replica: types::ReplicaKind::Primary,
            },
        }
    }

    /// The packed way; none when the command was deferred.
    fn call_batch(&mut self, spec: &CommandSpec, words: &[Vec<u8>]) -> Option<Result<Reply>> {
        let command = self.command(spec, words);
        let frame = doors::frame::<T>(&command, spec, |key| self.memory.get(key));
        let answer = self.transact(Access::Nothing, |instance| {
            doors::answer(&crate::batch::run(instance, frame))
        });
        let (effects, reply) = match answer {
            Ok(doors::Answer::Done { effects, reply }) => (effects, reply),
            Ok(doors::Answer::Deferred) => return None,
            Err(error) => return Some(Err(error)),
        };
        let keys: Vec<usize> = spec.key_positions(words.len()).collect();
        let applied = self.transact(access(spec, words), |_| {
            for (key, value) in effects {
                let key = keys
                    .get(key)
                    .and_then(|position| words.get(*position))
                    .ok_or("no such key")?;
                match value {
                    Some(value) => crate::memory::put(key, &value)?,
                    None => crate::memory::delete(key).map(drop)?,
                }
            }
            Ok::<(), Error>(())
        });
        Some(applied.map(|()| reply))
    }

    fn cover(&mut self, spec: &CommandSpec, words: &[Vec<u8>]) -> Result<Reply> {
        let mut items = Vec::new();
        let mut cursor: Option<Vec<u8>> = None;
        loop {
            let page = self.one_page(spec, words, cursor.as_deref())?;
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        match spec.aggregate {
            Aggregate::Sum => {
                let numbers = items.iter().map(|item| match item {
                    Reply::Int(number) => Ok(*number),
                    other => Err(Error::err(format!("a page to sum has {other:?}"))),
                });
                Ok(Reply::int(numbers.sum::<Result<i64>>()?))
            }
            Aggregate::Concat => Ok(Reply::Array(items)),
            Aggregate::Cursor => Ok(Reply::array([Reply::bulk("0"), Reply::Array(items)])),
            Aggregate::AllOk | Aggregate::Single => items
                .into_iter()
                .next()
                .ok_or_else(|| "no page has a reply".into()),
        }
    }

    fn one_page(
        &mut self,
        spec: &CommandSpec,
        words: &[Vec<u8>],
        cursor: Option<&[u8]>,
    ) -> Result<Page> {
        let command = self.command(spec, words);
        let page = self.transact(access(spec, words), |instance| {
            door::coverage(instance, &command, cursor)
        })?;
        Ok(Page {
            items: doors::raise_all(page.items)?,
            next: page.next,
        })
    }

    /// Runs `f` as one transaction.
    fn transact<R, E>(
        &mut self,
        access: Access,
        f: impl FnOnce(&mut Option<Instance<T>>) -> Result<R, E>,
    ) -> Result<R>
    where
        Error: From<E>,
    {
        self.ensure()?;
        self.memory.begin(access);
        let instance = &mut self.instance;
        let result = within(&mut self.memory, || f(instance));
        self.memory.end(result.is_ok());
        result.map_err(Error::from)
    }

    fn ensure(&mut self) -> Result<()> {
        if self.instance.is_none() {
            let identity = self.identity.clone();
            self.memory.begin(Access::Nothing);
            let made = within(&mut self.memory, || door::init(identity));
            self.memory.end(false);
            self.instance = Some(made.map_err(|why| Error::new("NOTACTIVE", why))?);
        }
        Ok(())
    }
}

/// What a command of this kind may write.
fn access(spec: &CommandSpec, words: &[Vec<u8>]) -> Access {
    if !spec.writes() {
        return Access::Nothing;
    }
    if spec.covers() {
        return Access::All;
    }
    let keys = spec
        .key_positions(words.len())
        .filter_map(|position| words.get(position));
    Access::Near(keys.map(|key| hash(key)).collect())
}

/// Different bits for each call, the same in each run of a test.
fn seed(call: u64) -> u64 {
    let mixed = (call ^ (call >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// The texts in an array, sorted: the order of a coverage command's answer says nothing.
pub fn sorted(reply: &Reply) -> Vec<String> {
    let texts = reply.items().iter().filter_map(Reply::as_bytes);
    let mut texts: Vec<_> = texts
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    texts.sort();
    texts
}
