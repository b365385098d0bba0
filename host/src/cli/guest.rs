//! `host inspect` and `host check`: what a component is, and whether it keeps the contract.
//!
//! The types are what the wasm layer answers; here they are only printed.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::output::Session;
use super::report::{Exit, Failure};
use super::services::{CommandView, commands};
use super::table::size;
use crate::config::{Config, GuestSource};
use crate::conformance::{self, Finding, Outcome};
use crate::descriptor::Descriptor;
use crate::node;
use crate::wasm::{Guest, interface};

/// What a component is.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Name of the service.
    pub name: String,
    /// Version of the guest.
    pub version: String,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// Size of the file.
    pub bytes: u64,
    /// The contract that it was built for, such as `vnode:host@0.1.0`.
    pub interface: String,
    /// Interfaces that it imports, as they are written in the component.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
    /// Which optional interfaces it has.
    pub doors: Doors,
    /// What it says of itself.
    pub descriptor: Descriptor,
}

/// Optional interfaces of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Doors {
    /// `vnode:host/batch`: many commands in one call.
    pub batch: bool,
    /// `vnode:host/lifecycle`: hears about handoff and its end.
    pub lifecycle: bool,
}

impl Inspection {
    /// Loads a component, or a guest that is built in, and looks at it.
    pub(super) fn of(file: &Path) -> anyhow::Result<Inspection> {
        let guest = load(file)?;
        let descriptor = guest.descriptor();
        Ok(Inspection {
            name: descriptor.name.clone(),
            version: descriptor.version.clone(),
            digest: guest.digest().to_owned(),
            bytes: guest.bytes() as u64,
            interface: interface::NAME.to_owned(),
            imports: guest.imports().to_vec(),
            exports: guest.exports().to_vec(),
            doors: Doors {
                batch: guest.has_batch(),
                lifecycle: guest.has_lifecycle(),
            },
            descriptor: Descriptor::clone(descriptor),
        })
    }
}

/// Loads a guest as a node with default settings would.
fn load(file: &Path) -> anyhow::Result<Arc<Guest>> {
    let source = GuestSource::parse(&file.to_string_lossy());
    Ok(node::inspect(&Config::default(), &source)?)
}

/// The answer of `host check` in JSON.
#[derive(Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    skipped: usize,
    checks: &'a [Finding],
}

/// Prints what a component is.
pub(super) fn inspect(session: &mut Session<'_>, file: &Path) -> anyhow::Result<Exit> {
    let inspection = Inspection::of(file)?;
    if session.wants_json() {
        session.print_json(&inspection)?;
    } else {
        let text = text(session, &inspection);
        session.print(&text)?;
    }
    Ok(Exit::Ok)
}

