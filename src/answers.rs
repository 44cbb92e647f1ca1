//! A sample in front of every graph of a model, with every mirror image of it.
//!
//! Pipeline and golden cases ask through here, so that what is checked at start is what is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};

use crate::findings::Said;
use crate::inference::{Answer, Engine, InferenceError, Slot, Turn};
use crate::model::flip::flip;
use crate::model::manifest::{Flip, Layout};
use crate::model::{Manifest, Tensor};

/// What was said of one sample.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Graph by graph, for each first what it said of the sample itself, then of its mirror images in
    /// the manifest's order.
    pub said: Vec<Said>,
    /// The run behind each.
    pub runs: Vec<Ran>,
}

/// How one answer came about.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// From queue to run.
    pub queued: Duration,
    /// The run that carried the sample.
    pub ran: Duration,
    /// Samples in that run.
    pub batch: usize,
}

/// Asks all graphs at the same time. `engines` are those of [`crate::model::Package::graphs`], in that
/// order; `slot` is the first one's.
///
/// # Errors
/// The first failure: an answer of some of the graphs is none.
pub async fn ask(
    engines: &[Engine],
    manifest: &Manifest,
    turn: &Arc<Turn>,
    slot: Slot,
    tensors: Vec<Tensor>,
) -> Result<Asked, InferenceError> {
    let mut answers = BTreeMap::new();
    if let ([engine], []) = (engines, manifest.flips.as_slice()) {
        answers.insert(0, (None, engine.infer(slot, tensors).await?));
        return Ok(collect(answers));
    }
    let layouts: Arc<[Layout]> = manifest.input.iter().map(|input| input.layout).collect();
    let (tensors, mut first) = (Arc::new(tensors), Some(slot));
    let mut tasks = JoinSet::new();
    let flips = || {
        [None]
            .into_iter()
            .chain(manifest.flips.iter().map(|flip| Some(*flip)))
    };
    let questions = engines
        .iter()
        .flat_map(|engine| flips().map(move |flip| (engine, flip)));
    for (place, (engine, flip)) in questions.enumerate() {
        // The slot that the caller has is used up at once. Who waited for a second one with the first
        // in hand could wait for others who do the same.
        let (engine, slot, turn) = (engine.clone(), first.take(), Arc::clone(turn));
        let (tensors, layouts) = (Arc::clone(&tensors), Arc::clone(&layouts));
        tasks.spawn(async move {
            let slot = match slot {
                Some(slot) => slot,
                None => engine.slot(&turn).await?,
            };
            let input = match flip {
                None => tensors.to_vec(),
                Some(flip) => mirrored(tensors, layouts, flip).await?,
            };
            let answer = engine.infer(slot, input).await?;
            Ok::<_, InferenceError>((place, (flip, answer)))
        });
    }
    drop(tensors);
    while let Some(ended) = tasks.join_next().await {
        let (place, answer) = ended.map_err(|_| abnormal())??;
        answers.insert(place, answer);
    }
    Ok(collect(answers))
}

fn collect(answers: BTreeMap<usize, (Option<Flip>, Answer)>) -> Asked {
    let mut asked = Asked {
        said: Vec::with_capacity(answers.len()),
        runs: Vec::with_capacity(answers.len()),
    };
    for (flip, answer) in answers.into_values() {
        asked.runs.push(Ran {
            queued: answer.queued,
            ran: answer.ran,
            batch: answer.batch,
        });
        asked.said.push(Said {
            outputs: answer.outputs,
            flip,
        });
    }
    asked
}

/// A volume has a hundred million values, so this is no work for the runtime.
async fn mirrored(
    tensors: Arc<Vec<Tensor>>,
    layouts: Arc<[Layout]>,
    mirror: Flip,
) -> Result<Vec<Tensor>, InferenceError> {
    let work = move || {
        let each = tensors.iter().zip(layouts.iter());
        each.map(|(tensor, layout)| flip(tensor, *layout, mirror))
            .collect()
    };
    spawn_blocking(work).await.map_err(|_| abnormal())
}

fn abnormal() -> InferenceError {
    InferenceError::Failed("asking it ended abnormally".to_owned())
}
