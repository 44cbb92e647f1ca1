//! What stands for a study where its UID must not: a keyed hash.
//!
//! HMAC-SHA-256 (RFC 2104) of the Study Instance UID. Without the key nobody can tell whether a UID
//! that he knows is meant, which a plain hash would allow: UIDs are few and well known.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Name of the gateway's own key, in `spool.dir`.
pub const FILE: &str = "study.key";
/// A shorter key could be found by trying.
const LEAST_BYTES: usize = 16;

/// The key. Clones share it.
#[derive(Clone)]
pub struct StudyKey {
    /// Ready to hash.
    mac: Hmac<Sha256>,
}

/// What logs say instead of a Study Instance UID: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId([u8; 8]);

/// A key that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct KeyError {
    /// Its file.
    pub file: PathBuf,
    /// What is wrong.
    pub reason: String,
}

impl StudyKey {
    /// The key in `file`, without the line's end; with no `file` the gateway's own in `spool`, made
    /// at the first start. Blocking.
    ///
    /// # Errors
    /// A file that cannot be read or written, or a key of fewer than 16 bytes.
    pub fn open(file: &Path, spool: &Path) -> Result<Self, KeyError> {
        let own = file.as_os_str().is_empty();
        let path = if own {
            spool.join(FILE)
        } else {
            file.to_owned()
        };
        let bytes = match std::fs::read(&path) {
            Err(err) if own && err.kind() == io::ErrorKind::NotFound => make(&path),
            read => read,
        };
        let wrong = |reason: String| KeyError {
            file: path.clone(),
            reason,
        };
        let bytes = bytes.map_err(|err| wrong(err.to_string()))?;
        let key = bytes.trim_ascii_end();
        if key.len() < LEAST_BYTES {
            return Err(wrong(format!("has fewer than {LEAST_BYTES} bytes")));
        }
        Self::of(key).map_err(wrong)
    }

    /// A key of any length.
    fn of(key: &[u8]) -> Result<Self, String> {
        let mac = Hmac::new_from_slice(key).map_err(|err| err.to_string())?;
        Ok(Self { mac })
    }

    /// What stands for a study: the first 8 bytes of the hash of its UID.
    pub fn log_id(&self, study: &str) -> LogId {
        let [a, b, c, d, e, f, g, h, ..] = self.hash(&[study]);
        LogId([a, b, c, d, e, f, g, h])
    }

    /// The hash of `parts`, which hold no NUL.
    pub(super) fn hash(&self, parts: &[&str]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                mac.update(&[0]);
            }
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

/// A new key, for its owner's eyes alone. A crash leaves a whole one or none.
fn make(path: &Path) -> io::Result<Vec<u8>> {
    let key: [u8; 32] = rand::random();
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(text.into_bytes())
}

impl std::fmt::Debug for StudyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StudyKey")
    }
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_hash_is_hmac_sha256() {
        // RFC 4231, test case 2.
        let key = StudyKey::of(b"Jefe").unwrap();
        let id = key.log_id("what do ya want for nothing?");
        assert_eq!(id.to_string(), "5bdcc146bf60754e");
    }

    #[test]
    fn a_gateway_makes_its_key_once() {
        let dir = tempfile::tempdir().unwrap();
        let open = || StudyKey::open(Path::new(""), dir.path()).unwrap();
        assert_eq!(open().log_id("1.2"), open().log_id("1.2"));
        let kept = std::fs::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!(kept.permissions().mode() & 0o777, 0o600);
        assert_eq!(kept.len(), 64);
        let other = tempfile::tempdir().unwrap();
        let other = StudyKey::open(Path::new(""), other.path()).unwrap();
        assert_ne!(other.log_id("1.2"), open().log_id("1.2"));
    }

    #[test]
    fn a_given_key_is_read_without_its_line_end_and_may_not_be_short() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let key = StudyKey::open(&file, dir.path()).unwrap();
        let same = StudyKey::of(b"0123456789abcdef").unwrap();
        assert_eq!(key.log_id("1.2"), same.log_id("1.2"));
        std::fs::write(&file, "0123456789abcde\n").unwrap();
        let err = StudyKey::open(&file, dir.path()).unwrap_err().to_string();
        assert!(err.contains("fewer than 16"), "{err}");
        let missing = StudyKey::open(&dir.path().join("no"), dir.path());
        assert!(missing.is_err(), "a key that is named is not made");
    }
}
