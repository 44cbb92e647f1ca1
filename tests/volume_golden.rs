//! Volumes against tensors made by pydicom, GDCM, SimpleITK and NumPy.
//!
//! `scripts/golden_volumes.py` makes the files and says what each case is; this test only compares.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::inference::{Config, Engine, Turn};
use pacs_gateway::model::manifest::Priority;
use pacs_gateway::model::{InputSpec, Manifest, Tensor, VolumeSpec, repository};
use pacs_gateway::pixel::{Frames, Limits, Refusal};
use pacs_gateway::volume::{PlaneSpec, arrange, plane, slices};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/volumes")
}

/// The cases that have `key`; none would mean that the test tests nothing.
fn cases(key: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let all = manifest["cases"].as_array().unwrap();
    let some: Vec<Value> = all
        .iter()
        .filter(|case| !case[key].is_null())
        .cloned()
        .collect();
    assert!(!some.is_empty(), "no case has {key}");
    some
}

/// A manifest with the case's `[[input]]` table.
fn manifest(case: &Value) -> Value {
    json!({
        "name": "volumes", "version": "1", "sha256": "0".repeat(64), "title": "Volumes",
        "intended_use": "Tests", "licence": "MIT", "device_uid": "2.25.1",
        "applies_to": { "level": "series" },
        "input": [case["input"]],
        "output": {
            "kind": "classification", "tensor": "out", "activation": "none", "aggregate": "max",
            "labels": [{
                "index": 0, "label": "label", "threshold": 0.5, "priority": "routine",
                "code": { "scheme": "SCT", "value": "1", "meaning": "Label" },
            }],
        },
    })
}

fn spec(case: &Value) -> VolumeSpec {
    let text = toml::to_string(&manifest(case)).unwrap();
    let manifest = Manifest::parse(&text).unwrap_or_else(|err| panic!("{}: {err}", case["name"]));
    match manifest.input().unwrap().1 {
        InputSpec::Volume(spec) => spec,
        other => panic!("{}: {other:?}", case["name"]),
    }
}

#[test]
fn the_schema_knows_every_manifest_of_a_case() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema/model.v1.json");
    let schema = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for case in cases("name") {
        if let Err(err) = schema.validate(&manifest(&case)) {
            panic!("{}: {err}", case["name"]);
        }
    }
    let mut wrong = manifest(&cases("name")[0]);
    wrong["input"][0]["volume"]["max_gap"] = json!(3.0);
    assert!(!schema.is_valid(&wrong));
}

fn open(case: &Value) -> Vec<DicomFile> {
    files(&folder().join(case["folder"].as_str().unwrap()))
}

fn files(folder: &Path) -> Vec<DicomFile> {
    let items = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = items.map(|item| item.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "dcm"));
    paths.sort();
    let read = |path: &PathBuf| DicomFile::read(path, &ReadLimits::default()).unwrap();
    paths.iter().map(read).collect()
}

fn tensors(files: &[DicomFile], spec: &VolumeSpec) -> Result<Vec<Tensor>, Refusal> {
    let mut all = Vec::new();
    for (index, file) in files.iter().enumerate() {
        all.extend(slices(file, index)?);
    }
    let volumes = arrange(all, spec)?;
    let make = |volume: &pacs_gateway::volume::Volume| {
        // Planes are made by other processes, which get this as JSON.
        let text = serde_json::to_string(volume.plane()).unwrap();
        let wanted: PlaneSpec = serde_json::from_str(&text).unwrap();
        let grids: Result<Vec<_>, Refusal> = volume
            .planes()
            .iter()
            .map(|(file, frame)| {
                let frames = Frames::open(&files[*file], &Limits::default())?;
                plane(&frames, *frame, &wanted)
            })
            .collect();
        volume.assemble(grids?)
    };
    volumes.iter().map(make).collect()
}

