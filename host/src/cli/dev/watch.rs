//! What a guest is made of, and whether it was saved since the last look.
//!
//! Files are compared by the time of their last change and their size; contents are the compiler's business.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::report::Failure;

/// What is watched.
pub(super) enum Source {
    /// The directory of a guest project, which is built.
    Project(PathBuf),
    /// A component that somebody else builds.
    Component(PathBuf),
}

/// The files that were there at one look.
pub(super) type Seen = BTreeMap<PathBuf, Stamp>;

/// What is different about a file that was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    written: Option<SystemTime>,
    bytes: u64,
}

impl Source {
    /// What a path names: a directory is a project, a file a component.
    pub(super) fn of(path: &Path) -> Result<Source, Failure> {
        match path.canonicalize() {
            Ok(folder) if folder.join("Cargo.toml").is_file() => Ok(Source::Project(folder)),
            Ok(file) if file.is_file() => Ok(Source::Component(file)),
            _ => Err(
                Failure::usage("there is neither a Cargo.toml nor a component to serve")
                    .place(path.display())
                    .next("go to a guest's directory, or make one with `host new NAME`"),
            ),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        match self {
            Source::Project(path) | Source::Component(path) => path,
        }
    }

    /// Looks at all of it. What cannot be read is not there: the compiler says it better.
    pub(super) fn look(&self) -> Seen {
        let mut seen = Seen::new();
        match self {
            Source::Component(file) => note(&mut seen, file.clone()),
            Source::Project(folder) => {
                for name in ["Cargo.toml", "build.rs"] {
                    note(&mut seen, folder.join(name));
                }
                let mut folders = vec![folder.join("src")];
                while let Some(folder) = folders.pop() {
                    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                        if is_scratch(&entry.file_name().to_string_lossy()) {
                            continue;
                        }
                        match entry.file_type() {
                            Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                            _ => note(&mut seen, entry.path()),
                        }
                    }
                }
            }
        }
        seen
    }

    /// `src/lib.rs changed`, `src/lib.rs and 2 more changed`.
    pub(super) fn tell(&self, changed: &[PathBuf]) -> String {
        let Some((first, others)) = changed.split_first() else {
            return String::new();
        };
        let first = match self {
            Source::Project(folder) => first.strip_prefix(folder).unwrap_or(first),
            Source::Component(_) => first,
        };
        match others.len() {
            0 => format!("{} changed", first.display()),
            more => format!("{} and {more} more changed", first.display()),
        }
    }
}

/// Files that editors put beside those that they save.
fn is_scratch(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~')
}

fn note(seen: &mut Seen, path: PathBuf) {
    if let Ok(about) = fs::metadata(&path)
        && about.is_file()
    {
        let stamp = Stamp {
            written: about.modified().ok(),
            bytes: about.len(),
        };
        seen.insert(path, stamp);
    }
}

/// What was made, and what was seen last.
pub(super) struct Watch {
    made: Seen,
    last: Seen,
}

impl Watch {
    /// Of sources of which these are being made.
    pub(super) fn new(made: Seen) -> Watch {
        let last = made.clone();
        Watch { made, last }
    }

    /// The files that are not as they were when something was made last, once two looks in a row have seen the same: who is in
    /// the middle of saving several files is let finish. They count as made then.
    pub(super) fn look(&mut self, now: Seen) -> Option<Vec<PathBuf>> {
        let still = now == self.last;
        self.last = now;
        let changed = changed(&self.made, &self.last);
        if !still || changed.is_empty() {
            return None;
        }
        self.made.clone_from(&self.last);
        Some(changed)
    }
}

/// Files that are new, gone or different.
fn changed(before: &Seen, after: &Seen) -> Vec<PathBuf> {
    let other = after
        .iter()
        .filter(|(path, stamp)| before.get(*path) != Some(*stamp));
    let gone = before.iter().filter(|(path, _)| !after.contains_key(*path));
    let mut changed: Vec<PathBuf> = other.chain(gone).map(|(path, _)| path.clone()).collect();
    changed.sort();
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files with these sizes.
    fn seen(files: &[(&str, u64)]) -> Seen {
        let stamp = |bytes| Stamp {
            written: None,
            bytes,
        };
        let files = files.iter();
        files
            .map(|(path, bytes)| (PathBuf::from(path), stamp(*bytes)))
            .collect()
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_file_that_is_new_gone_or_different_has_changed() {
        let before = seen(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(changed(&before, &before), paths(&[]));
        let after = seen(&[("a", 1), ("b", 2), ("d", 1)]);
        assert_eq!(changed(&before, &after), paths(&["b", "c", "d"]));
        let mut touched = before.clone();
        touched.get_mut(Path::new("a")).unwrap().written = Some(SystemTime::UNIX_EPOCH);
        assert_eq!(changed(&before, &touched), paths(&["a"]));
    }

    #[test]
    fn a_change_is_told_once_and_not_while_it_goes_on() {
        let (first, half, whole) = (
            seen(&[("a", 1)]),
            seen(&[("a", 2)]),
            seen(&[("a", 2), ("b", 1)]),
        );
        let mut watch = Watch::new(first.clone());
        assert_eq!(watch.look(first.clone()), None);
        assert_eq!(watch.look(half), None);
        assert_eq!(watch.look(whole.clone()), None);
        assert_eq!(watch.look(whole.clone()), Some(paths(&["a", "b"])));
        assert_eq!(watch.look(whole.clone()), None);
        // Changed and changed back between two looks is no change.
        assert_eq!(watch.look(first), None);
        assert_eq!(watch.look(whole), None);
    }

    #[test]
    fn a_project_is_its_manifest_and_its_sources() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Source::of(folder.path()).err().unwrap().to_string();
        assert!(
            missing.contains("next: go to a guest's directory"),
            "{missing}"
        );
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("src/deep")).unwrap();
        fs::create_dir_all(root.join("target")).unwrap();
        for file in [
            "Cargo.toml",
            "Cargo.lock",
            "src/lib.rs",
            "src/.lib.rs.swp",
            "src/lib.rs~",
            "src/deep/more.rs",
            "target/made.wasm",
        ] {
            fs::write(root.join(file), file).unwrap();
        }
        let source = Source::of(folder.path()).unwrap();
        let found: Vec<PathBuf> = source.look().into_keys().collect();
        let own = ["Cargo.toml", "src/deep/more.rs", "src/lib.rs"].map(|file| root.join(file));
        assert_eq!(found, own);
        assert_eq!(
            source.tell(&own),
            "Cargo.toml and 2 more changed".to_owned()
        );
        let component = Source::of(&root.join("target/made.wasm")).unwrap();
        assert_eq!(component.look().len(), 1);
    }
}
