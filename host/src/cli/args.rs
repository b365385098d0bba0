//! The tree of commands as clap sees it. No behaviour: `cli/mod.rs` dispatches, other modules act.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench_args::Bench;
use super::run_args::RunArgs;
use super::templates::Template;

const EXAMPLES: &str = "\
Examples:
  host --vnode kv                     start a node with the built-in key-value guest
  host --vnode kv.wasm --port 7389    another guest, on other ports
  redis-cli -p 7379 set hello world   talk to it with any Redis client
  host call get hello                 or without one
  host status                         is it well, and if not, why
  host new counter --template counter start a guest of your own

Exit codes: 0 ok, 1 failed, 2 usage, 3 unhealthy, 4 --wait ran out, 5 refused";

/// A host for vnodes whose logic is a WebAssembly component. Without a command it starts a node.
#[derive(Debug, Parser)]
#[command(name = "host", version, after_help = EXAMPLES, max_term_width = 120)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// Settings of the node, when no command is given.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Global {
    /// HTTP address of the node to ask
    #[arg(
        short,
        long,
        global = true,
        value_name = "URL",
        env = "VNODE_ENDPOINT",
        default_value = "http://127.0.0.1:7380",
        hide_env_values = true
    )]
    pub endpoint: String,
    /// Text for people, or the JSON of the HTTP API
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        hide_possible_values = true,
        value_name = "text|json"
    )]
    pub format: Format,
    /// Colours; auto is on a terminal and without NO_COLOR
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        value_name = "auto|always|never"
    )]
    pub color: Color,
    /// Longest wait for the node's answer, 10s by default; with `cluster wait` for what is awaited, 60s
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// The body of the HTTP API.
    Json,
}

/// When the output has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Whatever the output is.
    Always,
    /// Not at all.
    Never,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node; the same as `host` with these flags and no command
    Run(RunArgs),
    /// Run one command of a guest and print its reply as redis-cli does
    Call(Call),
    /// Verdict on the node and its problems; exit 3 when not ok
    Status,
    /// The cluster and its members
    #[command(subcommand)]
    Cluster(Cluster),
    /// Who owns which part of the ring
    #[command(args_conflicts_with_subcommands = true)]
    Ring {
        /// What to show; all of it without a command.
        #[command(subcommand)]
        command: Option<Ring>,
    },
    /// Partitions on their way from node to node
    #[command(args_conflicts_with_subcommands = true)]
    Transfers {
        /// List them again whenever they change, until none is left
        #[arg(long)]
        watch: bool,
        /// What to say of them, instead of listing them.
        #[command(subcommand)]
        command: Option<Transfers>,
    },
    /// The vnodes of the node
    #[command(subcommand)]
    Vnode(Vnode),
    /// The guests that the node runs
    #[command(subcommand)]
    Guest(Guest),
    /// The node itself
    #[command(subcommand)]
    Node(Node),
    /// What a component is: name, version, interface, imports, commands
    Inspect {
        /// A component.
        file: PathBuf,
    },
    /// Conformance run of a component: commands, restart, merge, limits, hostile arguments
    Check {
        /// A component.
        file: PathBuf,
    },
    /// A new guest project
    New(New),
    /// Build a guest project for wasm32-wasip2 and inspect the result
    Build {
        /// Directory of the project.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Nodes to try a guest on: build it, serve it, and swap it whenever it is saved
    Dev(Dev),
    /// Settings of a node: all of them, those of a file, those in force
    #[command(subcommand)]
    Config(Settings),
    /// Certificates for TLS between nodes
    #[command(subcommand)]
    Tls(Tls),
    /// Go on with one stopped node when the majority of the voters, or the cluster that it was joining, is lost for good
    Recover(Recover),
    /// Load for the cluster: what it does in a second, how long that takes, and whether the answers are true
    #[command(subcommand)]
    Bench(Bench),
    /// Completion script for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// A command of a guest.
#[derive(Args, Debug)]
pub struct Call {
    /// Also tell what each vnode did; stands before the command
    #[arg(long)]
    pub trace: bool,
    /// COMMAND or SERVICE.COMMAND, in any case, and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD [ARG]…"
    )]
    pub words: Vec<OsString>,
}

