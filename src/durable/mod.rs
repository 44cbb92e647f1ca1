//! How bytes become permanent. This module knows nothing of DICOM.
//!
//! A file is permanent when its data *and* the directory entry that names it have been synced; a
//! rename is permanent when its directory has been synced.

pub mod database;
pub mod lock;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Less free space than this, in bytes, and a small write may fail.
const NEXT_TO_NOTHING: u64 = 1 << 20;

/// Whether the file system of `dir` has next to no room left for us, in bytes or in inodes.
pub fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|stat| {
        let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        // btrfs and some network file systems report no inodes at all.
        bytes < NEXT_TO_NOTHING || (stat.f_files > 0 && stat.f_favail == 0)
    })
}

/// Makes the entries of `dir` (creations, renames, removals) permanent.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and what is missing above it, so that all of it stays.
///
/// The parent of a directory that was there is synced too: its maker may have died before it did so.
/// One that we may not read is not ours to sync, and its maker was somebody else.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let created = match fs::create_dir(dir) {
        Ok(()) => true,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            create_dir_all(parent)?;
            fs::create_dir(dir)?;
            true
        }
        Err(_) if dir.is_dir() => false,
        Err(err) => return Err(err),
    };
    match sync_dir(parent) {
        Err(err) if !created && err.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Replaces `path` with `bytes` so that a crash leaves either the old or the new content.
///
/// Temporary file in the same directory, write, sync, rename, sync of the directory.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no parent"))?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_dir(dir)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_replaces_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        write_atomically(&path, b"one, and longer").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
