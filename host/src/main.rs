//! The `host` binary: reads the command line, starts logging, hands over, and turns the outcome into an exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use vnode_host::cli::{self, Exit, Invocation};
use vnode_host::config::{Config, LogFormat};

/// Buffers are freed on other threads than they were made on, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub(crate) fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Help and version are an "error" with exit code 0. A closed pipe is nobody's problem here.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match run(&invocation) {
        Ok(exit) => exit.into(),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}", cli::render(&error));
            cli::exit_of(&error).into()
        }
    }
}

fn run(invocation: &Invocation) -> anyhow::Result<Exit> {
    let Some(config) = invocation.node()? else {
        let mut out = std::io::stdout().lock();
        let exit = invocation.execute(&mut out)?;
        out.flush()?;
        return Ok(exit);
    };
    start_logging(&config, invocation)?;
    vnode_host::node::run(*config)?;
    Ok(Exit::Ok)
}

/// Only here, and only for a node: tests run many nodes in one process and choose their own subscriber.
fn start_logging(config: &Config, invocation: &Invocation) -> anyhow::Result<()> {
    // The consensus tells a lot of itself; what is in the setting stands after it and wins.
    let filter = format!("openraft=warn,{}", config.log);
    let filter = EnvFilter::try_new(filter).context("log: not a filter of log lines")?;
    // Standard output carries the banner; lines of the log go beside it.
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // That would be said on standard error as well, and the node would end when its disk is full.
        .log_internal_errors(false)
        .with_env_filter(filter);
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let started = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_ansi(invocation.colours()).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Whether the reader of standard output went away, as `host ring | head -1` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
