//! Reports as files: written once, read again to be compared and drawn.

use std::path::{Path, PathBuf};

use super::super::output::Session;
use super::super::report::{Exit, Failure};
use super::super::table::Table;
use crate::bench::compare::Comparison;
use crate::bench::figures::{latency, rate};
use crate::bench::report::Report;
use crate::bench::{self, graphs};

/// The file that the others can be made from again.
const REPORT: &str = "report.json";

/// Where the report goes; a folder that was made for it goes away again if there is none.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    made: bool,
}

impl Folder {
    /// The folder of that path, which must have no report.
    ///
    /// # Errors
    /// There is one, or the system does not give the folder.
    pub(super) fn new(path: PathBuf) -> anyhow::Result<Self> {
        if path.join(REPORT).exists() {
            let failure = Failure::refused("there is a report already").place(path.display());
            return Err(failure
                .next("name another folder with --out, or remove this one")
                .into());
        }
        let made = !path.exists();
        std::fs::create_dir_all(&path).map_err(|error| {
            Failure::new(format!("cannot make the folder: {error}")).place(path.display())
        })?;
        Ok(Self { path, made })
    }

    /// The report is in it.
    pub(super) fn keep(mut self) -> PathBuf {
        self.made = false;
        self.path.clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.made {
            // Only if it is empty.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// All files of a report.
pub(super) fn write_all(folder: &Path, report: &Report) -> anyhow::Result<()> {
    write(
        folder,
        REPORT,
        &format!("{}\n", serde_json::to_string_pretty(report)?),
    )?;
    write(folder, "report.md", &bench::markdown(report))?;
    write(folder, "summary.csv", &bench::csv::summary(report))?;
    for operation in &report.operations {
        write(
            folder,
            &format!("{}_latencies.csv", operation.name),
            &bench::csv::operation(operation),
        )?;
    }
    for (name, picture) in graphs::of_report(report) {
        write(folder, name, &picture)?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    let written = std::fs::write(&path, text);
    written.map_err(|error| {
        Failure::new(format!("cannot write: {error}"))
            .place(path.display())
            .into()
    })
}

/// Two reports, figure by figure.
pub(super) fn compare(session: &mut Session<'_>, a: &Path, b: &Path) -> anyhow::Result<Exit> {
    let comparison = Comparison::new(&read(a)?, &read(b)?);
    if session.wants_json() {
        session.print_json(&comparison)?;
        return Ok(Exit::Ok);
    }
    if !comparison.differences.is_empty() {
        let mut table = Table::new(&["DIFFERENT", "A", "B"]);
        for difference in &comparison.differences {
            table.row([
                difference.what.clone(),
                difference.a.clone(),
                difference.b.clone(),
            ]);
        }
        session.print(&format!("{table}\n"))?;
    }
    let mut table = Table::new(&["OPERATION", "FIGURE", ">A", ">B", ">B / A"]);
    for pair in &comparison.operations {
        for figure in &pair.figures {
            let (name, show): (_, fn(f64) -> String) =
                match figure.name.strip_suffix("_microseconds") {
                    Some(name) => (name.replace('_', "."), latency),
                    None => (figure.name.replace("_per_second", ""), rate),
                };
            let ratio = figure
                .ratio
                .map(|ratio| format!("{ratio:.2}"))
                .unwrap_or_default();
            table.row([
                pair.name.clone(),
                name,
                show(figure.a),
                show(figure.b),
                ratio,
            ]);
        }
    }
    session.print(&table.to_string())?;
    for (side, names) in [("A", &comparison.only_in_a), ("B", &comparison.only_in_b)] {
        if !names.is_empty() {
            session.print(&format!("only in {side}: {}\n", names.join(", ")))?;
        }
    }
    Ok(Exit::Ok)
}

/// Draws the pictures of a report, or of one operation's CSV, again.
pub(super) fn plot(
    session: &mut Session<'_>,
    file: &Path,
    out: Option<&Path>,
) -> anyhow::Result<Exit> {
    let file = if file.is_dir() {
        file.join(REPORT)
    } else {
        file.to_owned()
    };
    let folder = out.or(file.parent()).unwrap_or(Path::new("."));
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let pictures = if file.extension().is_some_and(|extension| extension == "csv") {
        let rows = bench::csv::parse_operation(&text(&file)?)
            .map_err(|why| foreign(&file, &why, "the CSV file of an operation"))?;
        let name = file
            .file_stem()
            .map(|stem| stem.to_string_lossy().replace("_latencies", ""))
            .unwrap_or_default();
        graphs::of_rows(&name, &rows)
    } else {
        graphs::of_report(&read(&file)?)
    };
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::new(format!("cannot make the folder: {error}")).place(folder.display())
    })?;
    for (name, picture) in pictures {
        write(folder, name, &picture)?;
        session.print(&format!("{}\n", folder.join(name).display()))?;
    }
    Ok(Exit::Ok)
}

/// A report by its file or the folder of it.
fn read(path: &Path) -> anyhow::Result<Report> {
    let file = if path.is_dir() {
        path.join(REPORT)
    } else {
        path.to_owned()
    };
    Report::parse(&text(&file)?)
        .map_err(|why| foreign(&file, &why, "report.json, or its folder").into())
}

fn text(file: &Path) -> anyhow::Result<String> {
    let read = std::fs::read_to_string(file);
    read.map_err(|error| {
        Failure::new(format!("cannot read: {error}"))
            .place(file.display())
            .next("`host bench run` writes reports")
            .into()
    })
}

fn foreign(file: &Path, why: &str, wanted: &str) -> Failure {
    Failure::new(format!("this is no report: {why}"))
        .place(file.display())
        .next(format!("give {wanted}, as `host bench run` writes it"))
}
