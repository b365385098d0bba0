//! Micro benchmarks: what single steps of a command cost. `cargo bench -p host --bench micro [-- FILTER]`.
//!
//! - [`codec`]: requests from bytes, replies to bytes.
//! - [`placement`]: hashing a key, its preference list, a coverage plan.
//! - [`store`]: rows of one partition in memory and on disk.
//! - [`guest`]: kv through its vnode and WebAssembly, beside the same commands in Rust on the same rows.
//! - [`claim`]: who should own what, up to 1000 nodes; `-- moves` prints what moves as one of them joins.
//! - [`tax`]: the ratio of those two, measured in turn. `cargo bench -p host --bench micro -- tax`.
//!
//! All of it runs on one thread. Whole nodes are measured by the scripts beside this folder.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on should stop where it is"
)]
#![allow(
    missing_docs,
    reason = "divan's attributes make items that nobody calls"
)]

mod claim;
mod codec;
mod guest;
mod native;
mod placement;
mod rig;
mod store;
mod tax;

use std::time::Duration;

/// As in the program itself, since the allocator is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time for each measurement; `--max-time SECONDS` changes it.
const TIME_MAX: Duration = Duration::from_millis(500);

fn main() {
    let asked = |what: &str| std::env::args().any(|arg| arg == what);
    if asked("tax") {
        tax::print();
    } else if asked("moves") {
        claim::print();
    } else {
        divan::Divan::default()
            .max_time(TIME_MAX)
            .config_with_args()
            .main();
    }
}
