use std::time::Duration;

use super::super::client::NodeFacts;
use super::super::faults::Mark;
use super::super::windows::{Failures, Windows};
use super::super::workload::Workload;
use super::super::{graphs, markdown};
use super::*;

fn settings(workers: u16) -> Settings {
    Settings {
        workload: Workload::named("rkv").unwrap(),
        nodes: Vec::new(),
        workers,
        threads: 1,
        pipeline: 1,
        keys: 100_000,
        zipf: None,
        value_bytes: 100,
        rate: None,
        duration: Duration::from_secs(3),
        window: Duration::from_secs(1),
        timeout: Duration::from_secs(10),
        seed: 1,
        faults: Vec::new(),
    }
}

/// Three seconds: puts of 100 µs and 1 ms, one get of 2 s, and own puts that went missing.
pub(in crate::bench) fn sample(workers: u16) -> Report {
    let second = Duration::from_secs(1);
    let mut windows = Windows::new(vec![Cell::empty().unwrap(); 3], second, 3 * second);
    let mut failures = Failures::default();
    let mut closed = Vec::new();
    for number in 0..3_u32 {
        (0..99).for_each(|_| windows.succeed(0, Duration::from_micros(100)));
        windows.succeed(0, Duration::from_millis(1));
        windows.fail(1);
        failures.add(1, "missing", || "key 7: 3 was acknowledged | nil".into());
        if number == 1 {
            windows.succeed(2, 2 * second);
        }
        closed.extend(windows.next(second * (number + 1)));
    }
    closed.push(windows.end(3 * second));
    let outcome = Outcome {
        nodes: vec![NodeFacts {
            address: "127.0.0.1:7379".into(),
            name: Some("a@x".into()),
            ..NodeFacts::default()
        }],
        filled: None,
        windows: closed,
        failures,
        not_sent: 5,
        connections_lost: 0,
        marks: vec![Mark {
            at: second,
            label: "kill b".into(),
            error: None,
        }],
        interrupted: true,
    };
    Report::new(
        &settings(workers),
        &outcome,
        None,
        std::time::SystemTime::UNIX_EPOCH,
    )
    .unwrap()
}

#[test]
fn a_report_adds_its_windows_up() {
    let report = sample(2);
    assert_eq!(
        (report.successful, report.failed, report.lies()),
        (301, 3, 3)
    );
    assert_eq!(
        (report.elapsed_seconds, report.rate_per_second),
        (3.0, 100.3)
    );
    let put = &report.operations[0];
    assert_eq!(
        (
            put.name.as_str(),
            put.successful,
            put.rate_per_second,
            put.windows.len()
        ),
        ("put", 300, 100.0, 3)
    );
    let times = put.latency_microseconds;
    assert_eq!(
        (
            times.min,
            times.median,
            times.p95,
            times.p99,
            times.p99_9,
            times.max
        ),
        (100, 100, 100, 100, 1000, 1000)
    );
    assert!((times.mean - 109.0).abs() < 0.11, "{}", times.mean);
    assert_eq!(
        put.percentiles
            .last()
            .map(|(percentile, micros)| (*percentile, *micros)),
        Some((100.0, 1000))
    );
    // A second without an answer has no latency.
    assert_eq!(
        report.operations[2].windows[0].latency_microseconds,
        Latency::default()
    );
    assert_eq!(report.operations[1].windows[2].failed, 1);
    assert_eq!(
        report.title(),
        "rkv: 2 workers, closed loop, 100 000 keys, 100 B values, 1 node"
    );
}

#[test]
fn a_report_is_read_as_it_was_written_and_a_newer_one_refused() {
    let text = serde_json::to_string(&sample(2)).unwrap();
    let again = Report::parse(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    let newer = text.replacen("\"format\":1", "\"format\":2", 1);
    assert!(Report::parse(&newer).is_err_and(|why| why.contains("format is 2")));
    assert!(Report::parse("{}").is_err() && Report::parse("no").is_err());
}

#[test]
fn the_page_for_people_has_what_failed_what_was_done_and_what_is_missing() {
    let page = markdown(&sample(2));
    for words in [
        "| put | 100 | 0 | 100 µs | 109 µs | 100 µs | 100 µs | 100 µs | 1.00 ms | 1.00 ms |",
        "| get-own-puts | missing | 3 | key 7: 3 was acknowledged \\| nil |",
        "after 1.0 s: kill b",
        "**The load could not be made**: 5 operations",
        "301 in 3.0 s, ended early:",
        "- a@x at 127.0.0.1:7379, version unknown",
        "![Throughput over time](throughput.svg)",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn pictures_name_every_line_and_fault() {
    let pictures = graphs::of_report(&sample(2));
    let lines = |svg: &str| svg.matches("<path ").count();
    let expected: [(&str, usize, &[&str]); 3] = [
        (
            "throughput.svg",
            8,
            &[
                "successful",
                "failures per second",
                "all",
                "put",
                "get-own-puts",
                "get",
                "failed",
                "kill b",
                "operations per second",
                "seconds from the start",
            ],
        ),
        (
            "latency.svg",
            15,
            &[
                "p50", "p95", "p99", "p99.9", "max", "kill b", "100 µs", "10 ms", "1 s",
            ],
        ),
        (
            "percentiles.svg",
            3,
            &["put", "get", "50%", "99%", "percentile", "latency"],
        ),
    ];
    for ((name, svg), (file, count, words)) in pictures.iter().zip(expected) {
        assert_eq!((*name, lines(svg)), (file, count));
        for word in words {
            assert!(svg.contains(&format!(">{word}</text>")), "{name}: {word}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
    }
}

#[test]
fn a_run_without_an_answer_can_be_drawn_too() {
    let mut report = sample(2);
    report.operations.iter_mut().for_each(|operation| {
        operation.windows.clear();
        operation.percentiles.clear();
        operation.successful = 0;
    });
    report.elapsed_seconds = 0.0;
    for (name, svg) in graphs::of_report(&report) {
        assert!(!svg.contains("NaN") && svg.ends_with("</svg>\n"), "{name}");
    }
}
