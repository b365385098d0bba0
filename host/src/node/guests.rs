//! The guests of a node: where their bytes come from, and what is kept of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, GuestSource};
use crate::data_dir::DataDir;
use crate::library::Library;
use crate::node::NodeError;
use crate::wasm::{CompileCache, Engine, Guest, Limits, LoadError};

/// Guests that are part of the program: name and component.
pub const BUILT_IN: &[(&str, &[u8])] = &[
    ("kv", include_bytes!(concat!(env!("GUESTS"), "/kv.wasm"))),
    (
        "ping",
        include_bytes!(concat!(env!("GUESTS"), "/ping.wasm")),
    ),
    (
        "counter",
        include_bytes!(concat!(env!("GUESTS"), "/counter.wasm")),
    ),
];

/// Why a guest is not served.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No guest was named.
    #[error(
        "a node needs a guest\n  next: --vnode FILE.wasm, or one that is built in: {}",
        names()
    )]
    None,
    /// No built-in guest has that name.
    #[error(
        "no guest named {name:?} is built in\n  next: one of {}, or a path with a / or .wasm in it",
        names()
    )]
    NotBuiltIn {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the component\n  in: {}\n  next: check the path; `host build` makes a component of a guest project", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The component is refused.
    #[error(
        "{source}\n  in: {from}\n  next: `host new NAME` makes a project whose component loads; guest-sdk/README.md and wit/ say what is asked of one"
    )]
    Load {
        /// The file or name.
        from: String,
        /// Why.
        source: LoadError,
    },
    /// Two guests have one name.
    #[error(
        "two guests are named {name:?}: {first} and {second}\n  next: one service has one guest; give only one of them"
    )]
    Twice {
        /// The name.
        name: String,
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// The machine cannot run compiled guests.
    #[error("guests cannot run on this machine: {0}")]
    Engine(String),
    /// The cache of compiled guests cannot be opened.
    #[error("cannot open the cache of compiled guests\n  in: {}", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn names() -> String {
    let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Loads every guest of the settings and opens the data directory.
///
/// A new directory is made only when all guests are known to be good; an existing one is opened first, because its
/// cache spares the compiling.
pub(super) fn load(
    config: &Config,
    path: &Path,
    name: &str,
) -> Result<(DataDir, Library, Vec<Arc<Guest>>), NodeError> {
    let sources = read(&config.vnodes)?;
    let engine = engine(config)?;
    if path.join("node.toml").exists() {
        let data_dir = DataDir::open(path, name)?;
        let library = library(config, engine, Some(&data_dir))?;
        let guests = load_all(&library, &sources)?;
        keep(&library, &sources, &guests);
        return Ok((data_dir, library, guests));
    }
    let guests = load_all(&library(config, engine.clone(), None)?, &sources)?;
    let data_dir = DataDir::open(path, name)?;
    let library = library(config, engine, Some(&data_dir))?;
    keep(&library, &sources, &guests);
    Ok((data_dir, library, guests))
}

/// Loads one guest for a look at it. Nothing is written.
pub fn inspect(config: &Config, source: &GuestSource) -> Result<Arc<Guest>, GuestError> {
    let sources = read(std::slice::from_ref(source))?;
    let library = library(config, engine(config)?, None)?;
    load_all(&library, &sources)?.pop().ok_or(GuestError::None)
}

fn read(sources: &[GuestSource]) -> Result<Vec<(String, Vec<u8>)>, GuestError> {
    if sources.is_empty() {
        return Err(GuestError::None);
    }
    sources
        .iter()
        .map(|source| match source {
            GuestSource::File(path) => match std::fs::read(path) {
                Ok(bytes) => Ok((path.display().to_string(), bytes)),
                Err(source) => Err(GuestError::Read {
                    path: path.clone(),
                    source,
                }),
            },
            GuestSource::BuiltIn(name) => BUILT_IN
                .iter()
                .find(|(built_in, _)| built_in == name)
                .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
                .ok_or_else(|| GuestError::NotBuiltIn { name: name.clone() }),
        })
        .collect()
}

fn engine(config: &Config) -> Result<Engine, GuestError> {
    let limits = &config.limits;
    Engine::new(Limits {
        memory_bytes_max: config.memory_per_vnode,
        table_elements_max: limits.table_elements_max,
        stack_bytes_max: limits.stack_bytes_max,
        command_budget: config.command_budget,
        host_calls_max: u32::try_from(limits.host_calls_max).unwrap_or(u32::MAX),
        reply_bytes_max: limits.reply_bytes_max,
        component_bytes_max: limits.component_bytes_max,
        key_bytes_max: limits.key_bytes_max,
        value_bytes_max: limits.value_bytes_max,
    })
    .map_err(|error| GuestError::Engine(format!("{error:#}")))
}

fn load_all(
    library: &Library,
    sources: &[(String, Vec<u8>)],
) -> Result<Vec<Arc<Guest>>, GuestError> {
    let mut guests: Vec<Arc<Guest>> = Vec::new();
    for (from, bytes) in sources {
        let guest = library.load(bytes).map_err(|source| GuestError::Load {
            from: from.clone(),
            source,
        })?;
        let name = &guest.descriptor().name;
        let twin = guests
            .iter()
            .position(|other| other.descriptor().name.eq_ignore_ascii_case(name));
        if let Some((first, _)) = twin.and_then(|twin| sources.get(twin)) {
            return Err(GuestError::Twice {
                name: name.clone(),
                first: first.clone(),
                second: from.clone(),
            });
        }
        guests.push(guest);
    }
    Ok(guests)
}

/// The components of a node; without a data directory, one that keeps nothing.
fn library(
    config: &Config,
    engine: Engine,
    data_dir: Option<&DataDir>,
) -> Result<Library, GuestError> {
    let last_write = config.services.iter();
    let last_write = last_write
        .filter(|(_, settings)| settings.last_write_wins)
        .map(|(name, _)| name.clone());
    let open = |path: PathBuf| {
        CompileCache::open(&path).map_err(|source| GuestError::Cache { path, source })
    };
    let cache = data_dir.map(DataDir::cache_path).map(open).transpose()?;
    let folder = data_dir.map(DataDir::guests_path).unwrap_or_default();
    Ok(Library::new(engine, folder, cache, last_write.collect()))
}

/// Keeps the components by digest: what a partition ran can be looked at, and given to other nodes.
fn keep(library: &Library, sources: &[(String, Vec<u8>)], guests: &[Arc<Guest>]) {
    for (guest, (_, bytes)) in guests.iter().zip(sources) {
        if let Err(error) = library.keep(guest, bytes) {
            tracing::warn!(%error, "the component is not kept");
        }
    }
}
