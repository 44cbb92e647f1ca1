//! What is made of the answers of real graphs, against Python.
//!
//! Models that scikit-learn trained, as `ai.onnx.ml`, against scikit-learn itself: forests, support
//! vectors, boosting, logistic regression and pipelines, for classes and for quantities
//! (`scripts/golden_tabular.py`). Several graphs and mirror images against onnxruntime and numpy
//! (`scripts/golden_combinations.py`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pacs_gateway::answers::ask;
use pacs_gateway::findings::{self, Sample};
use pacs_gateway::inference::Turn;
use pacs_gateway::model::manifest::{Combine, Priority};
use pacs_gateway::model::{OutputSpec, Tensor, TensorData, repository};
use pacs_gateway::registry::Served;
use serde_json::Value;
use tokio::task::JoinSet;

mod served;

fn fixtures(folder: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures").join(folder)
}

fn row(values: Vec<f32>) -> Tensor {
    Tensor {
        shape: vec![values.len()],
        data: TensorData::F32(values),
    }
}

/// The numbers of a sample, a finding each, and how many samples were in the first run.
async fn numbers(served: Served, tensor: Tensor) -> (Vec<f64>, usize) {
    let turn = Arc::new(Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    });
    let slot = served.engines[0].slot(&turn).await.unwrap();
    let manifest = &served.package.manifest;
    let asked = ask(&served.engines, manifest, &turn, slot, vec![tensor]).await;
    let asked = asked.unwrap();
    let sample = Sample {
        answers: asked.said,
        location: None,
        placement: None,
    };
    let findings = findings::read(manifest, &[sample]).unwrap().findings;
    let quantity = matches!(manifest.output, OutputSpec::Regression(_));
    let number = |finding: &findings::Finding| match quantity {
        true => finding.measurements[0].value,
        false => finding.probability.unwrap(),
    };
    (findings.iter().map(number).collect(), asked.runs[0].batch)
}

/// Each row of a JSON table.
fn table(golden: &Value, key: &str) -> Vec<Vec<f64>> {
    serde_json::from_value(golden[key].clone()).unwrap()
}

#[tokio::test]
async fn models_of_scikit_learn_answer_as_scikit_learn_does() {
    let models = served::models(&fixtures("tabular"), &[]);
    assert_eq!(models.len(), 10, "the models of scripts/golden_tabular.py");
    for served in models {
        let name = &served.package.manifest.name;
        let golden = fs::read_to_string(served.package.onnx.with_file_name("rows.json"));
        let golden: Value = serde_json::from_str(&golden.unwrap()).unwrap();
        let rows: Vec<Vec<f32>> = table(&golden, "rows")
            .iter()
            .map(|row| row.iter().map(|value| *value as f32).collect())
            .collect();
        let mut tasks = JoinSet::new();
        for (place, row) in rows.iter().enumerate() {
            let (served, row) = (served.clone(), row.clone());
            tasks.spawn(async move { (place, numbers(served, self::row(row)).await) });
        }
        let together: BTreeMap<usize, (Vec<f64>, usize)> =
            tasks.join_all().await.into_iter().collect();
        let mut worst: f64 = 0.0;
        for (place, expected) in table(&golden, "scikit-learn").iter().enumerate() {
            let (found, batch) = &together[&place];
            assert_eq!(*batch, rows.len(), "{name}: all rows in one run");
            assert_eq!(found.len(), expected.len(), "{name}");
            for (found, expected) in found.iter().zip(expected) {
                // Quantities have a size; probabilities are at most 1.
                let off = (found - expected).abs() / expected.abs().max(1.0);
                assert!(off <= 1e-5, "{name} row {place}: {found}, not {expected}");
                worst = worst.max(off);
            }
            // Each waits for company in vain, so a part of them has to do.
            if place % 4 != 0 {
                continue;
            }
            let (alone, batch) = numbers(served.clone(), row(rows[place].clone())).await;
            assert_eq!(batch, 1, "{name}");
            for (alone, together) in alone.iter().zip(found) {
                let off = (alone - together).abs() / together.abs().max(1.0);
                assert!(off <= 1e-6, "{name} row {place}: {alone} alone, {together}");
            }
        }
        println!("{name}: {worst:.1e} off scikit-learn at most");
    }
}

#[tokio::test]
async fn graphs_and_mirror_images_become_one_number_as_in_numpy() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("three-folds");
    copy(&fixtures("combinations/three-folds"), &model);
    let served = served::models(folder.path(), &[]).remove(0);
    let golden = fs::read_to_string(model.join("1/expected.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    assert_eq!(served.engines.len(), 3);
    assert_eq!(
        served.package.manifest.sha256, golden["sha256"],
        "of all graphs"
    );
    let images: Vec<Vec<Vec<f32>>> = serde_json::from_value(golden["images"].clone()).unwrap();
    assert_eq!(images.len(), 6);
    for (combine, key) in [
        (Combine::Mean, "mean"),
        (Combine::Max, "max"),
        (Combine::Vote, "vote"),
    ] {
        let mut served = served.clone();
        let package = Arc::make_mut(&mut served.package);
        package.manifest.ensemble.as_mut().unwrap().combine = combine;
        for (image, expected) in images.iter().zip(table(&golden, key)) {
            let image = Tensor {
                shape: vec![1, 8, 8],
                data: TensorData::F32(image.concat()),
            };
            let (found, _) = numbers(served.clone(), image).await;
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 1e-6,
                    "{key}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn a_fold_that_is_another_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("three-folds");
    copy(&fixtures("combinations/three-folds"), &model);
    let fold = model.join("1/fold-3.onnx");
    fs::copy(model.join("1/fold-2.onnx"), &fold).unwrap();
    let refusal = repository::scan(folder.path()).unwrap_err().to_string();
    for word in ["model.toml", "ensemble.folds.sha256", "fold-3.onnx has"] {
        assert!(refusal.contains(word), "{refusal}");
    }
    fs::remove_file(&fold).unwrap();
    let refusal = repository::scan(folder.path()).unwrap_err().to_string();
    assert!(
        refusal.contains("ensemble.folds.file: cannot read"),
        "{refusal}"
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}