#[test]
fn tensors_equal_what_simpleitk_makes() {
    let mut worst = (0.0, String::new());
    for case in cases("tensors") {
        let name = case["name"].as_str().unwrap();
        let spec = spec(&case);
        let found = tensors(&open(&case), &spec).unwrap_or_else(|err| panic!("{name}: {err}"));
        let expected = case["tensors"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
            assert_eq!(found.shape, shape, "{name}");
            let bytes = fs::read(folder().join(expected["file"].as_str().unwrap())).unwrap();
            let (words, _) = bytes.as_chunks::<4>();
            let expected: Vec<f32> = words.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let nearest = case["input"]["volume"]["interpolation"] == "nearest";
            let usual = if nearest { 0.0 } else { 1e-6 };
            let tolerance = case["tolerance"].as_f64().unwrap_or(usual);
            let difference = compare(name, &found.to_f32(), &expected, tolerance as f32);
            if difference > worst.0 {
                worst = (difference, name.to_owned());
            }
        }
    }
    println!(
        "largest difference: {:.1e} of the range, {}",
        worst.0, worst.1
    );
}

/// The largest difference as a fraction of the range of values; fails when it is too large.
fn compare(name: &str, found: &[f32], expected: &[f32], tolerance: f32) -> f32 {
    assert_eq!(found.len(), expected.len(), "{name}");
    let low = expected.iter().copied().fold(f32::INFINITY, f32::min);
    let high = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = high - low;
    assert!(range > 0.0, "{name}: expected a picture, not one value");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let (at, worst) =
        differences.enumerate().fold(
            (0, 0.0),
            |worst, next| {
                if next.1 > worst.1 { next } else { worst }
            },
        );
    assert!(
        worst <= tolerance * range,
        "{name}: value {at} is {} instead of {}",
        found[at],
        expected[at]
    );
    worst / range
}

#[test]
fn the_order_of_the_files_does_not_matter() {
    for case in cases("tensors") {
        let spec = spec(&case);
        let mut files = open(&case);
        let found = tensors(&files, &spec).unwrap();
        files.reverse();
        assert!(tensors(&files, &spec).unwrap() == found, "{}", case["name"]);
    }
}

#[test]
fn what_is_irregular_is_refused_with_its_figure() {
    for case in cases("refusal") {
        let name = &case["name"];
        let Err(refusal) = tensors(&open(&case), &spec(&case)) else {
            panic!("{name}: was not refused");
        };
        let (code, text) = (&case["refusal"]["code"], &case["refusal"]["text"]);
        assert_eq!(refusal.code, code.as_str().unwrap(), "{name}: {refusal}");
        assert!(
            refusal.text.contains(text.as_str().unwrap()),
            "{name}: {refusal}"
        );
    }
}

#[test]
fn offsets_and_coordinates_of_a_dose_are_the_same_places() {
    let places = |name: &str| {
        let found = slices(&files(&folder().join(name))[0], 0).unwrap();
        let positions = found.iter().map(|slice| slice.geometry.position);
        positions.collect::<Vec<_>>()
    };
    let expected: Vec<[f64; 3]> = (0..6)
        .map(|k| [-9.0, -9.0, -30.0 + 3.0 * f64::from(k)])
        .collect();
    assert_eq!(places("dose"), expected);
    assert_eq!(places("dose_absolute"), expected);
}

#[tokio::test]
async fn a_model_of_volumes_answers_as_in_python() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let packages = repository::scan(&models).unwrap();
    let package = packages.iter().find(|p| p.manifest.name == "ct-volume");
    let package = package.expect("the model of scripts/golden_volume_model.py");
    let InputSpec::Volume(spec) = package.manifest.input().unwrap().1 else {
        panic!("a model of volumes");
    };
    let program = Path::new(env!("CARGO_BIN_EXE_pacs-gateway"));
    let config = Config {
        sessions: 1,
        ..Config::default()
    };
    let engine = Engine::start(&config, package, program, &package.onnx).unwrap();
    let cases = package.golden_cases().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let expected = fs::read_to_string(case.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let tensor = tensors(&files(&case), &spec).unwrap().remove(0);
        let turn = Turn {
            priority: Priority::Routine,
            modality: String::new(),
            study: 0,
        };
        let slot = engine.slot(&turn).await.unwrap();
        let answer = engine.infer(slot, vec![tensor]).await.unwrap();
        let values = answer.outputs[0].to_f32();
        for label in package.manifest.output.labels() {
            let wanted = expected["probabilities"][label.label].as_f64().unwrap();
            let found = f64::from(values[label.index]);
            let name = case.file_name().unwrap();
            assert!(
                (found - wanted).abs() < 1e-5,
                "{name:?} {}: {found}",
                label.label
            );
        }
    }
}
