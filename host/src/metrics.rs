//! The node's metrics in Prometheus' text format, prefix `vnode_`.
//!
//! Counters live where they are counted, one set for each executor and service, and are added up here when somebody
//! asks. Nothing here waits for an executor, so metrics come even while every guest loops.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::coordinator::swap::PAUSE_BUCKETS_US;
use crate::coordinator::transfers::{Kind, Totals};
use crate::coordinator::{Coordinator, now_ms};
use crate::store::{Engine, Health};
use crate::vnode::edition::{Counters, Edition};
use crate::vnode::service::{DURATION_BUCKETS_US, Service};

/// What one command did on all executors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandTotals {
    /// Replies of the guest.
    pub ok: u64,
    /// Refusals and other failures.
    pub error: u64,
    /// Traps.
    pub trap: u64,
    /// Deadlines.
    pub timeout: u64,
    /// Full mailboxes.
    pub busy: u64,
    /// Counts for `DURATION_BUCKETS_US` and one more.
    pub durations: [u64; DURATION_BUCKETS_US.len() + 1],
    /// Sum of the durations, microseconds.
    pub duration_us: u64,
}

impl CommandTotals {
    /// Adds up what all versions did under the number of a command.
    pub fn of(service: &Service, command: u16) -> CommandTotals {
        let mut totals = CommandTotals::default();
        for counters in service.counters() {
            totals.count(&counters, command);
        }
        totals
    }

    /// Adds what one version did.
    fn count(&mut self, counters: &Counters, command: u16) {
        let totals = self;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for stats in counters.of(command) {
            totals.ok += read(&stats.ok);
            totals.error += read(&stats.error);
            totals.trap += read(&stats.trap);
            totals.timeout += read(&stats.timeout);
            totals.busy += read(&stats.busy);
            totals.duration_us += read(&stats.duration_us);
            for (total, bucket) in totals.durations.iter_mut().zip(&stats.durations) {
                *total += read(bucket);
            }
        }
    }

    /// What one version did under the number of a command.
    fn of_version(edition: &Edition, command: u16) -> CommandTotals {
        let mut totals = CommandTotals::default();
        totals.count(edition.counters(), command);
        totals
    }

    /// How they ended, for the label.
    fn outcomes(&self) -> [(&'static str, u64); 5] {
        [
            ("ok", self.ok),
            ("error", self.error),
            ("trap", self.trap),
            ("timeout", self.timeout),
            ("busy", self.busy),
        ]
    }

    /// Adds those of another command.
    pub fn add(&mut self, other: &CommandTotals) {
        self.ok += other.ok;
        self.error += other.error;
        self.trap += other.trap;
        self.timeout += other.timeout;
        self.busy += other.busy;
        self.duration_us += other.duration_us;
        for (total, more) in self.durations.iter_mut().zip(&other.durations) {
            *total += more;
        }
    }

    /// Commands that ended, however.
    pub fn calls(&self) -> u64 {
        self.ok + self.error + self.trap + self.timeout + self.busy
    }
}

/// A registry of one node.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics of the node that these belong to.
    pub fn new(coordinator: Arc<Coordinator>, engine: Arc<Engine>, started: Instant) -> Metrics {
        let mut registry = Registry::with_prefix("vnode");
        registry.register_collector(Box::new(NodeCollector {
            coordinator,
            engine,
            started,
        }));
        Metrics { registry }
    }

    /// The whole text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

struct NodeCollector {
    coordinator: Arc<Coordinator>,
    engine: Arc<Engine>,
    started: Instant,
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.commands(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.transfers(&mut encoder)?;
        self.node(&mut encoder)
    }
}

impl NodeCollector {
    fn each_command(
        &self,
        mut each: impl FnMut(&[(&str, &str)], &CommandTotals) -> fmt::Result,
    ) -> fmt::Result {
        for service in self.coordinator.services() {
            for (command, spec) in (0..).zip(service.commands()) {
                let totals = CommandTotals::of(service, command);
                let labels = [("service", service.name()), ("command", &spec.name)];
                each(&labels, &totals)?;
            }
        }
        Ok(())
    }

