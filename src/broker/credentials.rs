//! User name and password from files: read at each connection, so that a rotated secret counts from the
//! next one on. What is in them is never part of an error.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file, in bytes.
const MAX: u64 = 4096;

/// The secret in `file`, without white space around it. Blocking.
///
/// # Errors
/// The file and the reason.
pub(super) fn read(file: &Path) -> Result<String, String> {
    let refuse = |reason: &str| format!("{}: {reason}", file.display());
    let mut text = String::new();
    let opened = File::open(file).map_err(|err| refuse(&err.to_string()))?;
    opened
        .take(MAX + 1)
        .read_to_string(&mut text)
        .map_err(|err| refuse(&err.to_string()))?;
    if text.len() as u64 > MAX {
        return Err(refuse("has more than 4096 bytes"));
    }
    match text.trim() {
        "" => Err(refuse("is empty")),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_trimmed_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let with = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            read(&file)
        };
        assert_eq!(with(b" two words\r\n").unwrap(), "two words");
        for (bytes, words) in [
            (&b" \n"[..], "is empty"),
            (&[b'x'; 4097][..], "more than 4096"),
            (&[0xff, 0xfe][..], "UTF-8"),
        ] {
            let said = with(bytes).unwrap_err();
            assert!(said.contains(words) && said.contains("password"), "{said}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(read(&file).unwrap_err().contains("No such file"));
    }
}
