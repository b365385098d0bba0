//! `host build`: runs Cargo for wasm32-wasip2 and says what came out, or exactly what is missing.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;

use super::guest::{self, Inspection};
use super::output::Session;
use super::report::{Exit, Failure};
use super::table::size;

const TARGET: &str = "wasm32-wasip2";

/// What a build is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be deployed: as the project says.
    Release,
    /// To be tried: with the files and lines of its code, so that a failure says where it was.
    Dev,
}

impl Purpose {
    /// What Cargo is told of it. The profile for trying is one of its own, so that neither build undoes the other.
    fn cargo(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release"],
            Self::Dev => &[
                "--profile",
                "host-dev",
                "--config",
                "profile.host-dev.inherits='release'",
                "--config",
                "profile.host-dev.debug='line-tables-only'",
                "--config",
                "profile.host-dev.strip='none'",
            ],
        }
    }
}

/// The lines of `--message-format=json` that matter here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Builds the project in `dir` and inspects the component.
pub(super) fn build(session: &mut Session<'_>, dir: &Path) -> anyhow::Result<Exit> {
    let file = component_of(dir, Purpose::Release)?;
    report(session, &file)?;
    Ok(Exit::Ok)
}

/// Builds the project in `dir`. What the compiler says goes straight to standard error.
pub(super) fn component_of(dir: &Path, purpose: Purpose) -> anyhow::Result<PathBuf> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Failure::usage("there is no Cargo.toml to build")
            .place(dir.display())
            .next("go to a guest's directory, or make one with `host new NAME`")
            .into());
    }
    require_target()?;
    run_cargo(&manifest, purpose)
}

/// Inspects what was built, and prints it.
pub(super) fn report(session: &mut Session<'_>, file: &Path) -> anyhow::Result<Inspection> {
    let bytes = std::fs::metadata(file)
        .with_context(|| format!("cannot see {}", file.display()))?
        .len();
    let inspection = Inspection::of(file)?;
    if session.wants_json() {
        session.print_json(&json!({ "file": file, "bytes": bytes, "inspection": inspection }))?;
    } else {
        let built = session.good("built");
        let text = guest::text(session, &inspection);
        session.print(&format!(
            "{built} {} ({})\n\n{text}",
            file.display(),
            size(bytes)
        ))?;
    }
    Ok(inspection)
}

/// Asks the compiler for the target's library; that works with and without rustup.
fn require_target() -> anyhow::Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new("there is no Rust compiler on the PATH")
                .next(format!(
                    "install Rust (https://rustup.rs), then `rustup target add {TARGET}`"
                ))
                .into());
        }
        Err(error) => return Err(error).context("cannot run rustc"),
    };
    let library = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || !library.is_dir() {
        return Err(Failure::new(format!("the compiler has no target {TARGET}"))
            .place(library.display())
            .next(format!("rustup target add {TARGET}"))
            .into());
    }
    Ok(())
}

/// Runs the build; what the compiler says goes straight to the terminal.
fn run_cargo(manifest: &Path, purpose: Purpose) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo")
        .args(["build", "--target", TARGET])
        .args(purpose.cargo())
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(manifest)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo\n  next: install Rust (https://rustup.rs)")?;
    let mut found = None;
    if let Some(lines) = cargo.stdout.take() {
        for line in BufReader::new(lines).lines() {
            let line = line.context("cannot read what cargo says")?;
            found = component(manifest, &line).or(found);
        }
    }
    let status = cargo.wait().context("cannot wait for cargo")?;
    if !status.success() {
        return Err(Failure::new("cargo could not build the guest")
            .place(manifest.display())
            .next("the compiler's message is above")
            .into());
    }
    found.ok_or_else(|| {
        Failure::new("the build gives no component")
            .place(manifest.display())
            .next("add `[lib]` with `crate-type = [\"cdylib\"]` to the Cargo.toml")
            .into()
    })
}

/// The component that a line announces, if it is that of the project itself and not of a dependency.
fn component(manifest: &Path, line: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(line).ok()?;
    let own = manifest.canonicalize().ok()? == message.manifest_path.canonicalize().ok()?;
    let wasm = |file: &PathBuf| {
        file.extension()
            .is_some_and(|extension| extension == "wasm")
    };
    (message.reason == "compiler-artifact" && own)
        .then(|| message.filenames.into_iter().find(wasm))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_of_the_project_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (
            folder.path().join("Cargo.toml"),
            folder.path().join("other.toml"),
        );
        for file in [&own, &other] {
            std::fs::write(file, "").unwrap();
        }
        let line = |manifest: &Path, file: &str| {
            json!({"reason": "compiler-artifact", "manifest_path": manifest, "filenames": ["/t/a.rlib", file]}).to_string()
        };
        assert_eq!(
            component(&own, &line(&own, "/t/a.wasm")),
            Some("/t/a.wasm".into())
        );
        assert_eq!(component(&own, &line(&other, "/t/a.wasm")), None);
        assert_eq!(component(&own, &line(&own, "/t/a.rmeta")), None);
        assert_eq!(
            component(&own, "{\"reason\":\"build-finished\",\"success\":true}"),
            None
        );
        assert_eq!(component(&own, "not json"), None);
    }
}
