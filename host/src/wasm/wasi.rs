//! The part of WASI that a guest's standard library cannot do without, without any power.
//!
//! A Rust guest imports these interfaces for its panic message and its hash maps. The environment is empty, stdin is
//! closed, stdout and stderr go to the node's log, time is the command's time and chance is the command's seed.

use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};
use wasmtime::{Result, StoreContextMut};

/// Interfaces that a component may import besides the contract. Whatever is not listed is refused by name.
pub(super) const ALLOWED: &[&str] = &[
    "wasi:cli/environment@0.2.",
    "wasi:cli/exit@0.2.",
    "wasi:cli/stdin@0.2.",
    "wasi:cli/stdout@0.2.",
    "wasi:cli/stderr@0.2.",
    "wasi:cli/terminal-input@0.2.",
    "wasi:cli/terminal-output@0.2.",
    "wasi:cli/terminal-stdin@0.2.",
    "wasi:cli/terminal-stdout@0.2.",
    "wasi:cli/terminal-stderr@0.2.",
    "wasi:io/error@0.2.",
    "wasi:io/poll@0.2.",
    "wasi:io/streams@0.2.",
    "wasi:clocks/monotonic-clock@0.2.",
    "wasi:clocks/wall-clock@0.2.",
    "wasi:random/random@0.2.",
    "wasi:random/insecure@0.2.",
    "wasi:random/insecure-seed@0.2.",
];

/// What the shim needs from the state of an instance.
pub(super) trait Stderr {
    /// The guest wrote to stdout or stderr.
    fn said(&mut self, text: &[u8]);
    /// Wall clock of the running command, milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// The next 64 bits of the running command's chance.
    fn random(&mut self) -> u64;
}

/// Host types behind the resources; they carry nothing.
struct OutputStream;
struct InputStream;
struct Pollable;
struct IoError;
struct TerminalInput;
struct TerminalOutput;

/// Most bytes that one write to a stream may carry, and most random bytes of one call.
const CHUNK_BYTES_MAX: u64 = 4096;

/// Adds the shim under one version of WASI 0.2.
pub(super) fn add_to_linker<T: Stderr + 'static>(
    linker: &mut Linker<T>,
    version: &str,
) -> Result<()> {
    cli(linker, version)?;
    io(linker, version)?;
    clocks_and_random(linker, version)
}

fn cli<T: Stderr + 'static>(linker: &mut Linker<T>, version: &str) -> Result<()> {
    let mut environment = linker.instance(&format!("wasi:cli/environment@{version}"))?;
    environment.func_wrap("get-environment", |_, (): ()| {
        Ok((Vec::<(String, String)>::new(),))
    })?;
    environment.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
    environment.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))?;

    linker
        .instance(&format!("wasi:cli/exit@{version}"))?
        .func_wrap("exit", |_, (_status,): (Result<(), ()>,)| -> Result<()> {
            Err(wasmtime::Error::msg("guest called exit"))
        })?;

    let mut stdin = linker.instance(&format!("wasi:cli/stdin@{version}"))?;
    resource::<T, InputStream>(&mut stdin, "input-stream")?;
    stdin.func_wrap("get-stdin", |_, (): ()| {
        Ok((Resource::<InputStream>::new_own(0),))
    })?;
    for (interface, function) in [
        (format!("wasi:cli/stdout@{version}"), "get-stdout"),
        (format!("wasi:cli/stderr@{version}"), "get-stderr"),
    ] {
        let mut out = linker.instance(&interface)?;
        resource::<T, OutputStream>(&mut out, "output-stream")?;
        out.func_wrap(function, |_, (): ()| {
            Ok((Resource::<OutputStream>::new_own(0),))
        })?;
    }
    resource::<T, TerminalInput>(
        &mut linker.instance(&format!("wasi:cli/terminal-input@{version}"))?,
        "terminal-input",
    )?;
    resource::<T, TerminalOutput>(
        &mut linker.instance(&format!("wasi:cli/terminal-output@{version}"))?,
        "terminal-output",
    )?;
    let mut terminal = linker.instance(&format!("wasi:cli/terminal-stdin@{version}"))?;
    resource::<T, TerminalInput>(&mut terminal, "terminal-input")?;
    terminal.func_wrap("get-terminal-stdin", |_, (): ()| {
        Ok((None::<Resource<TerminalInput>>,))
    })?;
    for (interface, function) in [
        (
            format!("wasi:cli/terminal-stdout@{version}"),
            "get-terminal-stdout",
        ),
        (
            format!("wasi:cli/terminal-stderr@{version}"),
            "get-terminal-stderr",
        ),
    ] {
        let mut terminal = linker.instance(&interface)?;
        resource::<T, TerminalOutput>(&mut terminal, "terminal-output")?;
        terminal.func_wrap(function, |_, (): ()| {
            Ok((None::<Resource<TerminalOutput>>,))
        })?;
    }
    Ok(())
}

