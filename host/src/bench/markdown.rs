//! A report for people: report.md.

use std::fmt::Write;

use super::figures::{grouped, latency, rate};
use super::report::Report;

/// The report as Markdown, with the pictures that lie beside it.
pub(crate) fn markdown(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "# {}\n", report.title())?;
    let early = if report.interrupted {
        ", ended early"
    } else {
        ""
    };
    writeln!(
        out,
        "{} in {:.1} s{early}: {} operations a second, {} failed.\n",
        grouped(report.successful),
        report.elapsed_seconds,
        rate(report.rate_per_second),
        grouped(report.failed)
    )?;
    if report.not_sent > 0 {
        writeln!(
            out,
            "**The load could not be made**: {} operations were meant to be sent and were not, because every connection waited. \
             The latencies of those that would have come last are missing.\n",
            grouped(report.not_sent)
        )?;
    }
    operations(out, report)?;
    failures(out, report)?;
    if !report.marks.is_empty() {
        writeln!(out, "## What was done meanwhile\n")?;
        for mark in &report.marks {
            let failed = mark
                .error
                .as_ref()
                .map(|error| format!(", which failed: {error}"))
                .unwrap_or_default();
            writeln!(
                out,
                "- after {:.1} s: {}{failed}",
                mark.at_seconds, mark.label
            )?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "![Throughput over time](throughput.svg)\n\n![Latency over time](latency.svg)\n"
    )?;
    writeln!(out, "![Latency by percentile](percentiles.svg)\n")?;
    circumstances(out, report)
}

fn operations(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "| operation | per second | failed | min | mean | p50 | p95 | p99 | p99.9 | max |"
    )?;
    writeln!(out, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    for operation in &report.operations {
        let times = operation.latency_microseconds;
        let [min, p50, p95, p99, p99_9, max] = [
            times.min,
            times.median,
            times.p95,
            times.p99,
            times.p99_9,
            times.max,
        ]
        .map(|micros| latency(micros as f64));
        let (per_second, failed, mean) = (
            rate(operation.rate_per_second),
            grouped(operation.failed),
            latency(times.mean),
        );
        writeln!(
            out,
            "| {} | {per_second} | {failed} | {min} | {mean} | {p50} | {p95} | {p99} | {p99_9} | {max} |",
            operation.name
        )?;
    }
    let from = match report.settings.rate_per_second {
        Some(_) => "the time at which the operation was meant to be sent",
        None => "the time at which it was sent",
    };
    writeln!(
        out,
        "\nLatency counts from {from}, of successful operations.\n"
    )
}

fn failures(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.failures.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "## Failures\n\n| operation | kind | count | the first |\n|---|---|--:|---|"
    )?;
    for failure in &report.failures {
        let first = failure.first.replace('|', "\\|");
        writeln!(
            out,
            "| {} | {} | {} | {first} |",
            failure.operation,
            failure.kind,
            grouped(failure.count)
        )?;
    }
    writeln!(
        out,
        "\n`missing`, `wrong`, `stale`, `unexpected`: the answer was not true. `timeout`, `lost`, `malformed`: there was none, and nobody knows \
         whether the operation happened. Anything else is what the node said.\n"
    )
}

fn circumstances(out: &mut String, report: &Report) -> std::fmt::Result {
    let (machine, settings) = (&report.machine, &report.settings);
    writeln!(out, "## How it was measured\n")?;
    writeln!(
        out,
        "- machine: {}, {} cores, {:.1} GiB, {}",
        machine.cpu,
        machine.cores,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel
    )?;
    writeln!(
        out,
        "- host {}, started {}, seed {}",
        report.host_version, report.started, settings.seed
    )?;
    let mix: Vec<String> = report
        .operations
        .iter()
        .map(|operation| format!("{} x `{}`", operation.weight, operation.command))
        .collect();
    writeln!(out, "- operations: {}", mix.join(", "))?;
    writeln!(
        out,
        "- {} workers in {} threads, pipeline {}, {} loop, time limit {} s",
        settings.workers,
        settings.threads,
        settings.pipeline,
        settings.r#loop,
        settings.timeout_seconds
    )?;
    if let Some(filled) = &report.filled {
        writeln!(
            out,
            "- {} keys were filled before, in {:.2} s",
            grouped(filled.keys),
            filled.seconds
        )?;
    }
    for node in &report.nodes {
        let name = node.name.as_deref().unwrap_or("a server");
        writeln!(
            out,
            "- {name} at {}, version {}",
            node.address,
            node.version.as_deref().unwrap_or("unknown")
        )?;
    }
    if let Some(cluster) = &report.cluster {
        let up = cluster.members.iter().filter(|member| member.up).count();
        writeln!(
            out,
            "- ring of {} partitions, {} members, {up} up; storage {}",
            cluster.ring_size,
            cluster.members.len(),
            cluster.storage
        )?;
        for service in &cluster.services {
            let (name, version, digest) = (&service.name, &service.version, &service.digest);
            writeln!(
                out,
                "- guest {name} {version}, sha256 {digest}, n={} r={} w={}",
                service.n, service.r, service.w
            )?;
        }
    }
    if report.connections_lost > 0 {
        writeln!(
            out,
            "- connections lost or refused: {}",
            report.connections_lost
        )?;
    }
    Ok(())
}
