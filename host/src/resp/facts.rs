//! What built-in commands need to know about the node.
//!
//! Plain data. What is cheap stands there; what is not is a closure that is called only by the command that shows it.
//! Never a handle to anything: a command cannot change the node, it can only ask for that ([`super::builtin::Next`]).

use super::catalog::Catalog;
use super::session::ClientInfo;

/// Whether a user has a password.
pub type PasswordCheck<'a> = dyn Fn(&[u8], &[u8]) -> bool + 'a;

/// The node as it is at one moment. Cheap to make for each request.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Version of the host.
    pub version: &'a str,
    /// Differs with each start of the process.
    pub run_id: &'a str,
    /// The process.
    pub process_id: u32,
    /// Port of the RESP listener.
    pub tcp_port: u16,
    /// Wall clock, microseconds since 1970.
    pub now_us: u64,
    /// Since the process started.
    pub uptime_seconds: &'a dyn Fn() -> u64,
    /// All commands.
    pub catalog: &'a Catalog,
    /// Whether that user has that password; `None` where no password is set and everybody may do everything.
    pub password: Option<&'a PasswordCheck<'a>>,
    /// Settings for CONFIG GET, as names and values.
    pub settings: &'a dyn Fn() -> Vec<(String, String)>,
    /// All connections for CLIENT LIST and CLIENT KILL, in order of their ids.
    pub clients: &'a dyn Fn() -> Vec<ClientInfo>,
    /// Counters for INFO.
    pub counters: &'a dyn Fn() -> Counters,
}

impl Facts<'_> {
    /// Wall clock, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }
}

/// What INFO shows.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Open RESP connections.
    pub clients: usize,
    /// Most of them that are accepted.
    pub clients_max: usize,
    /// Resident memory of the process.
    pub memory_bytes: u64,
    /// Most that it ever was.
    pub memory_peak_bytes: u64,
    /// RESP connections since the start.
    pub connections_total: u64,
    /// RESP connections refused because of `clients_max`.
    pub connections_rejected_total: u64,
    /// RESP commands since the start.
    pub commands_total: u64,
    /// Commands in the last second.
    pub commands_per_second: u64,
    /// Bytes read by RESP.
    pub input_bytes_total: u64,
    /// Bytes written by RESP.
    pub output_bytes_total: u64,
    /// Errors answered.
    pub errors_total: u64,
    /// By command.
    pub commands: Vec<CommandCounters>,
    /// The cluster as this node sees it.
    pub cluster: ClusterCounters,
    /// By service.
    pub guests: Vec<GuestCounters>,
}

/// One command's counters.
#[derive(Clone, Debug, Default)]
pub struct CommandCounters {
    /// Lower case.
    pub name: String,
    /// Calls.
    pub calls: u64,
    /// Time they took, microseconds.
    pub usec: u64,
    /// Calls refused before they ran.
    pub rejected: u64,
    /// Calls answered with an error.
    pub failed: u64,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct ClusterCounters {
    /// Whether all members agree on the ring.
    pub ring_ready: bool,
    /// Partitions of the ring.
    pub ring_size: u32,
    /// Epoch of the ring.
    pub epoch: u64,
    /// Members that are valid.
    pub members_valid: usize,
    /// Members that answer.
    pub members_up: usize,
    /// Partitions that this node owns.
    pub partitions_primary: usize,
    /// Partitions that it stands in for.
    pub partitions_fallback: usize,
    /// Transfers to or from this node.
    pub transfers_running: usize,
}

/// One service's counters.
#[derive(Clone, Debug, Default)]
pub struct GuestCounters {
    /// Name of the service.
    pub name: String,
    /// Version of the guest.
    pub version: String,
    /// Digest of the component, hexadecimal.
    pub digest: String,
    /// Vnodes that run here.
    pub vnodes: usize,
    /// Traps since the start.
    pub traps_total: u64,
    /// Restarts since the start.
    pub restarts_total: u64,
    /// Keys that this node keeps, where known.
    pub keys: Option<u64>,
}
