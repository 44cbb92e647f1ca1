//! `decode`: what the gateway makes of the pixels of files, as hashes, arrays, pictures or facts.
//!
//! One line per file on stdout, in the order given. A file that cannot be decoded gets a line with
//! the reason; the others are still tried, and the exit code says so at the end.

mod output;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use rayon::prelude::*;

use self::output::{Fault, Sink};
use super::FAILED;
use crate::child;
use crate::decoder::{self, Decoders};
use crate::model::manifest::ValueSpace;

/// Arguments of `decode`.
#[derive(Debug, Clone, Args)]
pub struct DecodeArgs {
    /// Which values.
    #[arg(long, value_enum, default_value_t = Stage::Stored)]
    stage: Stage,
    /// What to print or write.
    #[arg(long, value_enum, default_value_t = Format::Sha256)]
    format: Format,
    /// Directory for npy and png files; it is created when absent.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Files, and directories to walk.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// As stored, before any lookup table.
    Stored,
    /// In the modality's units, such as Hounsfield units.
    Modality,
    /// After the window or VOI LUT, 0 to 1.
    Voi,
    /// The same as it is shown: white is 1, MONOCHROME1 is inverted.
    Presentation,
}

impl From<Stage> for decoder::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Stored => Self::Stored,
            Stage::Modality => Self::Rendered(ValueSpace::Modality),
            Stage::Voi => Self::Rendered(ValueSpace::Voi),
            Stage::Presentation => Self::Rendered(ValueSpace::Presentation),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// PATH, sha256 of the samples, frames, rows, columns, samples per pixel, type, photometric
    /// interpretation, separated by tabs.
    Sha256,
    /// A NumPy array of frames × rows × columns, and × 3 for colour.
    Npy,
    /// A picture per frame; stored values must be unsigned and of at most 16 bits.
    Png,
    /// A JSON object per line with the shape, range and hash of the values.
    Json,
}

/// Decodes the files that `args` names.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &DecodeArgs) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in &args.paths {
        walk(path, Path::new(""), &mut files);
    }
    let program = child::this_program();
    let decoders = Decoders::start(decoder::Config::default(), program, None)?;
    let mut failed = false;
    let mut stdout = std::io::stdout().lock();
    // Enough at a time to keep the processors busy and the output flowing.
    for some in files.chunks(rayon::current_num_threads() * 4) {
        let lines: Vec<_> = some
            .par_iter()
            .map(|file| one(file, args, &decoders))
            .collect();
        for (file, line) in some.iter().zip(lines) {
            let path = printable(&file.path);
            match line {
                Ok(Line::Text(text)) => writeln!(stdout, "{path}\t{text}")?,
                Ok(Line::Json(mut object)) => {
                    object.insert("path".to_owned(), path.into());
                    writeln!(stdout, "{}", serde_json::Value::Object(object))?;
                }
                Err(fault) => {
                    failed = true;
                    writeln!(stdout, "{path}\terror\t{fault}")?;
                }
            }
        }
    }
    Ok(if failed {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// A file to decode, and where its output goes below the output directory.
struct Job {
    path: PathBuf,
    output: PathBuf,
}

/// Collects files in order of name. A directory inside a link is not entered: links can form loops.
fn walk(path: &Path, below: &Path, files: &mut Vec<Job>) {
    let name = path.file_name().map(Path::new).unwrap_or(path);
    if !path.is_dir() {
        files.push(Job {
            path: path.to_owned(),
            output: below.join(name),
        });
        return;
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    entries.sort();
    for entry in entries {
        if entry.is_symlink() && entry.is_dir() {
            continue;
        }
        let inside = entry.file_name().map(Path::new).unwrap_or(&entry);
        if entry.is_dir() {
            walk(&entry, &below.join(inside), files);
        } else {
            files.push(Job {
                output: below.join(inside),
                path: entry.clone(),
            });
        }
    }
}

/// A path on one line of a table, whatever its name contains.
fn printable(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

enum Line {
    Text(String),
    Json(serde_json::Map<String, serde_json::Value>),
}

/// Frames one at a time, so that a long multi-frame object costs the memory of one frame.
fn one(job: &Job, args: &DecodeArgs, decoders: &Decoders) -> Result<Line, Fault> {
    let stage = args.stage.into();
    let (facts, first) = decoders.frame(&job.path, 0, stage)?;
    let mut sink = Sink::new(args.format, args.output.join(&job.output), facts.frames);
    let mut added = sink.add(&first);
    for index in 1..facts.frames {
        added = added.and_then(|()| sink.add(&decoders.frame(&job.path, index, stage)?.1));
    }
    if let Err(fault) = added {
        sink.discard();
        return Err(fault);
    }
    sink.finish(&facts.transfer_syntax)
}
