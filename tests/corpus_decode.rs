//! Every file of the corpus decodes to its reference or is refused, and hostile ones cost nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod corpus;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits, identify};
use pacs_gateway::model::manifest::ValueSpace;
use pacs_gateway::pixel::render::render;
use pacs_gateway::pixel::stored::Samples;
use pacs_gateway::pixel::{Frames, Image, Limits, Refusal};
use sha2::{Digest, Sha256};

use self::corpus::{Row, bad_files, rows};

/// Memory that no file may make `decode` use, in megabytes.
const MEMORY: u64 = 512;
/// Seconds that no file may take, on a machine that does other things too.
const TIME: f64 = 30.0;

fn open(path: &Path) -> Result<DicomFile, Refusal> {
    Ok(DicomFile::read(path, &ReadLimits::default())?)
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Hash of the stored values of all frames.
fn stored(path: &Path) -> Result<String, Refusal> {
    let file = open(path)?;
    let frames = Frames::open(&file, &Limits::default())?;
    let mut hash = Sha256::new();
    for index in 0..frames.count() {
        hash.update(frames.decode(index)?.data.to_le_bytes());
    }
    Ok(hex(hash))
}

/// Hashes of RGB of all frames, as bytes and as words.
fn rgb(path: &Path) -> Result<[String; 2], Refusal> {
    let file = open(path)?;
    let frames = Frames::open(&file, &Limits::default())?;
    let (mut bytes, mut words) = (Sha256::new(), Sha256::new());
    for index in 0..frames.count() {
        for value in render(&frames, index, ValueSpace::Stored, None)?.values {
            bytes.update([value as u8]);
            words.update((value as u16).to_le_bytes());
        }
    }
    Ok([hex(bytes), hex(words)])
}

/// Reference frames of the lossy rows, unpacked by the tests' Python; `None` when it is not set up.
fn references(corpus: &Path) -> Option<tempfile::TempDir> {
    const UNPACK: &str = "import imagecodecs, pathlib, sys\n\
        for p in pathlib.Path(sys.argv[1]).glob('*.zst'):\n\
        \x20   (pathlib.Path(sys.argv[2]) / p.stem).write_bytes(imagecodecs.zstd_decode(p.read_bytes()))";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/venv/bin/python");
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(python)
        .args(["-c", UNPACK])
        .arg(corpus.join("dev_frame0"))
        .arg(folder.path())
        .status();
    status
        .is_ok_and(|status| status.success())
        .then_some(folder)
}

/// Whether the first frame of a lossy row is as near to its reference as the row demands.
fn within(row: &Row, corpus: &Path, references: &Path) -> Result<(), String> {
    let name = Path::new(&row["frame0"]).file_stem().unwrap();
    let expected = fs::read(references.join(name)).map_err(|err| err.to_string())?;
    let file = open(&corpus.join(&row["file"])).unwrap();
    let frames = Frames::open(&file, &Limits::default()).unwrap();
    let image = frames.decode(0).unwrap();
    let found = numbers(&image);
    let expected: Vec<f64> = match row["ref_dtype"].as_str() {
        "uint8" => expected.iter().map(|b| f64::from(*b)).collect(),
        "uint16" => words(&expected)
            .map(|w| f64::from(u16::from_le_bytes(w)))
            .collect(),
        "int16" => words(&expected)
            .map(|w| f64::from(i16::from_le_bytes(w)))
            .collect(),
        other => return Err(format!("a reference of {other}")),
    };
    if found.len() != expected.len() {
        return Err(format!(
            "{} values instead of {}",
            found.len(),
            expected.len()
        ));
    }
    let differences = |from: usize, step: usize| -> (f64, f64) {
        let pairs = found.iter().zip(&expected).skip(from).step_by(step);
        let differences: Vec<f64> = pairs.map(|(a, b)| (a - b).abs()).collect();
        let largest = differences.iter().copied().fold(0.0, f64::max);
        (
            largest,
            differences.iter().sum::<f64>() / differences.len() as f64,
        )
    };
    // "abs diff <= 2, mean <= 0.5"; where chroma was subsampled, that is for luma, and 2 on average
    // for the rest.
    let chroma = row["compare"].contains("chroma");
    let (largest, mean) = differences(0, if chroma { 3 } else { 1 });
    if largest > 2.0 || mean > 0.5 {
        return Err(format!("differs by up to {largest}, {mean:.3} on average"));
    }
    for component in if chroma { 1..3 } else { 0..0 } {
        let (_, mean) = differences(component, 3);
        if mean > 2.0 {
            return Err(format!("chroma differs by {mean:.3} on average"));
        }
    }
    Ok(())
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    bytes.as_chunks::<2>().0.iter().copied()
}

fn numbers(image: &Image) -> Vec<f64> {
    match &image.data {
        Samples::U8(v) => v.iter().map(|v| f64::from(*v)).collect(),
        Samples::U16(v) => v.iter().map(|v| f64::from(*v)).collect(),
        Samples::I16(v) => v.iter().map(|v| f64::from(*v)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn trusted_files_decode_to_their_reference_or_are_refused() {
    let Some(corpus) = corpus::folder() else {
        return;
    };
    let references = references(&corpus);
    let (mut exact, mut close, mut unjudged) = (0, 0, Vec::new());
    let (mut refused, mut wrong) = (Vec::new(), Vec::new());
    for row in rows(&corpus.join("dev.csv")) {
        if row["is_image"] != "1" {
            continue;
        }
        let found = stored(&corpus.join(&row["file"]));
        if row["trusted"] != "yes" {
            continue;
        }
        let file = &row["file"];
        match (found, &references) {
            (Err(refusal), _) => refused.push(format!("{file}: {refusal}")),
            (Ok(hash), _) if hash == row["ref_val_sha256"] => exact += 1,
            (Ok(_), _) if row["compare"] == "bit-exact" => wrong.push(file.clone()),
            (Ok(_), None) => unjudged.push(file.clone()),
            (Ok(_), Some(references)) => match within(&row, &corpus, references.path()) {
                Ok(()) => close += 1,
                Err(how) => wrong.push(format!("{file}: {how}")),
            },
        }
    }
    eprintln!("{exact} exact, {close} within tolerance, refused: {refused:#?}");
    if !unjudged.is_empty() {
        eprintln!("SKIPPED without the tests' Python: {unjudged:#?}");
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(exact >= 395, "only {exact} exact");
    assert!(refused.len() <= 1, "{refused:#?}");
}

/// Where another RGB than the reference's is right, or none is claimed.
fn excuse(row: &Row) -> Option<&'static str> {
    let big_endian = row["ts"] == "1.2.840.10008.1.2.2";
    if row["bits_alloc"] == "32" {
        Some("floats do not hold 32 bits")
    } else if big_endian && row["photometric"] == "PALETTE COLOR" {
        Some("the reference reads the words of the palette in little endian")
    } else if row["compare"].contains("chroma") || row["compare"].contains("RGB for colour") {
        Some("lossy")
    } else {
        None
    }
}

#[test]
fn colour_files_convert_to_the_rgb_of_the_reference() {
    let Some(corpus) = corpus::folder() else {
        return;
    };
    let (mut exact, mut excused, mut wrong) = (0, Vec::new(), Vec::new());
    for row in rows(&corpus.join("dev.csv")) {
        if row["trusted"] != "yes" || row["ref_rgb_sha256"].is_empty() {
            continue;
        }
        match (rgb(&corpus.join(&row["file"])), excuse(&row)) {
            (Ok(hashes), _) if hashes.contains(&row["ref_rgb_sha256"]) => exact += 1,
            (_, Some(why)) => excused.push(format!("{}: {why}", row["file"])),
            (found, None) => wrong.push(format!("{}: {:?}", row["file"], found.err())),
        }
    }
    eprintln!("RGB of {exact} files is the reference's; not of {excused:#?}");
    assert_eq!(wrong, Vec::<String>::new());
    assert!(exact >= 105, "only {exact} exact");
}

/// What one run of the built binary's `decode` cost.
struct Cost {
    path: PathBuf,
    code: i32,
    megabytes: u64,
    seconds: f64,
    answer: String,
}

/// Runs `decode` on each file, alone.
fn measure(paths: &[PathBuf]) -> Vec<Cost> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/measure_decode.py");
    let mut child = Command::new("python3")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_pacs-gateway"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let list: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(list.join("\n").as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let costs: Vec<Cost> = text
        .lines()
        .map(|line| {
            // The answer has tabs of its own.
            let (head, path) = line.rsplit_once('\t').unwrap();
            let mut fields = head.splitn(4, '\t');
            Cost {
                code: fields.next().unwrap().parse().unwrap(),
                megabytes: fields.next().unwrap().parse().unwrap(),
                seconds: fields.next().unwrap().parse().unwrap(),
                answer: fields.next().unwrap().to_owned(),
                path: path.into(),
            }
        })
        .collect();
    assert_eq!(costs.len(), paths.len());
    let peak = costs.iter().map(|cost| cost.megabytes).max();
    let longest = costs.iter().map(|cost| cost.seconds).fold(0.0, f64::max);
    eprintln!("{} files: at most {peak:?} MB, {longest} s", costs.len());
    costs
}

impl Cost {
    /// Panics, signals, silence, memory and time.
    fn faults(&self, megabytes: u64) -> Vec<String> {
        let mut faults = Vec::new();
        let told = match self.code {
            0 => !self.answer.is_empty(),
            1 => self.answer.starts_with("error\t"),
            _ => false,
        };
        if !told {
            faults.push(format!("code {} with {:?}", self.code, self.answer));
        }
        if self.megabytes > megabytes {
            faults.push(format!("{} MB of {megabytes}", self.megabytes));
        }
        if self.seconds > TIME {
            faults.push(format!("{} s", self.seconds));
        }
        let path = self.path.display();
        faults.iter().map(|f| format!("{path}: {f}")).collect()
    }
}

#[test]
fn no_file_panics_hangs_or_takes_much_memory() {
    let Some(corpus) = corpus::folder() else {
        return;
    };
    let rows = rows(&corpus.join("dev.csv"));
    let paths: Vec<PathBuf> = rows.iter().map(|row| corpus.join(&row["file"])).collect();
    let costs = measure(&paths);
    let faults: Vec<String> = costs.iter().flat_map(|c| c.faults(MEMORY)).collect();
    assert_eq!(faults, Vec::<String>::new());
}

/// Megabytes that a row of bad.csv allows: what it says over the process itself, and never more
/// than [`MEMORY`].
fn allowed(row: &Row) -> u64 {
    const BASELINE: u64 = 32;
    let limits = &row["limits"];
    let number = limits.split("memory < ").nth(1).and_then(|rest| {
        let mut words = rest.split(' ');
        let number: u64 = words.next()?.parse().ok()?;
        let unit = words.next()?;
        Some(if unit.starts_with('G') {
            number << 10
        } else {
            number
        })
    });
    number.map_or(MEMORY, |number| (number + BASELINE).min(MEMORY))
}

#[test]
fn bad_files_are_kept_or_refused_as_their_line_says() {
    let Some(corpus) = corpus::folder() else {
        return;
    };
    let Some(folder) = bad_files(&corpus) else {
        return;
    };
    let rows = rows(&corpus.join("bad.csv"));
    let paths: Vec<PathBuf> = rows.iter().map(|row| folder.join(&row["file"])).collect();
    let mut wrong = Vec::new();
    for (row, cost) in rows.iter().zip(measure(&paths)) {
        if row["dimse"] == "yes" {
            let mut file = File::open(&cost.path).unwrap();
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
        wrong.extend(cost.faults(allowed(row)));
        // A class that is no storage class is the receiver's business; its pixels are sound.
        let must_not = matches!(row["expect"].as_str(), "keep-nodecode" | "refuse");
        if cost.code == 0 && must_not && row["category"] != "ident" {
            wrong.push(format!("{}: decoded", row["file"]));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
