//! Processor seconds per decoded frame of the files named on the command line, as a JSON object per
//! file.
//!
//! `benches/codecs.py` runs it beside other decoders; without files it does nothing. What counts is
//! the way from the path to the stored values of all frames, on one thread, again and again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::hint::black_box;
use std::path::Path;

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::pixel::{Frames, Limits, Refusal};
use support::processor_seconds;

/// A file is decoded until it has taken this much of the processor.
const ENOUGH_SECONDS: f64 = 0.3;

fn main() {
    // `cargo bench` and `cargo test` add flags of their own.
    for path in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        let line = match measure(Path::new(&path)) {
            Ok(seconds) => serde_json::json!({ "path": path, "seconds_per_frame": seconds }),
            Err(refusal) => serde_json::json!({ "path": path, "error": refusal.to_string() }),
        };
        println!("{line}");
    }
}

fn measure(path: &Path) -> Result<f64, Refusal> {
    frames(path)?;
    let started = processor_seconds();
    let mut count = 0;
    loop {
        count += frames(path)?;
        let spent = processor_seconds() - started;
        if spent >= ENOUGH_SECONDS {
            return Ok(spent / count as f64);
        }
    }
}

/// Decodes all frames and counts them.
fn frames(path: &Path) -> Result<usize, Refusal> {
    let file = DicomFile::read(path, &ReadLimits::default())?;
    let frames = Frames::open(&file, &Limits::default())?;
    for index in 0..frames.count() {
        black_box(frames.decode(index)?);
    }
    Ok(frames.count())
}
