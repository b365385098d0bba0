//! The price of WebAssembly: kv through its guest against the same commands in Rust, on the same kind of rows.
//!
//! Guest and native take turns, a round each, so that whatever else the machine does meets both; the ratio printed is the
//! median over the rounds' ratios.

use std::sync::Arc;
use std::time::Instant;

use vnode_host::vnode::request::Replies;
use vnode_host::vnode::{Call, Vnode};

use crate::native::{Guested, Native};
use crate::rig::{Backend, Load, Runner, Storage, kv, state};

const ROUNDS: usize = 15;
/// Commands of one round.
const COMMANDS: usize = 12_800;

/// Prints the table.
pub(crate) fn print() {
    println!("ns per command, {ROUNDS} rounds in turn        must 2.0x, goal 1.3x");
    println!(
        "{:<8}{:<8}{:>7}{:>10}{:>10}{:>9}",
        "store", "", "batch", "native", "guest", "ratio"
    );
    for backend in [Backend::Memory, Backend::Disk] {
        // Each has an engine of its own, as a partition is open only once.
        let (service, ours, theirs) = (kv(), Storage::new(backend), Storage::new(backend));
        let mut load = Load::new(&service);
        let state_of = |storage| state(&service, storage);
        let mut guest = Guested {
            vnode: Vnode::start(
                Arc::clone(&service),
                Arc::clone(service.first()),
                state_of(&ours),
            ),
            call: Call::default(),
        };
        let mut native = Native::new(Arc::clone(&service), state_of(&theirs));
        load.fill(&mut guest);
        load.fill(&mut native);
        for command in ["GET", "SET"] {
            for batch in [1, 16, 64] {
                let rounds: Vec<(f64, f64)> = (0..ROUNDS)
                    .map(|_| {
                        let native = round(&mut native, &mut load, command, batch);
                        (native, round(&mut guest, &mut load, command, batch))
                    })
                    .collect();
                println!(
                    "{:<8}{command:<8}{batch:>7}{:>10.0}{:>10.0}{:>8.2}x",
                    format!("{backend:?}").to_lowercase(),
                    median(rounds.iter().map(|(native, _)| *native)),
                    median(rounds.iter().map(|(_, guest)| *guest)),
                    median(rounds.iter().map(|(native, guest)| guest / native)),
                );
            }
        }
    }
}

/// Nanoseconds per command. Making the requests is not counted.
fn round(runner: &mut impl Runner, load: &mut Load, command: &str, batch: usize) -> f64 {
    let mut batches: Vec<_> = (0..COMMANDS / batch)
        .map(|_| load.batch(command, batch))
        .collect();
    let mut replies = Replies::default();
    let start = Instant::now();
    for mailbox in &mut batches {
        load.run(runner, mailbox, &mut replies);
    }
    start.elapsed().as_secs_f64() * 1e9 / COMMANDS as f64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
