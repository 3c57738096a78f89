//! The session file: what lets one command go on where another left off. It holds keys, so only its owner may read it.
//!
//! A lock file beside it keeps two commands apart. While a command uses the session, the file says so: a command that
//! died may have sent records, so the counters on disk can no longer be trusted and must never be used again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};
use spdm::requester::SavedSession;
use tdisp::wire::ide_km::KeySet;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};

/// Format written and understood.
const FORMAT: u32 = 1;
/// Far more than a session takes.
const MAX_SIZE: u64 = 1 << 20;

/// What the interface was locked with; all of it is needed later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// IDE stream id.
    pub stream_id: u8,
    /// Position of the stream's registers among the selective streams, where there is configuration space.
    pub stream_index: Option<u8>,
    /// TDISP FUNCTION_ID.
    pub function_id: u32,
    /// MMIO_REPORTING_OFFSET of the last LOCK, bytes.
    pub mmio_offset: u64,
    /// START_INTERFACE_NONCE, between LOCK and START.
    pub nonce: Option<SavedNonce>,
    /// The stream's keys in use are those of key set 1, after a refresh.
    #[serde(default)]
    pub second_set: bool,
}

impl Binding {
    /// The key set whose keys are in use.
    pub const fn key_set(&self) -> KeySet {
        if self.second_set { KeySet::One } else { KeySet::Zero }
    }
}

/// A nonce on its way from LOCK to START. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SavedNonce(pub [u8; 32]);

impl std::fmt::Debug for SavedNonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SavedNonce(..)")
    }
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    /// The device it belongs to, as the transport describes it.
    pub target: String,
    /// The SPDM session.
    pub session: SavedSession,
    /// The interface's binding.
    pub binding: Binding,
}

/// Without the keys: what has to be readable whatever became of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<T> {
    format: u32,
    in_use: bool,
    #[serde(default = "Option::default")]
    saved: Option<T>,
}

/// The place of a session file, held exclusively.
#[derive(Debug)]
pub struct SessionFile {
    path: PathBuf,
    _lock: File,
}

impl SessionFile {
    /// Takes hold of the place, whether there is a session or not.
    ///
    /// # Errors
    /// [`Error::Session`] if another command holds it.
    pub fn acquire(path: &Path) -> Result<Self> {
        let mut name = path.file_name().ok_or_else(|| failed(path, "is no file name"))?.to_os_string();
        name.push(".lock");
        let lock_path = path.with_file_name(name);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&lock_path)
            .map_err(|e| failed(&lock_path, e))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.into(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(failed(path, "another command is using it")),
            Err(e) => Err(failed(&lock_path, e)),
        }
    }

    /// Takes the session out of the file, for use; `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::Session`] if others may read or write it, it is damaged, or a command died while it used it.
    pub fn take(&self) -> Result<Option<Saved>> {
        let file = OpenOptions::new().read(true).custom_flags(no_follow()).open(&self.path);
        let file = match file {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&self.path, e)),
        };
        let metadata = file.metadata().map_err(|e| failed(&self.path, e))?;
        if !metadata.is_file() {
            return Err(failed(&self.path, "is no regular file"));
        }
        if metadata.mode() & 0o077 != 0 || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(failed(
                &self.path,
                "others than you may read or write it; it holds keys, so remove it",
            ));
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_SIZE).read_to_end(&mut text).map_err(|e| failed(&self.path, e))?;
        let envelope: Envelope<Saved> = serde_json::from_slice(&text)
            .map_err(|e| failed(&self.path, format!("is damaged ({e}); remove it")))?;
        if envelope.format != FORMAT {
            return Err(failed(&self.path, format!("has format {}, not {FORMAT}", envelope.format)));
        }
        if envelope.in_use {
            return Err(failed(
                &self.path,
                "a command died while it used this session, so its counters are lost; remove the file and lock anew",
            ));
        }
        self.write::<Saved>(&Envelope { format: FORMAT, in_use: true, saved: None })?;
        Ok(envelope.saved)
    }

    /// Puts the session into the file, for the next command.
    pub fn put(&self, saved: &Saved) -> Result<()> {
        self.write(&Envelope { format: FORMAT, in_use: false, saved: Some(saved) })
    }

    /// Removes the file: the session has ended.
    pub fn clear(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&self.path, e)),
            _ => Ok(()),
        }
    }

    /// Replaces the file in one step, so that it is never seen half written.
    fn write<T: Serialize>(&self, envelope: &Envelope<T>) -> Result<()> {
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let text = serde_json::to_vec(envelope).map(Zeroizing::new).map_err(|e| failed(&self.path, e))?;
        // A temporary file is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|e| failed(directory, e))?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(|e| failed(file.path(), e))?;
        file.persist(&self.path).map_err(|e| failed(&self.path, e.error))?;
        Ok(())
    }
}

/// A link in place of the file could lead the keys elsewhere.
fn no_follow() -> i32 {
    i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or(0)
}

fn failed(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Session(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session");
        (directory, path)
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path) -> String {
        match SessionFile::acquire(path).unwrap().take() {
            Err(Error::Session(why)) => why,
            Err(other) => panic!("{other}"),
            Ok(saved) => panic!("taken: {}", saved.is_some()),
        }
    }

    #[test]
    fn no_file_is_no_session() {
        let (_directory, path) = place();
        let file = SessionFile::acquire(&path).unwrap();
        assert!(file.take().unwrap().is_none());
        file.clear().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn two_at_once_are_kept_apart() {
        let (_directory, path) = place();
        let first = SessionFile::acquire(&path).unwrap();
        assert!(matches!(SessionFile::acquire(&path), Err(Error::Session(why)) if why.contains("another")));
        drop(first);
        SessionFile::acquire(&path).unwrap();
    }

    #[test]
    fn files_that_others_can_reach_are_refused() {
        let (_directory, path) = place();
        for mode in [0o644, 0o640, 0o604, 0o620] {
            write(&path, "{}", mode);
            assert!(refused(&path).contains("others"), "{mode:o}");
        }
    }

    #[test]
    fn links_are_not_followed() {
        let (directory, path) = place();
        let target = directory.path().join("target");
        write(&target, "{}", 0o600);
        symlink(&target, &path).unwrap();
        refused(&path);
        fs::remove_file(&path).unwrap();
        fs::remove_file(directory.path().join("session.lock")).unwrap();
        symlink(&target, directory.path().join("session.lock")).unwrap();
        assert!(SessionFile::acquire(&path).is_err());
    }

    #[test]
    fn damage_is_named_and_harmless() {
        let (_directory, path) = place();
        for text in [
            "",
            "{",
            "null",
            "[]",
            "{\"format\":1}",
            "{\"format\":1,\"in_use\":false,\"saved\":{}}",
            "{\"format\":1,\"in_use\":false,\"more\":1}",
        ] {
            write(&path, text, 0o600);
            assert!(refused(&path).contains("damaged"), "{text}");
        }
        write(&path, "{\"format\":2,\"in_use\":false}", 0o600);
        assert!(refused(&path).contains("format 2"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(&path);
    }

    #[test]
    fn a_session_whose_command_died_is_not_used_again() {
        let (_directory, path) = place();
        write(&path, "{\"format\":1,\"in_use\":false}", 0o600);
        let file = SessionFile::acquire(&path).unwrap();
        assert!(file.take().unwrap().is_none());
        // The command dies here: nothing is put back.
        drop(file);
        assert!(refused(&path).contains("died"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "what we write is private");
    }

    #[test]
    fn nonces_are_not_printed() {
        assert_eq!(format!("{:?}", SavedNonce([7; 32])), "SavedNonce(..)");
    }
}
