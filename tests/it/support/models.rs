//! A models folder of a scenario's own, whose versions come and go.

use std::path::{Path, PathBuf};

use super::files::copy_dir;
use super::options::repository;

/// The folder, with `cxr-phantom` 1.0.0 as the repository ships it.
pub struct Models {
    dir: tempfile::TempDir,
}

impl Models {
    /// A folder with one model.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shipped = repository().join("models/cxr-phantom");
        let folder = dir.path().join("cxr-phantom");
        copy_dir(&shipped.join("1.0.0"), &folder.join("1.0.0"));
        std::fs::copy(shipped.join("model.toml"), folder.join("model.toml")).unwrap();
        Self { dir }
    }

    /// What `models.dir` is set to.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The folder of the model.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("cxr-phantom")
    }

    /// Adds version 1.1.0 (tests/fixtures/versions) under another version number. Its manifest comes
    /// last, as when people copy carefully; `change` is a last touch to the folder before that.
    pub fn add(&self, version: &str, change: impl FnOnce(&Path)) {
        let made = repository().join("tests/fixtures/versions/cxr-phantom/1.1.0");
        let work = tempfile::tempdir_in(self.dir.path()).unwrap();
        let folder = work.path().join(version);
        copy_dir(&made, &folder);
        edit(
            &folder.join("model.toml"),
            "version = \"1.1.0\"",
            &format!("version = \"{version}\""),
        );
        change(&folder);
        std::fs::rename(&folder, self.folder().join(version)).unwrap();
    }

    /// Writes `serving.toml`, whole at once.
    pub fn roles(&self, text: &str) {
        let path = self.folder().join("serving.toml");
        let new = self.folder().join(".serving.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

/// Replaces a text that must be there.
#[track_caller]
pub fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no `{from}`", path.display());
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}
