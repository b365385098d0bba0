//! The trait that a guest implements, and what its constants say.

use std::ops::RangeInclusive;

use crate::spec::{self, CommandSpec, Quorum};
use crate::{Command, Error, Identity, Reply, Result};

/// The logic of one vnode: a name, a list of commands and one function.
///
/// One instance serves one partition and sees one call at a time. Its fields are a cache that may vanish between any
/// two calls; whatever must last is in the [`store`](crate::store). `Default` makes the instance,
/// [`init`](Self::init) completes it.
///
/// ```
/// use guest_sdk::prelude::*;
///
/// #[derive(Default)]
/// struct Greeter;
///
/// impl Vnode for Greeter {
///     const NAME: &'static str = "greeter";
///     const COMMANDS: &'static [CommandSpec] = &[any("HELLO").arity(2).syntax("name").summary("Say hello")];
///
///     fn handle(&mut self, command: &Command) -> Result<Reply> {
///         Ok(Reply::bulk(format!("hello {}", command.text(1)?)))
///     }
/// }
/// guest_sdk::export!(Greeter);
/// ```
pub trait Vnode: Default {
    /// Name of the service: letters, digits, `-` and `_`, starting with a letter.
    const NAME: &'static str;

    /// The commands. Flaws in them are compile errors.
    const COMMANDS: &'static [CommandSpec];

    /// What becomes of versions that were written without knowing of each other. A vnode with a command that writes
    /// must choose.
    const MERGE: Merge = Merge::Nothing;

    /// Version for people; none stands for the version of the crate that exports the vnode.
    const VERSION: Option<&'static str> = None;

    /// Schemas of stored values that this vnode reads; it writes the last of them.
    const SCHEMA: RangeInclusive<u32> = 1..=1;

    /// Replication, if not the cluster's.
    const QUORUM: Quorum = Quorum::DEFAULT;

    /// Runs one command as a transaction: what it wrote is kept as a whole when it returns `Ok`, and forgotten when it
    /// returns `Err` or panics.
    ///
    /// The host may run a command a second time, having dropped what the first run wrote, so nothing that matters may
    /// hang on the instance's own fields.
    fn handle(&mut self, command: &Command) -> Result<Reply>;

    /// Runs one page of a coverage command; `cursor` is none for the first page of a vnode, then what the page before
    /// named as next. Each page is a transaction of its own.
    fn coverage(&mut self, command: &Command, cursor: Option<&[u8]>) -> Result<Page> {
        let _ = cursor;
        command.unknown().map(|reply| Page::last([reply]))
    }

    /// Called once before the first command. The store may be read. An error keeps the vnode from serving and is
    /// shown to the operator.
    fn init(&mut self, identity: &Identity) -> Result<(), String> {
        let _ = identity;
        Ok(())
    }
}

/// Hears about what happens to the vnode around its commands; `export!(Kv, lifecycle)` exports it. A vnode without
/// it misses nothing that it needs, because the host moves, counts and removes the rows.
pub trait Lifecycle: Vnode {
    /// The rows are about to be sent to `node`. An error delays the transfer; the host asks again later.
    fn handoff_starting(&mut self, node: &str) -> Result<(), String> {
        let _ = node;
        Ok(())
    }

    /// All rows are at `node`, which owns the partition now.
    fn handoff_finished(&mut self, node: &str) {
        let _ = node;
    }

    /// The transfer to `node` was given up; this vnode stays the owner.
    fn handoff_cancelled(&mut self, node: &str) {
        let _ = node;
    }

    /// The rows were removed here, after a transfer or because the partition went away.
    fn deleted(&mut self) {}

    /// The instance ends in an orderly way. Not called after a trap.
    fn terminate(&mut self, reason: &str) {
        let _ = reason;
    }
}