fn io<T: Stderr + 'static>(linker: &mut Linker<T>, version: &str) -> Result<()> {
    resource::<T, IoError>(
        &mut linker.instance(&format!("wasi:io/error@{version}"))?,
        "error",
    )?;
    let mut poll = linker.instance(&format!("wasi:io/poll@{version}"))?;
    resource::<T, Pollable>(&mut poll, "pollable")?;
    poll.func_wrap(
        "[method]pollable.block",
        |_, (_,): (Resource<Pollable>,)| Ok(()),
    )?;
    poll.func_wrap(
        "[method]pollable.ready",
        |_, (_,): (Resource<Pollable>,)| Ok((true,)),
    )?;

    let mut streams = linker.instance(&format!("wasi:io/streams@{version}"))?;
    // Types that an interface takes from another are part of it too.
    resource::<T, IoError>(&mut streams, "error")?;
    resource::<T, Pollable>(&mut streams, "pollable")?;
    resource::<T, InputStream>(&mut streams, "input-stream")?;
    resource::<T, OutputStream>(&mut streams, "output-stream")?;
    streams.func_wrap(
        "[method]output-stream.check-write",
        |_, (_,): (Resource<OutputStream>,)| Ok((Ok::<u64, StreamError>(CHUNK_BYTES_MAX),)),
    )?;
    for method in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{method}"),
            |mut store: StoreContextMut<'_, T>, (_, bytes): (Resource<OutputStream>, Vec<u8>)| {
                store.data_mut().said(&bytes);
                Ok((Ok::<(), StreamError>(()),))
            },
        )?;
    }
    for method in ["flush", "blocking-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{method}"),
            |_, (_,): (Resource<OutputStream>,)| Ok((Ok::<(), StreamError>(()),)),
        )?;
    }
    streams.func_wrap(
        "[method]output-stream.subscribe",
        |_, (_,): (Resource<OutputStream>,)| Ok((Resource::<Pollable>::new_own(0),)),
    )
}

fn clocks_and_random<T: Stderr + 'static>(linker: &mut Linker<T>, version: &str) -> Result<()> {
    let mut monotonic = linker.instance(&format!("wasi:clocks/monotonic-clock@{version}"))?;
    monotonic.func_wrap("now", |store: StoreContextMut<'_, T>, (): ()| {
        Ok((store.data().now_ms().saturating_mul(1_000_000),))
    })?;
    monotonic.func_wrap("resolution", |_, (): ()| Ok((1_000_000u64,)))?;
    let mut wall = linker.instance(&format!("wasi:clocks/wall-clock@{version}"))?;
    wall.func_wrap("now", |store: StoreContextMut<'_, T>, (): ()| {
        Ok((Datetime::from_ms(store.data().now_ms()),))
    })?;
    wall.func_wrap("resolution", |_, (): ()| Ok((Datetime::from_ms(1),)))?;

    for (interface, bytes, number) in [
        (
            format!("wasi:random/random@{version}"),
            "get-random-bytes",
            "get-random-u64",
        ),
        (
            format!("wasi:random/insecure@{version}"),
            "get-insecure-random-bytes",
            "get-insecure-random-u64",
        ),
    ] {
        let mut random = linker.instance(&interface)?;
        random.func_wrap(
            bytes,
            |mut store: StoreContextMut<'_, T>, (count,): (u64,)| {
                if count > CHUNK_BYTES_MAX {
                    return Err(wasmtime::Error::msg(
                        "guest asked for too many random bytes",
                    ));
                }
                let data = store.data_mut();
                let words = std::iter::repeat_with(|| data.random().to_le_bytes());
                let count = usize::try_from(count)?;
                Ok((words.flatten().take(count).collect::<Vec<u8>>(),))
            },
        )?;
        random.func_wrap(number, |mut store: StoreContextMut<'_, T>, (): ()| {
            Ok((store.data_mut().random(),))
        })?;
    }
    linker
        .instance(&format!("wasi:random/insecure-seed@{version}"))?
        .func_wrap(
            "insecure-seed",
            |mut store: StoreContextMut<'_, T>, (): ()| {
                let data = store.data_mut();
                Ok(((data.random(), data.random()),))
            },
        )
}

fn resource<T: 'static, R: 'static>(
    instance: &mut LinkerInstance<'_, T>,
    name: &str,
) -> Result<()> {
    instance.resource(name, ResourceType::host::<R>(), |_, _| Ok(()))
}

/// `stream-error` of wasi:io; the shim never returns one, but the type has to be there.
#[derive(wasmtime::component::ComponentType, wasmtime::component::Lower)]
#[component(variant)]
#[allow(dead_code, reason = "only the type matters")]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

/// `datetime` of wasi:clocks.
#[derive(wasmtime::component::ComponentType, wasmtime::component::Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl Datetime {
    fn from_ms(ms: u64) -> Datetime {
        Datetime {
            seconds: ms / 1000,
            nanoseconds: u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
        }
    }
}
