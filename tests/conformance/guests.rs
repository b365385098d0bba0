//! The guests that only tests use, built when they are missing or older than their sources.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tests::{Node, Starter, arg, root};

/// What `build-guests.sh` says when a registry cannot be reached.
const UNREACHABLE: i32 = 75;

static BUILT: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());

/// Builds the guests of a language, once in each run. False when that needs a registry that cannot be reached.
fn build(language: &str) -> bool {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(done) = built.get(language) {
        return *done;
    }
    let script = root().join("tests/conformance/build-guests.sh");
    let status = Command::new(script)
        .arg(language)
        .status()
        .expect("the script runs");
    let done = match status.code() {
        Some(0) => true,
        Some(UNREACHABLE) => false,
        _ => panic!("build-guests.sh {language}: {status}"),
    };
    built.insert(language.to_owned(), done);
    done
}

/// A guest in Rust that only tests use.
pub(crate) fn rust(name: &str) -> PathBuf {
    assert!(build("rust"), "crates cannot be fetched");
    tests::guest(name)
}

/// A guest in another language. None, and a loud word, when its compiler cannot be installed.
pub(crate) fn foreign(language: &str, name: &str) -> Option<PathBuf> {
    if build(language) {
        return Some(tests::guest(name));
    }
    let skipped = format!(
        "\n*** SKIPPED: the registry for {language} cannot be reached, so its guest was not tested ***\n\n"
    );
    // Straight to stderr: what a passing test prints is not shown.
    std::io::stderr()
        .write_all(skipped.as_bytes())
        .expect("stderr");
    None
}

/// A file that goes away with its folder.
pub(crate) struct Made {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Made {
    /// A file of these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Made {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("guest.wasm");
        std::fs::write(&path, bytes).expect("a file");
        Made { folder, path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder for what comes of it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path as an argument.
    pub(crate) fn arg(&self) -> &str {
        arg(&self.path)
    }
}

/// The liar that breaks this promise; see tests/guests/liar.
pub(crate) fn liar(promise: &str) -> Made {
    let bytes = std::fs::read(rust("liar")).expect("a component");
    let mut word = format!("liar-mode:{promise}").into_bytes();
    assert!(word.len() < 32, "{promise} is too long");
    word.resize(32, b'.');
    Made::new(&replaced(
        &bytes,
        b"liar-mode:honest................",
        &word,
    ))
}

/// A component with some of its bytes replaced by as many others.
pub(crate) fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|at| bytes[*at..].starts_with(from))
        .collect();
    assert!(!places.is_empty(), "nothing to replace");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// A small node in memory with `kv` and another guest, and these flags.
pub(crate) fn beside_kv(guest: &Path, flags: &[&str]) -> Node {
    let usual = [
        "--vnode",
        "kv",
        "--vnode",
        arg(&guest),
        "--ring-size",
        "8",
        "--storage",
        "memory",
    ];
    Starter::new(&[&usual[..], flags].concat()).start()
}
