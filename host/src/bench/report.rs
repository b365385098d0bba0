//! What is kept of a run, as it stands in report.json. Times are in seconds from the start, latencies in microseconds.

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::own::Lie;
use super::run::{Outcome, Settings};
use super::windows::{Cell, Window};
use super::{BenchError, figures};

/// Grows when a reader of older reports would misread a newer one.
pub(crate) const FORMAT: u32 = 1;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Of the program that made the load.
    pub(crate) host_version: String,
    /// RFC 3339.
    pub(crate) started: String,
    /// Whether somebody ended it before its time.
    pub(crate) interrupted: bool,
    pub(crate) elapsed_seconds: f64,
    /// Where the load was made; nodes elsewhere have machines of their own.
    pub(crate) machine: Machine,
    pub(crate) settings: SettingsView,
    /// What the node at the endpoint says; none if it was not asked.
    pub(crate) cluster: Option<ClusterView>,
    pub(crate) nodes: Vec<NodeView>,
    /// The keys that were filled before.
    pub(crate) filled: Option<Filled>,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) rate_per_second: f64,
    /// Operations of an open loop that were meant to be sent and could not be, because all connections waited.
    pub(crate) not_sent: u64,
    pub(crate) connections_lost: u64,
    pub(crate) operations: Vec<Operation>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) marks: Vec<MarkView>,
}

/// How it was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SettingsView {
    pub(crate) workload: String,
    /// `open` or `closed`.
    pub(crate) r#loop: String,
    pub(crate) rate_per_second: Option<u64>,
    pub(crate) workers: u16,
    pub(crate) threads: u16,
    pub(crate) pipeline: usize,
    pub(crate) keys: u64,
    /// Exponent of the distribution that keys were drawn from; evenly without it.
    #[serde(default)]
    pub(crate) zipf: Option<f64>,
    pub(crate) value_bytes: usize,
    pub(crate) duration_seconds: f64,
    pub(crate) timeout_seconds: f64,
    pub(crate) seed: u64,
}

/// The cluster as one node saw it before the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterView {
    pub(crate) endpoint: String,
    pub(crate) epoch: u64,
    pub(crate) ring_size: u32,
    pub(crate) members: Vec<Member>,
    pub(crate) services: Vec<Service>,
    /// As in `/v1/status`.
    pub(crate) storage: serde_json::Value,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) up: bool,
}

/// A service: its guest and its quorums.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) version: String,
    /// sha-256 of the component.
    pub(crate) digest: String,
    pub(crate) n: u32,
    pub(crate) r: u32,
    pub(crate) w: u32,
}

/// A node that clients connected to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeView {
    pub(crate) address: String,
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
}

/// Keys that were filled before the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Filled {
    pub(crate) keys: u64,
    pub(crate) seconds: f64,
}

/// One operation over the whole run, and second by second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) weight: u64,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) rate_per_second: f64,
    pub(crate) latency_microseconds: Latency,
    /// Percentile and microseconds, from the fastest to the slowest.
    pub(crate) percentiles: Vec<(f64, u64)>,
    pub(crate) windows: Vec<Row>,
}

/// One operation in one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// When the window ended.
    pub(crate) elapsed_seconds: f64,
    /// How long it was.
    pub(crate) window_seconds: f64,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) latency_microseconds: Latency,
}

/// Latencies of the successful operations, in microseconds; all 0 where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) min: u64,
    pub(crate) mean: f64,
    pub(crate) median: u64,
    pub(crate) p95: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

/// Operations that failed in the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) operation: String,
    /// `missing`, `wrong`, `stale`, `unexpected`: the answer was not true. `timeout`, `lost`, `malformed`: there was none. Else the
    /// first word of the error.
    pub(crate) kind: String,
    pub(crate) count: u64,
    /// What the first of them said.
    pub(crate) first: String,
}

/// What was done to the nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MarkView {
    pub(crate) at_seconds: f64,
    pub(crate) label: String,
    /// Why it did not work.
    pub(crate) error: Option<String>,
}

impl Report {
    /// The report of a run.
    ///
    /// # Errors
    /// The library refuses to make a histogram.
    pub(crate) fn new(
        settings: &Settings,
        outcome: &Outcome,
        cluster: Option<ClusterView>,
        started: std::time::SystemTime,
    ) -> Result<Self, BenchError> {
        let elapsed = outcome
            .windows
            .last()
            .map_or(0.0, |window| window.until.as_secs_f64());
        let operations = settings.workload.operations.iter().enumerate();
        let operations: Vec<Operation> = operations
            .map(|(at, operation)| Operation::new(at, operation, &outcome.windows, elapsed))
            .collect::<Result<_, _>>()?;
        let failures = outcome
            .failures
            .0
            .iter()
            .map(|((at, kind), (count, first))| Failure {
                operation: operations
                    .get(*at)
                    .map(|operation| operation.name.clone())
                    .unwrap_or_default(),
                kind: kind.clone(),
                count: *count,
                first: first.clone(),
            });
        let sum = |count: fn(&Operation) -> u64| operations.iter().map(count).sum::<u64>();
        let successful = sum(|operation| operation.successful);
        Ok(Self {
            format: FORMAT,
            host_version: env!("CARGO_PKG_VERSION").into(),
            started: humantime::format_rfc3339_seconds(started).to_string(),
            interrupted: outcome.interrupted,
            elapsed_seconds: rounded(elapsed),
            machine: Machine::this(),
            settings: SettingsView::new(settings),
            cluster,
            nodes: outcome
                .nodes
                .iter()
                .map(|node| NodeView {
                    address: node.address.clone(),
                    name: node.name.clone(),
                    version: node.version.clone(),
                })
                .collect(),
            filled: outcome.filled.map(|took| Filled {
                keys: settings.keys,
                seconds: rounded(took.as_secs_f64()),
            }),
            successful,
            failed: sum(|operation| operation.failed),
            rate_per_second: rate(successful, elapsed),
            not_sent: outcome.not_sent,
            connections_lost: outcome.connections_lost,
            failures: failures.collect(),
            marks: outcome
                .marks
                .iter()
                .map(|mark| MarkView {
                    at_seconds: rounded(mark.at.as_secs_f64()),
                    label: mark.label.clone(),
                    error: mark.error.clone(),
                })
                .collect(),
            operations,
        })
    }

