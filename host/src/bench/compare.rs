//! Two reports side by side.

use std::collections::BTreeMap;

use serde::Serialize;

use super::report::{Operation, Report};

/// What two runs have to do with each other.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    /// What was not the same, besides the figures: a ratio means little where the machine differs.
    pub(crate) differences: Vec<Difference>,
    /// Of the operations that both have, and `all` of them together.
    pub(crate) operations: Vec<Pair>,
    /// Operations that only one has.
    pub(crate) only_in_a: Vec<String>,
    /// Operations that only one has.
    pub(crate) only_in_b: Vec<String>,
}

/// Something that was not the same.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) what: String,
    pub(crate) a: String,
    pub(crate) b: String,
}

/// One operation in both.
#[derive(Debug, Serialize)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) figures: Vec<Figure>,
}

/// One figure in both.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// b to a; none where a is 0.
    pub(crate) ratio: Option<f64>,
}

impl Comparison {
    /// Of `b` with `a`, which is what there was before.
    pub(crate) fn new(a: &Report, b: &Report) -> Self {
        let names = |report: &Report| {
            report
                .operations
                .iter()
                .map(|operation| operation.name.clone())
                .collect::<Vec<_>>()
        };
        let (of_a, of_b) = (names(a), names(b));
        let without = |own: &[String], other: &[String]| {
            own.iter()
                .filter(|name| !other.contains(name))
                .cloned()
                .collect()
        };
        let mut operations = Vec::new();
        if of_a.len() > 1 || of_b.len() > 1 {
            let figures = vec![
                Figure::new("rate_per_second", a.rate_per_second, b.rate_per_second),
                Figure::new("failed", a.failed as f64, b.failed as f64),
            ];
            operations.push(Pair {
                name: "all".into(),
                figures,
            });
        }
        for own in &a.operations {
            if let Some(other) = b.operations.iter().find(|other| other.name == own.name) {
                operations.push(Pair {
                    name: own.name.clone(),
                    figures: figures(own, other),
                });
            }
        }
        Self {
            differences: differences(a, b),
            operations,
            only_in_a: without(&of_a, &of_b),
            only_in_b: without(&of_b, &of_a),
        }
    }
}

impl Figure {
    fn new(name: &'static str, a: f64, b: f64) -> Self {
        let ratio = (a > 0.0).then(|| (b / a * 1000.0).round() / 1000.0);
        Self { name, a, b, ratio }
    }
}

fn figures(a: &Operation, b: &Operation) -> Vec<Figure> {
    let (own, other) = (&a.latency_microseconds, &b.latency_microseconds);
    let micros = |name, a: u64, b: u64| Figure::new(name, a as f64, b as f64);
    vec![
        Figure::new("rate_per_second", a.rate_per_second, b.rate_per_second),
        Figure::new("failed", a.failed as f64, b.failed as f64),
        Figure::new("mean_microseconds", own.mean, other.mean),
        micros("median_microseconds", own.median, other.median),
        micros("p95_microseconds", own.p95, other.p95),
        micros("p99_microseconds", own.p99, other.p99),
        micros("p99_9_microseconds", own.p99_9, other.p99_9),
        micros("max_microseconds", own.max, other.max),
    ]
}

fn differences(a: &Report, b: &Report) -> Vec<Difference> {
    let (of_a, mut of_b) = (circumstances(a), circumstances(b));
    let mut found = Vec::new();
    for (what, a) in of_a {
        let b = of_b.remove(&what).unwrap_or_default();
        if a != b {
            found.push(Difference { what, a, b });
        }
    }
    found.extend(of_b.into_iter().map(|(what, b)| Difference {
        what,
        a: String::new(),
        b,
    }));
    found
}

/// Everything that ought to be the same, by name.
fn circumstances(report: &Report) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |name: String, value: String| drop(all.insert(name, value));
    for (part, value) in [
        ("machine", serde_json::to_value(&report.machine)),
        ("settings", serde_json::to_value(&report.settings)),
    ] {
        // Plain data: it has always become JSON before.
        for (name, value) in value
            .iter()
            .filter_map(serde_json::Value::as_object)
            .flatten()
        {
            put(format!("{part} {name}"), plain(value));
        }
    }
    put("host version".into(), report.host_version.clone());
    put("nodes".into(), report.nodes.len().to_string());
    for operation in &report.operations {
        put(
            format!("operation {}", operation.name),
            format!("{} times {}", operation.weight, operation.command),
        );
    }
    let faults: Vec<&str> = report
        .marks
        .iter()
        .map(|mark| mark.label.as_str())
        .collect();
    put("faults".into(), faults.join(", "));
    if let Some(cluster) = &report.cluster {
        put("ring size".into(), cluster.ring_size.to_string());
        put("storage".into(), cluster.storage.to_string());
        for service in &cluster.services {
            let digest = service.digest.get(..12).unwrap_or_default();
            let text = format!(
                "{} sha256 {digest} n={} r={} w={}",
                service.version, service.n, service.r, service.w
            );
            put(format!("service {}", service.name), text);
        }
    }
    all
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn figures_stand_beside_each_other_with_their_ratio_and_what_was_different() {
        let (a, mut b) = (sample(2), sample(4));
        b.operations[0].rate_per_second = 150.0;
        b.operations[2].name = "got".into();
        let comparison = Comparison::new(&a, &b);
        let names: Vec<&str> = comparison
            .operations
            .iter()
            .map(|pair| pair.name.as_str())
            .collect();
        assert_eq!(names, ["all", "put", "get-own-puts"]);
        let rate = Figure {
            name: "rate_per_second",
            a: 100.0,
            b: 150.0,
            ratio: Some(1.5),
        };
        assert_eq!(comparison.operations[1].figures[0], rate);
        // Nothing can be compared with nothing.
        assert_eq!(comparison.operations[1].figures[1].ratio, None);
        assert_eq!(
            (comparison.only_in_a, comparison.only_in_b),
            (vec!["get".to_owned()], vec!["got".to_owned()])
        );
        let workers = Difference {
            what: "settings workers".into(),
            a: "2".into(),
            b: "4".into(),
        };
        assert!(
            comparison.differences.contains(&workers),
            "{:?}",
            comparison.differences
        );
        assert!(Comparison::new(&a, &a).differences.is_empty());
    }
}
