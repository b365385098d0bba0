//! The built-in commands in one table: what COMMAND lists is what `dispatch` runs.

use super::{Builtin, Gate, NodeCommand, Run, client, command, config, connection, info};

const BASE: Builtin = Builtin {
    name: "",
    arity: 1,
    group: "connection",
    summary: "",
    syntax: "",
    key: None,
    before_auth: Gate::Locked,
    subcommands: &[],
    run: Run::Subcommand,
};

const OPEN: Builtin = Builtin {
    before_auth: Gate::Open,
    ..BASE
};

const SERVER: Builtin = Builtin {
    group: "server",
    ..BASE
};

const VNODE: Builtin = Builtin {
    group: "vnode",
    ..BASE
};

/// Every built-in command.
#[rustfmt::skip]
pub static TABLE: &[Builtin] = &[
    Builtin { name: "ping", arity: -1, syntax: "[message]", summary: "Ping the server", run: Run::Here(connection::ping), ..BASE },
    Builtin { name: "echo", arity: 2, syntax: "message", summary: "Echo the given string", run: Run::Here(connection::echo), ..BASE },
    Builtin { name: "hello", arity: -1, syntax: "[protover [AUTH username password] [SETNAME clientname]]", summary: "Choose the protocol and introduce the client", run: Run::Here(connection::hello), ..OPEN },
    Builtin { name: "auth", arity: -2, syntax: "[username] password", summary: "Authenticate to the server", run: Run::Here(connection::auth), ..OPEN },
    Builtin { name: "quit", arity: -1, summary: "Close the connection", run: Run::Here(connection::quit), ..OPEN },
    Builtin { name: "reset", arity: 1, summary: "Reset the connection", run: Run::Here(connection::reset), ..OPEN },
    Builtin { name: "select", arity: 2, syntax: "index", summary: "Change the selected database; there is only 0", run: Run::Here(connection::select), ..BASE },
    Builtin { name: "client", arity: -2, summary: "Look at and change connections", subcommands: CLIENT, ..BASE },
    Builtin { name: "command", arity: -1, summary: "Get details about all commands", subcommands: COMMAND, run: Run::Here(command::all), ..SERVER },
    Builtin { name: "info", arity: -1, syntax: "[section [section ...]]", summary: "Get information and statistics about the node", run: Run::Here(info::info), ..SERVER },
    Builtin { name: "time", arity: 1, summary: "Return the node's time", run: Run::Here(connection::time), ..SERVER },
    Builtin { name: "config", arity: -2, summary: "Look at the node's settings", subcommands: CONFIG, ..SERVER },
    Builtin { name: "wait", arity: 3, group: "generic", syntax: "numreplicas timeout", summary: "Number of replicas that acknowledged this connection's last write", run: Run::Here(connection::wait), ..BASE },
    Builtin { name: "cluster", arity: -2, group: "cluster", summary: "Tells clients that this is no Redis Cluster", subcommands: CLUSTER, ..BASE },
    Builtin { name: "vnode.preflist", arity: -2, key: Some(1), syntax: "key [SERVICE service]", summary: "The vnodes that are responsible for a key", run: Run::Node(NodeCommand::Preflist), ..VNODE },
    Builtin { name: "vnode.trace", arity: -2, syntax: "command [arg [arg ...]]", summary: "Run a command of a guest, and tell what each vnode did", run: Run::Node(NodeCommand::Wished), ..VNODE },
    Builtin { name: "vnode.with", arity: -3, syntax: "[N n] [R r] [W w] [PR n] [PW n] [DW n] [NODE_CONFIRMS n] [TIMEOUT ms] [PARTIAL] -- command [arg [arg ...]]", summary: "Run a command of a guest with other quorums than its service's", run: Run::Node(NodeCommand::Wished), ..VNODE },
    Builtin { name: "vnode.replicas", arity: -2, key: Some(1), syntax: "key [SERVICE service]", summary: "What each replica of a key holds right now", run: Run::Node(NodeCommand::Replicas), ..VNODE },
    Builtin { name: "vnode.ring", arity: 1, summary: "The ring: its size and who owns what", run: Run::Node(NodeCommand::Ring), ..VNODE },
    Builtin { name: "vnode.status", arity: 1, summary: "How the cluster is, and what is wrong with it", run: Run::Node(NodeCommand::Status), ..VNODE },
    Builtin { name: "vnode.help", arity: 1, summary: "The commands of this node", run: Run::Here(command::vnode_help), ..VNODE },
];

