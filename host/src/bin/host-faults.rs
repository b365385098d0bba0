//! The `host` binary, which ends where a test wants it to: what is to happen stands in the directory that `VNODE_FAILPOINTS` names.

#[path = "../main.rs"]
mod host;

use std::process::ExitCode;

use vnode_cluster::failpoint;

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os("VNODE_FAILPOINTS") {
        failpoint::arm(directory.into());
    }
    host::main()
}
