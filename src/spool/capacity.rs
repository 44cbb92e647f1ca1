//! Watermarks: when the spool stops accepting, and when it starts again.
//!
//! Bytes have a high and a low mark, so that a full spool does not answer each modality in turn with
//! one acceptance; free space and free inodes of the file system have a floor each, and an eighth
//! above it is where they are enough again.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// Limits of the spool.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of instances above which no more are accepted.
    pub max_bytes: ByteSize,
    /// Bytes below which a full spool accepts again.
    pub resume_bytes: ByteSize,
    /// Free bytes the file system must keep.
    pub min_free_bytes: ByteSize,
    /// Free inodes the file system must keep.
    pub min_free_inodes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize(200 << 30),
            resume_bytes: ByteSize(180 << 30),
            min_free_bytes: ByteSize(1 << 30),
            min_free_inodes: 10_000,
        }
    }
}

/// What the file system says.
#[derive(Debug, Clone, Copy)]
pub struct FreeSpace {
    /// Free bytes for us.
    pub bytes: u64,
    /// Size of the file system.
    pub capacity: u64,
    /// Free inodes; `u64::MAX` where the file system has no such limit.
    pub inodes: u64,
}

/// Asks the file system that holds `dir`.
pub fn free_space(dir: &Path) -> io::Result<FreeSpace> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(FreeSpace {
        bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
        // btrfs and some network file systems report no inodes at all.
        inodes: if stat.f_files == 0 {
            u64::MAX
        } else {
            stat.f_favail
        },
    })
}

/// Why no instance is accepted now, if so. `before` is the previous answer.
pub fn shedding(
    limits: &Limits,
    used_bytes: u64,
    free: FreeSpace,
    before: Option<&'static str>,
) -> Option<&'static str> {
    const SPOOL_FULL: &str = "spool-full";
    const DISK_FULL: &str = "disk-full";
    const INODES_EXHAUSTED: &str = "inodes-exhausted";
    let mark = if before == Some(SPOOL_FULL) {
        limits.resume_bytes
    } else {
        limits.max_bytes
    };
    let floor = |reason, floor: u64| {
        let more = if before == Some(reason) { floor / 8 } else { 0 };
        floor.saturating_add(more)
    };
    if used_bytes >= mark.0 {
        Some(SPOOL_FULL)
    } else if free.bytes < floor(DISK_FULL, limits.min_free_bytes.0) {
        Some(DISK_FULL)
    } else if free.inodes < floor(INODES_EXHAUSTED, limits.min_free_inodes) {
        Some(INODES_EXHAUSTED)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            max_bytes: ByteSize(100),
            resume_bytes: ByteSize(80),
            min_free_bytes: ByteSize(50),
            min_free_inodes: 10,
        }
    }

    #[test]
    fn a_full_spool_resumes_only_below_the_low_mark() {
        let free = FreeSpace {
            bytes: 1000,
            capacity: 2000,
            inodes: 1000,
        };
        let check = |used, before| shedding(&limits(), used, free, before);
        assert_eq!(check(99, None), None);
        assert_eq!(check(99, Some("disk-full")), None);
        assert_eq!(check(100, None), Some("spool-full"));
        assert_eq!(check(90, Some("spool-full")), Some("spool-full"));
        assert_eq!(check(79, Some("spool-full")), None);
    }

    #[test]
    fn the_file_system_keeps_its_floor() {
        let after = |before, bytes, inodes| {
            let capacity = 2000;
            let free = FreeSpace {
                bytes,
                capacity,
                inodes,
            };
            shedding(&limits(), 0, free, before)
        };
        assert_eq!(after(None, 49, 1000), Some("disk-full"));
        assert_eq!(after(None, 50, 9), Some("inodes-exhausted"));
        assert_eq!(after(None, 50, 10), None);
        assert_eq!(after(Some("disk-full"), 55, 10), Some("disk-full"));
        assert_eq!(after(Some("disk-full"), 56, 10), None);
        assert_eq!(after(Some("inodes-exhausted"), 50, 11), None);
    }

    #[test]
    fn the_real_file_system_answers() {
        let free = free_space(Path::new("."));
        let free = free.map(|free| 0 < free.bytes && free.bytes < free.capacity);
        assert!(matches!(free, Ok(true)));
    }
}
