//! What can be said of measuring, as clap sees it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::bench::Fault;

/// Commands about measuring.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Make load and write a report with graphs; exit 1 when an answer was not true
    Run(BenchRun),
    /// Two reports side by side
    Compare {
        /// A report, or its folder
        a: PathBuf,
        /// Another, such as a later one
        b: PathBuf,
    },
    /// Draw the graphs again
    Plot {
        /// report.json or its folder, or the CSV file of an operation
        file: PathBuf,
        /// Where they go; beside the file without it
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// What load to make.
#[derive(Args, Debug)]
pub struct BenchRun {
    /// rkv (the tutorial's: 10 put, 3 get-own-puts, 2 get), read, write, mixed, counter or scan
    #[arg(long, default_value = "rkv", value_name = "NAME")]
    pub workload: String,
    /// A command of your own with {key} and {value} in it, such as "SET key:{key} {value}"; several share the load
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "workload")]
    pub command: Vec<String>,
    /// Other weights of the operations: put=10,get=2 by name or 10:3:2 in their order
    #[arg(long, value_name = "MIX")]
    pub mix: Option<String>,
    /// Connections, each with requests of its own
    #[arg(long, default_value = "2", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub workers: u16,
    /// Operations that a worker sends before it waits
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub pipeline: u16,
    /// Operations a second in all, sent when they are due whatever becomes of those before; without it, as fast as answers come
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// How long
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub duration: Duration,
    /// What graphs, CSV files and lines count together
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = window)]
    pub window: Duration,
    /// Keys are numbers below this, each as often as any other unless --zipf is given
    #[arg(long, default_value = "100000", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// Some keys are wanted more often than others: key K in proportion to 1/(K+1)^EXPONENT, such as 0.99
    #[arg(long, value_name = "EXPONENT", value_parser = exponent)]
    pub zipf: Option<f64>,
    /// Size of a value
    #[arg(long, default_value = "100B", value_name = "SIZE", value_parser = value_size)]
    pub value: bytesize::ByteSize,
    /// Threads that make the load
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Where Redis clients connect; all nodes that the endpoint knows without it
    #[arg(long, value_name = "HOST:PORT")]
    pub node: Vec<String>,
    /// Do harm meanwhile: "10s:kill node2", also stop, cont and run COMMAND; repeats
    #[arg(long, value_name = "TIME:ACTION")]
    pub during: Vec<Fault>,
    /// Decides operations and keys
    #[arg(long, default_value = "1", value_name = "N")]
    pub seed: u64,
    /// Where the report goes; bench-TIME without it
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Long enough to measure, and not for ever.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let sensible = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);
    match sensible.contains(&duration) {
        true => Ok(duration),
        false => Err("a run takes from 100ms to 7days".into()),
    }
}

/// Short enough to see a pause, and long enough to count something.
fn window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let sensible = Duration::from_millis(10)..=Duration::from_secs(3600);
    match sensible.contains(&window) {
        true => Ok(window),
        false => Err("a window takes from 10ms to 1h".into()),
    }
}

/// Of a Zipf distribution.
fn exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(exponent),
        _ => Err("an exponent is a number from 0 to 10".into()),
    }
}

/// What a node may take at most, with its settings at their largest.
fn value_size(text: &str) -> Result<bytesize::ByteSize, String> {
    let size: bytesize::ByteSize = text.parse()?;
    match size.as_u64() <= 64 << 20 {
        true => Ok(size),
        false => Err("a value has at most 64MiB".into()),
    }
}
