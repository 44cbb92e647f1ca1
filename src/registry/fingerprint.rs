//! Has the models folder changed? Names, sizes, times and inodes; no content is read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Two folders with the same one have not changed, as far as the file system tells.
pub type Fingerprint = [u8; 32];

/// Levels below the folder: models, versions, their files. Golden cases are below that.
const DEPTH: usize = 3;
/// A folder with more than this is not a models folder.
const MAX_ITEMS: usize = 100_000;

/// Fingerprint of a folder; `None` when it cannot be read. Links are followed: Kubernetes swaps a
/// volume by pointing one link elsewhere, and each file of it gets another inode by that.
pub fn of(dir: &Path) -> Option<Fingerprint> {
    let mut hasher = Sha256::new();
    let mut left = MAX_ITEMS;
    walk(dir, DEPTH, &mut hasher, &mut left)?;
    Some(hasher.finalize().into())
}

fn walk(dir: &Path, depth: usize, hasher: &mut Sha256, left: &mut usize) -> Option<()> {
    let items = fs::read_dir(dir).ok()?;
    let mut names = Vec::new();
    for item in items {
        let name = item.ok()?.file_name();
        *left = left.checked_sub(1)?;
        // What Kubernetes keeps a volume in, and temporary files of tools that copy.
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let bytes = name.as_encoded_bytes();
        hasher.update(bytes.len().to_le_bytes());
        hasher.update(bytes);
        // A dangling link is a state like any other.
        let Ok(found) = fs::metadata(&path) else {
            hasher.update([0]);
            continue;
        };
        hasher.update([1 + u8::from(found.is_dir())]);
        for number in [found.dev(), found.ino()] {
            hasher.update(number.to_le_bytes());
        }
        if found.is_dir() {
            if depth > 1 {
                walk(&path, depth - 1, hasher, left)?;
            }
            hasher.update([3]);
            continue;
        }
        hasher.update(found.len().to_le_bytes());
        hasher.update(found.mtime().to_le_bytes());
        hasher.update(found.mtime_nsec().to_le_bytes());
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_change_of_a_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("m/1.0.0");
        fs::create_dir_all(&version).unwrap();
        let graph = version.join("model.onnx");
        let mut seen = vec![of(dir.path()).unwrap()];
        assert_eq!(of(dir.path()), Some(seen[0]), "nothing has changed");
        let mut changed = |what: &str| {
            let now = of(dir.path()).unwrap();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(&graph, b"one").unwrap();
        changed("a new file");
        fs::write(&graph, b"longer").unwrap();
        changed("another size");
        fs::write(version.join("other"), b"ternal").unwrap();
        changed("a second file");
        fs::rename(version.join("other"), &graph).unwrap();
        changed("another file of that name");
        fs::remove_dir_all(&version).unwrap();
        changed("a version gone");
    }

    #[test]
    fn a_volume_that_is_swapped_by_its_link_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("m");
        for (generation, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir_all(model.join(generation)).unwrap();
            fs::write(model.join(generation).join("model.toml"), text).unwrap();
        }
        symlink("..1", model.join("..data")).unwrap();
        symlink("..data/model.toml", model.join("model.toml")).unwrap();
        let before = of(dir.path()).unwrap();
        symlink("..2", model.join("..new")).unwrap();
        fs::rename(model.join("..new"), model.join("..data")).unwrap();
        assert_ne!(of(dir.path()).unwrap(), before);
    }

    #[test]
    fn an_absent_folder_has_none() {
        assert_eq!(of(Path::new("/nonexistent/models")), None);
    }
}
