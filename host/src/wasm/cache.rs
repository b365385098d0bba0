//! Compiled guests on disk, so that a restart does not compile again.
//!
//! A compiled guest is machine code: loading a file that somebody else wrote would run it. Each file carries an HMAC
//! under a key that only this data directory has, covers the engine's version and settings by its name, and is
//! compiled anew whenever anything does not fit. With `store/prefetch.rs` and `node/turns.rs` it is one of three files with `unsafe` in them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::component::Component;

use super::engine::Engine;
use super::guest::Guest;

type HmacSha256 = Hmac<Sha256>;
const TAG_BYTES: usize = 32;
const KEY_BYTES: usize = 32;

/// A folder of compiled guests.
pub struct CompileCache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

impl CompileCache {
    /// Opens the cache in `folder`, which must exist; makes its key on first use.
    pub fn open(folder: &Path) -> std::io::Result<CompileCache> {
        let path = folder.join("key");
        let key = match std::fs::read(&path).ok().and_then(|k| k.try_into().ok()) {
            Some(key) => key,
            None => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key)
                    .map_err(|error| std::io::Error::other(error.to_string()))?;
                write_private(&path, &[&key])?;
                key
            }
        };
        Ok(CompileCache {
            folder: folder.to_owned(),
            key,
        })
    }

    /// The compiled component of `bytes`, whose SHA-256 is `digest`, from the folder or compiled now.
    pub(super) fn component(
        &self,
        engine: &Engine,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        let path = self.path(engine, digest);
        if let Some(component) = self.load(engine, &path) {
            return Ok(component);
        }
        let component = Component::from_binary(engine.wasmtime(), bytes)?;
        self.write(&path, &component);
        Ok(component)
    }

    /// Keeps a guest that was compiled without the cache.
    pub fn keep(&self, guest: &Guest) {
        let path = self.path(guest.engine(), guest.digest());
        self.write(&path, guest.pre().component());
    }

    /// A cache that cannot be written costs time at the next start and nothing else.
    fn write(&self, path: &Path, component: &Component) {
        let written = component
            .serialize()
            .map_err(|error| std::io::Error::other(format!("{error:#}")))
            .and_then(|code| write_private(path, &[&self.tag(path, &code), &code]));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "compiled guest not kept; the next start compiles it again");
        }
    }

    fn path(&self, engine: &Engine, digest: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine
            .wasmtime()
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        self.folder
            .join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }

    fn load(&self, engine: &Engine, path: &Path) -> Option<Component> {
        let file = std::fs::read(path).ok()?;
        let (tag, code) = file.split_at_checked(TAG_BYTES)?;
        if self.mac(path, code)?.verify_slice(tag).is_err() {
            tracing::warn!(path = %path.display(), "compiled guest is damaged; compiling it again");
            return None;
        }
        deserialize(engine, code)
    }

    /// The name of the file is part of what is signed, so that one compiled guest cannot pass for another.
    fn mac(&self, path: &Path, code: &[u8]) -> Option<HmacSha256> {
        let mut mac = HmacSha256::new_from_slice(&self.key).ok()?;
        mac.update(path.file_name()?.as_encoded_bytes());
        mac.update(code);
        Some(mac)
    }

    fn tag(&self, path: &Path, code: &[u8]) -> Vec<u8> {
        self.mac(path, code)
            .map(|mac| mac.finalize().into_bytes().to_vec())
            .unwrap_or_default()
    }
}

#[allow(
    unsafe_code,
    reason = "wasmtime cannot check machine code; the HMAC proves that this node wrote it"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `code` came out of `Component::serialize` in this node: its HMAC under the key of this data directory was
    // verified. wasmtime itself refuses code of another version or with other settings.
    unsafe { Component::deserialize(engine.wasmtime(), code) }.ok()
}

/// Writes a file that only this user can read, whole or not at all.
fn write_private(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_data()?;
    std::fs::rename(&temporary, path)
}
