//! Golden cases: inputs beside a model, with the probabilities that Python computed for them.
//!
//! Pixels go through the decoding processes, as those of studies do: a case that a codec dies of ends
//! a process and not the gateway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::Served;
use crate::decoder::{Decoders, Source};
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::features;
use crate::findings::{self, Said, Sample};
use crate::inference::Turn;
use crate::model::manifest::Priority;
use crate::model::{InputSpec, Package, Tensor, VolumeSpec};
use crate::refusal::Refusal;
use crate::volume;

/// Largest `expected.json`.
const MAX_EXPECTED: u64 = 1 << 20;

/// `expected.json` of a case.
#[derive(Debug, Deserialize)]
struct Expected {
    tolerance: f64,
    probabilities: BTreeMap<String, f64>,
    outcome: String,
}

/// Runs one case of a model. Returns the largest difference from the expected probabilities.
///
/// # Errors
/// A case that is incomplete, that is refused, or that comes out otherwise.
pub async fn run(served: &Served, decoders: &Decoders, case: &Path) -> Result<f64> {
    let size = std::fs::metadata(case.join("expected.json"))?.len();
    ensure!(size <= MAX_EXPECTED, "expected.json is larger than 1 MiB");
    let text = std::fs::read_to_string(case.join("expected.json"))?;
    let expected: Expected = serde_json::from_str(&text).context("expected.json")?;
    let (package, decoders) = (Arc::clone(&served.package), decoders.clone());
    let case = case.to_owned();
    let tensors = spawn_blocking(move || tensors(&package, &decoders, &case)).await??;
    let manifest = &served.package.manifest;
    let mut samples = Vec::new();
    let turn = Turn {
        priority: Priority::Routine,
        modality: String::new(),
        study: 0,
    };
    for tensor in tensors {
        let slot = served.engine.slot(&turn).await?;
        let answer = served.engine.infer(slot, vec![tensor]).await?;
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

/// What a model would see of the files of a case. Blocking.
fn tensors(package: &Package, decoders: &Decoders, case: &Path) -> Result<Vec<Tensor>> {
    let mut paths: Vec<_> = std::fs::read_dir(case)?
        .filter_map(|item| item.ok().map(|item| item.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "dcm"))
        .collect();
    paths.sort();
    ensure!(!paths.is_empty(), "the case has no .dcm file");
    let read = |path: &PathBuf| DicomFile::read(path, &ReadLimits::default()).context("input");
    match package.manifest.input().map_err(anyhow::Error::msg)?.1 {
        InputSpec::Features(wanted) => {
            let files = paths.iter().map(read).collect::<Result<Vec<_>>>()?;
            Ok(vec![features::row(&files, &wanted)?])
        }
        InputSpec::Volume(spec) => {
            let files = paths.iter().map(read).collect::<Result<Vec<_>>>()?;
            volumes(&files, &paths, decoders, &spec)
        }
        InputSpec::Image(spec) => paths
            .iter()
            .map(|path| {
                let prepared = decoders.tensor(&source(path), 0, &spec, None)?;
                let nothing = || Refusal::new("no-pixel-data", "the file was passed over");
                Ok(prepared.ok_or_else(nothing)?.1)
            })
            .collect(),
    }
}

/// Never read by the gateway itself: nobody has looked at a golden case before.
fn source(path: &Path) -> Source {
    Source::new(path.to_owned(), "", u64::MAX)
}

/// The volumes of a case, its files being one series.
fn volumes(
    files: &[DicomFile],
    paths: &[PathBuf],
    decoders: &Decoders,
    spec: &VolumeSpec,
) -> Result<Vec<Tensor>> {
    let mut planes = Vec::new();
    for (index, file) in files.iter().enumerate() {
        planes.extend(volume::slices(file, index)?);
    }
    let mut tensors = Vec::new();
    for volume in volume::arrange(planes, spec)? {
        let mut grids = Vec::new();
        for (file, frame) in volume.planes() {
            let path = paths.get(*file).context("a plane of no file")?;
            grids.push(decoders.plane(&source(path), *frame, volume.plane())?);
        }
        tensors.push(volume.assemble(grids)?);
    }
    Ok(tensors)
}
