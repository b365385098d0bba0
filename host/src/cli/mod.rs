//! The command line: what can be typed, and what is printed for it.
//!
//! Owns the tree of commands, their text output and the exit codes. It never runs a node: [`Invocation::node`] gives
//! `main` the settings of one. Commands that ask about a running node go through `client`, in the JSON of the HTTP API.

mod args;
mod bench;
mod bench_args;
mod build;
mod call;
mod changes;
mod client;
mod cluster;
mod dev;
pub mod guest;
mod new;
mod output;
mod plan;
mod recover;
mod reply;
mod report;
mod ring;
mod rollout;
mod run_args;
mod safety;
mod services;
mod settings;
mod shadow;
mod status;
mod table;
mod templates;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod transfers;
mod vnode;
mod wait;

use std::ffi::OsString;
use std::io::Write;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};

pub use args::{Cli, Color, Command, Format, Global};
pub use output::Session;
pub use report::{Exit, Failure, exit_of, render};

use crate::config::Config;

/// One parsed command line.
#[derive(Debug)]
pub struct Invocation {
    cli: Cli,
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// When it does not parse, and for `--help` and `--version`; clap's error prints itself and knows its exit code.
pub fn parse<I>(words: I) -> Result<Invocation, clap::Error>
where
    I: IntoIterator<Item = OsString>,
{
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(words)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if let (Some(flag), Some((name, _))) = (cli.run.first_flag(), matches.subcommand()) {
        // Settings before another command would be silently without effect.
        let text = format!(
            "--{flag} starts a node and does not go before `{name}`; write `host {name} …`"
        );
        return Err(command.error(clap::error::ErrorKind::ArgumentConflict, text));
    }
    Ok(Invocation { cli })
}

impl Invocation {
    /// The settings of the node to start, or none when another command was given.
    ///
    /// # Errors
    /// When a setting is wrong or no guest is named; nothing has been touched then.
    pub fn node(&self) -> anyhow::Result<Option<Box<Config>>> {
        let run = match &self.cli.command {
            None => &self.cli.run,
            Some(Command::Run(run)) => run,
            Some(_) => return Ok(None),
        };
        let config = run.resolve()?;
        if config.vnodes.is_empty() {
            let failure = Failure::usage("no guest to run")
                .next("name one: `host --vnode kv` (built in) or `host --vnode FILE.wasm`; `host --help` shows the rest");
            return Err(failure.into());
        }
        Ok(Some(Box::new(config)))
    }

    /// Whether text for people may have colours.
    pub fn colours(&self) -> bool {
        output::colours(self.cli.global.color)
    }

    /// Runs any command but the one that starts a node.
    ///
    /// # Errors
    /// Whatever went wrong, once; [`render`] makes it lines and [`exit_of`] the exit code.
    pub fn execute(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let mut session = Session::new(&self.cli.global, out);
        let session = &mut session;
        match &self.cli.command {
            None | Some(Command::Run(_)) => Ok(Exit::Ok),
            Some(Command::Call(args)) => call::call(session, args),
            Some(Command::Inspect { file }) => guest::inspect(session, file),
            Some(Command::Check { file }) => guest::check(session, file),
            Some(Command::New(args)) => new::new(session, args),
            Some(Command::Build { dir }) => build::build(session, dir),
            Some(Command::Dev(args)) => dev::dev(session, args),
            Some(Command::Status) => status::status(session),
            Some(Command::Cluster(command)) => cluster::run(session, command),
            Some(Command::Transfers { watch, command }) => match command {
                None => transfers::transfers(session, *watch),
                Some(command) => transfers::say(session, command),
            },
            Some(Command::Node(args::Node::Drain)) => status::drain(session),
            Some(Command::Ring { command }) => match command {
                None | Some(args::Ring::Show) => ring::show(session),
                Some(args::Ring::Preflist(preflist)) => ring::preflist(session, preflist),
                Some(args::Ring::Partition { id }) => ring::partition(session, *id),
            },
            Some(Command::Vnode(args::Vnode::List)) => vnode::list(session),
            Some(Command::Vnode(args::Vnode::Show { id })) => vnode::show(session, id),
            Some(Command::Guest(command)) => guest_command(session, command),
            Some(Command::Config(args::Settings::Default)) => settings::default(session),
            Some(Command::Config(args::Settings::Check { file })) => settings::check(session, file),
            Some(Command::Config(args::Settings::Show(run))) => settings::show(session, run),
            Some(Command::Tls(args::Tls::Dev(args))) => tls::dev(session, args),
            Some(Command::Recover(args)) => recover::run(session, args),
            Some(Command::Bench(command)) => bench::run(session, command),
            Some(Command::Completions { shell }) => completions(session, *shell),
        }
    }
}

fn guest_command(session: &mut Session<'_>, command: &args::Guest) -> anyhow::Result<Exit> {
    let act = |session: &mut Session<'_>, action, of: &args::OfService| {
        rollout::act(session, action, of.service.as_deref())
    };
    match command {
        args::Guest::Show => services::show(session),
        args::Guest::Plan { file, terms } => rollout::plan(session, file, terms),
        args::Guest::Upgrade(upgrade) => rollout::upgrade(session, upgrade),
        args::Guest::Shadow(wish) => shadow::shadow(session, wish),
        args::Guest::Pause(of) => act(session, "pause", of),
        args::Guest::Advance(of) => act(session, "advance", of),
        args::Guest::Finalize(of) => act(session, "finalize", of),
        args::Guest::Rollback(of) => act(session, "rollback", of),
    }
}

fn completions(session: &mut Session<'_>, shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    // Into memory first: the generator panics when its writer fails, and standard output may be a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "host", &mut script);
    session
        .out
        .write_all(&script)
        .context("cannot write the script")?;
    Ok(Exit::Ok)
}
