//! The `host` binary: reads the command line, starts logging, hands over, and turns the outcome into an exit code.

use std::io::{self, IsTerminal, Stdout, Write};
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
    let mut output = Output {
        out: io::stdout(),
        reader_left: false,
    };
    match run(&invocation, &mut output) {
        Ok(exit) => exit.into(),
        Err(_) if output.reader_left => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", cli::render(&error));
            cli::exit_of(&error).into()
        }
    }
}

fn run(invocation: &Invocation, output: &mut Output) -> anyhow::Result<Exit> {
    let Some(config) = invocation.node()? else {
        let exit = invocation.execute(output)?;
        output.flush()?;
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
        .with_writer(io::stderr)
        // That would be said on standard error as well, and the node would end when its disk is full.
        .log_internal_errors(false)
        .with_env_filter(filter);
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let started = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_ansi(invocation.colours()).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Standard output, which remembers when its reader went away, as in `host ring | head -1`. An error alone does not tell: a node that
/// ends a connection leaves the same one.
struct Output {
    out: Stdout,
    reader_left: bool,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.note(&written);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.note(&flushed);
        flushed
    }
}

impl Output {
    fn note<T>(&mut self, done: &io::Result<T>) {
        let kind = done.as_ref().err().map(io::Error::kind);
        self.reader_left |= kind == Some(io::ErrorKind::BrokenPipe);
    }
}
