//! Looks at the tables' own bookkeeping before fjall does.
//!
//! fjall checks every block of rows when it reads it, but not the file that lists the tables, although it keeps a checksum of
//! it; a flipped bit there would bring old rows back without an error. And the table of contents of each file states a number of entries
//! that fjall allocates for before it checks it, which can end the process. Both are looked at here, as fjall 3
//! writes them (lsm-tree `version/persist.rs`, sfa `trailer` and `toc`); all numbers are little-endian.

use super::StoreError;
use super::error::io_error;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Magic, version, kind of checksum, checksum, place of the contents, reserved.
const TRAILER: u64 = 4 + 1 + 1 + 16 + 8 + 8;
/// Position, length, length of the name.
const ENTRY_MIN: u64 = 8 + 8 + 2;

/// Fails when something in the tables directory is not as it was written.
pub(super) fn check(tables: &Path) -> Result<(), StoreError> {
    let keyspaces = tables.join("keyspaces");
    for directory in list(&keyspaces)? {
        check_current(&directory)?;
        for table in list(&directory.join("tables"))? {
            check_contents(&table)
                .map_err(io_error("read", &table))?
                .or_damaged(&table)?;
        }
    }
    Ok(())
}

/// The list of tables must be the one that `current` names.
fn check_current(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join("current");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        // Without it there is a list of no tables; with tables it was lost.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let tables = list(&directory.join("tables"))?;
            return Found(tables.is_empty()).or_damaged(&path);
        }
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let Some((id, sum)) = parse_current(&bytes) else {
        return Found(false).or_damaged(&path);
    };
    let version = directory.join(format!("v{id}"));
    match fs::read(&version) {
        Ok(bytes) => Found(xxhash_rust::xxh3::xxh3_128(&bytes) == sum).or_damaged(&version),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found(false).or_damaged(&version),
        Err(error) => Err(io_error("read", &version)(error)),
    }
}

fn parse_current(bytes: &[u8]) -> Option<(u64, u128)> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (sum, kind) = rest.split_first_chunk()?;
    (kind == [0]).then(|| (u64::from_le_bytes(*id), u128::from_le_bytes(*sum)))
}

/// Whether the number of entries fits into the file. Files without a readable trailer are left to fjall, which refuses
/// them if it needs them, and deletes what a crash left unfinished.
fn check_contents(path: &Path) -> io::Result<Found> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let Some(start) = len.checked_sub(TRAILER) else {
        return Ok(Found(true));
    };
    let mut trailer = [0; 30];
    file.read_exact_at(&mut trailer, start)?;
    let Some((front, at)) = trailer.split_last_chunk() else {
        return Ok(Found(true));
    };
    if !front.starts_with(b"SFA!") {
        return Ok(Found(true));
    }
    let at = u64::from_le_bytes(*at);
    let Some(room) = start.checked_sub(at).and_then(|room| room.checked_sub(8)) else {
        return Ok(Found(false));
    };
    let mut count = [0; 4];
    file.read_exact_at(&mut count, at + 4)?;
    Ok(Found(
        u64::from(u32::from_le_bytes(count)) * ENTRY_MIN <= room,
    ))
}

/// Whether a file is as it should be.
struct Found(bool);

impl Found {
    fn or_damaged(self, path: &Path) -> Result<(), StoreError> {
        if self.0 {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            path: path.to_path_buf(),
            what: "it is missing, or not what was written".into(),
        })
    }
}

fn list(directory: &Path) -> Result<Vec<std::path::PathBuf>, StoreError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", directory)(error)),
    };
    let paths: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(io_error("list", directory))
}