/// Puts stored values from one schema into another; `export!(Kv, migration)` exports it. The vnode is then handed values of
/// the last schema of [`SCHEMA`](Vnode::SCHEMA) only, and the host keeps in mind which is in which.
///
/// Both functions have to depend on their arguments alone: they run without an instance and without a store, and each
/// replica calls them for itself.
///
/// ```
/// use guest_sdk::prelude::*;
///
/// #[derive(Default)]
/// struct Names;
///
/// impl Vnode for Names {
///     const NAME: &'static str = "names";
///     const COMMANDS: &'static [CommandSpec] = &[read("NAME").arity(2).key(1).syntax("key").summary("A name")];
///     /// Schema 1 has the name alone, schema 2 a title in front, behind which is a line break.
///     const SCHEMA: std::ops::RangeInclusive<u32> = 1..=2;
///
///     fn handle(&mut self, command: &Command) -> Result<Reply> {
///         Ok(store::get(command.bytes(1)?)?.into())
///     }
/// }
///
/// impl Migrate for Names {
///     const BACK_TO: u32 = 1;
///
///     fn newer(_: u32, _: &[u8], name: &[u8]) -> Result<Vec<u8>, String> {
///         Ok([b"\n", name].concat())
///     }
///
///     fn older(_: u32, _: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
///         let name = value.splitn(2, |byte| *byte == b'\n').nth(1);
///         name.map(<[u8]>::to_vec).ok_or_else(|| "a value without a title".into())
///     }
/// }
/// guest_sdk::export!(Names, migration);
/// ```
pub trait Migrate: Vnode {
    /// The oldest schema into which [`older`](Self::older) can put what this vnode writes. Until a rollout is final, what is
    /// stored has to be in a schema that the version before reads; the default says that this vnode cannot go back.
    const BACK_TO: u32 = *Self::SCHEMA.end();

    /// A value of schema `from` in the schema that this vnode writes.
    fn newer(from: u32, key: &[u8], value: &[u8]) -> Result<Vec<u8>, String>;

    /// A value of the schema that this vnode writes in schema `to`.
    fn older(to: u32, key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        let _ = (key, value);
        Err(format!("this vnode cannot go back to schema {to}"))
    }
}

/// What becomes of versions of a key that were written without knowing of each other.
#[derive(Clone, Copy, Debug)]
pub enum Merge {
    /// The vnode stores nothing.
    Nothing,
    /// The latest by clock stays, the others are lost.
    LastWrite,
    /// All stay until a write replaces them; [`store::get`](crate::store::get) answers the latest.
    Siblings,
    /// The function joins them.
    Custom(MergeFn),
}

/// Joins concurrent values of a key. Their order and grouping must not matter, and merging a value with itself must
/// give that value.
pub type MergeFn = fn(key: &[u8], values: &[Vec<u8>]) -> Vec<u8>;

/// One part of a coverage command's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// What this page adds to the reply: the members of the array for `concat` and `cursor`, one integer for `sum`,
    /// one reply for `all_ok`.
    pub items: Vec<Reply>,
    /// Where the next page starts; none when the vnode is done.
    pub next: Option<Vec<u8>>,
}

impl Page {
    /// A page, and where the next one starts.
    pub fn new<R: Into<Reply>>(items: impl IntoIterator<Item = R>, next: Option<Vec<u8>>) -> Self {
        Self {
            items: items.into_iter().map(Into::into).collect(),
            next,
        }
    }

    /// The only page, or the last.
    pub fn last<R: Into<Reply>>(items: impl IntoIterator<Item = R>) -> Self {
        Self::new(items, None)
    }
}

/// Fails to compile when the host would refuse the vnode. `export!` and the test kit evaluate it as a constant.
#[expect(
    clippy::panic,
    reason = "evaluated by the compiler only, where a panic is a compile error"
)]
pub const fn check<T: Vnode>() {
    if !spec::is_name(T::NAME, false) {
        panic!("NAME must be 1 to 32 letters, digits, `-` or `_`, starting with a letter");
    }
    if let Some(why) = spec::flaw(T::COMMANDS) {
        panic!("{}", why);
    }
    if matches!(T::MERGE, Merge::Nothing) && spec::any_writes(T::COMMANDS) {
        panic!(
            "a command writes, so say what becomes of concurrent versions: const MERGE: Merge = Merge::LastWrite, Siblings or Custom(merge)"
        );
    }
    if *T::SCHEMA.start() > *T::SCHEMA.end() {
        panic!("SCHEMA is an empty range");
    }
}

/// The error of a call before `init`, which a host never makes.
pub(crate) fn not_active() -> Error {
    Error::new("NOTACTIVE", "this vnode was not initialised")
}