#[rustfmt::skip]
static CLIENT: &[Builtin] = &[
    Builtin { name: "client|id", arity: 2, summary: "The connection's id", run: Run::Here(client::id), ..BASE },
    Builtin { name: "client|getname", arity: 2, summary: "The connection's name", run: Run::Here(client::getname), ..BASE },
    Builtin { name: "client|setname", arity: 3, syntax: "connection-name", summary: "Name the connection", run: Run::Here(client::setname), ..BASE },
    Builtin { name: "client|setinfo", arity: 4, syntax: "<LIB-NAME libname | LIB-VER libver>", summary: "Say which library the client uses", run: Run::Here(client::setinfo), ..BASE },
    Builtin { name: "client|info", arity: 2, summary: "About this connection", run: Run::Here(client::info), ..BASE },
    Builtin { name: "client|list", arity: -2, syntax: "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]", summary: "About all connections", run: Run::Here(client::list), ..BASE },
    Builtin { name: "client|kill", arity: -3, syntax: "<ip:port | [ID client-id] [ADDR ip:port] [LADDR ip:port] [USER username] [TYPE type] [SKIPME yes/no]>", summary: "Close connections", run: Run::Here(client::kill), ..BASE },
    Builtin { name: "client|no-evict", arity: 3, syntax: "<ON | OFF>", summary: "Accepted; no connection is evicted", run: Run::Here(client::no_evict), ..BASE },
    Builtin { name: "client|no-touch", arity: 3, syntax: "<ON | OFF>", summary: "Accepted; reads age nothing", run: Run::Here(client::no_touch), ..BASE },
    Builtin { name: "client|reply", arity: 3, syntax: "<ON | OFF | SKIP>", summary: "Choose which commands are answered", run: Run::Here(client::reply), ..BASE },
    Builtin { name: "client|help", arity: 2, summary: "Show the subcommands", run: Run::Here(client::help), ..BASE },
];

#[rustfmt::skip]
static COMMAND: &[Builtin] = &[
    Builtin { name: "command|count", arity: 2, summary: "Number of commands", run: Run::Here(command::count), ..SERVER },
    Builtin { name: "command|list", arity: -2, syntax: "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]", summary: "Names of commands", run: Run::Here(command::list), ..SERVER },
    Builtin { name: "command|info", arity: -2, syntax: "[command-name [command-name ...]]", summary: "Details about commands", run: Run::Here(command::info), ..SERVER },
    Builtin { name: "command|docs", arity: -2, syntax: "[command-name [command-name ...]]", summary: "Documentation of commands", run: Run::Here(command::docs), ..SERVER },
    Builtin { name: "command|getkeys", arity: -3, syntax: "command [arg ...]", summary: "The keys in a call", run: Run::Here(command::getkeys), ..SERVER },
    Builtin { name: "command|help", arity: 2, summary: "Show the subcommands", run: Run::Here(command::help), ..SERVER },
];

#[rustfmt::skip]
static CONFIG: &[Builtin] = &[
    Builtin { name: "config|get", arity: -3, syntax: "parameter [parameter ...]", summary: "The values of settings", run: Run::Here(config::get), ..SERVER },
    Builtin { name: "config|set", arity: -4, syntax: "parameter value [parameter value ...]", summary: "Refused: settings are fixed when the node starts", run: Run::Here(config::refuse), ..SERVER },
    Builtin { name: "config|resetstat", arity: 2, summary: "Refused: counters only grow", run: Run::Here(config::refuse), ..SERVER },
    Builtin { name: "config|rewrite", arity: 2, summary: "Refused: the node writes no configuration", run: Run::Here(config::refuse), ..SERVER },
    Builtin { name: "config|help", arity: 2, summary: "Show the subcommands", run: Run::Here(config::help), ..SERVER },
];

#[rustfmt::skip]
static CLUSTER: &[Builtin] = &[
    Builtin { name: "cluster|info", arity: 2, group: "cluster", summary: "Says cluster_enabled:0", run: Run::Here(info::cluster), ..BASE },
];
