//! Golden cases: inputs beside a model, with what Python computed for them.
//!
//! Does a model answer as it did in training? It is asked through the same steps as for a study, and
//! pixels go through the decoding processes: a case that a codec dies of ends a process and not the
//! gateway.

mod expected;
mod inputs;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::spawn_blocking;

use super::Served;
use crate::answers::ask;
use crate::decoder::Decoders;
use crate::features::Heard;
use crate::findings::{self, Reading, Sample};
use crate::inference::Turn;
use crate::model::manifest::Priority;
use expected::Expected;
use inputs::Input;

/// Runs one case of a model. Returns the largest difference from the expected numbers.
///
/// # Errors
/// A case that is incomplete, that is refused, or that comes out otherwise.
pub async fn run(served: &Served, decoders: &Decoders, case: &Path) -> Result<f64> {
    let expected = Expected::read(case)?;
    let heard = expected.heard();
    let manifest = &served.package.manifest;
    let reading = if manifest.is_ensemble_of_models() {
        Reading {
            findings: findings::ensemble::read(manifest, &heard)?,
            drafts: Vec::new(),
        }
    } else {
        asked(served, decoders, case, heard).await?
    };
    spawn_blocking(move || expected.compare(reading)).await?
}

/// What the model's own graphs make of the files of a case.
async fn asked(served: &Served, decoders: &Decoders, case: &Path, heard: Heard) -> Result<Reading> {
    let (package, decoders, case) = (
        Arc::clone(&served.package),
        decoders.clone(),
        case.to_owned(),
    );
    let made = spawn_blocking(move || inputs::of(&package.manifest, &decoders, &case, &heard));
    let turn = Arc::new(Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    });
    let mut samples = Vec::new();
    for input in made.await?? {
        let Input {
            tensors,
            location,
            placement,
        } = input;
        let engine = served.engines.first().context("the model has no graph")?;
        let slot = engine.slot(&turn).await?;
        let manifest = &served.package.manifest;
        let asked = ask(&served.engines, manifest, &turn, slot, tensors).await?;
        samples.push(Sample {
            answers: asked.said,
            location,
            placement,
        });
    }
    let package = Arc::clone(&served.package);
    Ok(spawn_blocking(move || findings::read(&package.manifest, &samples)).await??)
}
