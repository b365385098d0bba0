//! The `host` binary, which ends where a test wants it to.

#[path = "../main.rs"]
mod host;

use std::process::ExitCode;

fn main() -> ExitCode {
    host::main()
}
