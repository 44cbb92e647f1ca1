//! Golden cases: inputs beside a model, with the probabilities that Python computed for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::roles;
use crate::answers::ask;
use crate::app::load_models;
use crate::config::Config;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::features::{self, Heard};
use crate::findings::{self, Finding, Sample};
use crate::inference::Turn;
use crate::model::manifest::{ModelOutput, Priority};
use crate::model::{InputSpec, Placement, Tensor};
use crate::pipeline::Served;
use crate::pixel;

/// `expected.json` of a case.
#[derive(Debug, Deserialize)]
pub(super) struct Expected {
    tolerance: f64,
    /// What other models said, by model and label, for a model that builds on them.
    #[serde(default)]
    upstream: BTreeMap<String, BTreeMap<String, f64>>,
    #[serde(default)]
    probabilities: BTreeMap<String, f64>,
    /// Instead of probabilities, for a model of quantities.
    #[serde(default)]
    quantities: BTreeMap<String, f64>,
    outcome: String,
}

/// Loads every model; see [`load_models`].
pub(super) async fn models(config: &Config) -> Result<Vec<Served>> {
    Ok(load_models(config.clone()).await?.0)
}

/// Runs one case of a model. Returns the largest difference from the expected probabilities.
pub(super) async fn run(served: &Served, case: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(case.join("expected.json"))?;
    let expected: Expected = serde_json::from_str(&text).context("expected.json")?;
    let mut paths: Vec<_> = std::fs::read_dir(case)?
        .filter_map(|item| item.ok().map(|item| item.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "dcm"))
        .collect();
    paths.sort();
    ensure!(!paths.is_empty(), "the case has no .dcm file");
    let files = paths
        .iter()
        .map(|path| DicomFile::read(path, &ReadLimits::default()).context("input"))
        .collect::<Result<Vec<_>>>()?;
    let manifest = &served.package.manifest;
    let mut heard = Heard::new();
    for (name, labels) in &expected.upstream {
        for (label, number) in labels {
            let (name, label) = (name.clone(), label.clone());
            heard.insert(ModelOutput { name, label }, *number);
        }
    }
    let findings = match manifest.is_ensemble_of_models() {
        true => findings::ensemble::read(manifest, &heard)?,
        false => ask_all(served, &files, &heard).await?,
    };
    let mut worst: f64 = 0.0;
    for finding in &findings {
        let measured = finding.measurements.first().map(|measured| measured.value);
        let (numbers, found) = match finding.probability {
            Some(probability) => (&expected.probabilities, Some(probability)),
            None => (&expected.quantities, measured),
        };
        let (Some(wanted), Some(found)) = (numbers.get(&finding.label), found) else {
            bail!("expected.json has no number of `{}`", finding.label);
        };
        worst = worst.max((found - wanted).abs());
    }
    let outcome = crate::findings::Outcome::of(findings);
    ensure!(
        outcome.as_str() == expected.outcome,
        "outcome is {}, expected {}",
        outcome.as_str(),
        expected.outcome
    );
    ensure!(
        worst <= expected.tolerance,
        "differs by {worst:.2e}, allowed is {:.0e}",
        expected.tolerance
    );
    Ok(worst)
}

/// What the model's own graphs make of the files of a case.
async fn ask_all(served: &Served, files: &[DicomFile], heard: &Heard) -> Result<Vec<Finding>> {
    let manifest = &served.package.manifest;
    let alone = |inputs: Vec<(Tensor, Option<Placement>)>| {
        let alone = |(tensor, placement)| (vec![tensor], placement);
        inputs.into_iter().map(alone).collect()
    };
    let inputs: Vec<(Vec<Tensor>, Option<Placement>)> = if manifest.input.len() > 1 {
        vec![(roles::sample(manifest, files)?, None)]
    } else {
        alone(match manifest.input().map_err(anyhow::Error::msg)?.1 {
            InputSpec::Features(wanted) => vec![(features::row(files, &wanted, heard)?, None)],
            InputSpec::Volume(spec) => roles::volumes(&files.iter().collect::<Vec<_>>(), &spec)?,
            InputSpec::Image(spec) => files
                .iter()
                .map(|file| {
                    let frames = pixel::Frames::open(file, &pixel::Limits::default())?;
                    let placement = pixel::placement(&frames, 0, &spec);
                    let tensor = pixel::prepare(&frames, 0, &spec)?;
                    Ok((tensor, Some(Placement::Image(placement))))
                })
                .collect::<Result<Vec<_>>>()?,
        })
    };
    let mut samples = Vec::new();
    let turn = Arc::new(Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    });
    for (tensors, placement) in inputs {
        let engine = served.engines.first().context("the model has no graph")?;
        let slot = engine.slot(&turn).await?;
        let asked = ask(&served.engines, manifest, &turn, slot, tensors).await?;
        samples.push(Sample {
            answers: asked.said,
            location: None,
            placement,
        });
    }
    Ok(findings::read(manifest, &samples)?.findings)
}
