//! The harness: real `host` processes on free ports with fresh directories.
//!
//! Nothing here sleeps for a fixed time: it waits for a condition, with a deadline that only a broken node meets.
//! Every process that is started is ended, also when a test fails.
//!
//! What needs no process is for simulations as well: `workload` says what clients ask for, `nemesis` what goes wrong meanwhile,
//! both decided by a seed, and `checkers` judge what came of it.
//!
//! The program is `target/release/host`; the environment variable `HOST_BINARY` names another.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness fails its test by panicking"
)]

pub mod checkers;
mod cluster;
pub mod dice;
pub mod nemesis;
mod network;
mod node;
pub mod resp;
mod template;
mod web;
pub mod workload;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use cluster::{Cluster, agree, up};
pub use network::Network;
pub use node::{Ended, Node, Starter};
pub use template::seed;
pub use web::{Answer, Events, Pending};

/// Longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie inside the repository")
        .to_owned()
}

/// The program under test; `make build` makes it. One that is just being linked again is waited for.
pub fn host() -> PathBuf {
    let built = root().join("target/release/host");
    let path = std::env::var_os("HOST_BINARY").map_or(built, PathBuf::from);
    eventually(
        &format!("{}, which `make build` makes", path.display()),
        || path.is_file().then_some(()),
    );
    path
}

/// The program with failpoints; `make faults` makes it.
pub fn faulty_host() -> PathBuf {
    let built = root().join("target/release/host-faults");
    let path = std::env::var_os("HOST_FAULTS_BINARY").map_or(built, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: run `make faults`",
        path.display()
    );
    path
}

/// A guest of the repository; `make build` makes it.
pub fn guest(name: &str) -> PathBuf {
    let path = root()
        .join("target/guests")
        .join(name)
        .with_extension("wasm");
    assert!(
        path.exists(),
        "{} is missing: run `make build`",
        path.display()
    );
    path
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program, without colours and without the settings of whoever runs the tests.
pub fn command() -> Command {
    clean(Command::new(host()))
}

pub(crate) fn clean(mut command: Command) -> Command {
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VNODE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    finish(command().args(args))
}

/// Runs a command to its end, and ends it when it does not: a node that should have refused to start would run on.
pub fn finish(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let id = child.id().to_string();
    let (done, ended) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child
            .wait_with_output()
            .expect("the program's output is read");
        // Nobody waits any more when it took too long.
        let _ = done.send(());
        output
    });
    let in_time = ended.recv_timeout(PATIENCE).is_ok();
    if !in_time {
        signal("KILL", &id);
    }
    let output = waiter.join().expect("the waiter does not panic");
    assert!(in_time, "it did not end by itself: {}", text(&output));
    output
}

/// All that a program printed.
pub fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Sends a signal to a process that the harness started.
pub fn signal(name: &str, pid: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), pid])
        .status();
    assert!(sent.expect("kill runs").success(), "no process {pid}");
}

/// A program of another project, if it is installed; says so loudly if not.
pub fn tool(name: &str) -> Option<Command> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if !found {
        eprintln!("\n*** SKIPPED: {name} is not installed, so this test checked nothing ***\n");
    }
    found.then(|| Command::new(name))
}

/// Everything below a folder, by path, with the contents of its files.
pub fn tree(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                found.push((path.clone(), None));
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                found.push((path, Some(bytes)));
            }
        }
    }
    found.sort();
    found
}

/// Text of an argument; paths in tests are UTF-8.
pub fn arg(path: &impl AsRef<OsStr>) -> &str {
    path.as_ref().to_str().expect("UTF-8")
}
