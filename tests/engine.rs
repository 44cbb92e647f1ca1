//! Engines against onnxruntime in Python: every type of tensor, several outputs, any batch.
//!
//! `scripts/tensor_models.py` makes the models and computes what they answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use pacs_gateway::inference::{Config, Engine, InferenceError, Turn};
use pacs_gateway::model::manifest::Limits;
use pacs_gateway::model::{Package, Tensor, TensorData, repository};
use pacs_gateway::priority::Priority;
use serde_json::Value;
use tokio::task::JoinSet;

const SIDE: usize = 8;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tensors")
}

fn package(name: &str) -> Package {
    let packages = repository::scan(&folder()).unwrap();
    let mut packages = packages.into_iter();
    packages.find(|p| p.manifest.name == name).unwrap()
}

fn engine(name: &str) -> Engine {
    let config = Config {
        sessions: 1,
        ..Config::default()
    };
    let package = package(name);
    let program = Path::new(env!("CARGO_BIN_EXE_pacs-gateway"));
    Engine::start(&config, &package, program, &package.onnx).unwrap()
}

/// Sample `number`, as the script makes it.
fn sample(name: &str, number: usize) -> Tensor {
    let whole = |at: usize| u8::try_from((7 * at + 13 * number + 5) % 97).unwrap();
    let part = |at: usize| f32::from(whole(at)) / 97.0;
    let all = 0..SIDE * SIDE;
    Tensor {
        shape: vec![1, SIDE, SIDE],
        data: match name {
            "boxes" => TensorData::F32(all.map(part).collect()),
            "half" => TensorData::F16(all.map(|at| f16::from_f32(part(at))).collect()),
            _ => TensorData::U8(all.map(whole).collect()),
        },
    }
}

fn turn() -> Turn {
    Turn {
        priority: Priority::Routine,
        modality: "OT".to_owned(),
        study: 1,
    }
}

#[track_caller]
fn equals(outputs: &[Tensor], expected: &Value, what: &str) {
    let expected = expected.as_array().unwrap();
    assert_eq!(outputs.len(), expected.len(), "{what}");
    for (output, wanted) in outputs.iter().zip(expected) {
        let shape: Vec<u64> = output.shape.iter().map(|size| *size as u64).collect();
        assert_eq!(serde_json::json!(shape), wanted["shape"], "{what}");
        let wanted: Vec<f64> = serde_json::from_value(wanted["values"].clone()).unwrap();
        let values = output.to_f32();
        assert_eq!(values.len(), wanted.len(), "{what}");
        for (value, wanted) in values.iter().zip(&wanted) {
            // A float16 has ten bits behind its first.
            let allowed = 1e-3 * wanted.abs().max(1.0);
            assert!(
                (f64::from(*value) - wanted).abs() <= allowed,
                "{what}: {value} {wanted}"
            );
        }
    }
}

async fn answers_as_python(name: &str) -> Vec<Vec<Tensor>> {
    let expected = fs::read_to_string(folder().join(name).join("expected.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_str(&expected).unwrap();
    let engine = engine(name);
    let mut alone = Vec::new();
    for (number, wanted) in expected.iter().enumerate() {
        let slot = engine.slot(&turn()).await.unwrap();
        let answer = engine
            .infer(slot, vec![sample(name, number)])
            .await
            .unwrap();
        assert_eq!(answer.batch, 1);
        equals(&answer.outputs, wanted, &format!("{name} {number} alone"));
        alone.push(answer.outputs);
    }
    // All at once: batches of whatever size, filled up or not, give each sample its own answer.
    let mut tasks = JoinSet::new();
    for turns in 0..16 {
        let number = turns % expected.len();
        let (engine, tensor) = (engine.clone(), sample(name, number));
        tasks.spawn(async move {
            let slot = engine.slot(&turn()).await.unwrap();
            (number, engine.infer(slot, vec![tensor]).await.unwrap())
        });
    }
    let mut largest = 0;
    while let Some(done) = tasks.join_next().await {
        let (number, answer) = done.unwrap();
        equals(
            &answer.outputs,
            &expected[number],
            &format!("{name} {number} in a batch"),
        );
        largest = largest.max(answer.batch);
    }
    assert!(largest > 1, "{name}: nothing was batched");
    alone
}

#[tokio::test(flavor = "multi_thread")]
async fn several_outputs_of_different_types() {
    let answers = answers_as_python("boxes").await;
    let types = answers[0].iter().map(|tensor| match tensor.data {
        TensorData::F32(_) => "f32",
        TensorData::I64(_) => "i64",
        _ => "other",
    });
    assert_eq!(types.collect::<Vec<_>>(), ["f32", "f32", "i64"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_floats_and_a_graph_that_fixes_its_batch() {
    answers_as_python("half").await;
    assert_eq!(engine("half").max_batch(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_integers() {
    answers_as_python("bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_is_not_what_the_graph_wants_is_an_error_and_harms_nobody() {
    let engine = engine("boxes");
    let good = sample("boxes", 0);
    let mut short = good.clone();
    short.data = TensorData::F32(vec![0.0; 3]);
    for wrong in [
        vec![],
        vec![good.clone(), good.clone()],
        vec![sample("bytes", 0)],
        vec![short],
    ] {
        let slot = engine.slot(&turn()).await.unwrap();
        let outcome = engine.infer(slot, wrong).await;
        assert!(matches!(outcome, Err(InferenceError::Failed(_))));
    }
    let slot = engine.slot(&turn()).await.unwrap();
    assert!(engine.infer(slot, vec![good]).await.is_ok());
}

#[test]
fn a_graph_that_changed_after_it_was_verified_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut package = package("bytes");
    let copy = dir.path().join("model.onnx");
    fs::copy(folder().join("boxes/1/model.onnx"), &copy).unwrap();
    package.onnx = copy.clone();
    let program = Path::new(env!("CARGO_BIN_EXE_pacs-gateway"));
    let refusal = Engine::start(&Config::default(), &package, program, &copy);
    let refusal = refusal.err().expect("another graph").to_string();
    assert!(refusal.contains("sha256"), "{refusal}");
}

#[test]
fn the_least_memory_that_a_manifest_may_give_is_enough_for_a_small_model() {
    let config = Config {
        sessions: 1,
        memory: Limits::MIN_MEMORY,
        ..Config::default()
    };
    let package = package("bytes");
    let program = Path::new(env!("CARGO_BIN_EXE_pacs-gateway"));
    let engine = Engine::start(&config, &package, program, &package.onnx);
    assert!(engine.is_ok(), "{}", engine.err().unwrap());
}
