//! All settings of a node by name: key in the file, flag, environment variable, help, and how each is set and shown.
//!
//! The command line, the file, `host config default` and `host config show` are all made from this one table, so a
//! setting added here exists everywhere.

use std::net::{Ipv4Addr, SocketAddr};

use super::Config;
use super::codec::{
    Address, Bytes, Codec, Contact, Count, Directory, Endpoint, Kind, Label, LogFilter, NodeName,
    Port, Replicas, RingSize, Switch, Time, Word, guests,
};
use crate::resp::codec::REQUEST_BYTES_MAX;
use crate::store::KEY_BYTES_MAX;

/// One setting.
pub struct Setting {
    /// Dotted key in the file, such as `limits.key_bytes_max`.
    pub key: &'static str,
    /// Flag without its dashes.
    pub flag: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Placeholder for the value in help.
    pub value_name: &'static str,
    /// One line for people: meaning, unit, and what is seen at a limit.
    pub help: &'static str,
    /// Sets the field, or says what is wrong with the value. Lists take all values, all others the last.
    pub(super) set: fn(&mut Config, &[String]) -> Result<(), String>,
    /// The effective value as it would be written; empty when there is none.
    pub show: fn(&Config) -> String,
}

macro_rules! setting {
    ($key:literal, $flag:literal, $env:literal, $codec:ty, $name:literal, $($field:ident).+, $help:literal) => {
        Setting {
            key: $key,
            flag: $flag,
            env: $env,
            kind: <$codec as Codec>::KIND,
            value_name: $name,
            help: $help,
            set: |config, values| {
                config.$($field).+ = <$codec>::parse(last(values))?;
                Ok(())
            },
            show: |config| <$codec>::show(&config.$($field).+),
        }
    };
}

fn last(values: &[String]) -> &str {
    values.last().map_or("", String::as_str)
}

const KIB: u64 = 1 << 10;
/// A value, and whatever else its request says, fit into one request.
const VALUE_BYTES_MAX: u64 = REQUEST_BYTES_MAX as u64 / 2;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Milliseconds.
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const YEAR: u64 = 365 * 24 * HOUR;

const VNODE: Setting = Setting {
    key: "vnode",
    flag: "vnode",
    env: "VNODE_VNODE",
    kind: Kind::List,
    value_name: "GUEST",
    help: "Guest to serve: FILE.wasm, or one that is built in: kv, ping or counter; repeat for more services",
    set: |config, values| {
        config.vnodes = guests(values)?;
        Ok(())
    },
    show: |config| {
        config
            .vnodes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    },
};

const PORT: Setting = Setting {
    key: "port",
    flag: "port",
    env: "VNODE_PORT",
    kind: Kind::Number,
    value_name: "P",
    help: "RESP on P, HTTP on P+1, peers on P+2; 0 lets the system pick all three",
    set: |config, values| {
        let port = Port::parse(last(values))?;
        // Zero stays zero: three ports picked by the system are not neighbours.
        let at = |offset: u16| {
            let port = if port == 0 {
                0
            } else {
                port.saturating_add(offset)
            };
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        };
        config.port = port;
        (config.resp, config.http, config.peer) = (at(0), at(1), at(2));
        Ok(())
    },
    show: |config| Port::show(&config.port),
};

