//! The flags that start a node, made from the table of settings.
//!
//! Values stay text here; `config` parses them, so that a flag, a variable and a line of the file are refused alike.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, value_parser};

use crate::config::{Config, ConfigError, FileContents, Kind, Layers, SETTINGS, Setting};

const FILE: &str = "config";

/// Flags and variables as they were given.
#[derive(Clone, Debug, Default)]
pub struct RunArgs {
    file: Option<PathBuf>,
    /// Whether the file came from the command line.
    file_flag: bool,
    flags: BTreeMap<&'static str, Vec<String>>,
    env: BTreeMap<&'static str, String>,
}

impl RunArgs {
    /// The effective settings.
    ///
    /// # Errors
    /// When the file cannot be used or a setting is wrong.
    pub(super) fn resolve(&self) -> Result<Config, ConfigError> {
        let file = match &self.file {
            Some(path) => FileContents::read(path)?,
            None => FileContents::default(),
        };
        Config::resolve(&Layers {
            flags: self.flags.clone(),
            env: self.env.clone(),
            file,
        })
    }

    /// A flag that was given on the command line, if any was.
    pub(super) fn first_flag(&self) -> Option<&'static str> {
        let given = |setting: &&Setting| self.flags.contains_key(setting.key);
        let setting = SETTINGS.iter().find(given).map(|setting| setting.flag);
        setting.or(self.file_flag.then_some(FILE))
    }
}

impl Args for RunArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new(FILE)
            .long("config")
            .env("VNODE_CONFIG")
            .hide_env_values(true)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("TOML file with any of these settings; flags and VNODE_… variables win over it")
            .help_heading("Node");
        SETTINGS
            .iter()
            .map(arg)
            .fold(command, clap::Command::arg)
            .arg(file)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

fn arg(setting: &Setting) -> Arg {
    let default = (setting.show)(&Config::default());
    let help = if default.is_empty() {
        setting.help.to_owned()
    } else {
        format!("{} [default: {default}]", setting.help)
    };
    let limit = setting.key.starts_with("limits.");
    let list = setting.key == "vnode";
    let switch = setting.kind == Kind::Switch;
    let arg = Arg::new(setting.key);
    let arg = match switch {
        true => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        false => arg,
    };
    arg.long(setting.flag)
        .env(setting.env)
        .value_name(setting.value_name)
        .help(help)
        .help_heading(if limit { "Limits of a node" } else { "Node" })
        .hide_short_help(limit)
        .hide_env(true)
        // A negative number is a wrong value, which the settings explain, and not an unknown flag.
        .allow_negative_numbers(true)
        .action(if list {
            ArgAction::Append
        } else {
            ArgAction::Set
        })
}

impl FromArgMatches for RunArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            let values = || {
                matches
                    .get_many::<String>(setting.key)
                    .into_iter()
                    .flatten()
                    .cloned()
            };
            match matches.value_source(setting.key) {
                Some(ValueSource::CommandLine) => {
                    self.flags.insert(setting.key, values().collect());
                }
                Some(ValueSource::EnvVariable) => {
                    self.env
                        .insert(setting.key, values().next().unwrap_or_default());
                }
                _ => {}
            }
        }
        self.file_flag |= matches.value_source(FILE) == Some(ValueSource::CommandLine);
        let file = matches.get_one::<PathBuf>(FILE).cloned();
        self.file = file
            .filter(|path| !path.as_os_str().is_empty())
            .or(self.file.take());
        Ok(())
    }
}
