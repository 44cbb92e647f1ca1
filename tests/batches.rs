//! A batch of N answers as N single samples do, for every model that is shipped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use pacs_gateway::inference::{Answer, Turn};
use pacs_gateway::model::manifest::{Layout, Priority};
use pacs_gateway::model::{InputSpec, Tensor, TensorData};
use pacs_gateway::registry::Served;
use tokio::task::JoinSet;

mod served;

/// Single precision, summed in another order.
const TOLERANCE: f32 = 1e-4;

/// A sample of the size that the model wants: values between -1 and 1 that differ in every sample.
fn sample(served: &Served, number: usize) -> Tensor {
    let shape = match served.package.manifest.input().unwrap().1 {
        InputSpec::Features(features) => vec![features.len()],
        InputSpec::Volume(spec) => spec.shape().to_vec(),
        InputSpec::Image(spec) => match spec.layout {
            Layout::Nhwc => vec![spec.rows, spec.columns, spec.channels],
            _ => vec![spec.channels, spec.rows, spec.columns],
        },
    };
    let value = |at: usize| ((at * 31 + number * 17) % 211) as f32 / 105.0 - 1.0;
    let count: usize = shape.iter().product();
    Tensor {
        shape,
        data: TensorData::F32((0..count).map(value).collect()),
    }
}

async fn ask(served: &Served, number: usize) -> Answer {
    let turn = Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    };
    let engine = &served.engines[0];
    let slot = engine.slot(&turn).await.unwrap();
    let tensor = sample(served, number);
    engine.infer(slot, vec![tensor]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_as_its_samples_do_alone() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let models = served::models(&models, &[]);
    assert!(models.len() >= 4);
    for served in models {
        let name = served.package.id();
        let most = served.engines[0].max_batch();
        let mut alone = Vec::new();
        for number in 0..most {
            let answer = ask(&served, number).await;
            assert_eq!(answer.batch, 1, "{name}");
            alone.push(answer.outputs);
        }
        let mut tasks = JoinSet::new();
        for number in 0..2 * most {
            let (served, number) = (served.clone(), number % most);
            tasks.spawn(async move { (number, ask(&served, number).await) });
        }
        let mut largest = 0;
        while let Some(done) = tasks.join_next().await {
            let (number, answer) = done.unwrap();
            largest = largest.max(answer.batch);
            for (one, other) in answer.outputs.iter().zip(&alone[number]) {
                assert_eq!(one.shape, other.shape, "{name}");
                let pairs = one.to_f32().into_iter().zip(other.to_f32());
                let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= TOLERANCE, "{name}: off by {worst:e}");
            }
        }
        assert!(largest > 1 || most == 1, "{name}: nothing was batched");
    }
}
