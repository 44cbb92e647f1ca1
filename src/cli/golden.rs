//! Golden cases: inputs beside a model, with the probabilities that Python computed for them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::roles;

use crate::app::load_models;
use crate::config::Config;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::features;
use crate::findings::{self, Said, Sample};
use crate::inference::Turn;
use crate::model::manifest::Priority;
use crate::model::{InputSpec, Tensor};
use crate::pipeline::Served;
use crate::pixel;

/// `expected.json` of a case.
#[derive(Debug, Deserialize)]
pub(super) struct Expected {
    tolerance: f64,
    probabilities: BTreeMap<String, f64>,
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
    let several = manifest.input.len() > 1;
    let samples_of = |tensors: Vec<Tensor>| tensors.into_iter().map(|tensor| vec![tensor]);
    let tensors: Vec<Vec<Tensor>> = if several {
        vec![roles::sample(manifest, &files)?]
    } else {
        samples_of(match manifest.input().map_err(anyhow::Error::msg)?.1 {
            InputSpec::Features(wanted) => vec![features::row(&files, &wanted)?],
            InputSpec::Volume(spec) => roles::volumes(&files.iter().collect::<Vec<_>>(), &spec)?,
            InputSpec::Image(spec) => files
                .iter()
                .map(|file| {
                    let frames = pixel::Frames::open(file, &pixel::Limits::default())?;
                    pixel::prepare(&frames, 0, &spec)
                })
                .collect::<Result<Vec<_>, _>>()?,
        })
        .collect()
    };
    let mut samples = Vec::new();
    let turn = Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    };
    for tensors in tensors {
        let slot = served.engine.slot(&turn).await?;
        let answer = served.engine.infer(slot, tensors).await?;
        samples.push(Sample {
            answers: vec![Said {
                outputs: answer.outputs,
                flip: None,
            }],
            location: None,
            placement: None,
        });
    }
    let findings = findings::read(manifest, &samples)?.findings;
    let mut worst: f64 = 0.0;
    for finding in &findings {
        let Some(wanted) = expected.probabilities.get(&finding.label) else {
            bail!("expected.json has no probability of `{}`", finding.label);
        };
        worst = worst.max((finding.probability.unwrap_or(f64::NAN) - wanted).abs());
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
