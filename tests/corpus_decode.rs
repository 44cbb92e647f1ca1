//! Real files with trusted references, and hostile ones, when the corpus is at hand.
//!
//! `PACS_GATEWAY_TEST_CORPUS` names the folder; without it `../shared/corpus` is tried, and without
//! that the tests say that they are skipped. The corpus is not part of this repository.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits, identify};
use pacs_gateway::pixel::stored::Samples;
use pacs_gateway::pixel::{Frames, Limits, Refusal};
use sha2::{Digest, Sha256};

type Row = HashMap<String, String>;

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("PACS_GATEWAY_TEST_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"));
    if folder.join("dev.csv").is_file() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no corpus at {}", folder.display());
    None
}

/// The rows of a table, by column name. Quoted fields hold commas, never line breaks.
fn rows(path: &Path) -> Vec<Row> {
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

/// Hash, smallest and largest value of all frames.
fn decode(path: &Path) -> Result<(String, f64, f64), Refusal> {
    let file = DicomFile::read(path, &ReadLimits::default())?;
    let frames = Frames::open(&file, &Limits::default())?;
    let mut hash = Sha256::new();
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for index in 0..frames.count() {
        let image = frames.decode(index)?;
        hash.update(image.data.to_le_bytes());
        let values: Vec<f64> = match &image.data {
            Samples::U8(v) => v.iter().map(|v| f64::from(*v)).collect(),
            Samples::U16(v) => v.iter().map(|v| f64::from(*v)).collect(),
            _ => Vec::new(),
        };
        low = values.iter().copied().fold(low, f64::min);
        high = values.iter().copied().fold(high, f64::max);
    }
    let hex = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok((hex, low, high))
}

#[test]
fn trusted_files_decode_to_their_reference_or_are_refused() {
    let Some(corpus) = corpus() else { return };
    let (mut exact, mut close, mut refused, mut wrong) = (0, 0, Vec::new(), Vec::new());
    for row in rows(&corpus.join("dev.csv")) {
        if row["is_image"] != "1" {
            continue;
        }
        let found = decode(&corpus.join(&row["file"]));
        if row["trusted"] != "yes" {
            continue;
        }
        match found {
            Err(refusal) => refused.push(format!("{}: {refusal}", row["file"])),
            Ok((hash, ..)) if hash == row["ref_val_sha256"] => exact += 1,
            // Lossy JPEG XL may differ by one between decoders; the range shows a gross error.
            Ok((_, low, high))
                if row["ts"].starts_with("1.2.840.10008.1.2.4.11")
                    && row["compare"] != "bit-exact"
                    && (low - row["min"].parse::<f64>().unwrap()).abs() <= 2.0
                    && (high - row["max"].parse::<f64>().unwrap()).abs() <= 2.0 =>
            {
                close += 1;
            }
            Ok(_) => wrong.push(row["file"].clone()),
        }
    }
    eprintln!("{exact} exact, {close} within tolerance, refused: {refused:#?}");
    assert_eq!(wrong, Vec::<String>::new());
    assert!(exact >= 395, "only {exact} exact");
    assert!(refused.len() <= 1, "{refused:#?}");
}

/// Runs the corpus's generator once per build folder.
fn bad_files(corpus: &Path) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad-input");
    let done = folder.join("complete");
    if !done.is_file() {
        let status = Command::new("python3")
            .arg(corpus.join("make_bad.py"))
            .arg(&folder)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: make_bad.py does not run");
            return None;
        }
        fs::write(done, "").unwrap();
    }
    Some(folder)
}

#[test]
fn bad_files_are_kept_or_refused_as_their_line_says() {
    let Some(corpus) = corpus() else { return };
    let Some(folder) = bad_files(&corpus) else {
        return;
    };
    let mut wrong = Vec::new();
    for row in rows(&corpus.join("bad.csv")) {
        let path = folder.join(&row["file"]);
        if row["dimse"] == "yes" {
            let mut file = File::open(&path).unwrap();
            let offset = row["dataset_offset"].parse().unwrap();
            let verdict = identify(&mut file, offset, &row["dimse_ts"]);
            // Whether a UID is one, and names this instance, is for the receiver to decide.
            let status = |code: &str| row["status"].split(' ').any(|s| s == code);
            let right = match &verdict {
                Ok(_) => status("0000") || row["category"] == "ident",
                Err(err) => status("C0xx") || (err.is_limit() && status("A7xx")),
            };
            if !right {
                wrong.push(format!("{}: {verdict:?}", row["file"]));
            }
        }
        let start = Instant::now();
        let decoded = decode(&path);
        let expect = row["expect"].as_str();
        // A class that is no storage class is the receiver's business; its pixels are sound.
        if decoded.is_ok()
            && matches!(expect, "keep-nodecode" | "refuse")
            && row["category"] != "ident"
        {
            wrong.push(format!("{}: decoded", row["file"]));
        }
        if start.elapsed() > Duration::from_secs(10) {
            wrong.push(format!("{}: took {:?}", row["file"], start.elapsed()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
