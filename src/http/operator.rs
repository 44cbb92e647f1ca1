//! The local operator: whoever can read a file in the spool's folder may operate the gateway.
//!
//! The token in it is fresh with each start, so one that leaked ends with the process. Commands take
//! it from there when they are given no other (`cli/ask.rs`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::durable::sync_dir;

/// Name of the file in `spool.dir`.
pub const FILE: &str = "operator.token";

/// For nobody but the gateway's user.
const MODE: u32 = 0o600;

/// Writes a fresh token of 256 bits to [`FILE`] in `dir` and gives it.
///
/// # Errors
/// Neither a new file nor what the last start left there can be written.
pub(super) fn appoint(dir: &Path) -> io::Result<String> {
    let token = fresh();
    let path = dir.join(FILE);
    match replace(&path, &token) {
        // A full disk, where an operator is needed most: the blocks of the last start are there.
        Err(_) if path.is_file() => overwrite(&path, &token)?,
        replaced => replaced?,
    }
    Ok(token)
}

/// 256 bits as hexadecimal digits, of a cryptographic generator that the system seeds.
fn fresh() -> String {
    let drawn: [u8; 32] = rand::random();
    drawn.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn replace(path: &Path, token: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&temporary)?;
    let written = writeln!(file, "{token}").and_then(|()| file.sync_data());
    if let Err(err) = written {
        let _ = fs::remove_file(&temporary);
        return Err(err);
    }
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn overwrite(path: &Path, token: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.set_len(token.len() as u64 + 1)?;
    file.sync_data()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_start_appoints_with_another_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        // What a start left that was killed in the middle.
        fs::write(path.with_extension("tmp"), "half a tok").unwrap();
        let first = appoint(dir.path()).unwrap();
        let second = appoint(dir.path()).unwrap();
        assert_ne!(first, second);
        assert_eq!(second.len(), 64);
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), second);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        overwrite(&path, &first).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), first);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }
}
