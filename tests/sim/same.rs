//! The same seed gives the same run, in processes of their own: tokio ends the tasks of a crashed node in an order that depends on
//! how many tasks the process has had before.

use std::process::Command;

use crate::node::guests;
use crate::{number, storm};

/// Where this test, run again in a process of its own, finds the seed of which it is to print the run.
const SEED: &str = "SIM_PRINT";

fn in_a_process(seed: u64) -> Vec<String> {
    let test = "same::the_same_seed_gives_the_same_run";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SEED, seed.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with("test "));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    if std::env::var_os(SEED).is_some() {
        let told = storm::run(number(SEED, 0), &guests());
        println!("{}", told.trace.join("\n"));
        return;
    }
    for seed in 1001..=1002 {
        let (one, other) = (in_a_process(seed), in_a_process(seed));
        assert!(one.len() > 1000, "{one:?}");
        for (at, (one, other)) in one.iter().zip(&other).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {at}");
        }
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}
