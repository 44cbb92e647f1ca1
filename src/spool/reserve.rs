//! Room for a start on a full disk: a file of a megabyte that such a start gives up.
//!
//! The log of SQLite and the reasons in quarantine need a little room before anything can be read, sent
//! or deleted. Where compression makes nothing of the file, as on ZFS, a start waits for room instead.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::durable::is_full;

/// Name inside `spool.dir`.
const FILE: &str = "reserve";
/// Size of the file.
const BYTES: usize = 1 << 20;
/// With less free space it is not made: others need it more.
const PLENTY: u64 = 8 << 20;

/// On a full disk gives the room back. Blocking.
///
/// # Errors
/// When the file is there and cannot be removed.
pub(super) fn give_up(dir: &Path) -> io::Result<()> {
    if !is_full(dir) {
        return Ok(());
    }
    match fs::remove_file(dir.join(FILE)) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
        Ok(()) => {
            tracing::warn!("the disk is full; the room that was kept for a start is used");
            Ok(())
        }
    }
}

/// Makes the file if it is not there, whole, and there is plenty of room. Blocking.
///
/// # Errors
/// What the file system said.
pub(super) fn keep(dir: &Path, free: u64) -> io::Result<()> {
    let path = dir.join(FILE);
    let whole = fs::metadata(&path).is_ok_and(|file| file.len() == BYTES as u64);
    if whole || free < PLENTY {
        return Ok(());
    }
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; BYTES])?;
    file.sync_data()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_whole_when_there_is_plenty_and_stays_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let length = || {
            fs::metadata(dir.path().join(FILE))
                .map(|file| file.len())
                .ok()
        };
        keep(dir.path(), PLENTY - 1).unwrap();
        assert_eq!(length(), None);
        keep(dir.path(), PLENTY).unwrap();
        assert_eq!(length(), Some(1 << 20));
        // A crash in the middle of making it.
        fs::write(dir.path().join(FILE), b"half").unwrap();
        keep(dir.path(), PLENTY).unwrap();
        give_up(dir.path()).unwrap();
        assert_eq!(length(), Some(1 << 20));
    }
}
