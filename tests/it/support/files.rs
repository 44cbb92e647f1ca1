//! What lies in a folder, for scenarios that say what may lie there and what may not.

use std::path::{Path, PathBuf};

/// Every file below `dir`, sorted.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir).into_iter().flatten() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Copies a folder with everything below it.
pub fn copy_dir(from: &Path, to: &Path) {
    for file in below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}
