//! The directory that makes a node the same node after a restart.
//!
//! ```text
//! node.toml   who the node is: name, random id, cluster, ring, services; sealed with a checksum
//! store/      rows (see store/mod.rs); unused when rows are kept in memory
//! guests/     component bytes, each file named by its sha-256
//! cache/      compiled guests; may be deleted at any time
//! ```
//!
//! One process at a time holds the directory. Whatever is refused is refused before anything is written.

use crate::store::StoreError;
use crate::store::sealed;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
const IDENTITY: &str = "node.toml";
/// Left behind by a crash while `node.toml` was written.
const TEMPORARY: &str = "node.tmp";
/// A freshly made file system has this directory, and nobody's data.
const LOST_AND_FOUND: &str = "lost+found";
const NAME_BYTES_MAX: usize = 255;

/// Who a node is. What belongs to the cluster is unknown until the node has one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Format of the directory.
    pub format: u32,
    /// Name of the node.
    pub name: String,
    /// 128 random bits in hexadecimal: two directories with one name are told apart by it.
    pub node_id: String,
    /// Partitions of the ring.
    pub ring_size: Option<u16>,
    /// How often the ring was resized before it had that size, modulo 16.
    #[serde(default)]
    pub ring_generation: u8,
    /// How keys are hashed.
    pub hash: Option<String>,
    /// Services that ever had rows here.
    #[serde(default)]
    pub services: Vec<String>,
}

/// Why a directory is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process has it.
    #[error("data directory {path} is in use by another process; stop that one, or give this node a directory of its own", path = .0.display())]
    Locked(PathBuf),
    /// It belongs to a node of another name.
    #[error(
        "data directory {path} belongs to node {found:?}, not to {wanted:?}; start with --name {found}, or with another directory",
        path = path.display()
    )]
    OtherName {
        /// The directory.
        path: PathBuf,
        /// Its node.
        found: String,
        /// The node that was to be started.
        wanted: String,
    },
    /// A newer version of this program wrote it.
    #[error("data directory {path} has format {found}, this program reads up to {known}; start the newer program", path = path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is understood.
        known: u32,
    },
    /// Somebody else's files are in it.
    #[error(
        "{path} is not a data directory: it has no node.toml, but {found:?}; give an empty or a new directory",
        path = path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        found: String,
    },
    /// It is a file, or the like.
    #[error("{path} is not a directory; give one, or a name that does not exist", path = .0.display())]
    NotADirectory(PathBuf),
    /// The identity cannot be read.
    #[error(
        "{path}, which says who the node is, is damaged: {what}; restore it from a backup, or start with an empty directory and let the other replicas fill it",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Not a name for a node.
    #[error("{0:?} cannot be the name of a node: 1 to 255 printable characters without spaces")]
    Name(String),
    /// The operating system refused.
    #[error("cannot {action} {path}; check that it exists, its permissions and its disk", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No random bytes for the node's id.
    #[error("the operating system gives no random numbers ({0}); a node cannot be named without")]
    Random(getrandom::Error),
}

/// A data directory held by this process. Dropping it lets others have it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    /// The directory itself, locked: a lock file of its own would be a trace in directories that are refused.
    _lock: File,
}

