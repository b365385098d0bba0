//! The effective settings of a node, and where each of them came from.
//!
//! Owns the precedence (flag, then environment, then file, then default), the names and ranges of all settings, and
//! every limit of the host. It never opens a socket, never creates a directory, and reads no file but the one that
//! `--config` names. The table of names is in `config/settings.rs`, how a text becomes a value in `config/codec.rs`.

mod check;
mod codec;
mod file;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::descriptor::Quorum;

pub use codec::Kind;
pub use file::Contents as FileContents;
pub use settings::{SETTINGS, Setting, find as setting};

/// The effective settings of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Guests to serve, one service each, in the order that decides who gets a short command name. Default none.
    pub vnodes: Vec<GuestSource>,
    /// Identity in the cluster; `None` is `node@` and the advertised peer address. See [`Config::node_name`].
    pub name: Option<String>,
    /// First of three ports, of RESP, HTTP and peers; 0 lets the system pick all three. Default 7379. The addresses
    /// below are already computed from it.
    pub port: u16,
    /// Where clients speak RESP. Default `127.0.0.1:<port>`.
    pub resp: SocketAddr,
    /// Where the API, metrics, health and dashboard are served. Default `127.0.0.1:<port + 1>`.
    pub http: SocketAddr,
    /// Where other nodes connect. Default `127.0.0.1:<port + 2>`.
    pub peer: SocketAddr,
    /// HOST:PORT under which other nodes reach `peer`; `None` is the bound peer address.
    pub advertise: Option<String>,
    /// HOST:PORT of a member of the cluster to join, for other nodes or for HTTP.
    pub join: Option<String>,
    /// Whether a join is committed at once.
    pub auto_commit: bool,
    /// Certificates for TLS with other nodes, as [`vnode_cluster::tls`] says; `None` is no TLS.
    pub tls_dir: Option<PathBuf>,
    /// Data directory; `None` is `./data/<name>`. See [`Config::data_dir`].
    pub data: Option<PathBuf>,
    /// Partitions of a new cluster, a power of two from 8 to 4096. Default 64.
    pub ring_size: u32,
    /// How a new cluster hashes keys. Default `v1`.
    pub hash: HashId,
    /// Replication of services that say nothing. Default n=3 r=2 w=2.
    pub replication: Replication,
    /// What the operator wants of single services, by service name; only from the file.
    pub services: BTreeMap<String, ServiceSettings>,
    /// Where rows are kept. Default `disk`.
    pub storage: StorageKind,
    /// When a write is on disk. Default `interval`.
    pub sync: SyncMode,
    /// Longest time that an acknowledged write is not on disk under `sync = interval`. Default 100 ms.
    pub sync_interval: Duration,
    /// The mark of a deleted key is kept so long at least. Default 24 h.
    pub tombstone_grace: Duration,
    /// Live objects kept in memory in front of the disk, bytes per node. Default 256 MiB. Beyond it the coldest leave.
    pub cache_bytes: usize,
    /// Threads that run vnodes; 0 is one per core. Default 0. See [`Config::executor_count`].
    pub executors: usize,
    /// Memory of one guest instance, bytes. Default 64 MiB. Beyond it the guest traps: `GUESTTRAP`.
    pub memory_per_vnode: usize,
    /// Time that one command may run in a guest. Default 200 ms. Beyond it: `TIMEOUT`.
    pub command_budget: Duration,
    /// Place of the node (rack, zone) for the claim. Default none.
    pub location: Option<String>,
    /// Filter of log lines, as in `info,host::node=debug`. Default `info`.
    pub log: String,
    /// Look of log lines. Default `auto`.
    pub log_format: LogFormat,
    /// Everything that is bounded.
    pub limits: Limits,
    /// Where each setting came from, by key; a key that is missing has its default.
    origins: BTreeMap<&'static str, Origin>,
}