/// Runs the conformance kit and prints each check.
pub(super) fn check(session: &mut Session<'_>, file: &Path) -> anyhow::Result<Exit> {
    let guest = load(file)?;
    let findings = conformance::check(&guest);
    if findings.is_empty() {
        // "0 failed" would read as a pass.
        return Err(
            Failure::new("nothing was checked; this build has no conformance checks")
                .place(file.display())
                .next("use a build that has them; `host inspect` shows what the component is")
                .into(),
        );
    }
    let count = |outcome| {
        findings
            .iter()
            .filter(|finding| finding.outcome == outcome)
            .count()
    };
    let report = Report {
        passed: count(Outcome::Passed),
        failed: count(Outcome::Failed),
        skipped: count(Outcome::Skipped),
        checks: &findings,
    };
    if session.wants_json() {
        session.print_json(&report)?;
    } else {
        let text = findings_text(session, &report);
        session.print(&text)?;
    }
    Ok(if report.failed == 0 {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

fn findings_text(session: &Session<'_>, report: &Report<'_>) -> String {
    let widths = report
        .checks
        .iter()
        .map(|finding| finding.name.chars().count());
    let width = widths.max().unwrap_or_default();
    let mut text = String::new();
    for finding in report.checks {
        let mark = match finding.outcome {
            Outcome::Passed => session.good("ok  "),
            Outcome::Failed => session.bad("FAIL"),
            Outcome::Skipped => "skip".to_owned(),
        };
        let line = format!(" {mark}  {:<width$}  {}", finding.name, finding.detail);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let Report {
        passed,
        failed,
        skipped,
        ..
    } = report;
    text.push_str(&format!(
        "{passed} passed, {failed} failed, {skipped} skipped\n"
    ));
    text
}

/// The lines of `host inspect`.
pub(super) fn text(session: &Session<'_>, inspection: &Inspection) -> String {
    let descriptor = &inspection.descriptor;
    let title = session.strong(&format!("{} {}", inspection.name, inspection.version));
    let handoff = if inspection.doors.lifecycle {
        ""
    } else {
        "   (no lifecycle export: data lives in store)"
    };
    let quorum = [
        ("n", descriptor.quorum.n),
        ("r", descriptor.quorum.r),
        ("w", descriptor.quorum.w),
    ];
    let asked: String = quorum
        .iter()
        .filter_map(|(name, value)| value.map(|value| format!("   {name}={value}")))
        .collect();
    let merge = serde_json::to_value(descriptor.merge).ok();
    let merge = merge
        .as_ref()
        .and_then(serde_json::Value::as_str)
        .unwrap_or("?");
    format!(
        "{title}   {}   {}   supported by this host\n\
         sha256     {}\n\
         imports    {}\n\
         exports    {}{handoff}\n\
         merge      {merge}   schema writes {}, reads from {}{asked}\n{}",
        size(inspection.bytes),
        inspection.interface,
        inspection.digest,
        interfaces(&inspection.imports),
        interfaces(&inspection.exports),
        descriptor.schema_writes,
        descriptor.schema_reads_from,
        commands(&views(descriptor))
    )
}

/// `store, log, 13 of wasi`: our own by their short names, those of the standard library counted.
fn interfaces(names: &[String]) -> String {
    let short = |name: &String| {
        let name = name.strip_prefix("vnode:host/")?;
        Some(name.split('@').next().unwrap_or(name).to_owned())
    };
    let mut parts: Vec<String> = names.iter().filter_map(short).collect();
    let wasi = names
        .iter()
        .filter(|name| name.starts_with("wasi:"))
        .count();
    let foreign = |name: &&String| !name.starts_with("wasi:") && !name.starts_with("vnode:host/");
    parts.extend(names.iter().filter(foreign).cloned());
    if wasi > 0 {
        parts.push(format!(
            "{wasi} of wasi (no power: the standard library asks for them)"
        ));
    }
    if parts.is_empty() {
        "none".into()
    } else {
        parts.join(", ")
    }
}

/// The commands in the form that the API has them, so that there is one table.
fn views(descriptor: &Descriptor) -> Vec<CommandView> {
    let json = serde_json::to_value(&descriptor.commands).ok();
    json.and_then(|json| serde_json::from_value(json).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::args::{Color, Format, Global};
    use super::*;
    use crate::descriptor::{Aggregate, CommandKind, CommandSpec, KeyRange, MergePolicy, Quorum};

    fn global() -> Global {
        Global {
            endpoint: String::new(),
            format: Format::Text,
            color: Color::Never,
            timeout: None,
        }
    }

    #[test]
    fn an_inspection_reads_like_the_documentation() {
        let get = CommandSpec {
            name: "GET".into(),
            summary: "Value of key".into(),
            syntax: "key".into(),
            arity: 2,
            kind: CommandKind::Read,
            keys: Some(KeyRange {
                first: 1,
                last: 1,
                step: 1,
                prefix: String::new(),
            }),
            blind: false,
            aggregate: Aggregate::Single,
            quorum: Quorum {
                n: Some(3),
                r: Some(2),
                w: None,
            },
        };
        let descriptor = Descriptor {
            name: "kv".into(),
            version: "0.3.1".into(),
            schema_reads_from: 1,
            schema_writes: 2,
            merge: MergePolicy::LastWrite,
            commands: vec![get],
            quorum: Quorum {
                n: Some(3),
                ..Quorum::default()
            },
        };
        let inspection = Inspection {
            name: "kv".into(),
            version: "0.3.1".into(),
            digest: "9f2c".into(),
            bytes: 72_704,
            interface: "vnode:host@0.1.0".into(),
            imports: [
                "vnode:host/store@0.1.0",
                "vnode:host/log@0.1.0",
                "wasi:cli/stderr@0.2.6",
            ]
            .map(String::from)
            .into(),
            exports: vec![
                "vnode:host/vnode@0.1.0".into(),
                "vnode:host/batch@0.1.0".into(),
            ],
            doors: Doors {
                batch: true,
                lifecycle: false,
            },
            descriptor,
        };
        let global = global();
        let mut out = Vec::new();
        let session = Session::new(&global, &mut out);
        assert_eq!(
            text(&session, &inspection),
            "\
kv 0.3.1   71.0 KiB   vnode:host@0.1.0   supported by this host
sha256     9f2c
imports    store, log, 1 of wasi (no power: the standard library asks for them)
exports    vnode, batch   (no lifecycle export: data lives in store)
merge      last-write   schema writes 2, reads from 1   n=3
COMMAND  ARITY  KIND  KEY  N  R  W  SUMMARY
GET          2  read  1    3  2  -  Value of key [key]
"
        );
    }

    #[test]
    fn findings_line_up_and_are_counted() {
        let finding = |name: &str, outcome, detail: &str| Finding {
            name: name.into(),
            outcome,
            detail: detail.into(),
        };
        let checks = [
            finding("determinism", Outcome::Passed, "12 commands"),
            finding(
                "merge laws",
                Outcome::Failed,
                "merge(a, b) differs from merge(b, a)",
            ),
            finding("lifecycle", Outcome::Skipped, ""),
        ];
        let report = Report {
            passed: 1,
            failed: 1,
            skipped: 1,
            checks: &checks,
        };
        let global = global();
        let mut out = Vec::new();
        let session = Session::new(&global, &mut out);
        assert_eq!(
            findings_text(&session, &report),
            " ok    determinism  12 commands\n FAIL  merge laws   merge(a, b) differs from merge(b, a)\n skip  lifecycle\n1 passed, 1 failed, 1 skipped\n"
        );
    }
}
