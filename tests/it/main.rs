//! One node as its users meet it: Redis clients, HTTP, the command line, and whoever pulls the plug.

mod cli;
mod config;
mod counter;
mod coverage;
mod drain;
mod durability;
mod http;
mod http_commands;
mod hostile;
mod introspection;
mod kv;
mod ping;
mod pipeline;
mod protocol;
mod start;
mod tools;
