//! A file system of its own that is small enough to be filled.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{peers, reaper};

/// A file system in memory.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// One of so many MiB; `None`, visibly, for whom may not mount.
    pub fn mount(mebibytes: u32) -> Option<Self> {
        let path = tempfile::tempdir().unwrap().keep();
        reaper::remove_at_exit(&path);
        let mut mount = Command::new("mount");
        let size = format!("size={mebibytes}m");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { path });
        }
        // Only root may mount; the limit of the spool is tested by everybody.
        peers::skip_unless_root("mounting a small file system needs root");
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that leaves `free` bytes, or fewer when somebody else writes meanwhile.
    pub fn fill_up_to(&self, free: u64) -> PathBuf {
        let ballast = self.path.join("ballast");
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        let size = (stat.f_bavail * stat.f_frsize).saturating_sub(free);
        let mut file = std::fs::File::create(&ballast).unwrap();
        match file.write_all(&vec![1; usize::try_from(size).unwrap()]) {
            Err(err) if err.kind() != io::ErrorKind::StorageFull => panic!("{err}"),
            _ => ballast,
        }
    }

    /// Removes it again.
    pub fn empty(&self, ballast: &Path) {
        std::fs::remove_file(ballast).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .output();
        let _ = std::fs::remove_dir(&self.path);
    }
}
