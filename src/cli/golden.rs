//! Golden cases: inputs beside a model, with the probabilities that Python computed for them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dicom::dictionary_std::tags;
use serde::Deserialize;

use crate::app::load_models;
use crate::config::Config;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::dicom::uid::SopInstanceUid;
use crate::features;
use crate::findings::{self, Said, Sample};
use crate::inference::Turn;
use crate::model::manifest::Priority;
use crate::model::{InputSpec, Placement, Tensor, VolumeSpec};
use crate::pipeline::Served;
use crate::pixel;
use crate::volume;

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
    let inputs = match manifest.input().map_err(anyhow::Error::msg)?.1 {
        InputSpec::Features(wanted) => vec![(features::row(&files, &wanted)?, None)],
        InputSpec::Volume(spec) => volumes(&files, &spec)?,
        InputSpec::Image(spec) => files
            .iter()
            .map(|file| {
                let frames = pixel::Frames::open(file, &pixel::Limits::default())?;
                let placement = pixel::placement(&frames, 0, &spec);
                let tensor = pixel::prepare(&frames, 0, &spec)?;
                Ok((tensor, Some(Placement::Image(placement))))
            })
            .collect::<Result<Vec<_>>>()?,
    };
    let mut samples = Vec::new();
    let turn = Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    };
    for (tensor, placement) in inputs {
        let slot = served.engine.slot(&turn).await?;
        let answer = served.engine.infer(slot, vec![tensor]).await?;
        samples.push(Sample {
            answers: vec![Said {
                outputs: answer.outputs,
                flip: None,
            }],
            location: None,
            placement,
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

/// The volumes of a case, its files being one series.
fn volumes(files: &[DicomFile], spec: &VolumeSpec) -> Result<Vec<(Tensor, Option<Placement>)>> {
    let mut planes = Vec::new();
    for (index, file) in files.iter().enumerate() {
        planes.extend(volume::slices(file, index)?);
    }
    let mut inputs = Vec::new();
    for volume in volume::arrange(planes, spec)? {
        let mut grids = Vec::new();
        for (file, frame) in volume.planes() {
            let file = files.get(*file).context("a plane of no file")?;
            let frames = pixel::Frames::open(file, &pixel::Limits::default())?;
            grids.push(volume::plane(&frames, *frame, volume.plane())?);
        }
        let placement = volume.placement(|file, frame| {
            let image = files.get(file)?.data_set().uid(tags::SOP_INSTANCE_UID)?;
            let image = SopInstanceUid::parse(&image).ok()?;
            Some((image, u32::try_from(frame + 1).ok()))
        });
        let placement = placement.map(|placement| Placement::Volume(Box::new(placement)));
        inputs.push((volume.assemble(grids)?, placement));
    }
    Ok(inputs)
}