    /// The same for each version that is here. There are as many as vnodes run or may go back to.
    fn each_command_of_versions(
        &self,
        mut each: impl FnMut(&[(&str, &str)], &CommandTotals) -> fmt::Result,
    ) -> fmt::Result {
        for service in self.coordinator.services() {
            for edition in service.editions() {
                for number in 0..u16::try_from(service.commands().len()).unwrap_or(u16::MAX) {
                    let Some(spec) = edition.command(number) else {
                        continue;
                    };
                    let labels = [
                        ("service", service.name()),
                        ("version", edition.version()),
                        ("digest", edition.digest()),
                        ("command", &spec.name),
                    ];
                    each(&labels, &CommandTotals::of_version(&edition, number))?;
                }
            }
        }
        Ok(())
    }

    fn commands(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Commands of guests, by how they ended";
        let mut family = encoder.encode_descriptor("commands", help, None, MetricType::Counter)?;
        self.each_command(|labels, totals| outcomes(&mut family, labels, totals))?;
        let help = "Commands of guests, by the version that ran them and how they ended";
        let name = "version_commands";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        self.each_command_of_versions(|labels, totals| outcomes(&mut family, labels, totals))
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let help = "Time from a command's arrival to its reply";
        let name = "command_duration";
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        self.each_command(|labels, totals| duration(&mut family, labels, totals))?;
        let help = "Time from a command's arrival to its reply, by the version that ran it";
        let name = "version_command_duration";
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        self.each_command_of_versions(|labels, totals| duration(&mut family, labels, totals))
    }

