//! What decoding in processes of its own costs: frames per second of the gateway's decoders against
//! the same work in this process, with as many threads. Arguments: folders of files.
//!
//! Both take turns and work on all files; the median of the rounds counts. A model's tensor is what
//! the pipeline asks for. Stored values are the worst case: all of a frame crosses over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use pacs_gateway::decoder::{self, Decoders, Source, Stage};
use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::model::manifest::{
    DType, Fit, ImageSpec, Interpolation, Layout, ValueSpace, Window,
};
use pacs_gateway::pixel::{Frames, Limits, prepare};

const ROUNDS: usize = 7;

fn main() {
    let folders = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let folders: Vec<PathBuf> = folders.map(PathBuf::from).collect();
    // `cargo test` runs this too, to see that it builds.
    if folders.is_empty() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_pacs-gateway").into();
    let decoders = Decoders::start(decoder::Config::default(), program, None).unwrap();
    let threads = decoders.count();
    println!("| files | values | one process frames/s | own processes frames/s | ratio |");
    println!("|---|---|---|---|---|");
    for folder in &folders {
        let files = fs::read_dir(folder).unwrap();
        let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        let sources: HashMap<PathBuf, Source> = files
            .iter()
            .map(|path| (path.clone(), source(path)))
            .collect();
        let name = folder.file_name().unwrap().display();
        let spec = spec();
        let (here, own) = compare(
            || {
                rate(&files, threads, |path| {
                    in_process(path, |frames| {
                        drop(black_box(prepare(frames, 0, &spec).unwrap()))
                    });
                })
            },
            || {
                rate(&files, threads, |path| {
                    drop(black_box(
                        decoders.tensor(&sources[path], 0, &spec, false).unwrap(),
                    ));
                })
            },
        );
        println!(
            "| {name} | tensor | {here:.0} | {own:.0} | {:.2} |",
            own / here
        );
        let (here, own) = compare(
            || {
                rate(&files, threads, |path| {
                    in_process(path, |frames| drop(black_box(frames.decode(0).unwrap())));
                })
            },
            || {
                rate(&files, threads, |path| {
                    drop(black_box(decoders.frame(path, 0, Stage::Stored).unwrap()));
                })
            },
        );
        println!(
            "| {name} | stored | {here:.0} | {own:.0} | {:.2} |",
            own / here
        );
    }
}

/// As the pipeline knows it: the spool has what the file says.
fn source(path: &Path) -> Source {
    let file = DicomFile::read(path, &ReadLimits::default()).unwrap();
    let bytes = fs::metadata(path).unwrap().len();
    Source::new(path.to_owned(), file.transfer_syntax(), bytes)
}

fn in_process(path: &Path, work: impl Fn(&Frames<'_>)) {
    let file = DicomFile::read(path, &ReadLimits::default()).unwrap();
    work(&Frames::open(&file, &Limits::default()).unwrap());
}

/// Medians of both, taking turns.
fn compare(here: impl Fn() -> f64, own: impl Fn() -> f64) -> (f64, f64) {
    let mut rates: (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| (here(), own())).unzip();
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    };
    (median(&mut rates.0), median(&mut rates.1))
}

/// Files per second.
fn rate(files: &[PathBuf], threads: usize, one: impl Fn(&Path) + Sync) -> f64 {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(path);
                }
            });
        }
    });
    files.len() as f64 / started.elapsed().as_secs_f64()
}

/// A usual input: 224 x 224, windowed, antialiased.
fn spec() -> ImageSpec {
    ImageSpec {
        layout: Layout::Nchw,
        dtype: DType::Float32,
        rows: 224,
        columns: 224,
        channels: 1,
        value: ValueSpace::Voi,
        window: Some(Window {
            center: 1500.0,
            width: 2000.0,
        }),
        fit: Fit::Stretch,
        interpolation: Interpolation::BilinearAntialias,
        pad: 0.0,
        scale: 1.0,
        mean: Vec::new(),
        std: Vec::new(),
    }
}
