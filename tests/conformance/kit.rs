//! `host check`: good guests pass, and for each promise there is a guest that fails it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guests::{Made, liar};
use tests::{arg, root};

/// Lines of `host check` that begin with that word, and whether it exits as if all were well.
fn check(file: &Path) -> (String, bool) {
    let output = tests::run(&["check", arg(&file)]);
    let text = tests::text(&output);
    let code = output.status.code();
    assert!(code == Some(0) || code == Some(1), "{text}");
    (text, code == Some(0))
}

fn passes(file: &Path) {
    let inspection = tests::run(&["inspect", "--format", "json", arg(&file)]);
    assert!(inspection.status.success(), "{}", tests::text(&inspection));
    let (text, good) = check(file);
    assert!(
        good && text.contains(" 0 failed") && !text.contains("FAIL"),
        "{}: {text}",
        file.display()
    );
}

#[test]
fn guests_of_the_repository_keep_the_contract() {
    for name in ["kv", "ping", "counter"] {
        passes(&tests::guest(name));
    }
}

#[test]
fn an_honest_guest_without_the_sdk_passes_every_check() {
    let guest = liar("honest");
    let (text, good) = check(guest.path());
    let skipped = text
        .lines()
        .filter(|line| line.starts_with(" skip"))
        .count();
    // None of its replies is joined.
    assert!(
        good && skipped == 1 && text.contains(" skip  aggregates"),
        "{text}"
    );
}

#[test]
fn each_broken_promise_fails_its_check() {
    for (promise, name) in [
        ("binary-trap", "arguments"),
        ("two-values", "arguments"),
        ("deep", "arguments"),
        ("same-cursor", "arguments"),
        ("list-half", "arguments"),
        ("packed-trap", "arguments"),
        ("packed-noise", "arguments"),
        ("packed-resp", "arguments"),
        ("packed-undeclared", "arguments"),
        ("packed-reply", "both doors"),
        ("packed-rows", "both doors"),
        ("forgets", "restart"),
        ("counts", "restart"),
        ("mine-only", "handoff"),
        ("read-writes", "reads do not write"),
        ("packed-read-writes", "reads do not write"),
        ("list-writes", "reads do not write"),
        ("merge-first", "merge laws"),
        ("merge-twice", "merge laws"),
        ("merge-trap", "merge laws"),
    ] {
        let guest = liar(promise);
        let (text, good) = check(guest.path());
        let failed = |line: &str| line.starts_with(" FAIL") && line.contains(name);
        assert!(
            !good && text.lines().any(failed),
            "{promise}: {name} did not fail: {text}"
        );
    }
}

#[test]
fn a_check_of_what_is_no_guest_says_so_and_fails() {
    let made = Made::new(b"not wasm");
    let output = tests::run(&["check", made.arg()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(tests::text(&output).contains("not a WebAssembly component"));
}

#[test]
fn json_of_a_check_has_a_line_for_each_finding() {
    let output = tests::run(&["check", "--format", "json", arg(&tests::guest("counter"))]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("an array");
    let outcomes =
        ["passed", "failed", "skipped"].map(|name| report[name].as_u64().expect("a number"));
    assert_eq!(outcomes.iter().sum::<u64>(), checks.len() as u64);
    assert!(
        checks
            .iter()
            .all(|check| check["name"].is_string() && check["detail"].is_string())
    );
}

/// Makes a project of a template and builds it, with the dependencies that the repository has.
fn project(template: &str, folder: &Path) -> PathBuf {
    let name = format!("my-{template}");
    let made = tests::finish(tests::command().current_dir(folder).args([
        "new",
        &name,
        "--template",
        template,
    ]));
    assert!(made.status.success(), "{}", tests::text(&made));
    let project = folder.join(&name);
    std::fs::copy(root().join("Cargo.lock"), project.join("Cargo.lock")).expect("a lock file");
    let target = root().join("target/test-guests");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
        .current_dir(&project)
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{template} does not build");
    let built = target.join(format!("wasm32-wasip2/release/my_{template}.wasm"));
    let kept = folder.join(format!("{name}.wasm"));
    std::fs::copy(built, &kept).expect("a component");
    kept
}

#[test]
fn every_template_builds_and_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    for template in ["kv", "counter", "ping", "empty"] {
        passes(&project(template, folder.path()));
    }
}