/// Commands about the cluster.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Members, their state, their share of the ring, and the staged changes
    Status,
    /// Stage that the node joins the cluster of another
    Join {
        /// Peer or HTTP address of any member of that cluster
        #[arg(value_name = "ADDR")]
        address: String,
    },
    /// Stage that a node hands over what it owns, and goes; if its join is not committed yet, take that back at once
    Leave {
        /// The node at the endpoint without it
        node: Option<String>,
    },
    /// Stage that a joining node takes over all that another owns
    Replace(Pair),
    /// Stage that a joining node takes the place of a lost one, without its data
    ForceReplace(Pair),
    /// Stage that a lost node is a member no more; its data is given up
    ForceRemove {
        /// The lost node
        node: String,
    },
    /// Say that a node will not be back soon: nobody waits for it; at once, without a plan
    Down {
        /// The node, which has to be unreachable
        node: String,
    },
    /// Stage where a node is
    Location {
        /// The node
        node: String,
        /// A rack, a zone; `none` for nowhere in particular
        place: String,
    },
    /// Stage how much of the ring a node is to own
    Weight {
        /// The node
        node: String,
        /// 100 is as much as others
        weight: u16,
    },
    /// Stage that the ring is to have twice or half as many partitions; the present number gives up a resize under way
    Resize {
        /// How many partitions, a power of two
        partitions: u16,
    },
    /// What a commit of the staged changes would do
    Plan,
    /// Carry out a plan; exit 5 when it is stale
    Commit(Commit),
    /// Forget the staged changes
    Clear,
    /// Wait until the cluster is settled or the node ready; exit 4 when --timeout runs out
    Wait {
        /// What to wait for
        #[arg(
            long = "for",
            value_enum,
            default_value = "settled",
            value_name = "GOAL"
        )]
        goal: Goal,
    },
}

/// Two nodes, one for the other.
#[derive(Args, Debug)]
pub struct Pair {
    /// The member that goes
    pub old: String,
    /// The joining node that takes its place
    pub new: String,
}

/// What to commit.
#[derive(Args, Debug)]
pub struct Commit {
    /// Name of the plan; the one that the node has shown last without it
    #[arg(value_parser = plan_name)]
    pub plan: Option<String>,
    /// Then wait until the cluster is settled: nothing moves, all vote who are to; exit 4 when the time runs out
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait: Option<Duration>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// The node takes commands.
    Ready,
    /// No partition moves, nobody is on the way out, and all vote who are to: a node may be stopped.
    Settled,
}

/// A plan's name goes into a path, so nothing else does.
fn plan_name(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(text.into())
    } else {
        Err("a plan's name has eight hexadecimal digits; `host cluster plan` shows it".into())
    }
}

/// Commands about the ring.
#[derive(Debug, Subcommand)]
pub enum Ring {
    /// Owner of each partition, one letter each
    Show,
    /// The replicas of a key, in order
    Preflist(Preflist),
    /// One partition: owner, range, vnodes
    Partition {
        /// 0 to ring size - 1.
        id: u32,
    },
}

/// Whose replicas to show.
#[derive(Args, Debug)]
pub struct Preflist {
    /// The key
    pub key: OsString,
    /// Service that the key belongs to; the node's first one without it
    #[arg(long)]
    pub service: Option<String>,
    /// Number of replicas; the service's without it
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub n: Option<u32>,
}

/// Commands about vnodes.
#[derive(Debug, Subcommand)]
pub enum Vnode {
    /// All vnodes of the node
    List,
    /// One vnode, or those of one partition
    Show {
        /// SERVICE/PARTITION, or a partition
        id: String,
    },
}

/// Commands about the guests that run.
#[derive(Debug, Subcommand)]
pub enum Guest {
    /// Name, version, digest, replication and commands of each, and how far a rollout is
    Show,
    /// What another version would change, and in which stages; nothing is begun
    Plan {
        /// A component
        file: PathBuf,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Try a version on live commands of some partitions of the node: its effects are thrown away, and what differs is reported
    Shadow(Shadow),
    /// Replace a guest by another version on all nodes while they serve, and go back by itself if that is worse
    Upgrade(Upgrade),
    /// Hold the rollout where it is
    Pause(OfService),
    /// Let it go on, or begin the next stage without further watching
    Advance(OfService),
    /// Give the old version up, once everything runs the new one
    Finalize(OfService),
    /// Go back to the old version everywhere
    Rollback(OfService),
}

/// A rollout to begin.
#[derive(Args, Debug)]
pub struct Upgrade {
    /// A component
    pub file: PathBuf,
    /// How.
    #[command(flatten)]
    pub terms: Terms,
    /// Wait until it is done or has gone back (exit 1), and show its stages; exit 4 when --timeout runs out
    #[arg(long)]
    pub wait: bool,
}

/// A version to try.
#[derive(Args, Debug)]
pub struct Shadow {
    /// A component; without it what is tried now, or was last, is shown
    pub file: Option<PathBuf>,
    /// The service; the node's only one, or the one that the component names
    #[arg(long)]
    pub service: Option<String>,
    /// Whose commands it gets; a few that are far apart without it
    #[arg(long, value_name = "P,…", value_delimiter = ',', requires = "file")]
    pub partitions: Option<Vec<u16>>,
    /// The same as a part of those that the node owns
    #[arg(long, value_name = "P%", value_parser = percent, conflicts_with = "partitions", requires = "file")]
    pub share: Option<u8>,
    /// How long [default: 30s]
    #[arg(long = "for", value_name = "DUR", value_parser = humantime::parse_duration, requires = "file")]
    pub within: Option<Duration>,
    /// End what is tried now
    #[arg(long, conflicts_with = "file")]
    pub stop: bool,
}

/// How a rollout is to be done.
#[derive(Args, Debug)]
pub struct Terms {
    /// The service; the node's only one, or the one that the component names
    #[arg(long)]
    pub service: Option<String>,
    /// Part of the ring that runs the new version first; at most one partition of each node
    #[arg(long, value_name = "P%", value_parser = percent)]
    pub canary: Option<u8>,
    /// Every partition at once, without stages
    #[arg(long, conflicts_with = "canary")]
    pub all_at_once: bool,
    /// Time that each stage is watched
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    pub soak: Option<Duration>,
    /// The removed commands and unreadable values that `plan` names are known
    #[arg(long)]
    pub force: bool,
    /// These commands are meant to answer something else than in the old version; all, if none is named
    #[arg(long, value_name = "COMMAND,…", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub expect_divergence: Option<String>,
}

/// Which rollout.
#[derive(Args, Debug)]
pub struct OfService {
    /// The service; the one with a rollout under way without it
    #[arg(long)]
    pub service: Option<String>,
}

/// `5%` or `5`.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    match number {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err("a part of the ring is 1% to 100%".into()),
    }
}

