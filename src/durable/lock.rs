//! One owner per directory: an advisory `flock` that lives as long as the process.
//!
//! The kernel drops the lock with the process, however it dies, so a stale lock cannot exist. The
//! process id inside the file is only for the message to the operator.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process owns the directory.
    #[error(
        "{} is in use by process {owner}; a spool has one owner, give each gateway its own `spool.dir`",
        path.display()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Process id written by the owner, or `unknown`.
        owner: String,
    },
    /// The lock file could not be opened or written.
    #[error("failed to lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
}

/// Holds the lock until dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock of `dir` without waiting.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("lock");
        let fail = |err| LockError::Io {
            path: path.clone(),
            err,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(fail)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut owner);
            let owner = owner.trim();
            let owner = if owner.is_empty() { "unknown" } else { owner };
            return Err(LockError::Held {
                path: path.clone(),
                owner: owner.to_owned(),
            });
        }
        match note_owner(&mut file) {
            // The lock is ours all the same; only the words to a second owner have no number.
            Err(err) if err.kind() != io::ErrorKind::StorageFull => Err(fail(err)),
            _ => Ok(Self { _file: file }),
        }
    }
}

fn note_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap();
        let refusal = DirLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(
            refusal.contains(&std::process::id().to_string()),
            "{refusal}"
        );
        drop(first);
        DirLock::acquire(dir.path()).unwrap();
    }
}
