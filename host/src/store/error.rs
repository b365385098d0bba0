//! What can go wrong in the store, said so that an operator knows where to look and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A failure of the store. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {path}; check the disk and the permissions, then start the node again", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Bytes on disk are not the ones that were written. They are not served.
    #[error(
        "{path} is damaged: {what}; nothing is served from it. Restore it from a backup, or move it away and let the other replicas repair this node",
        path = path.display()
    )]
    Corrupt {
        /// The damaged file, or the directory when the file is not known.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Written by a newer version of this program.
    #[error("{path} has format {found}, this program reads up to {known}; start the newer program", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is understood.
        known: u32,
    },
    /// The disk failed earlier; writes are refused, reads go on.
    #[error("writes are refused since {path} failed: {why}", path = path.display())]
    Failed {
        /// What failed.
        path: PathBuf,
        /// Why, and what would help.
        why: String,
    },
    /// The disk cannot keep up, and the bounded buffer in front of it is full. Trying again is fine.
    #[error(
        "{path} did not take what was written before within {waited:?}; try again later, or find out why this disk is slow",
        path = path.display()
    )]
    Busy {
        /// Where the rows would go.
        path: PathBuf,
        /// How long the call waited.
        waited: Duration,
    },
    /// The engine was closed.
    #[error("the store is closed, so the node is stopping; ask another node")]
    Closed,
    /// A key, an object or a batch is larger than a row can hold.
    #[error("{what} of {size} bytes is too large to store; the limit is {max}")]
    TooLarge {
        /// Which of them.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The most that is possible, in bytes.
        max: usize,
    },
    /// Somebody else holds this partition's store.
    #[error("partition {partition} of service {service} is open already; close it there first")]
    AlreadyOpen {
        /// Name of the service.
        service: String,
        /// Number of the partition.
        partition: u16,
    },
    /// More services than 16 bits can count were ever stored here.
    #[error("{path} cannot hold service {service}: all 65535 numbers are taken", path = path.display())]
    Services {
        /// The service that found no number.
        service: String,
        /// The table of services.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random numbers ({0}); a store cannot be named without")]
    Random(getrandom::Error),
}

/// For `map_err` on a call to the operating system.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}
