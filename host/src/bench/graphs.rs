//! The pictures of a report: throughput and latency over time, and latency by percentile.

use super::plot::scale::{Axis, log, nines, nines_of};
use super::plot::{Panel, Series, picture};
use super::report::{Latency, Operation, Report, Row, per_second};

/// Colours that people with any eyes tell apart (Okabe and Ito 2008), one for each operation in turn.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a6a00",
];
const ALL: &str = "#444444";

/// The latencies that are drawn over time: light for what is usual, dark and then warm for what is rare.
type Line = (&'static str, &'static str, fn(&Latency) -> u64);
const LATENCIES: [Line; 5] = [
    ("p50", "#74b3d8", |latency| latency.median),
    ("p95", "#2f86c0", |latency| latency.p95),
    ("p99", "#0b4f94", |latency| latency.p99),
    ("p99.9", "#e08214", |latency| latency.p99_9),
    ("max", "#b2182b", |latency| latency.max),
];

/// All pictures of a report, with the names of their files.
pub(crate) fn of_report(report: &Report) -> Vec<(&'static str, String)> {
    let (title, end) = (report.title(), report.elapsed_seconds);
    let marks: Vec<(f64, String)> = report
        .marks
        .iter()
        .map(|mark| (mark.at_seconds, mark.label.clone()))
        .collect();
    let all: Vec<(&str, &[Row])> = report
        .operations
        .iter()
        .map(|operation| (operation.name.as_str(), operation.windows.as_slice()))
        .collect();
    let throughput = picture(
        "Throughput over time",
        &title,
        &throughput(&all, end, &marks),
    );
    let latency = picture("Latency over time", &title, &latencies(&all, end, &marks));
    let percentiles = picture(
        "Latency by percentile",
        &title,
        &[percentiles(&report.operations)],
    );
    vec![
        ("throughput.svg", throughput),
        ("latency.svg", latency),
        ("percentiles.svg", percentiles),
    ]
}

/// The pictures that the rows of one operation suffice for.
pub(crate) fn of_rows(name: &str, rows: &[Row]) -> Vec<(&'static str, String)> {
    let end = rows.last().map_or(0.0, |row| row.elapsed_seconds);
    let all = [(name, rows)];
    vec![
        (
            "throughput.svg",
            picture("Throughput over time", name, &throughput(&all, end, &[])),
        ),
        (
            "latency.svg",
            picture("Latency over time", name, &latencies(&all, end, &[])),
        ),
    ]
}

/// Operations a second; and those that failed on a scale of their own, if any did: a few would not be seen among many.
fn throughput(all: &[(&str, &[Row])], end: f64, marks: &[(f64, String)]) -> Vec<Panel> {
    let panel = |title: &str, label: &str, pick: fn(&Row) -> u64| {
        let mut series: Vec<Series> = Vec::new();
        if let ([_, _, ..], Some((_, first))) = (all, all.first()) {
            let rows = |number: usize| all.iter().filter_map(move |(_, rows)| rows.get(number));
            let sum = |number: usize| {
                rows(number)
                    .map(|row| per_second(pick(row), row))
                    .sum::<f64>()
            };
            let points = first
                .iter()
                .enumerate()
                .map(|(number, row)| (row.elapsed_seconds, Some(sum(number))));
            series.push(Series {
                name: "all".into(),
                colour: ALL,
                points: points.collect(),
            });
        }
        for ((name, rows), colour) in all.iter().zip(COLOURS.iter().cycle()) {
            let points = rows
                .iter()
                .map(|row| (row.elapsed_seconds, Some(per_second(pick(row), row))));
            series.push(Series {
                name: (*name).into(),
                colour,
                points: points.collect(),
            });
        }
        let values = series
            .iter()
            .flat_map(|series| &series.points)
            .filter_map(|(_, value)| *value);
        let y = Axis::from_zero(label, values.fold(0.0, f64::max));
        Panel {
            title: title.into(),
            x: Axis::seconds(end),
            y,
            series,
            marks: marks.to_vec(),
        }
    };
    let failed = all
        .iter()
        .any(|(_, rows)| rows.iter().any(|row| row.failed > 0));
    let title = if failed { "successful" } else { "" };
    let mut panels = vec![panel(title, "operations per second", |row| row.successful)];
    if failed {
        panels.push(panel("failed", "failures per second", |row| row.failed));
    }
    panels
}

fn latencies(all: &[(&str, &[Row])], end: f64, marks: &[(f64, String)]) -> Vec<Panel> {
    let rows = || {
        all.iter()
            .flat_map(|(_, rows)| rows.iter())
            .filter(|row| row.successful > 0)
    };
    let smallest = rows()
        .map(|row| row.latency_microseconds.median)
        .min()
        .unwrap_or(1);
    let largest = rows()
        .map(|row| row.latency_microseconds.max)
        .max()
        .unwrap_or(1);
    // One scale for all of them, so that heights compare.
    let y = Axis::latency(smallest as f64, largest as f64);
    let panel = |(name, rows): &(&str, &[Row])| {
        let line = |(title, colour, pick): &Line| {
            let value = |row: &Row| {
                (row.successful > 0).then(|| log(pick(&row.latency_microseconds) as f64))
            };
            let points = rows.iter().map(|row| (row.elapsed_seconds, value(row)));
            Series {
                name: (*title).into(),
                colour,
                points: points.collect(),
            }
        };
        let mut series: Vec<Series> = LATENCIES.iter().map(line).collect();
        // The legend has the order of the lines.
        series.reverse();
        Panel {
            title: (*name).into(),
            x: Axis::seconds(end),
            y: y.clone(),
            series,
            marks: marks.to_vec(),
        }
    };
    all.iter().map(panel).collect()
}

fn percentiles(operations: &[Operation]) -> Panel {
    let some = || {
        operations
            .iter()
            .filter(|operation| operation.successful > 0)
    };
    let most = some()
        .map(|operation| operation.successful)
        .max()
        .unwrap_or(1);
    let smallest = some()
        .map(|operation| operation.latency_microseconds.min)
        .min()
        .unwrap_or(1);
    let largest = some()
        .map(|operation| operation.latency_microseconds.max)
        .max()
        .unwrap_or(1);
    let line = |(operation, colour): (&Operation, &&'static str)| {
        let end = nines_of(operation.successful);
        let point = |(percentile, micros): &(f64, u64)| {
            (nines(*percentile).min(end), Some(log(*micros as f64)))
        };
        Series {
            name: operation.name.clone(),
            colour,
            points: operation.percentiles.iter().map(point).collect(),
        }
    };
    Panel {
        title: String::new(),
        x: Axis::percentiles(most),
        y: Axis::latency(smallest as f64, largest as f64),
        series: operations
            .iter()
            .zip(COLOURS.iter().cycle())
            .map(line)
            .collect(),
        marks: Vec::new(),
    }
}
