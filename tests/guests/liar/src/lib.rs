//! A small store that keeps the contract, but for the one promise that its mode breaks.
//!
//! The mode is a word in the component's bytes, which a test overwrites: one build gives every liar. It is written
//! without the SDK, which would keep the promises on its own.

mod packed;
mod typed;

use std::cell::RefCell;
use std::hint::black_box;

#[allow(clippy::all, missing_docs, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "guest-batch" });
}

use bindings::exports::vnode::host::vnode::{
    Aggregate, CommandKind, CommandSpec, Descriptor, Guest, Identity, KeyRange, MergePolicy,
};
use bindings::exports::vnode::host::{batch, vnode};
use bindings::vnode::host::types::{Command, Error, Reply};

/// A test looks for the first ten bytes and writes behind them.
static MODE: [u8; 32] = *b"liar-mode:honest................";

/// Whether this component breaks that promise.
fn breaks(promise: &str) -> bool {
    let mode = black_box(&MODE);
    let word = &mode[10..];
    let end = word.iter().position(|byte| *byte == b'.').unwrap_or(word.len());
    &word[..end] == promise.as_bytes()
}

#[derive(Default)]
struct Memory {
    actor: u64,
    ran: u64,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut Memory) -> R) -> R {
    MEMORY.with_borrow_mut(f)
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

fn spec(name: &str, arity: i32, kind: CommandKind, aggregate: Aggregate) -> CommandSpec {
    let keyed = !matches!(kind, CommandKind::Coverage);
    CommandSpec {
        name: name.into(),
        summary: String::new(),
        syntax: String::new(),
        arity,
        kind,
        keys: keyed.then(|| KeyRange {
            first: 1,
            last: 1,
            step: 1,
            prefix: String::new(),
        }),
        blind: is_blind(name),
        aggregate,
        n: None,
        r: None,
        w: None,
    }
}

/// SET never looks at what it replaces.
fn is_blind(name: &str) -> bool {
    name == "SET" || breaks("blind")
}

struct Liar;

impl Guest for Liar {
    fn describe() -> Descriptor {
        if breaks("describe-trap") {
            panic!("describe on purpose");
        }
        if breaks("describe-loop") {
            spin();
        }
        let mut commands = vec![
            spec("GET", 2, CommandKind::Read, Aggregate::Single),
            spec("SET", 3, CommandKind::Write, Aggregate::Single),
            spec("ADD", 3, CommandKind::Write, Aggregate::Single),
            spec("LIST", 1, CommandKind::Coverage, Aggregate::Concat),
        ];
        if breaks("no-commands") {
            commands.clear();
        }
        if breaks("twice") {
            commands.push(commands[0].clone());
        }
        if breaks("no-keys") {
            commands[0].keys = None;
        }
        if breaks("arity-zero") {
            commands[0].arity = 0;
        }
        if breaks("many-commands") {
            commands = (0..300)
                .map(|n| spec(&format!("C{n}"), 2, CommandKind::Read, Aggregate::Single))
                .collect();
        }
        Descriptor {
            name: match () {
                () if breaks("bad-name") => "no name",
                () if breaks("huge-name") => "",
                () if breaks("host-name") => "Vnode",
                () => "liar",
            }
            .into(),
            version: "0.1.0".into(),
            schema_reads_from: if breaks("schema") { 9 } else { 1 },
            schema_writes: 1,
            merge: MergePolicy::Custom,
            commands,
            n: None,
            r: None,
            w: None,
        }
    }

    fn init(identity: Identity) -> Result<(), String> {
        if breaks("init-trap") {
            panic!("init on purpose");
        }
        if breaks("init-loop") {
            spin();
        }
        if breaks("init-refuse") {
            return Err("the moon is\nin the wrong place".into());
        }
        with(|memory| memory.actor = identity.actor);
        Ok(())
    }

    fn handle(command: Command) -> Result<Reply, Error> {
        typed::handle(&command)
    }

    fn handle_coverage(
        _command: Command,
        cursor: Option<Vec<u8>>,
    ) -> Result<vnode::CoveragePage, Error> {
        typed::list(cursor.as_deref())
    }

    fn merge(_key: Vec<u8>, values: Vec<Vec<u8>>) -> Vec<u8> {
        if breaks("merge-trap") {
            panic!("merge on purpose");
        }
        if breaks("merge-first") {
            return values[0].clone();
        }
        if breaks("merge-twice") {
            return values.concat();
        }
        values.into_iter().max().unwrap_or_default()
    }
}

impl batch::Guest for Liar {
    fn handle_batch(frames: Vec<u8>) -> Vec<u8> {
        packed::answer(&frames)
    }
}

bindings::export!(Liar with_types_in bindings);