/// Commands about the node.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Finish the commands in flight and end the node; what it owns stays its own
    Drain,
}

/// Commands about certificates.
#[derive(Debug, Subcommand)]
pub enum Tls {
    /// Make a CA and certificates that nodes take with --tls-dir, to try it; a CA that is there is kept
    Dev(TlsDev),
}

/// Certificates to make.
#[derive(Args, Debug)]
pub struct TlsDev {
    /// Where to
    pub dir: PathBuf,
    /// A node that gets a certificate of its own, in DIR/NAME; repeat for more. Without it one in DIR is good for any node
    #[arg(long = "node", value_name = "NAME")]
    pub nodes: Vec<String>,
}

/// A stopped node that goes on alone.
#[derive(Debug, Args)]
pub struct Recover {
    /// Its data directory
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Do it: what the lost voters agreed on and this node has not received is given up
    #[arg(long)]
    pub force: bool,
}

/// A project to make.
#[derive(Args, Debug)]
pub struct New {
    /// Name of the project, its directory and its service
    pub name: String,
    /// What to start from
    #[arg(long, value_enum, default_value = "kv")]
    pub template: Template,
    /// guest-sdk to depend on: its directory, or a version
    #[arg(long, value_name = "PATH|VERSION")]
    pub sdk: Option<String>,
}

/// What to serve while it is written, and on what.
#[derive(Args, Debug)]
pub struct Dev {
    /// Directory of a guest project, or a component
    #[arg(default_value = ".", value_name = "FILE|DIR")]
    pub source: PathBuf,
    /// How many nodes; they become one cluster, and their data goes with them
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Port of the first node for Redis clients; HTTP and peers are on the next two, the next node 10 further on; 0 takes free ones
    #[arg(long, default_value = "7379", value_name = "PORT")]
    pub port: u16,
}

/// Commands about settings.
#[derive(Debug, Subcommand)]
pub enum Settings {
    /// A file with every setting and its default
    Default,
    /// Check a file
    Check {
        /// A file of settings.
        file: PathBuf,
    },
    /// What a node started like this would use, and where each value comes from
    Show(RunArgs),
}

/// What an operator may say of transfers.
#[derive(Debug, Subcommand)]
pub enum Transfers {
    /// Limit how many there are at once, and how fast they are, on every node
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
    Limit {
        /// Transfers that a node sends at once, and as many that it receives
        #[arg(group = "what", value_parser = clap::value_parser!(u16).range(1..))]
        n: Option<u16>,
        /// Transfers that a node receives at once
        #[arg(long = "in", group = "what", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        inbound: Option<u16>,
        /// Transfers that a node sends at once
        #[arg(long, group = "what", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        out: Option<u16>,
        /// Bytes that a node sends in a second, such as 20MiB; 0 is as many as it can
        #[arg(long, group = "what", value_name = "SIZE")]
        rate: Option<bytesize::ByteSize>,
        /// On the node at the endpoint alone, until it ends
        #[arg(long)]
        here: bool,
    },
    /// Hold all transfers, on every node
    Pause {
        /// On the node at the endpoint alone, until it ends
        #[arg(long)]
        here: bool,
    },
    /// Let them go on
    Resume {
        /// On the node at the endpoint alone
        #[arg(long)]
        here: bool,
    },
    /// Fill a partition again from its other replicas
    Repair {
        /// Its number
        partition: u16,
    },
}