/// Every bound of a node: its unit, its default and the error seen when it is hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, bytes. Default 4 KiB. Beyond it: `TOOBIG`.
    pub key_bytes_max: usize,
    /// Longest value or other argument, bytes. Default 1 MiB. Beyond it: `TOOBIG`.
    pub value_bytes_max: usize,
    /// Most words of one command, its name included. Default 1024. Beyond it: `TOOBIG`.
    pub args_max: usize,
    /// Most client connections at once. Default 10 000. Beyond it: `ERR max number of clients reached`, then close.
    pub connections_max: usize,
    /// Replies that wait for a slow client, bytes per connection. Default 32 MiB. Beyond it nothing more is read from
    /// that connection until the client has taken some.
    pub output_buffer_bytes_max: usize,
    /// Commands in flight on one connection. Default 4096. Beyond it reading waits; no error.
    pub pipeline_commands_max: usize,
    /// Commands that wait for one vnode. Default 10 000. Beyond it: `BUSY`.
    pub mailbox_commands_max: usize,
    /// Reply of a guest to one command, bytes. Default 4 MiB, always more than one value. Beyond it: `TOOBIG`.
    pub reply_bytes_max: usize,
    /// Calls of one command from the guest into the host. Default 10 000. Beyond it: `GUESTTRAP`.
    pub host_calls_max: usize,
    /// Elements of a guest's tables. Default 10 000. Beyond it the guest traps, or does not load.
    pub table_elements_max: usize,
    /// Stack of a guest, bytes. Default 512 KiB. Beyond it: `GUESTTRAP`.
    pub stack_bytes_max: usize,
    /// Largest component file, bytes. Default 32 MiB. Beyond it the guest is refused at start.
    pub component_bytes_max: usize,
    /// Items that one coverage command may gather. Default 1 000 000. Beyond it: `TOOBIG`.
    pub coverage_items_max: usize,
    /// Bytes that one coverage command may gather. Default 256 MiB. Beyond it: `TOOBIG`.
    pub coverage_bytes_max: usize,
    /// Time for one command, from its last byte to its reply. Default 1 s. Beyond it: `TIMEOUT` or `NOREPLICAS`.
    pub request_timeout: Duration,
    /// The same for a coverage command. Default 30 s. Beyond it: `TIMEOUT`.
    pub coverage_timeout: Duration,
    /// Time for the rest of a request that has begun to arrive. Default 30 s. Beyond it the connection is closed.
    pub request_read_timeout: Duration,
    /// Time for work in flight once the node drains. Default 10 s. What is left then is dropped.
    pub drain_timeout: Duration,
    /// Transfers that the node sends at once. Default 2. Beyond it the others wait.
    pub transfers_out_max: usize,
    /// Transfers that the node receives at once. Default 2. Beyond it senders are told to wait.
    pub transfers_in_max: usize,
    /// Bytes that the node sends in a second; 0 is as many as it can. Default 0.
    pub transfers_bytes_per_second: usize,
    /// How long rows stay here after their partition went to another owner, which has them all. Default 1 h.
    pub transfers_retention: Duration,
    /// Time that each stage of a rollout is watched, unless it says otherwise. Default 10 s.
    pub rollout_soak: Duration,
    /// Commands that a new version has to have run before it is judged. Default 1000. With fewer a stage takes twice as long.
    pub rollout_commands_min: usize,
    /// Traps in a thousand commands of a new version, beyond those of the old one. Default 0. Beyond it the rollout goes back.
    pub rollout_traps_per_mille: usize,
    /// Errors in a thousand commands of a new version, if they are more than twice those of the old one. Default 1. Beyond it the
    /// rollout goes back.
    pub rollout_errors_per_mille: usize,
    /// 99th percentile of the durations of a new version, percent of that of the old one. Default 150. Beyond it the rollout goes
    /// back.
    pub rollout_p99_percent: usize,
    /// Commands in a thousand that a canary may answer, or write, otherwise than the old version beside it. Default 1. Beyond it the
    /// rollout goes back; 1000 is never.
    pub rollout_divergence_per_mille: usize,
    /// Time of a command in the guest of a canary, percent of what it takes in the old version beside it. Default 250. If the fastest
    /// calls of it, or half of all, are beyond it the rollout goes back.
    pub rollout_time_percent: usize,
    /// Memory of an instance of a new version, percent of `memory_per_vnode`, if none of the old one has as much. Default 80. Beyond
    /// it the rollout goes back.
    pub rollout_memory_percent: usize,
}

/// Where a guest comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestSource {
    /// Built into the binary, by its name.
    BuiltIn(String),
    /// A component on disk.
    File(PathBuf),
}

/// What an operator wants of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceSettings {
    /// Where it has numbers, they hold in place of the guest's.
    #[serde(flatten)]
    pub quorum: Quorum,
    /// What the replicas that are waited for have to be besides.
    #[serde(flatten)]
    pub demands: Demands,
    /// Time for a command's reply, in place of `limits.request_timeout` and no longer than that.
    #[serde(
        rename = "request_timeout_milliseconds",
        serialize_with = "milliseconds"
    )]
    pub request_timeout: Option<Duration>,
    /// Of values written without knowing of each other the one with the later clock is kept and the others are **lost**, whatever
    /// the guest would do with them.
    pub last_write_wins: bool,
}

