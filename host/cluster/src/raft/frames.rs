//! A file of frames with checksums that is only ever appended to, or replaced as a whole.
//!
//! Each append is one frame, synced, and then followed by a mark: an empty frame. So whatever has a sound frame behind it
//! was synced once. An unreadable frame with nothing sound behind it is what a crash left of the last append, and is cut
//! off; one with something sound behind it is damage, and an error. The mark itself is not synced: losing it loses nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Names the format and its version.
const FILE_HEADER: [u8; 8] = *b"vnfrm\x00\x00\x01";
const FRAME_MAGIC: [u8; 4] = *b"\xf5FRM";
/// Magic, length, checksum.
const FRAME_HEADER_BYTES: usize = 4 + 4 + 8;
/// Far above any file of this kind; keeps a foreign file from filling the memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error(
        "{} is damaged at byte {offset}: {what}; restore the file from a backup, or empty the node's directory and let it join again",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the first unreadable byte may be.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// An earlier write failed, and what is on disk is not known.
    #[error("{} is not written to after a failed write; free space or replace the disk, then restart the node", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
    },
    /// More than a file may hold.
    #[error("{bytes} bytes are too many for {}", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How many were to be written, or found.
        bytes: u64,
    },
}

/// An open file of frames.
#[derive(Debug)]
pub(crate) struct Frames {
    path: PathBuf,
    file: File,
    end: usize,
    broken: bool,
}

/// A file's frames and where each starts.
pub(crate) type Payloads = Vec<(usize, Vec<u8>)>;

impl Frames {
    /// Replaces the file at `path`, or makes it. A crash leaves the old file or the new one.
    /// It starts with one frame, `payload`, which is not empty.
    pub(crate) fn replace(path: &Path, payload: &[u8]) -> Result<Self, FrameError> {
        let mut bytes = FILE_HEADER.to_vec();
        bytes.extend(frame(path, bytes.len(), payload)?);
        bytes.extend(frame(path, bytes.len(), &[])?);
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
        file.write_all(&bytes)
            .map_err(io_error("write", &temporary))?;
        file.sync_all().map_err(io_error("sync", &temporary))?;
        fs::rename(&temporary, path).map_err(io_error("rename a new file to", path))?;
        if let Some(directory) = path.parent() {
            sync_directory(directory)?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            end: bytes.len(),
            broken: false,
        })
    }

    /// Opens the file at `path` and cuts off what a crash left unfinished. `None` when there is no file.
    pub(crate) fn open(path: &Path) -> Result<Option<(Self, Payloads)>, FrameError> {
        let Some(bytes) = read(path)? else {
            return Ok(None);
        };
        let found = scan(path, &bytes)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(io_error("open", path))?;
        if found.end < bytes.len() {
            tracing::warn!(
                path = %path.display(),
                from = found.end,
                bytes = bytes.len() - found.end,
                "cut off an append that a crash left unfinished"
            );
            file.set_len(found.end as u64)
                .map_err(io_error("shorten", path))?;
        }
        // What was read may still be in the system's cache only. It counts as durable from here on.
        file.sync_all().map_err(io_error("sync", path))?;
        let payloads = found.payloads(&bytes);
        let mut frames = Self {
            path: path.to_path_buf(),
            file,
            end: found.end,
            broken: false,
        };
        frames.write(&[])?;
        Ok(Some((frames, payloads)))
    }

    /// Appends one frame. It is durable when this returns; after an error the file takes no more.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        if self.broken {
            return Err(FrameError::Broken {
                path: self.path.clone(),
            });
        }
        self.write(payload)?;
        if let Err(source) = self.file.sync_data() {
            self.broken = true;
            return Err(io_error("sync", &self.path)(source));
        }
        self.write(&[])
    }

    /// Replaces the whole content. After an error it is not known which of the two a restart finds, and the file takes no more.
    pub(crate) fn rewrite(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        if self.broken {
            return Err(FrameError::Broken {
                path: self.path.clone(),
            });
        }
        self.broken = true;
        *self = Self::replace(&self.path, payload)?;
        Ok(())
    }

    fn write(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        let frame = frame(&self.path, self.end, payload)?;
        if let Err(source) = self.file.write_all(&frame) {
            self.broken = true;
            return Err(io_error("append to", &self.path)(source));
        }
        self.end += frame.len();
        Ok(())
    }
}

