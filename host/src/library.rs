//! The components of guests that this node has: by digest, in its data directory, checked and compiled when they are opened.
//!
//! A component is what its digest says, whoever gave it and whatever the disk did to it since; anything else is not taken.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::wasm::{CompileCache, Engine, Guest, LoadError};

/// Hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 64;

/// Why a component is not to be had here.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It is not here.
    #[error("component {digest} is not on this node")]
    Missing {
        /// Its digest.
        digest: String,
    },
    /// The file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is there is something else.
    #[error("what should be component {wanted} is {found}; it is not used")]
    Other {
        /// The digest that was asked for.
        wanted: String,
        /// The digest of what is there.
        found: String,
    },
    /// It is no guest that can be served.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// The components of a node.
pub struct Library {
    engine: Engine,
    folder: PathBuf,
    cache: Option<CompileCache>,
    /// Services of which the later of concurrent writes alone is kept, whatever their guests say.
    last_write: BTreeSet<String>,
}

impl Library {
    /// The components in `folder`.
    pub fn new(
        engine: Engine,
        folder: PathBuf,
        cache: Option<CompileCache>,
        last_write: BTreeSet<String>,
    ) -> Library {
        Library {
            engine,
            folder,
            cache,
            last_write,
        }
    }

    /// Checks and compiles a component that somebody gave, without keeping it. Takes seconds for one that is not in the cache.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Guest>, LoadError> {
        let mut guest = Guest::load(&self.engine, self.cache.as_ref(), bytes)?;
        if self.last_write.contains(&guest.descriptor().name) {
            guest.keep_last_write();
        }
        Ok(Arc::new(guest))
    }

    /// Keeps a component for the next start and for other nodes.
    pub fn keep(&self, guest: &Guest, bytes: &[u8]) -> Result<(), LibraryError> {
        if let Some(cache) = &self.cache {
            cache.keep(guest);
        }
        let path = self.path(guest.digest())?;
        if path.exists() {
            return Ok(());
        }
        write(&self.folder, &path, bytes).map_err(|source| LibraryError::File {
            action: "write",
            path,
            source,
        })
    }

    /// The component of that digest, which somebody said it is: checked, compiled and kept.
    pub fn take_in(&self, digest: &str, bytes: &[u8]) -> Result<Arc<Guest>, LibraryError> {
        let guest = self.load(bytes)?;
        if guest.digest() != digest {
            return Err(LibraryError::Other {
                wanted: digest.to_owned(),
                found: guest.digest().to_owned(),
            });
        }
        self.keep(&guest, bytes)?;
        Ok(guest)
    }

    /// Opens a component that is here.
    pub fn open(&self, digest: &str) -> Result<Arc<Guest>, LibraryError> {
        let path = self.path(digest)?;
        let bytes = std::fs::read(&path).map_err(|source| self.unread(digest, path, source))?;
        let guest = self.load(&bytes)?;
        match guest.digest() == digest {
            true => Ok(guest),
            false => Err(LibraryError::Other {
                wanted: digest.to_owned(),
                found: guest.digest().to_owned(),
            }),
        }
    }

    /// At most `most` bytes of a component from a place on, and the size of all of it.
    pub fn read(
        &self,
        digest: &str,
        from: u64,
        most: usize,
    ) -> Result<(u64, Vec<u8>), LibraryError> {
        let path = self.path(digest)?;
        let read = || {
            let mut file = std::fs::File::open(&path)?;
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(from))?;
            let mut part = Vec::new();
            file.take(most as u64).read_to_end(&mut part)?;
            Ok((size, part))
        };
        read().map_err(|source| self.unread(digest, path.clone(), source))
    }

    /// The largest component that is taken, bytes.
    pub fn bytes_max(&self) -> usize {
        self.engine.limits().component_bytes_max
    }

    /// Forgets all components but these.
    pub fn retain(&self, digests: &BTreeSet<String>) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let digest = path.file_stem().and_then(|stem| stem.to_str());
            let component = path.extension().is_some_and(|kind| kind == "wasm");
            if component && digest.is_some_and(|digest| !digests.contains(digest)) {
                // What is left over costs room and nothing else.
                drop(std::fs::remove_file(path));
            }
        }
    }

    /// Where a component is. Digests come from other nodes, and are to name nothing but components.
    fn path(&self, digest: &str) -> Result<PathBuf, LibraryError> {
        let digits = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        match digits && digest.len() == DIGEST_DIGITS {
            true => Ok(self.folder.join(format!("{digest}.wasm"))),
            false => Err(LibraryError::Missing {
                digest: digest.to_owned(),
            }),
        }
    }

    fn unread(&self, digest: &str, path: PathBuf, source: std::io::Error) -> LibraryError {
        match source.kind() {
            std::io::ErrorKind::NotFound => LibraryError::Missing {
                digest: digest.to_owned(),
            },
            _ => LibraryError::File {
                action: "read",
                path,
                source,
            },
        }
    }
}

/// A reader sees all of it or nothing, also after the machine has stopped in between.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::create_dir_all(folder)?;
    let unfinished = path.with_extension("tmp");
    let mut file = std::fs::File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    std::fs::File::open(folder)?.sync_all()
}
