//! A data directory that has everything but data, so that a node starts without compiling its guests.
//!
//! It is made once for each build of the program, beside the test binary, and copied for each node. What a node
//! writes on its very first start is tested with `Starter::fresh`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::Starter;

/// Makes `path` a data directory of node `a@test` that was in use before and has no rows.
pub fn seed(path: &Path) {
    seed_named(path, "a@test");
}

/// The same for a node of that name.
pub(crate) fn seed_named(path: &Path, name: &str) {
    let template = template(name);
    fs::create_dir_all(path.join("cache")).expect("a folder");
    fs::copy(template.join("node.toml"), path.join("node.toml")).expect("a copy");
    for entry in fs::read_dir(template.join("cache")).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), path.join("cache").join(entry.file_name())).expect("a copy");
    }
}

fn template(name: &str) -> PathBuf {
    let built = fs::metadata(crate::host()).expect("the program");
    let since = built
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let stamp = since.map_or(0, |since| since.as_nanos());
    let test = std::env::current_exe().expect("a test is a program");
    let folder = test
        .parent()
        .expect("a program is in a folder")
        .join("node-templates");
    fs::create_dir_all(&folder).expect("a folder");
    // Tests run in several processes.
    let lock = File::create(folder.join("lock")).expect("a lock");
    lock.lock().expect("the lock is free some time");
    let path = folder.join(format!("{stamp:x}-{:x}-{name}", built.len()));
    if !path.exists() {
        // Names with points in them are no file extensions.
        let making = folder.join(format!("{name}.making"));
        drop(fs::remove_dir_all(&making));
        let guests = ["--vnode", "kv", "--vnode", "ping", "--vnode", "counter"];
        let node = Starter::new(&guests).named(name).data(&making).start();
        assert!(node.terminate().status.success());
        fs::rename(&making, &path).expect("the template is in its place");
    }
    path
}