/// Every setting, in the order of help and of `host config`. `port` stands before the addresses that it implies.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    VNODE,
    setting!("name", "name", "VNODE_NAME", NodeName, "NAME", name,
        "Identity in the cluster, kept in the data directory [default: node@<peer address>]"),
    PORT,
    setting!("resp", "resp", "VNODE_RESP", Address, "ADDR:PORT", resp, "Where clients speak RESP"),
    setting!("http", "http", "VNODE_HTTP", Address, "ADDR:PORT", http, "Where the API, metrics, health and dashboard are"),
    setting!("peer", "peer", "VNODE_PEER", Address, "ADDR:PORT", peer, "Where other nodes connect"),
    setting!("advertise", "advertise", "VNODE_ADVERTISE", Endpoint, "HOST:PORT", advertise,
        "Peer address to tell other nodes [default: the one listened on]"),
    setting!("data", "data", "VNODE_DATA", Directory, "DIR", data,
        "Data directory, created on first use and locked [default: ./data/<name>]"),
    setting!("join", "join", "VNODE_JOIN", Contact, "ADDR:PORT", join,
        "Peer or HTTP address of a member of the cluster to join; a node that is in one ignores it"),
    setting!("auto_commit", "auto-commit", "VNODE_AUTO_COMMIT", Switch, "BOOL", auto_commit,
        "With --join: also plan and commit, so that the node gets its share at once"),
    setting!("tls_dir", "tls-dir", "VNODE_TLS_DIR", Directory, "DIR", tls_dir,
        "ca.pem, node.pem and node-key.pem, for mutual TLS between nodes; `host tls dev DIR` makes some to try it [default: no TLS]"),
    setting!("ring_size", "ring-size", "VNODE_RING_SIZE", RingSize, "N", ring_size,
        "Partitions of a new cluster, a power of two: 64 suits up to 8 nodes, 256 up to 32, 1024 up to 128"),
    setting!("hash", "hash", "VNODE_HASH", Word<super::HashId>, "ID", hash,
        "How a new cluster hashes keys: v1, or etf-sha1 for the numbers of riak_core"),
    setting!("n", "n", "VNODE_N", Replicas, "N", replication.n, "Replicas of each key, where a service says nothing"),
    setting!("r", "r", "VNODE_R", Replicas, "R", replication.r, "Replicas that a read waits for"),
    setting!("w", "w", "VNODE_W", Replicas, "W", replication.w, "Replicas that a write waits for"),
    setting!("storage", "storage", "VNODE_STORAGE", Word<super::StorageKind>, "KIND", storage,
        "Where rows are kept: disk, or memory (gone when the process ends)"),
    setting!("sync", "sync", "VNODE_SYNC", Word<super::SyncMode>, "MODE", sync,
        "When a write is on disk: always (before it is acknowledged), interval, or never (when the system likes)"),
    setting!("sync_interval", "sync-interval", "VNODE_SYNC_INTERVAL", Time<1, HOUR>, "TIME", sync_interval,
        "Longest time that an acknowledged write is not on disk with --sync interval"),
    setting!("tombstone_grace", "tombstone-grace", "VNODE_TOMBSTONE_GRACE", Time<1, YEAR>, "TIME", tombstone_grace,
        "How long the mark of a deleted key is kept at least; then it goes once all replicas have it and all members are up"),
    setting!("cache_bytes", "cache-bytes", "VNODE_CACHE_BYTES", Bytes<0, { 1024 * GIB }>, "SIZE", cache_bytes,
        "Live objects kept in memory in front of the disk, per node"),
    setting!("executors", "executors", "VNODE_EXECUTORS", Count<0, 1024>, "N", executors,
        "Threads that run vnodes; 0 is one per core"),
    setting!("memory_per_vnode", "memory-per-vnode", "VNODE_MEMORY_PER_VNODE", Bytes<{ 2 * MIB }, { 4 * GIB }>, "SIZE", memory_per_vnode,
        "Memory of one guest instance; beyond it GUESTTRAP"),
    setting!("command_budget", "command-budget", "VNODE_COMMAND_BUDGET", Time<1, HOUR>, "TIME", command_budget,
        "Time that one command may run in a guest; beyond it TIMEOUT"),
    setting!("location", "location", "VNODE_LOCATION", Label, "PLACE", location,
        "Rack or zone of the node: replicas are kept in different ones [default: none]"),
    setting!("log", "log", "VNODE_LOG", LogFilter, "FILTER", log, "What is logged: info, debug, or warn,vnode_host::node=debug"),
    setting!("log_format", "log-format", "VNODE_LOG_FORMAT", Word<super::LogFormat>, "FORMAT", log_format,
        "Look of log lines: auto (text on a terminal, JSON otherwise), text or json"),
    setting!("limits.key_bytes_max", "key-bytes-max", "VNODE_KEY_BYTES_MAX", Bytes<1, { KEY_BYTES_MAX as u64 }>, "SIZE", limits.key_bytes_max,
        "Longest key; beyond it TOOBIG"),
    setting!("limits.value_bytes_max", "value-bytes-max", "VNODE_VALUE_BYTES_MAX", Bytes<1, { VALUE_BYTES_MAX }>, "SIZE", limits.value_bytes_max,
        "Longest value or other argument; beyond it TOOBIG"),
    setting!("limits.args_max", "args-max", "VNODE_ARGS_MAX", Count<2, 65_535>, "N", limits.args_max,
        "Most words of one command; beyond it TOOBIG"),
    setting!("limits.connections_max", "connections-max", "VNODE_CONNECTIONS_MAX", Count<1, 1_000_000>, "N", limits.connections_max,
        "Most client connections at once; beyond it an error and close"),
    setting!("limits.output_buffer_bytes_max", "output-buffer-bytes-max", "VNODE_OUTPUT_BUFFER_BYTES_MAX", Bytes<{ 16 * KIB }, { 16 * GIB }>, "SIZE", limits.output_buffer_bytes_max,
        "Replies that wait for a slow client; beyond it nothing more is read from that connection"),
    setting!("limits.pipeline_commands_max", "pipeline-commands-max", "VNODE_PIPELINE_COMMANDS_MAX", Count<1, 1_000_000>, "N", limits.pipeline_commands_max,
        "Commands in flight on one connection; beyond it reading waits"),
    setting!("limits.mailbox_commands_max", "mailbox-commands-max", "VNODE_MAILBOX_COMMANDS_MAX", Count<1, 1_000_000>, "N", limits.mailbox_commands_max,
        "Commands that wait for one vnode; beyond it BUSY"),
    setting!("limits.reply_bytes_max", "reply-bytes-max", "VNODE_REPLY_BYTES_MAX", Bytes<{ KIB }, { GIB }>, "SIZE", limits.reply_bytes_max,
        "Reply of a guest to one command; beyond it TOOBIG"),
    setting!("limits.host_calls_max", "host-calls-max", "VNODE_HOST_CALLS_MAX", Count<1, 1_000_000_000>, "N", limits.host_calls_max,
        "Calls of one command from the guest into the host; beyond it GUESTTRAP"),
    setting!("limits.table_elements_max", "table-elements-max", "VNODE_TABLE_ELEMENTS_MAX", Count<1, 10_000_000>, "N", limits.table_elements_max,
        "Elements of a guest's tables; beyond it GUESTTRAP"),
    setting!("limits.stack_bytes_max", "stack-bytes-max", "VNODE_STACK_BYTES_MAX", Bytes<{ 64 * KIB }, { 16 * MIB }>, "SIZE", limits.stack_bytes_max,
        "Stack of a guest; beyond it GUESTTRAP"),
    setting!("limits.component_bytes_max", "component-bytes-max", "VNODE_COMPONENT_BYTES_MAX", Bytes<{ KIB }, { GIB }>, "SIZE", limits.component_bytes_max,
        "Largest component file; beyond it the guest is refused"),
    setting!("limits.coverage_items_max", "coverage-items-max", "VNODE_COVERAGE_ITEMS_MAX", Count<1, 1_000_000_000>, "N", limits.coverage_items_max,
        "Items that one coverage command may gather; beyond it TOOBIG"),
    setting!("limits.coverage_bytes_max", "coverage-bytes-max", "VNODE_COVERAGE_BYTES_MAX", Bytes<{ KIB }, { 64 * GIB }>, "SIZE", limits.coverage_bytes_max,
        "Bytes that one coverage command may gather; beyond it TOOBIG"),
    setting!("limits.request_timeout", "request-timeout", "VNODE_REQUEST_TIMEOUT", Time<1, HOUR>, "TIME", limits.request_timeout,
        "Time for one command; beyond it TIMEOUT or NOREPLICAS"),
    setting!("limits.coverage_timeout", "coverage-timeout", "VNODE_COVERAGE_TIMEOUT", Time<1, HOUR>, "TIME", limits.coverage_timeout,
        "Time for one coverage command; beyond it TIMEOUT"),
    setting!("limits.request_read_timeout", "request-read-timeout", "VNODE_REQUEST_READ_TIMEOUT", Time<1, HOUR>, "TIME", limits.request_read_timeout,
        "Time for the rest of a request that has begun to arrive; beyond it the connection is closed"),
    setting!("limits.drain_timeout", "drain-timeout", "VNODE_DRAIN_TIMEOUT", Time<0, HOUR>, "TIME", limits.drain_timeout,
        "Time for work in flight once the node drains; what is left then is dropped"),
    setting!("limits.transfers_out_max", "transfers-out-max", "VNODE_TRANSFERS_OUT_MAX", Count<1, 1024>, "N", limits.transfers_out_max,
        "Partitions that the node sends at once; `host transfers limit` changes it while it runs"),
    setting!("limits.transfers_in_max", "transfers-in-max", "VNODE_TRANSFERS_IN_MAX", Count<1, 1024>, "N", limits.transfers_in_max,
        "Partitions that the node receives at once; senders wait for their turn"),
    setting!("limits.transfers_bytes_per_second", "transfers-bytes-per-second", "VNODE_TRANSFERS_BYTES_PER_SECOND", Bytes<0, { 1024 * GIB }>, "SIZE", limits.transfers_bytes_per_second,
        "Bytes of rows that the node sends in a second; 0 is as many as it can"),
    setting!("limits.transfers_retention", "transfers-retention", "VNODE_TRANSFERS_RETENTION", Time<0, { 1000 * HOUR }>, "TIME", limits.transfers_retention,
        "How long rows stay after their partition went to another owner, who has them; a node that leaves does not wait"),
    setting!("limits.rollout_soak", "rollout-soak", "VNODE_ROLLOUT_SOAK", Time<0, { 1000 * HOUR }>, "TIME", limits.rollout_soak,
        "How long each stage of a rollout is watched, unless `host guest upgrade --soak` says otherwise"),
    setting!("limits.rollout_commands_min", "rollout-commands-min", "VNODE_ROLLOUT_COMMANDS_MIN", Count<0, 1_000_000_000>, "N", limits.rollout_commands_min,
        "Commands that a new version has to have run before it is judged; with fewer a stage is watched for twice as long"),
    setting!("limits.rollout_traps_per_mille", "rollout-traps-per-mille", "VNODE_ROLLOUT_TRAPS_PER_MILLE", Count<0, 1000>, "N", limits.rollout_traps_per_mille,
        "Traps in a thousand commands, beyond those of the old version, at which a rollout goes back"),
    setting!("limits.rollout_errors_per_mille", "rollout-errors-per-mille", "VNODE_ROLLOUT_ERRORS_PER_MILLE", Count<0, 1000>, "N", limits.rollout_errors_per_mille,
        "Errors in a thousand commands, and more than twice those of the old version, at which a rollout goes back"),
    setting!("limits.rollout_p99_percent", "rollout-p99-percent", "VNODE_ROLLOUT_P99_PERCENT", Count<100, 1_000_000>, "N", limits.rollout_p99_percent,
        "99th percentile of durations, percent of that of the old version, at which a rollout goes back"),
    setting!("limits.rollout_divergence_per_mille", "rollout-divergence-per-mille", "VNODE_ROLLOUT_DIVERGENCE_PER_MILLE", Count<0, 1000>, "N", limits.rollout_divergence_per_mille,
        "Of a thousand commands those that end otherwise than with the old version, at which a rollout goes back; 1000 is never"),
    setting!("limits.rollout_time_percent", "rollout-time-percent", "VNODE_ROLLOUT_TIME_PERCENT", Count<100, 1_000_000>, "N", limits.rollout_time_percent,
        "Time of a command in the guest, percent of what it takes in the old version beside it, at which a rollout goes back"),
    setting!("limits.rollout_memory_percent", "rollout-memory-percent", "VNODE_ROLLOUT_MEMORY_PERCENT", Count<1, 100>, "N", limits.rollout_memory_percent,
        "Memory of an instance, percent of memory_per_vnode and more than any of the old version has, at which a rollout goes back"),
];

/// The setting of that dotted key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}
