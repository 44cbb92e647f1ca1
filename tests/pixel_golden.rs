//! Pixel values against arrays made by pydicom, NumPy, Pillow, OpenCV and torchvision.
//!
//! `scripts/golden_pixels.py` makes the files and says what each case is; this test only compares.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::model::manifest::{DType, ImageSpec, ValueSpace};
use pacs_gateway::pixel::render::{Grid, render};
use pacs_gateway::pixel::{Frames, Limits, decode, prepare, resize::resize};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pixels")
}

/// The cases of one kind; none would mean that the test tests nothing.
fn cases(kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let all = manifest["cases"].as_array().unwrap();
    let some: Vec<Value> = all
        .iter()
        .filter(|case| case["kind"] == kind)
        .cloned()
        .collect();
    assert!(!some.is_empty(), "no case of kind {kind}");
    some
}

fn open(case: &Value) -> DicomFile {
    let path = folder().join(case["file"].as_str().unwrap());
    DicomFile::read(&path, &ReadLimits::default()).unwrap()
}

fn array(value: &Value) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(folder().join(value["file"].as_str().unwrap())).unwrap();
    let values = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    (parse(&value["shape"]), values)
}

fn parse<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Fails with the largest difference when it exceeds `tolerance`.
fn close(case: &Value, found: &[f32], expected: &[f32], tolerance: f32) {
    let name = &case["name"];
    assert_eq!(found.len(), expected.len(), "{name}");
    let (at, worst) = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .enumerate()
        .fold(
            (0, 0.0),
            |worst, next| if next.1 > worst.1 { next } else { worst },
        );
    assert!(
        worst <= tolerance,
        "{name}: value {at} is {} instead of {}",
        found[at],
        expected[at]
    );
}

#[test]
fn stored_values_are_those_that_went_in() {
    for case in cases("stored") {
        let name = &case["name"];
        let image =
            decode(&open(&case), &Limits::default()).unwrap_or_else(|r| panic!("{name}: {r}"));
        let digest = Sha256::digest(image.data.to_le_bytes());
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(case["dtype"], image.data.dtype(), "{name}");
        assert_eq!(case["photometric"], image.photometric.as_str(), "{name}");
        assert_eq!(case["sha256"], hex.as_str(), "{name}");
    }
}

fn check_stage(kind: &str, space: ValueSpace, tolerance: f32) {
    for case in cases(kind) {
        let file = open(&case);
        let frames = Frames::open(&file, &Limits::default()).unwrap();
        let (shape, expected) = array(&case["expected"]);
        assert_eq!(shape[0], frames.count(), "{}", case["name"]);
        let mut found = Vec::new();
        for index in 0..frames.count() {
            found.extend(render(&frames, index, space, None).unwrap().values);
        }
        let largest = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
        close(&case, &found, &expected, tolerance * largest);
    }
}

#[test]
fn modality_values_are_pydicoms() {
    check_stage("modality", ValueSpace::Modality, 1e-6);
}

#[test]
fn windowed_values_are_pydicoms() {
    check_stage("voi", ValueSpace::Voi, 1e-6);
}

#[test]
fn shown_values_are_pydicoms_with_white_as_one() {
    check_stage("presentation", ValueSpace::Presentation, 1e-6);
}

#[test]
fn resampling_equals_pillow_opencv_and_torchvision() {
    for case in cases("resize") {
        let (shape, values) = array(&case["source"]);
        let (target, expected) = array(&case["expected"]);
        let grid = Grid {
            rows: shape[0],
            columns: shape[1],
            channels: 1,
            values,
        };
        let found = resize(grid, target[0], target[1], parse(&case["interpolation"]));
        // The pictures go from 0 to 255: this is a hundredth of the step between two greys.
        close(&case, &found.values, &expected, 0.01);
    }
}

#[test]
fn tensors_equal_what_training_code_makes() {
    for case in cases("prepare") {
        let spec = &case["spec"];
        let spec = ImageSpec {
            layout: parse(&spec["layout"]),
            dtype: parse(&spec["dtype"]),
            rows: parse(&spec["rows"]),
            columns: parse(&spec["columns"]),
            channels: parse(&spec["channels"]),
            value: parse(&spec["value"]),
            window: parse(&spec["window"]),
            fit: parse(&spec["fit"]),
            interpolation: parse(&spec["interpolation"]),
            pad: parse(&spec["pad"]),
            scale: parse(&spec["scale"]),
            mean: parse(&spec["mean"]),
            std: parse(&spec["std"]),
        };
        let tensor = prepare(
            &Frames::open(&open(&case), &Limits::default()).unwrap(),
            0,
            &spec,
        )
        .unwrap();
        let (shape, expected) = array(&case["expected"]);
        assert_eq!(tensor.shape, shape, "{}", case["name"]);
        let largest = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
        // A half float has eleven bits, and the last may round either way.
        let tolerance = if spec.dtype == DType::Float16 {
            1e-3
        } else {
            1e-5
        };
        close(&case, &tensor.to_f32(), &expected, tolerance * largest);
    }
}
