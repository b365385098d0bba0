//! Why a guest's request to its store is refused, in words that may reach a client.

use vnode_ring::PartitionId;

use super::GuestError;
use crate::store::StoreError;

/// Why a guest's request to its store was refused; becomes `error` of the contract.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Rows of another node that cannot be read.
    #[error("rows of another replica cannot be read; do both nodes run the same version?")]
    BadRows,
    /// A limit on keys.
    #[error("key of {bytes} bytes, the limit is {max} (key_bytes_max)")]
    KeyTooBig {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A limit on values.
    #[error("value of {bytes} bytes, the limit is {max} (value_bytes_max)")]
    ValueTooBig {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A limit on what one command may write.
    #[error("the command writes more than {max} bytes (memory_per_vnode)")]
    WritesTooBig {
        /// The limit.
        max: usize,
    },
    /// The key hashes to another part of the ring.
    #[error(
        "key {key:?} belongs to partition {there}, this command runs on {here}; keys with one {{tag}} live together"
    )]
    OtherPlace {
        /// The key.
        key: String,
        /// Where the command runs.
        here: PartitionId,
        /// Where the key belongs.
        there: PartitionId,
    },
    /// The descriptor says that the command does not write.
    #[error("this command was declared as one that does not write")]
    ReadOnly,
    /// The budget of host calls is used up.
    #[error("the command made more than {max} calls to the host (host_calls_max)")]
    TooManyCalls {
        /// The limit.
        max: u32,
    },
    /// Not a cursor.
    #[error("this is not a cursor of this host")]
    BadCursor,
    /// The object cannot be read, or takes no more versions; or not a context.
    #[error("{0}")]
    Object(#[from] vnode_ring::ObjectError),
    /// A context that nobody can have been given.
    #[error(
        "this context covers writes that were not made yet; use one that VGET or VPUT answered"
    )]
    FutureContext,
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The guest's merge failed.
    #[error("joining concurrent values failed: {0}")]
    Join(GuestError),
    /// A value of a schema that the version does not read.
    #[error(
        "the value is of schema {schema}, and version {version} reads {from} to {to}; only another version can read it"
    )]
    Schema {
        /// Of the value.
        schema: u32,
        /// The version.
        version: String,
        /// Oldest schema that it reads.
        from: u32,
        /// Newest one.
        to: u32,
    },
    /// The guest's migrate failed.
    #[error("migrating a value from schema {written} to {wanted} failed: {error}")]
    Migrate {
        /// Schema that it had.
        written: u32,
        /// Schema that it was to have.
        wanted: u32,
        /// What happened.
        error: GuestError,
    },
}

impl Refusal {
    /// Whether a merge or a migration ran out of the time of the command, which may have more of it elsewhere.
    pub fn is_overrun(&self) -> bool {
        matches!(
            self,
            Refusal::Join(GuestError::Deadline)
                | Refusal::Migrate {
                    error: GuestError::Deadline,
                    ..
                }
        )
    }

    /// First word of the client's error.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::KeyTooBig { .. }
            | Refusal::ValueTooBig { .. }
            | Refusal::WritesTooBig { .. } => "TOOBIG",
            Refusal::Object(vnode_ring::ObjectError::TooManyVersions { .. }) => "TOOBIG",
            _ => "ERR",
        }
    }
}
