//! Every cell of syntax × photometric interpretation × bits × sign × frames that other people's
//! encoders can write, decoded and compared with what they put in; and odd but legal data.
//!
//! `scripts/pixel_matrix.py` writes the files and says what is in them. The two tables at the end of
//! `docs/conformance.md` are what this test prints: it fails when they differ, and rewrites them with
//! `PACS_GATEWAY_TEST_UPDATE=1`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::model::manifest::ValueSpace;
use pacs_gateway::pixel::codec::supported;
use pacs_gateway::pixel::render::render;
use pacs_gateway::pixel::{Frames, Image, Limits, Refusal, Samples, decode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Fewer cells would mean that the generator lost some.
const CELLS: usize = 1500;

/// Columns of the table, in its order.
const COLUMNS: &[&str] = &[
    "1",
    "8",
    "8 signed",
    "16",
    "16 signed",
    "32",
    "32 signed",
    "float",
    "MONOCHROME1",
    "PALETTE 8",
    "PALETTE 16",
    "RGB 8",
    "RGB 16",
    "RGB 32",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_PARTIAL_422",
    "YBR_RCT",
    "YBR_ICT",
    "XYB",
];

/// A line of the generator's index.
#[derive(Deserialize)]
struct Case {
    file: String,
    syntax: String,
    /// Where it counts in the matrix.
    column: Option<String>,
    /// Or what is odd about it.
    title: Option<String>,
    note: String,
    frames: usize,
    dtype: Option<String>,
    photometric: Option<String>,
    sha256: Option<String>,
    /// Raw array to be near to, where decoders differ, and how near: largest and mean difference.
    expected: Option<String>,
    #[serde(default)]
    max: f64,
    #[serde(default)]
    mean: f64,
    /// Reason code of the refusal that is right.
    refused: Option<String>,
    /// Whether a refusal is right too.
    #[serde(default)]
    either: bool,
    /// What becomes of it as RGB, where that is another question: a reason code, or "as RGB".
    shown: Option<String>,
}

impl Case {
    /// What is wrong with what came out, if anything.
    fn fault(&self, folder: &Path, found: Result<Image, Refusal>) -> Option<String> {
        let image = match (found, &self.refused) {
            (Err(refusal), Some(code)) if refusal.code == code => return None,
            (Err(_), None) if self.either => return None,
            (Err(refusal), _) => return Some(format!("refused: {refusal}")),
            (Ok(_), Some(code)) => return Some(format!("decoded instead of refused: {code}")),
            (Ok(image), None) => image,
        };
        let kind = (
            Some(image.data.dtype()),
            Some(image.photometric.as_str()),
            image.frames,
        );
        let wanted = (
            self.dtype.as_deref(),
            self.photometric.as_deref(),
            self.frames,
        );
        if kind != wanted {
            return Some(format!("{kind:?} instead of {wanted:?}"));
        }
        let bytes = image.data.to_le_bytes();
        if let Some(hash) = &self.sha256 {
            let digest = Sha256::digest(&bytes);
            let found: String = digest.iter().map(|b| format!("{b:02x}")).collect();
            return (found != *hash).then(|| "other values".to_owned());
        }
        let expected = fs::read(folder.join(self.expected.as_ref().unwrap())).unwrap();
        let (found, expected) = (
            numbers(&bytes, &image.data),
            numbers(&expected, &image.data),
        );
        if found.len() != expected.len() {
            return Some("another number of values".to_owned());
        }
        let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = differences.clone().fold(0.0, f64::max);
        let mean = differences.sum::<f64>() / found.len() as f64;
        (largest > self.max || mean > self.mean)
            .then(|| format!("differs by up to {largest}, {mean:.3} on average"))
    }
}

/// What is wrong with the answer to the wish to see it in RGB.
fn shown(wanted: &str, file: &DicomFile) -> Option<String> {
    let frames = Frames::open(file, &Limits::default()).unwrap();
    let found = match render(&frames, 0, ValueSpace::Stored, None) {
        Ok(_) => "as RGB",
        Err(refusal) => refusal.code,
    };
    (found != wanted).then(|| format!("shown {found} instead of {wanted}"))
}

/// Little endian samples of the type of `like`.
fn numbers(bytes: &[u8], like: &Samples) -> Vec<f64> {
    let words = || bytes.as_chunks::<2>().0.iter();
    match like {
        Samples::U8(_) => bytes.iter().map(|b| f64::from(*b)).collect(),
        Samples::I8(_) => bytes.iter().map(|b| f64::from(b.cast_signed())).collect(),
        Samples::U16(_) => words().map(|w| f64::from(u16::from_le_bytes(*w))).collect(),
        Samples::I16(_) => words().map(|w| f64::from(i16::from_le_bytes(*w))).collect(),
        _ => panic!("only samples of up to 16 bits have a tolerance"),
    }
}

/// Runs the generator; `None`, visibly, where its tools are not installed.
fn generate() -> Option<(tempfile::TempDir, Vec<Case>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".deps/venv/bin/python");
    let missing = if python.is_file() {
        let tools = ["dcmconv", "dcmcrle", "dcmcjpeg", "dcmdjpeg", "dcmcjpls"];
        tools.into_iter().find(|tool| !installed(tool))
    } else {
        Some("the tests' Python")
    };
    if let Some(missing) = missing {
        let required = std::env::var("PACS_GATEWAY_TEST_REQUIRE").is_ok_and(|v| v == "1");
        assert!(!required, "{missing} is required; run `make setup`");
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {missing} is missing; run `make setup`"
        );
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(python)
        .arg(root.join("scripts/pixel_matrix.py"))
        .arg(folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the generator failed: {stderr}");
    let index = fs::read(folder.path().join("index.json")).unwrap();
    Some((folder, serde_json::from_slice(&index).unwrap()))
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[test]
fn every_cell_decodes_to_what_went_in() {
    let Some((folder, cases)) = generate() else {
        return;
    };
    let mut wrong = Vec::new();
    for case in &cases {
        let path = folder.path().join(&case.file);
        let file = DicomFile::read(&path, &ReadLimits::default()).map_err(Refusal::from);
        let found = file
            .as_ref()
            .map_err(Refusal::clone)
            .and_then(|file| decode(file, &Limits::default()));
        let stored = case.fault(folder.path(), found);
        let rgb = || shown(case.shown.as_deref()?, file.as_ref().ok()?);
        if let Some(fault) = stored.or_else(rgb) {
            let title = case.title.as_deref().or(case.column.as_deref());
            let title = title.unwrap_or_default();
            wrong.push(format!(
                "{} {title} [{}]: {fault} ({})",
                case.syntax, case.note, case.file
            ));
        }
    }
    let kept = wrong.first().map(|_| folder.keep());
    assert!(wrong.is_empty(), "in {kept:?}: {wrong:#?}");
    let cells = cases.iter().filter(|case| case.column.is_some()).count();
    assert!(cells >= CELLS, "only {cells} cells");
    let tables = format!("{}\n{}", matrix(&cases), odd(&cases));
    println!("{tables}");
    compare_with_document(&tables);
}

/// Rows are the transfer syntaxes that are decoded, cells the number of files.
fn matrix(cases: &[Case]) -> String {
    let mut counts = BTreeMap::<(&str, &str), usize>::new();
    for case in cases {
        if let Some(column) = &case.column {
            assert!(COLUMNS.contains(&column.as_str()), "no column {column}");
            *counts.entry((&case.syntax, column)).or_default() += 1;
        }
    }
    let total: usize = counts.values().sum();
    let mut out = format!(
        "{total} files; the numbers say how many stand in a cell, – that no encoder at hand writes it or the standard forbids it.\n\n"
    );
    writeln!(out, "| transfer syntax | {} |", COLUMNS.join(" | ")).unwrap();
    writeln!(out, "|---{}|", "|---".repeat(COLUMNS.len())).unwrap();
    for uid in supported() {
        // The common root would make the table too wide to read.
        match uid.strip_prefix("1.2.840.10008.1.2.") {
            Some(rest) => write!(out, "| `…{rest}` ").unwrap(),
            None => write!(out, "| `{uid}` ").unwrap(),
        }
        let row = COLUMNS.iter().map(|column| counts.get(&(uid, *column)));
        for count in row {
            match count {
                Some(count) => write!(out, "| ✓ {count} ").unwrap(),
                None => write!(out, "| – ").unwrap(),
            }
        }
        out.push_str("|\n");
    }
    out
}

/// One row per kind of oddity.
fn odd(cases: &[Case]) -> String {
    let mut rows = Vec::<(&str, Vec<String>, usize)>::new();
    for case in cases {
        let Some(title) = &case.title else { continue };
        let outcome = match (&case.refused, case.shown.as_deref()) {
            (Some(code), _) => format!("refused: `{code}`"),
            _ if case.either => "refused, or decoded where only padding is missing".to_owned(),
            (None, None | Some("as RGB")) => "decoded".to_owned(),
            (None, Some(code)) => format!("decoded, but as RGB refused: `{code}`"),
        };
        match rows.iter_mut().find(|row| row.0 == title) {
            Some(row) => {
                row.2 += 1;
                if !row.1.contains(&outcome) {
                    row.1.push(outcome);
                }
            }
            None => rows.push((title, vec![outcome], 1)),
        }
    }
    let mut out = "| odd data | files | outcome |\n|---|---|---|\n".to_owned();
    for (title, outcomes, count) in rows {
        writeln!(out, "| {title} | {count} | {} |", outcomes.join(", ")).unwrap();
    }
    out
}

fn compare_with_document(tables: &str) {
    const BEGIN: &str = "<!-- begin pixel matrix: written by tests/pixel_matrix.rs -->\n";
    const END: &str = "<!-- end pixel matrix -->";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let text = fs::read_to_string(&path).unwrap();
    let start = text.find(BEGIN).expect("the marker of the matrix") + BEGIN.len();
    let end = text.find(END).expect("the marker of the end of the matrix");
    if text[start..end] == *tables {
        return;
    }
    if std::env::var_os("PACS_GATEWAY_TEST_UPDATE").is_some() {
        fs::write(path, format!("{}{tables}{}", &text[..start], &text[end..])).unwrap();
        return;
    }
    panic!("docs/conformance.md has other tables; run this with PACS_GATEWAY_TEST_UPDATE=1");
}