impl DataDir {
    /// Takes the directory for node `name`, and makes it first if there is none.
    pub fn open(path: &Path, name: &str) -> Result<Self, DataDirError> {
        let legal = |c: char| !c.is_control() && !c.is_whitespace();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(legal) {
            return Err(DataDirError::Name(name.to_owned()));
        }
        fs::create_dir_all(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                DataDirError::NotADirectory(path.to_path_buf())
            }
            _ => failed("create the directory", path)(source),
        })?;
        let lock = lock(path)?;
        let identity = match read_identity(path)? {
            Some(identity) if identity.name != name => {
                return Err(DataDirError::OtherName {
                    path: path.to_path_buf(),
                    found: identity.name,
                    wanted: name.to_owned(),
                });
            }
            Some(identity) => identity,
            None => {
                check_empty(path)?;
                let identity = new_identity(name)?;
                write_identity(path, &identity)?;
                identity
            }
        };
        let directory = Self {
            path: path.to_path_buf(),
            identity,
            _lock: lock,
        };
        for path in [
            directory.store_path(),
            directory.guests_path(),
            directory.cache_path(),
        ] {
            fs::create_dir_all(&path).map_err(failed("create the directory", &path))?;
        }
        sealed::sync_directory(path).map_err(|error| explain(error, path))?;
        Ok(directory)
    }

    /// Name of the node that a directory belongs to, without taking it; `None` when it belongs to nobody yet.
    pub fn name_of(path: &Path) -> Result<Option<String>, DataDirError> {
        Ok(read_identity(path)?.map(|identity| identity.name))
    }

    /// Who the node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Changes what is known of the node and makes it durable. On an error nothing has changed.
    pub fn update(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), DataDirError> {
        let mut identity = self.identity.clone();
        change(&mut identity);
        if identity != self.identity {
            write_identity(&self.path, &identity)?;
            self.identity = identity;
        }
        Ok(())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where rows are.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where component bytes are.
    pub fn guests_path(&self) -> PathBuf {
        self.path.join("guests")
    }

    /// Where the control plane keeps what it knows of the cluster.
    pub fn cluster_path(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// Where compiled guests are.
    pub fn cache_path(&self) -> PathBuf {
        self.path.join("cache")
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let directory = File::open(path).map_err(failed("open the directory", path))?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(failed("lock", path)(source)),
    }
}

fn check_empty(path: &Path) -> Result<(), DataDirError> {
    let entries = fs::read_dir(path).map_err(failed("list", path))?;
    for entry in entries {
        let name = entry.map_err(failed("list", path))?.file_name();
        if name != TEMPORARY && name != LOST_AND_FOUND {
            return Err(DataDirError::Foreign {
                path: path.to_path_buf(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DataDirError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let file = path.join(IDENTITY);
    let Some(text) = sealed::read(&file).map_err(|error| explain(error, &file))? else {
        return Ok(None);
    };
    let damaged = |error: toml::de::Error| DataDirError::Damaged {
        path: file.clone(),
        what: error.message().to_owned(),
    };
    // A newer format may have other fields, so this one is looked at first.
    let Format { format } = toml::from_str(&text).map_err(damaged)?;
    if format > FORMAT {
        return Err(DataDirError::Newer {
            path: path.to_path_buf(),
            found: format,
            known: FORMAT,
        });
    }
    toml::from_str(&text).map(Some).map_err(damaged)
}

fn write_identity(path: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let file = path.join(IDENTITY);
    let text = toml::to_string(identity).map_err(|error| DataDirError::Damaged {
        path: file.clone(),
        what: error.to_string(),
    })?;
    sealed::write(&file, &text).map_err(|error| explain(error, &file))
}

fn new_identity(name: &str) -> Result<Identity, DataDirError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(DataDirError::Random)?;
    Ok(Identity {
        format: FORMAT,
        name: name.to_owned(),
        node_id: format!("{:032x}", u128::from_be_bytes(id)),
        ring_size: None,
        ring_generation: 0,
        hash: None,
        services: Vec::new(),
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

/// What a sealed file reports, in the words of this module.
fn explain(error: StoreError, file: &Path) -> DataDirError {
    match error {
        StoreError::Io {
            action,
            path,
            source,
        } => DataDirError::Io {
            action,
            path,
            source,
        },
        StoreError::Corrupt { path, what } => DataDirError::Damaged { path, what },
        other => DataDirError::Damaged {
            path: file.to_path_buf(),
            what: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_node_stays_who_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        assert_eq!(DataDir::name_of(&path).unwrap(), None);
        let mut directory = DataDir::open(&path, "node@127.0.0.1:7000").unwrap();
        directory
            .update(|identity| {
                identity.ring_size = Some(64);
                identity.hash = Some("v1".into());
                identity.services.push("kv".into());
            })
            .unwrap();
        let identity = directory.identity().clone();
        drop(directory);
        assert_eq!(
            DataDir::name_of(&path).unwrap().unwrap(),
            "node@127.0.0.1:7000"
        );
        let again = DataDir::open(&path, "node@127.0.0.1:7000").unwrap();
        assert_eq!(*again.identity(), identity);
        assert_eq!(names_in(&path), ["cache", "guests", "node.toml", "store"]);
    }

    #[test]
    fn two_holders_are_one_too_many() {
        let parent = tempfile::tempdir().unwrap();
        let held = DataDir::open(parent.path(), "a").unwrap();
        assert!(matches!(
            DataDir::open(parent.path(), "a"),
            Err(DataDirError::Locked(_))
        ));
        drop(held);
        DataDir::open(parent.path(), "a").unwrap();
    }

    #[test]
    fn another_name_is_refused_with_the_right_one_in_the_message() {
        let parent = tempfile::tempdir().unwrap();
        drop(DataDir::open(parent.path(), "a").unwrap());
        let refused = DataDir::open(parent.path(), "b").unwrap_err();
        assert!(
            refused.to_string().contains("start with --name a,"),
            "{refused}"
        );
    }

    #[test]
    fn a_foreign_directory_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("thesis.txt"), "x").unwrap();
        let refused = DataDir::open(parent.path(), "a").unwrap_err();
        assert!(matches!(&refused, DataDirError::Foreign { found, .. } if found == "thesis.txt"));
        assert_eq!(names_in(parent.path()), ["thesis.txt"]);
        let file = parent.path().join("thesis.txt");
        assert!(matches!(
            DataDir::open(&file, "a"),
            Err(DataDirError::NotADirectory(_))
        ));
        assert!(matches!(
            DataDir::open(&file.join("deeper"), "a"),
            Err(DataDirError::NotADirectory(_))
        ));
    }

    #[test]
    fn a_newer_format_and_damage_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        drop(DataDir::open(parent.path(), "a").unwrap());
        let file = parent.path().join(IDENTITY);
        let good = fs::read(&file).unwrap();
        sealed::write(&file, "format = 2\nshape = \"round\"\n").unwrap();
        assert!(matches!(
            DataDir::open(parent.path(), "a"),
            Err(DataDirError::Newer { found: 2, .. })
        ));
        sealed::write(&file, "format = 1\n").unwrap();
        assert!(matches!(
            DataDir::open(parent.path(), "a"),
            Err(DataDirError::Damaged { .. })
        ));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&file, &bad).unwrap();
            assert!(
                matches!(
                    DataDir::open(parent.path(), "a"),
                    Err(DataDirError::Damaged { .. })
                ),
                "byte {at}"
            );
            assert_eq!(fs::read(&file).unwrap(), bad);
        }
    }

    #[test]
    fn a_crash_while_the_identity_is_written_is_no_obstacle() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join(TEMPORARY), "format = ").unwrap();
        fs::create_dir(parent.path().join(LOST_AND_FOUND)).unwrap();
        DataDir::open(parent.path(), "a").unwrap();
    }

    #[test]
    fn names_with_spaces_or_none_are_refused_before_anything_is_made() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["", "a b", "a\n", &"x".repeat(256)] {
            let path = parent.path().join("new");
            assert!(matches!(
                DataDir::open(&path, name),
                Err(DataDirError::Name(_))
            ));
            assert!(!path.exists());
        }
    }
}
