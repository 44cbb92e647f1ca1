//! The corpus of real files with trusted references, when it is at hand.
//!
//! `PACS_GATEWAY_TEST_CORPUS` names the folder; without it `../shared/corpus` is tried, and without
//! that the tests say that they are skipped. The corpus is not part of this repository.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A row of a table, by column name.
pub type Row = HashMap<String, String>;

/// Reports a skipped test past the test runner's capture.
fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// The folder of the corpus.
pub fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("PACS_GATEWAY_TEST_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"));
    if folder.join("dev.csv").is_file() {
        return Some(folder);
    }
    skipped(&format!("no corpus at {}", folder.display()));
    None
}

/// The rows of a table. Quoted fields hold commas, never line breaks.
pub fn rows(path: &Path) -> Vec<Row> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(fields);
    let names = lines.next().unwrap();
    lines
        .map(|values| names.iter().cloned().zip(values).collect())
        .collect()
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    fields
}

/// Broken and hostile files: runs the corpus's generator once per build folder.
pub fn bad_files(corpus: &Path) -> Option<PathBuf> {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = build.join("bad-input");
    if folder.is_dir() {
        return Some(folder);
    }
    // A folder that has the name is whole, whoever made it.
    let work = tempfile::tempdir_in(build).unwrap();
    let status = Command::new("python3")
        .arg(corpus.join("make_bad.py"))
        .arg(work.path())
        .stdout(std::process::Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        skipped("make_bad.py does not run");
        return None;
    }
    if fs::rename(work.path(), &folder).is_ok() {
        let _ = work.keep();
    }
    Some(folder)
}
