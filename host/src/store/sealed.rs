//! Small text files that are replaced as a whole and carry a checksum, so that a reader sees the old text, the new text,
//! or that the file is damaged.
//!
//! Written to a temporary file, synced, renamed, and the directory synced. The last line is a comment with the checksum.

use super::error::{StoreError, io_error};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const SEAL: &str = "# checksum: ";
/// Far above any file of this kind; keeps a foreign file from filling the memory.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Replaces the file at `path`. On an error the old text is still there.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    let sealed = format!("{text}{SEAL}{:016x}\n", checksum(0, text.as_bytes()));
    file.write_all(sealed.as_bytes())
        .map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename a new file to", path))?;
    match path.parent() {
        Some(directory) => sync_directory(directory),
        None => Ok(()),
    }
}

/// Reads the file at `path`; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, StoreError> {
    let damaged = |what: &str| StoreError::Corrupt {
        path: path.to_path_buf(),
        what: what.into(),
    };
    match fs::metadata(path) {
        Ok(about) if about.len() > BYTES_MAX => return Err(damaged("it is far too large")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    }
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    let sealed = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let (text, sum) = sealed
        .rfind(SEAL)
        .and_then(|at| sealed.split_at_checked(at))
        .ok_or_else(|| damaged("its last line, the checksum, is missing"))?;
    if sum != format!("{SEAL}{:016x}\n", checksum(0, text.as_bytes())) {
        return Err(damaged(
            "its checksum does not match; was it edited by hand?",
        ));
    }
    Ok(Some(text.to_owned()))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync the directory", path))
}

/// 64 bits over `bytes`, for finding damage; no defence against somebody who means it. Each eight bytes are folded in by
/// a 128-bit multiplication, the last ones padded with zeros, the length and `seed` at the start.
pub(super) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    let fold = |state: u64, word: u64| {
        let wide = u128::from(state ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let (low, high) = (wide as u64, (wide >> 64) as u64);
        low ^ high.rotate_left(32)
    };
    let (words, tail) = bytes.as_chunks::<8>();
    let mut state = fold(seed, bytes.len() as u64);
    for word in words {
        state = fold(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    fold(state, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_of_a_sealed_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, "name = \"x\"\n").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), "name = \"x\"\n");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            assert!(
                matches!(read(&path), Err(StoreError::Corrupt { .. })),
                "bit {at}"
            );
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn checksums_of_similar_bytes_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for len in 0..40 {
            let mut bytes = vec![0; len];
            assert!(seen.insert(checksum(0, &bytes)));
            for at in 0..len * 8 {
                bytes[at / 8] ^= 1 << (at % 8);
                assert!(seen.insert(checksum(0, &bytes)));
                bytes[at / 8] ^= 1 << (at % 8);
            }
        }
    }
}