fn milliseconds<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_millis()).serialize(to)
}

/// Most replicas that a key may have.
pub const N_MAX: u16 = 8;

/// How many replicas there are, and how many of them a read and a write wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Replication {
    /// Replicas of each key, 1 to 8.
    pub n: u32,
    /// Replicas that a read waits for, 1 to n.
    pub r: u32,
    /// Replicas that a write waits for, 1 to n.
    pub w: u32,
    /// What those have to be besides.
    pub demands: Demands,
}

/// What replicas that are waited for have to be. The names are riak's; 0 asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Demands {
    /// How many of r have to be primaries.
    pub pr: u32,
    /// How many of w have to be primaries.
    pub pw: u32,
    /// How many of w have to have the write on disk.
    pub dw: u32,
    /// On how many different nodes they have to be.
    pub node_confirms: u32,
}

impl Demands {
    /// Each with the name that it has in the file of settings.
    pub fn named(&mut self) -> [(&'static str, &mut u32); 4] {
        [
            ("pr", &mut self.pr),
            ("pw", &mut self.pw),
            ("dw", &mut self.dw),
            ("node_confirms", &mut self.node_confirms),
        ]
    }
}

/// How keys become places on the ring. Fixed when a cluster is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashId {
    /// SHA-1 over length-prefixed service and key, `{tag}` alone when there is one.
    V1,
    /// SHA-1 over Erlang's external term format: the numbers of `riak_core`.
    EtfSha1,
}

/// Where rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageKind {
    /// In the data directory.
    Disk,
    /// In memory: gone when the process ends.
    Memory,
}

/// When a write is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncMode {
    /// Before it is acknowledged.
    Always,
    /// At most `sync_interval` later.
    Interval,
    /// Whenever the system gets to it.
    Never,
}

/// Look of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A flag, by its name without dashes.
    Flag(&'static str),
    /// An environment variable.
    Env(&'static str),
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// What was given, layer by layer, as text; what was not given is not there.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Flags by the key of their setting. More than one value only for lists.
    pub flags: BTreeMap<&'static str, Vec<String>>,
    /// Environment variables by the key of their setting. Lists are separated by commas.
    pub env: BTreeMap<&'static str, String>,
    /// The file, read.
    pub file: FileContents,
}

/// Settings that cannot be used. The first line names the key; a line `in:` says where it was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings\n  in: {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the settings are not TOML: {message}\n  in: {}:{line}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says, in one line.
        message: String,
    },
    /// A key in the file that no setting has.
    #[error("{key}: there is no such setting{}\n  in: {origin}", near.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// The dotted key.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// A key that looks like it.
        near: Option<String>,
    },
    /// A value that its setting does not take, alone or beside the others.
    #[error("{key}: {why}\n  in: {origin}")]
    Value {
        /// The dotted key.
        key: String,
        /// What is wrong, and what would be right.
        why: String,
        /// Who set it.
        origin: Origin,
    },
}

impl Config {
    /// Puts the layers over the defaults and checks what comes out.
    ///
    /// # Errors
    /// One for the first setting that is wrong; nothing has happened then.
    pub fn resolve(layers: &Layers) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for setting in SETTINGS {
            let Some((values, origin)) = layers.pick(setting)? else {
                continue;
            };
            (setting.set)(&mut config, &values).map_err(|why| ConfigError::Value {
                key: setting.key.into(),
                why,
                origin: origin.clone(),
            })?;
            if setting.key == "port" {
                for key in ["resp", "http", "peer"] {
                    config.origins.insert(key, origin.clone());
                }
            }
            config.origins.insert(setting.key, origin);
        }
        config.services = layers.file.services();
        // `--n 1` alone is a wish for one replica, not a quarrel with the defaults of r and w.
        let n = config.replication.n;
        if config.origin("r") == Origin::Default {
            config.replication.r = config.replication.r.min(n);
        }
        if config.origin("w") == Origin::Default {
            config.replication.w = config.replication.w.min(n);
        }
        check::check(&config, &layers.file)?;
        Ok(config)
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Identity of the node, given the peer address that it really listens on (the port may have been picked by the
    /// system).
    pub fn node_name(&self, peer: SocketAddr) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("node@{}", self.advertised(peer)),
        }
    }

    /// HOST:PORT for other nodes, given the peer address that the node really listens on.
    pub fn advertised(&self, peer: SocketAddr) -> String {
        self.advertise.clone().unwrap_or_else(|| peer.to_string())
    }

    /// The data directory of the node of that name.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.data
            .clone()
            .unwrap_or_else(|| Path::new("data").join(name))
    }

    /// Threads that run vnodes, at least 1.
    pub fn executor_count(&self) -> usize {
        if self.executors > 0 {
            return self.executors;
        }
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    /// Replication of a service: what the operator says of it, else what its guest says, else the node's default.
    pub fn service_replication(&self, service: &str, guest: Quorum) -> Replication {
        let operator = self.services.get(service).copied().unwrap_or_default();
        Replication {
            demands: operator.demands,
            ..self.replication.narrowed(guest).narrowed(operator.quorum)
        }
    }

    /// Time for the reply to a command of a service.
    pub fn service_timeout(&self, service: &str) -> Duration {
        let operator = self.services.get(service);
        let own = operator.and_then(|settings| settings.request_timeout);
        own.unwrap_or(self.limits.request_timeout)
    }
}

