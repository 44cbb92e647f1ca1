//! Golden cases: studies beside the models, with the probabilities that Python computed for them.

use std::path::PathBuf;

use serde_json::Value;

use super::files::below;
use super::options::repository;

/// One golden study.
pub struct Case {
    /// Name of the model.
    pub model: String,
    /// Name of the case.
    pub name: String,
    /// Study Instance UID.
    pub study: String,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// `expected.json`.
    pub expected: Value,
}

/// Every golden case of every model that the repository serves.
pub fn cases() -> Vec<Case> {
    let cases = cases_below("models");
    assert!(cases.len() >= 10, "the models have lost their golden cases");
    cases
}

/// Every golden case of the models in a folder of the repository.
pub fn cases_below(folder: &str) -> Vec<Case> {
    let all = below(&repository().join(folder));
    let expectations = all.iter().filter(|path| path.ends_with("expected.json"));
    expectations
        .map(|path| {
            let folder = path.parent().unwrap();
            // models/<model>/<version>/golden/<case>
            let model = folder.ancestors().nth(3).unwrap().file_name().unwrap();
            let files = below(folder).into_iter();
            let files: Vec<PathBuf> = files
                .filter(|file| file.extension() == Some("dcm".as_ref()))
                .collect();
            Case {
                model: model.to_str().unwrap().to_owned(),
                name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
                study: study_uid(&std::fs::read(&files[0]).unwrap()),
                files,
                expected: serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
            }
        })
        .collect()
}

/// Study Instance UID (0020,000D) of a file, found by its tag: the reader under test is not asked.
pub fn study_uid(file: &[u8]) -> String {
    let tag = [0x20, 0x00, 0x0D, 0x00];
    let at = file.windows(4).position(|bytes| bytes == tag).unwrap() + 4;
    let explicit = &file[at..at + 2] == b"UI";
    let (length, at) = if explicit {
        (u16::from_le_bytes([file[at + 2], file[at + 3]]), at + 4)
    } else {
        (u16::from_le_bytes([file[at], file[at + 1]]), at + 4)
    };
    let uid = &file[at..at + usize::from(length)];
    String::from_utf8(uid.to_vec())
        .unwrap()
        .trim_end_matches('\0')
        .to_owned()
}