/// The frames of a file that was written whole: nothing of it may be missing. `None` when there is no file.
pub(crate) fn read_whole(path: &Path) -> Result<Option<Payloads>, FrameError> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    let found = scan(path, &bytes)?;
    if found.end < bytes.len() || !found.marked {
        return Err(damaged(path, found.end, "the end is missing"));
    }
    Ok(Some(found.payloads(&bytes)))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), FrameError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync the directory", path))
}

/// Adds what was attempted to an error of the system.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FrameError {
    let path = path.to_path_buf();
    move |source| FrameError::Io {
        action,
        path,
        source,
    }
}

fn damaged(path: &Path, offset: usize, what: &str) -> FrameError {
    FrameError::Damaged {
        path: path.to_path_buf(),
        offset,
        what: what.into(),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, FrameError> {
    match fs::metadata(path) {
        Ok(about) if about.len() > FILE_BYTES_MAX => Err(FrameError::TooLarge {
            path: path.to_path_buf(),
            bytes: about.len(),
        }),
        Ok(_) => fs::read(path).map(Some).map_err(io_error("read", path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// The sound part of a file.
struct Scan {
    payloads: Vec<(usize, Range<usize>)>,
    end: usize,
    /// The last frame is a mark.
    marked: bool,
}

impl Scan {
    fn payloads(&self, bytes: &[u8]) -> Payloads {
        let copy = |(at, range): &(usize, Range<usize>)| {
            (*at, bytes.get(range.clone()).unwrap_or_default().to_vec())
        };
        self.payloads.iter().map(copy).collect()
    }
}

fn scan(path: &Path, bytes: &[u8]) -> Result<Scan, FrameError> {
    // The file came into being by a rename after a sync, so no crash explains a bad start, here or in the first frame.
    if !bytes.starts_with(&FILE_HEADER) {
        return Err(damaged(path, 0, "it does not start like a file of frames"));
    }
    let mut found = Scan {
        payloads: Vec::new(),
        end: FILE_HEADER.len(),
        marked: false,
    };
    while found.end < bytes.len() {
        let at = found.end;
        if let Some(payload) = payload_at(bytes, at) {
            found.end = payload.end;
            found.marked = payload.is_empty();
            if !found.marked {
                found.payloads.push((at, payload));
            }
            continue;
        }
        let sound = |later: &usize| payload_at(bytes, *later).is_some();
        match (at + 1..bytes.len()).find(sound) {
            None => break,
            // Only a mark has this length, and it says nothing that the sound frame behind it does not.
            Some(later) if later - at == FRAME_HEADER_BYTES => found.end = later,
            Some(later) => {
                let what =
                    format!("a frame is unreadable, yet byte {later} shows that it was complete");
                return Err(damaged(path, at, &what));
            }
        }
    }
    if found.payloads.is_empty() {
        return Err(damaged(path, found.end, "the first frame is unreadable"));
    }
    Ok(found)
}

/// Where the payload of the frame at `at` is, when it is sound.
fn payload_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let (magic, rest) = bytes.get(at..)?.split_first_chunk()?;
    if *magic != FRAME_MAGIC {
        return None;
    }
    let (len, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let len = u32::from_le_bytes(*len);
    let payload = rest.get(..usize::try_from(len).ok()?)?;
    let start = at + FRAME_HEADER_BYTES;
    (u64::from_le_bytes(*sum) == checksum(at, len, payload)).then(|| start..start + payload.len())
}

fn frame(path: &Path, at: usize, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let too_large = |_| FrameError::TooLarge {
        path: path.to_path_buf(),
        bytes: payload.len() as u64,
    };
    let len = u32::try_from(payload.len()).map_err(too_large)?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    frame.extend(FRAME_MAGIC);
    frame.extend(len.to_le_bytes());
    frame.extend(checksum(at, len, payload).to_le_bytes());
    frame.extend(payload);
    Ok(frame)
}

/// The place is part of it, so that a frame is sound only where it was written.
fn checksum(at: usize, len: u32, payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, (at as u64) << 32 | u64::from(len))
}