impl Replication {
    /// This with the numbers of `over` where it has any. An inherited r or w that exceeds a smaller n becomes n, so
    /// that a guest may say `n=1` and nothing else.
    #[must_use]
    pub fn narrowed(self, over: Quorum) -> Self {
        let n = over.n.unwrap_or(self.n);
        Self {
            n,
            r: over.r.unwrap_or(self.r).min(n),
            w: over.w.unwrap_or(self.w).min(n),
            demands: self.demands,
        }
    }
}

impl GuestSource {
    /// A value with no `/` and no `.wasm` names a guest in the binary; all else is a file.
    pub fn parse(text: &str) -> Self {
        if text.contains('/') || text.ends_with(".wasm") {
            Self::File(text.into())
        } else {
            Self::BuiltIn(text.into())
        }
    }
}

impl fmt::Display for GuestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

impl Layers {
    /// The value of a setting in the highest layer that has one, and that layer.
    fn pick(&self, setting: &Setting) -> Result<Option<(Vec<String>, Origin)>, ConfigError> {
        if let Some(values) = self.flags.get(setting.key) {
            return Ok(Some((values.clone(), Origin::Flag(setting.flag))));
        }
        if let Some(text) = self.env.get(setting.key).filter(|text| !text.is_empty()) {
            let values = match setting.kind {
                Kind::List => text.split(',').map(|part| part.trim().to_owned()).collect(),
                _ => vec![text.clone()],
            };
            return Ok(Some((values, Origin::Env(setting.env))));
        }
        self.file.values(setting)
    }
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            vnodes: Vec::new(),
            name: None,
            port: 7379,
            resp: loopback(7379),
            http: loopback(7380),
            peer: loopback(7381),
            advertise: None,
            join: None,
            auto_commit: false,
            tls_dir: None,
            data: None,
            ring_size: 64,
            hash: HashId::V1,
            replication: Replication {
                n: 3,
                r: 2,
                w: 2,
                demands: Demands::default(),
            },
            services: BTreeMap::new(),
            storage: StorageKind::Disk,
            sync: SyncMode::Interval,
            sync_interval: Duration::from_millis(100),
            tombstone_grace: Duration::from_secs(24 * 60 * 60),
            cache_bytes: 256 << 20,
            executors: 0,
            memory_per_vnode: 64 << 20,
            command_budget: Duration::from_millis(200),
            location: None,
            log: "info".into(),
            log_format: LogFormat::Auto,
            limits: Limits::default(),
            origins: BTreeMap::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 4 << 10,
            value_bytes_max: 1 << 20,
            args_max: 1024,
            connections_max: 10_000,
            output_buffer_bytes_max: 32 << 20,
            pipeline_commands_max: 4096,
            mailbox_commands_max: 10_000,
            reply_bytes_max: 4 << 20,
            host_calls_max: 10_000,
            table_elements_max: 10_000,
            stack_bytes_max: 512 << 10,
            component_bytes_max: 32 << 20,
            coverage_items_max: 1_000_000,
            coverage_bytes_max: 256 << 20,
            request_timeout: Duration::from_secs(1),
            coverage_timeout: Duration::from_secs(30),
            request_read_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            transfers_out_max: 2,
            transfers_in_max: 2,
            transfers_bytes_per_second: 0,
            transfers_retention: Duration::from_secs(3600),
            rollout_soak: Duration::from_secs(10),
            rollout_commands_min: 1000,
            rollout_traps_per_mille: 0,
            rollout_errors_per_mille: 1,
            rollout_p99_percent: 150,
            rollout_divergence_per_mille: 1,
            rollout_time_percent: 250,
            rollout_memory_percent: 80,
        }
    }
}
