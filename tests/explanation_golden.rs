//! Heat against maps that NumPy, onnxruntime and Pillow made.
//!
//! `scripts/golden_explanation.py` says what each file holds; this test only compares.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::explanation::{activation, occlusion};
use pacs_gateway::findings::{self, Said, Sample};
use pacs_gateway::inference::{Answer, Turn};
use pacs_gateway::model::manifest::{Activation, Priority};
use pacs_gateway::model::{ImageSpec, InputSpec, Tensor};
use pacs_gateway::pixel::{Frames, Limits, prepare};
use pacs_gateway::registry::Served;
use serde_json::Value;

mod served;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn expected(name: &str) -> Value {
    let path = root().join("tests/fixtures/explanation").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn model(dir: &str, name: &str) -> Served {
    served::models(&root().join(dir), &[name]).remove(0)
}

/// The tensor that a model sees of a file.
fn tensor(served: &Served, file: &Path) -> (ImageSpec, Tensor) {
    let InputSpec::Image(spec) = served.package.manifest.input().unwrap().1 else {
        panic!("a model of images");
    };
    let file = DicomFile::read(file, &ReadLimits::default()).unwrap();
    let frames = Frames::open(&file, &Limits::default()).unwrap();
    let tensor = prepare(&frames, 0, &spec).unwrap();
    (spec, tensor)
}

async fn ask(served: &Served, tensor: Tensor) -> Answer {
    let turn = Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    };
    let slot = served.engines[0].slot(&turn).await.unwrap();
    served.engines[0].infer(slot, vec![tensor]).await.unwrap()
}

/// Log odds of each label in an image, in the order of the manifest.
async fn evidence(served: &Served, tensor: Tensor) -> Vec<f64> {
    let said = Said {
        outputs: ask(served, tensor).await.outputs,
        flip: None,
    };
    let sample = Sample {
        answers: vec![said],
        location: None,
        placement: None,
    };
    let found = findings::read(&served.package.manifest, &[sample]).unwrap();
    let odds = |finding: &findings::Finding| {
        occlusion::evidence(finding.probability.unwrap(), Activation::Sigmoid)
    };
    found.findings.iter().map(odds).collect()
}

/// The largest difference between what was found and what is expected.
#[track_caller]
fn compare(found: &[f64], expected: &[f64], tolerance: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0, f64::max);
    let highest = expected.iter().copied().fold(0.0, f64::max);
    assert!(highest > 100.0 * tolerance, "expected a map, not one value");
    assert!(worst <= tolerance, "off by {worst:e}");
    worst
}

fn every<T: Copy>(values: &[T], columns: usize, step: usize) -> Vec<T> {
    let rows = values.chunks_exact(columns).step_by(step);
    rows.flat_map(|row| row.iter().step_by(step).copied())
        .collect()
}

#[tokio::test]
async fn occlusion_heat_is_that_of_numpy_and_onnxruntime() {
    let served = model("models", "cxr-phantom");
    let expected = expected("occlusion.json");
    let study = expected["study"].as_str().unwrap();
    let folder = served.package.onnx.parent().unwrap().join("golden");
    let (spec, tensor) = tensor(&served, &folder.join(study).join("1.dcm"));
    let manifest = &served.package.manifest;
    let wanted = manifest.explanation.as_ref().unwrap();
    let plan = occlusion::Plan::new(wanted, spec.rows, spec.columns);
    let squares: Vec<[usize; 2]> = serde_json::from_value(expected["squares"].clone()).unwrap();
    assert_eq!(plan.squares(), squares);

    let fill = occlusion::means(&tensor, spec.layout);
    let before = evidence(&served, tensor.clone()).await;
    let mut losses = vec![Vec::new(); before.len()];
    for square in squares {
        let covered = plan.cover(&tensor, spec.layout, square, &fill);
        let after = evidence(&served, covered).await;
        for ((losses, before), after) in losses.iter_mut().zip(&before).zip(after) {
            losses.push(before - after);
        }
    }
    for (label, losses) in manifest.output.labels().iter().zip(losses) {
        let expected = &expected["labels"][label.label];
        let off = compare(&losses, &numbers(&expected["losses"]), 1e-4);
        let heat: Vec<f64> = plan
            .heat(&losses)
            .values
            .into_iter()
            .map(f64::from)
            .collect();
        let heat = every(&heat, spec.columns, 4);
        let heat_off = compare(&heat, &numbers(&expected["heat"]), 1e-4);
        println!("{}: off by {off:.0e}, heat by {heat_off:.0e}", label.label);
    }
}

#[tokio::test]
async fn an_activation_map_is_resampled_as_pillow_does() {
    let folder = "tests/fixtures/explanation/models";
    let served = model(folder, "cam");
    let expected = expected("cam.json");
    let golden = served.package.onnx.parent().unwrap().join("golden");
    let (_, tensor) = tensor(&served, &golden.join("blobs/1.dcm"));
    let answer = ask(&served, tensor).await;
    let maps = answer.outputs.last().unwrap();
    let size = |key: &str| usize::try_from(expected[key].as_u64().unwrap()).unwrap();
    let (rows, columns) = (size("rows"), size("columns"));
    for label in served.package.manifest.output.labels() {
        let map = activation::map(maps, label.index).unwrap();
        let map = map.normalised(0.0).unwrap();
        let at = |pixel: usize, size: usize, cells: usize| {
            (pixel as f64 + 0.5) * cells as f64 / size as f64
        };
        let pixels = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let over: Vec<f64> = pixels
            .map(|(row, column)| {
                let (y, x) = (at(row, rows, map.rows), at(column, columns, map.columns));
                f64::from(map.at(y, x).unwrap())
            })
            .collect();
        let over = every(&over, columns, size("step"));
        let off = compare(&over, &numbers(&expected["labels"][label.label]), 1e-4);
        println!("{}: off by {off:.0e}", label.label);
    }
}