    /// Reads report.json.
    ///
    /// # Errors
    /// It is no report, or one of a newer version.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if format > FORMAT {
            return Err(format!("its format is {format}, newer than {FORMAT}"));
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// How many answers were not true: what no load and no fault excuses.
    pub(crate) fn lies(&self) -> u64 {
        let lies = [Lie::Missing, Lie::Wrong, Lie::Stale, Lie::Unexpected].map(Lie::word);
        let failures = self
            .failures
            .iter()
            .filter(|failure| lies.contains(&failure.kind.as_str()));
        failures.map(|failure| failure.count).sum()
    }

    /// What was run, in one line.
    pub(crate) fn title(&self) -> String {
        let settings = &self.settings;
        let pace = match settings.rate_per_second {
            Some(rate) => format!("open loop at {}/s", figures::grouped(rate)),
            None => "closed loop".into(),
        };
        let pipeline = if settings.pipeline > 1 {
            format!(", pipeline {}", settings.pipeline)
        } else {
            String::new()
        };
        let zipf = settings
            .zipf
            .map(|exponent| format!(" (zipf {exponent})"))
            .unwrap_or_default();
        let nodes = if self.nodes.len() == 1 {
            "1 node".into()
        } else {
            format!("{} nodes", self.nodes.len())
        };
        format!(
            "{}: {} workers{pipeline}, {pace}, {} keys{zipf}, {} B values, {nodes}",
            settings.workload,
            settings.workers,
            figures::grouped(settings.keys),
            settings.value_bytes
        )
    }
}

impl SettingsView {
    fn new(settings: &Settings) -> Self {
        Self {
            workload: settings.workload.name.clone(),
            r#loop: if settings.rate.is_some() {
                "open"
            } else {
                "closed"
            }
            .into(),
            rate_per_second: settings.rate,
            workers: settings.workers,
            threads: settings.threads,
            pipeline: settings.pipeline,
            keys: settings.keys,
            zipf: settings.zipf,
            value_bytes: settings.value_bytes,
            duration_seconds: settings.duration.as_secs_f64(),
            timeout_seconds: settings.timeout.as_secs_f64(),
            seed: settings.seed,
        }
    }
}

impl Operation {
    fn new(
        at: usize,
        operation: &super::workload::Operation,
        windows: &[Window],
        elapsed: f64,
    ) -> Result<Self, BenchError> {
        let mut all = Cell::empty().map_err(BenchError::histogram)?;
        let mut rows = Vec::with_capacity(windows.len());
        for window in windows {
            let Some(cell) = window.cells.get(at) else {
                continue;
            };
            all.add(cell);
            rows.push(Row::new(window, cell));
        }
        let quantiles = all.latency.iter_quantiles(4);
        Ok(Self {
            name: operation.name.clone(),
            command: operation.command.clone(),
            weight: operation.weight,
            successful: all.successful,
            failed: all.failed,
            rate_per_second: rate(all.successful, elapsed),
            latency_microseconds: Latency::of(&all),
            percentiles: quantiles
                .map(|step| (step.quantile() * 100.0, step.value_iterated_to()))
                .collect(),
            windows: rows,
        })
    }
}

impl Row {
    fn new(window: &Window, cell: &Cell) -> Self {
        Self {
            elapsed_seconds: rounded(window.until.as_secs_f64()),
            window_seconds: rounded(window.until.saturating_sub(window.from).as_secs_f64()),
            successful: cell.successful,
            failed: cell.failed,
            latency_microseconds: Latency::of(cell),
        }
    }
}

impl Latency {
    /// The latencies of a cell.
    pub(super) fn of(cell: &Cell) -> Self {
        let latency = &cell.latency;
        if latency.is_empty() {
            return Self::default();
        }
        let at = |quantile| latency.value_at_quantile(quantile);
        Self {
            min: latency.min(),
            mean: (latency.mean() * 10.0).round() / 10.0,
            median: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: latency.max(),
        }
    }
}

/// So many of a window as a rate.
pub(super) fn per_second(count: u64, row: &Row) -> f64 {
    rate(count, row.window_seconds)
}

/// Operations a second.
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        (count as f64 / seconds * 10.0).round() / 10.0
    } else {
        0.0
    }
}

/// To a millisecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
#[path = "report_tests.rs"]
pub(super) mod tests;
