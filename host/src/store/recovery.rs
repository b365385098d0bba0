//! Reads the journal back when the node starts.
//!
//! A crash leaves a torn tail: the last records are cut or were never written. That is cut off. Anything else that cannot be
//! read was safe once and is damage, and then nothing is opened, since going on without it would lose writes silently.

use super::StoreError;
use super::batch::Changes;
use super::catalog::Place;
use super::error::io_error;
use super::journal::{Head, MARK, NOWHERE, SEGMENT_HEAD, segment_head};
use super::sealed::sync_directory;
use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What the journal was found to be.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The newest segment, 0 if there is none.
    pub(super) last_segment: u64,
    /// The last commit.
    pub(super) commit: u64,
    /// Bytes of all segments.
    pub(super) bytes: u64,
}

/// Gets the rows of each commit in order.
pub(super) type Replay<'r> = dyn FnMut(Place, u64, Changes<'_>) -> Result<(), StoreError> + 'r;

/// The oldest segment in `directory`, if there is any.
pub(super) fn first_segment(directory: &Path) -> Result<Option<u64>, StoreError> {
    if !directory.exists() {
        return Ok(None);
    }
    Ok(list(directory)?.first().map(|(number, _)| *number))
}

/// Reads all segments in `directory`. Cuts off a torn tail, changes nothing else.
pub(super) fn recover(directory: &Path, replay: &mut Replay<'_>) -> Result<Recovered, StoreError> {
    let segments = list(directory)?;
    let mut recovered = Recovered::default();
    let mut expected = None;
    let count = segments.len();
    for (index, (number, path)) in segments.into_iter().enumerate() {
        let last = index + 1 == count;
        let bytes = fs::read(&path).map_err(io_error("read the journal", &path))?;
        if recovered.last_segment != 0 && number != recovered.last_segment + 1 {
            return Err(damaged(
                &path,
                format!("segment {} before it is missing", number - 1),
            ));
        }
        recovered.last_segment = number;
        if last && bytes.len() <= SEGMENT_HEAD && first_commit(&bytes, number).is_none() {
            if index == 0 && number > 1 {
                return Err(damaged(
                    &path,
                    "its first 40 bytes are not those of this segment",
                ));
            }
            // The node stopped while it started this segment; the next start overwrites it.
            recovered.last_segment = number - 1;
            break;
        }
        let mut segment = Segment {
            path: &path,
            bytes: &bytes,
            last,
            expected,
        };
        let (commit, whole) = segment.read(number, replay)?;
        recovered.commit = commit;
        recovered.bytes += whole as u64;
        expected = Some(commit + 1);
    }
    Ok(recovered)
}

/// Deletes the segments up to `sealed`, oldest first, so that what remains has no gap.
pub(super) fn delete(directory: &Path, sealed: u64) -> Result<u64, StoreError> {
    let mut freed = 0;
    for (number, path) in list(directory)? {
        if number <= sealed {
            freed += fs::metadata(&path).map_or(0, |about| about.len());
            fs::remove_file(&path).map_err(io_error("delete", &path))?;
        }
    }
    sync_directory(directory)?;
    Ok(freed)
}

struct Segment<'s> {
    path: &'s Path,
    bytes: &'s [u8],
    /// Only the last segment may be torn: the others were synced before their successor was made.
    last: bool,
    /// The commit it must start with, when another segment comes before.
    expected: Option<u64>,
}

impl Segment<'_> {
    /// The last commit and the number of good bytes.
    fn read(&mut self, number: u64, replay: &mut Replay<'_>) -> Result<(u64, usize), StoreError> {
        let (first, salt) = first_commit(self.bytes, number).ok_or_else(|| {
            damaged(
                self.path,
                "its first 40 bytes are not those of this segment",
            )
        })?;
        if self.expected.is_some_and(|expected| expected != first) {
            return Err(damaged(
                self.path,
                format!("it starts with commit {first}, which does not follow the one before"),
            ));
        }
        let mut next = first;
        let mut rest = self.bytes.get(SEGMENT_HEAD..).unwrap_or_default();
        while !rest.is_empty() {
            let at = self.bytes.len() - rest.len();
            let Some((head, rows, after)) = Head::decode(rest, salt) else {
                self.end(at, next, rest, salt)?;
                return Ok((next - 1, at));
            };
            if head.place == NOWHERE {
                if head.commit + 1 != next {
                    return Err(self.out_of_order(at, head.commit));
                }
            } else {
                if head.commit != next {
                    return Err(self.out_of_order(at, head.commit));
                }
                replay(head.place, head.commit, Changes::new(rows))?;
                next += 1;
            }
            rest = after;
        }
        Ok((next - 1, self.bytes.len()))
    }

    fn out_of_order(&self, at: usize, commit: u64) -> StoreError {
        damaged(
            self.path,
            format!("commit {commit} at byte {at} is out of order"),
        )
    }

    /// Decides what unreadable bytes are, and cuts them off if they are what a crash leaves.
    fn end(&self, at: usize, next: u64, rest: &[u8], salt: u64) -> Result<(), StoreError> {
        if !self.last {
            return Err(damaged(
                self.path,
                format!("commit {next} at byte {at} cannot be read"),
            ));
        }
        let safe = later_heads(rest, salt, |head| {
            if head.durable >= next {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if safe.is_break() {
            return Err(damaged(
                self.path,
                format!(
                    "commit {next} at byte {at} cannot be read, though it was safe on disk once"
                ),
            ));
        }
        // Zeros are room that was made for records and not used.
        if rest.iter().any(|byte| *byte != 0) {
            tracing::warn!(path = %self.path.display(), at, "cutting off the torn end of the journal");
        }
        let file = OpenOptions::new()
            .write(true)
            .open(self.path)
            .map_err(io_error("open the journal", self.path))?;
        cut(&file, at).map_err(io_error("cut the torn end off", self.path))
    }
}

fn cut(file: &File, at: usize) -> std::io::Result<()> {
    file.set_len(at as u64)?;
    file.sync_all()
}

/// Visits every readable record after a place that is not one.
fn later_heads(
    mut bytes: &[u8],
    salt: u64,
    mut visit: impl FnMut(&Head) -> ControlFlow<()>,
) -> ControlFlow<()> {
    while let Some(at) = bytes
        .windows(MARK.len())
        .skip(1)
        .position(|window| window == MARK)
    {
        bytes = bytes.get(at + 1..).unwrap_or_default();
        if let Some((head, _, _)) = Head::decode(bytes, salt) {
            visit(&head)?;
        }
    }
    ControlFlow::Continue(())
}

/// First commit and salt of a segment.
fn first_commit(bytes: &[u8], segment: u64) -> Option<(u64, u64)> {
    let head = bytes.get(..SEGMENT_HEAD)?;
    let (first, rest) = head.get(16..)?.split_first_chunk()?;
    let (salt, _) = rest.split_first_chunk()?;
    let (first, salt) = (u64::from_be_bytes(*first), u64::from_be_bytes(*salt));
    (head == segment_head(segment, first, salt)).then_some((first, salt))
}

fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut segments = Vec::new();
    let entries = fs::read_dir(directory).map_err(io_error("list", directory))?;
    for entry in entries {
        let path = entry.map_err(io_error("list", directory))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
        match number {
            Some(number) => segments.push((number, path)),
            None => return Err(damaged(&path, "no file of this name belongs here")),
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn damaged(path: &Path, what: impl Into<String>) -> StoreError {
    StoreError::Corrupt {
        path: path.to_path_buf(),
        what: what.into(),
    }
}