    fn transfers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let transfers = self.coordinator.transfers();
        let help = "Transfers that this node sends or makes";
        let mut family = encoder.encode_descriptor("transfers", help, None, MetricType::Gauge)?;
        for kind in Kind::ALL {
            let (running, waiting) = transfers.count(kind);
            for (state, count) in [("running", running), ("waiting", waiting)] {
                let labels = [("kind", kind.as_str()), ("state", state)];
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                family.encode_family(&labels)?.encode_gauge(&count)?;
            }
        }
        type Of = fn(&Totals) -> u64;
        let counters: [(&str, &str, Of); 4] = [
            ("transfer_bytes", "Bytes of rows sent", |totals| {
                totals.sent.bytes
            }),
            ("transfer_rows", "Rows sent", |totals| totals.sent.objects),
            (
                "transfers_finished",
                "Transfers that came to their end",
                |totals| totals.finished,
            ),
            (
                "transfers_failed",
                "Tries of transfers that failed",
                |totals| totals.failed,
            ),
        ];
        for (name, help, of) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for kind in Kind::ALL {
                let total = of(&transfers.totals(kind));
                family
                    .encode_family(&[("kind", kind.as_str())])?
                    .encode_counter::<NoLabelSet, _, u64>(&total, None)?;
            }
        }
        let help = "Age of the transfer that waits longest";
        let oldest = transfers.oldest_wait(now_ms()) / 1000;
        let gauge = ConstGauge::new(i64::try_from(oldest).unwrap_or(i64::MAX));
        let unit = Some(&Unit::Seconds);
        gauge.encode(encoder.encode_descriptor(
            "transfer_oldest_wait",
            help,
            unit,
            gauge.metric_type(),
        )?)
    }

    fn pauses(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time that the commands of a vnode waited because it got another version";
        let unit = Some(&Unit::Seconds);
        let (counts, total_us) = self.coordinator.pauses().counts();
        encoder
            .encode_descriptor("swap_pause", help, unit, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(
                total_us as f64 / 1e6,
                counts.iter().sum(),
                &buckets(&PAUSE_BUCKETS_US, counts),
                None,
            )
    }

    /// What shadows have made of the commands of vnodes on this node: tried versions, and the old one on the canaries of rollouts.
    fn shadows(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Commands that another version ran beside the serving one, by how that compared";
        let name = "shadow_commands";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((service, command), seen) in self.coordinator.shadowed() {
            let outcomes = [
                ("equal", seen.compared - seen.differ),
                ("different", seen.differ),
                ("trap", seen.traps),
                ("overrun", seen.overruns),
            ];
            for (outcome, count) in outcomes {
                let labels = [
                    ("service", service.as_str()),
                    ("command", command.as_str()),
                    ("outcome", outcome),
                ];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn node(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connections: usize = self
            .coordinator
            .inboxes()
            .iter()
            .map(|inbox| inbox.connected())
            .sum();
        let writable = matches!(self.engine.health(), Health::Good);
        let ready = !self.coordinator.is_draining();
        let gauges = [
            (
                "resp_connections",
                "Clients connected by RESP",
                i64::try_from(connections).unwrap_or(i64::MAX),
            ),
            ("partitions", "Vnodes of this node, over all services", {
                let partitions = usize::from(self.coordinator.ring_size().get());
                let vnodes = self.coordinator.services().len() * partitions;
                i64::try_from(vnodes).unwrap_or(i64::MAX)
            }),
            ("ready", "1 while the node takes commands", i64::from(ready)),
            (
                "storage_writable",
                "1 while the store takes writes",
                i64::from(writable),
            ),
            (
                "resident_memory_bytes",
                "Resident memory of the process",
                i64::try_from(resident_bytes()).unwrap_or(i64::MAX),
            ),
            (
                "uptime_seconds",
                "Time since the node started",
                i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let help = "Rows sent to a replica that lacked them, by what noticed";
        let mut family =
            encoder.encode_descriptor("healed_rows", help, None, MetricType::Counter)?;
        for (noticed, rows) in self.coordinator.healing().counts() {
            family
                .encode_family(&[("noticed", noticed)])?
                .encode_counter::<NoLabelSet, _, u64>(&rows, None)?;
        }
        let help = "Marks of deleted keys that were removed from all replicas";
        encoder
            .encode_descriptor("reaped_tombstones", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(
                &self.coordinator.healing().reaped_tombstones(),
                None,
            )?;
        self.shadows(encoder)?;
        self.pauses(encoder)?;
        let help = "What this node runs";
        let mut family = encoder.encode_descriptor("guest", help, None, MetricType::Info)?;
        for service in self.coordinator.services() {
            for edition in service.editions() {
                let labels = [
                    ("service", service.name()),
                    ("version", edition.guest.descriptor().version.as_str()),
                    ("digest", edition.guest.digest()),
                ];
                family.encode_info(&labels)?;
            }
        }
        let help = "Version of the host";
        encoder
            .encode_descriptor("build", help, None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

/// A counter for each way in which commands ended.
fn outcomes(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    totals: &CommandTotals,
) -> fmt::Result {
    for (outcome, count) in totals.outcomes() {
        let labels = [labels, &[("outcome", outcome)]].concat();
        family
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

/// A histogram of how long commands took.
fn duration(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    totals: &CommandTotals,
) -> fmt::Result {
    family
        .encode_family(&labels.to_vec())?
        .encode_histogram::<NoLabelSet>(
            totals.duration_us as f64 / 1e6,
            totals.durations.iter().sum(),
            &buckets(&DURATION_BUCKETS_US, totals.durations),
            None,
        )
}

/// What is in each bucket, with its upper bound in seconds; the last has none.
fn buckets(bounds_us: &[u64], counts: impl IntoIterator<Item = u64>) -> Vec<(f64, u64)> {
    let bounds = bounds_us.iter().map(|us| *us as f64 / 1e6);
    let bounds = bounds.chain(std::iter::once(f64::INFINITY));
    bounds.zip(counts).collect()
}

/// Resident memory of this process, bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * 4096
}
