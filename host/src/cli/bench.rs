//! `host bench`: makes load, shows it second by second and writes down what came of it.

mod reports;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::bench_args::{Bench, BenchRun};
use super::client::{Client, ClientError};
use super::output::{ANSWER, Session};
use super::report::{Exit, Failure};
use super::table::{Table, count};
use crate::bench::figures::{grouped, latency, rate};
use crate::bench::report::{ClusterView, Report};
use crate::bench::{self, Progress, Settings, Window, Workload};
use reports::Folder;

/// Does what was asked for.
pub(super) fn run(session: &mut Session<'_>, command: &Bench) -> anyhow::Result<Exit> {
    match command {
        Bench::Run(args) => measure(session, args),
        Bench::Compare { a, b } => reports::compare(session, a, b),
        Bench::Plot { file, out } => reports::plot(session, file, out.as_deref()),
    }
}

/// Runs, shows each second, writes the report. Exit 1 when an answer was not true or none was right.
fn measure(session: &mut Session<'_>, args: &BenchRun) -> anyhow::Result<Exit> {
    let workload = workload(args)?;
    let (cluster, nodes) = targets(session, args)?;
    let settings = Settings {
        workload,
        nodes,
        workers: args.workers,
        threads: args.threads,
        pipeline: args.pipeline.into(),
        keys: args.keys,
        zipf: args.zipf,
        value_bytes: usize::try_from(args.value.as_u64()).unwrap_or(usize::MAX),
        rate: args.rate,
        duration: args.duration,
        window: args.window,
        timeout: session.timeout().unwrap_or(ANSWER),
        seed: args.seed,
        faults: args.during.clone(),
    };
    let started = SystemTime::now();
    let folder = Folder::new(args.out.clone().unwrap_or_else(|| named_after(started)))?;
    let stop = Arc::new(AtomicBool::new(false));
    end_on_interrupt(&stop).context("cannot listen for Ctrl-C")?;
    let mut lines = Lines {
        live: session.is_live(),
        quiet: session.wants_json(),
        drawn: false,
    };
    let mut printed = Ok(());
    let outcome = bench::run(&settings, &stop, |progress| {
        // The run goes on when nobody reads any more; the report is what counts.
        if printed.is_ok() {
            printed = lines.show(session, &settings, &progress);
        }
    })?;
    let report = Report::new(&settings, &outcome, cluster, started)?;
    reports::write_all(&folder.path, &report)?;
    let folder = folder.keep();
    if session.wants_json() {
        session.print_json(&report)?;
    } else {
        session.print(&lines.end())?;
        summary(session, &report, &folder)?;
    }
    printed?;
    Ok(if report.lies() > 0 || report.successful == 0 {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

fn workload(args: &BenchRun) -> anyhow::Result<Workload> {
    let workload = match args.command.as_slice() {
        [] => Workload::named(&args.workload),
        commands => Workload::of_commands(commands),
    };
    let workload = match &args.mix {
        Some(mix) => workload.and_then(|workload| workload.mixed(mix)),
        None => workload,
    };
    // What it says has a line for what to do next already.
    workload.map_err(|error| Failure::usage(error.to_string()).into())
}

/// The answer of `/v1/cluster`, as far as it is of use here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    epoch: u64,
    ring_size: u32,
    members: Vec<Member>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Member {
    status: String,
    up: bool,
    addresses: Addresses,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Addresses {
    resp: String,
}

/// The nodes to load: those that were named, else all that the endpoint knows to be up. With named ones the endpoint need not answer.
fn targets(
    session: &Session<'_>,
    args: &BenchRun,
) -> anyhow::Result<(Option<ClusterView>, Vec<SocketAddr>)> {
    let known = ask(&session.client()?);
    if !args.node.is_empty() {
        let nodes = args
            .node
            .iter()
            .map(|node| address(node))
            .collect::<anyhow::Result<_>>()?;
        return Ok((known.ok().map(|(view, _)| view), nodes));
    }
    let (view, members) = known?;
    let serves =
        |member: &&Member| member.up && matches!(member.status.as_str(), "valid" | "leaving");
    let nodes: Vec<SocketAddr> = members
        .iter()
        .filter(serves)
        .map(|member| address(&member.addresses.resp))
        .collect::<anyhow::Result<_>>()?;
    if nodes.is_empty() {
        return Err(Failure::new("no member is up")
            .next("`host cluster status` shows them; --node ADDR names one")
            .into());
    }
    Ok((Some(view), nodes))
}

fn ask(client: &Client) -> Result<(ClusterView, Vec<Member>), ClientError> {
    let body = client.get("/v1/cluster", &[])?;
    let View {
        epoch,
        ring_size,
        members,
    } = client.view(body.clone())?;
    let services = client.get("/v1/services", &[])?;
    let status = client.get("/v1/status", &[])?;
    let part = |value: &Value, name: &str| value.get(name).cloned().unwrap_or_default();
    let view = ClusterView {
        endpoint: client.endpoint().to_owned(),
        epoch,
        ring_size,
        members: client.view(part(&body, "members"))?,
        services: client.view(part(&services, "services"))?,
        storage: part(&status, "storage"),
    };
    Ok((view, members))
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    let next = "write it as HOST:PORT, the address that Redis clients use, such as 127.0.0.1:7379";
    found.ok_or_else(|| {
        Failure::usage(format!("{text:?} is not the address of a node"))
            .next(next)
            .into()
    })
}

/// `bench-20261122T024005Z`.
fn named_after(time: SystemTime) -> PathBuf {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    PathBuf::from(format!("bench-{}", text.replace(['-', ':'], "")))
}

/// Ctrl-C ends the run, which still writes its report; a second one ends the program.
fn end_on_interrupt(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut before = false;
            while tokio::signal::ctrl_c().await.is_ok() {
                if before {
                    std::process::exit(130);
                }
                before = true;
                stop.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

/// The lines while it runs: one that is drawn over on a terminal, else one for each second.
struct Lines {
    live: bool,
    quiet: bool,
    drawn: bool,
}

impl Lines {
    fn show(
        &mut self,
        session: &mut Session<'_>,
        settings: &Settings,
        progress: &Progress<'_>,
    ) -> anyhow::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let (text, stays) = match progress {
            Progress::Filled(keys, took) => (
                format!(
                    "filled {} keys in {:.1} s",
                    grouped(*keys),
                    took.as_secs_f64()
                ),
                true,
            ),
            Progress::Mark(mark) => {
                let failed = mark
                    .error
                    .as_ref()
                    .map(|error| format!(", which failed: {error}"))
                    .unwrap_or_default();
                (
                    format!("{:.1}s  {}{failed}", mark.at.as_secs_f64(), mark.label),
                    true,
                )
            }
            Progress::Window(window) => (second(window, settings.duration), false),
        };
        let text = match (self.live, stays) {
            (true, true) => format!("\r\u{1b}[K{text}\n"),
            (true, false) => format!("\r\u{1b}[K{text}"),
            (false, _) => format!("{text}\n"),
        };
        self.drawn = self.live && !stays;
        session.print(&text)?;
        session.out.flush()?;
        Ok(())
    }

    /// What to print when it is over: a line that was drawn over goes.
    fn end(&self) -> String {
        if self.drawn {
            "\r\u{1b}[K".into()
        } else {
            String::new()
        }
    }
}

/// `  12s of 60s     18 932/s  p50 94 µs  p99 320 µs  0 failed`.
fn second(window: &Window, duration: Duration) -> String {
    let Some(all) = window.whole() else {
        return String::new();
    };
    let (elapsed, length) = (window.until().as_secs_f64(), window.length().as_secs_f64());
    let per_second = if length > 0.0 {
        all.successful as f64 / length
    } else {
        0.0
    };
    let at = |quantile| {
        if all.successful > 0 {
            latency(all.micros_at(quantile) as f64)
        } else {
            "-".into()
        }
    };
    format!(
        "{elapsed:>5.1}s of {}s  {:>10}/s  p50 {:>8}  p99 {:>8}  {} failed",
        duration.as_secs_f64(),
        rate(per_second),
        at(0.5),
        at(0.99),
        grouped(all.failed)
    )
}

/// What is printed at the end.
fn summary(session: &mut Session<'_>, report: &Report, folder: &Path) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "OPERATION",
        ">PER SECOND",
        ">FAILED",
        ">MEAN",
        ">P50",
        ">P95",
        ">P99",
        ">P99.9",
        ">MAX",
    ]);
    for operation in &report.operations {
        let times = operation.latency_microseconds;
        let [p50, p95, p99, p99_9, max] =
            [times.median, times.p95, times.p99, times.p99_9, times.max]
                .map(|micros| latency(micros as f64));
        let (per_second, failed) = (rate(operation.rate_per_second), grouped(operation.failed));
        table.row([
            operation.name.clone(),
            per_second,
            failed,
            latency(times.mean),
            p50,
            p95,
            p99,
            p99_9,
            max,
        ]);
    }
    session.print(&format!("{}\n{table}", session.strong(&report.title())))?;
    if report.interrupted {
        session.print(&format!(
            "ended early, after {:.1} s\n",
            report.elapsed_seconds
        ))?;
    }
    for failure in &report.failures {
        let line = format!(
            "{} {} {}: {}\n",
            grouped(failure.count),
            failure.operation,
            failure.kind,
            failure.first
        );
        session.print(&session.bad(&line))?;
    }
    if report.not_sent > 0 {
        let line = format!(
            "{} operations were meant to be sent and were not: every connection waited\n",
            grouped(report.not_sent)
        );
        session.print(&session.bad(&line))?;
    }
    session.print(&format!(
        "wrote {0}/report.md, report.json, {1}, and three graphs\n",
        folder.display(),
        count(report.operations.len() + 1, "CSV file")
    ))
}
