//! The sample of a model of several inputs from the files of a golden case, without a pipeline.

use anyhow::{Context, Result, anyhow, bail, ensure};
use dicom::dictionary_std::tags;

use crate::dicom::dataset::DicomFile;
use crate::dicom::uid::SopInstanceUid;
use crate::model::selection::{Candidate, Instance, Known, judge, select};
use crate::model::{InputSpec, Manifest, Placement, Tensor, VolumeSpec};
use crate::pixel;
use crate::volume;

/// One tensor per `[[input]]`, in the manifest's order.
pub(super) fn sample(manifest: &Manifest, files: &[DicomFile]) -> Result<Vec<Tensor>> {
    let candidates = files.iter().filter_map(|file| {
        let known = Known::of_file(file);
        let instance = Instance {
            known: &known,
            data_set: file.data_set(),
        };
        let text = |tag| {
            let text = file.data_set().str(tag);
            text.map(|text| text.into_owned()).unwrap_or_default()
        };
        Some(Candidate {
            item: file,
            series: text(tags::SERIES_INSTANCE_UID),
            instance: text(tags::SOP_INSTANCE_UID),
            fit: judge(manifest, &instance)?,
        })
    });
    let selected =
        select(manifest, candidates.collect()).map_err(|(refusal, _)| anyhow!(refusal))?;
    if let Some(reason) = selected.reason {
        bail!(reason);
    }
    let inputs = manifest.inputs().map_err(anyhow::Error::msg)?;
    let mut tensors = Vec::new();
    for (input, files) in inputs.iter().zip(&selected.roles) {
        tensors.push(match &input.spec {
            InputSpec::Image(spec) => {
                let file = files.first().context("no image")?;
                let frames = pixel::Frames::open(file, &pixel::Limits::default())?;
                pixel::prepare(&frames, 0, spec)?
            }
            InputSpec::Volume(spec) => {
                let mut volumes = volumes(files, spec)?;
                ensure!(volumes.len() == 1, "{} volumes", volumes.len());
                volumes.pop().context("no volume")?.0
            }
            InputSpec::Features(_) => bail!("features cannot be one of several inputs"),
        });
    }
    Ok(tensors)
}

/// The volumes of one series.
pub(super) fn volumes(
    files: &[&DicomFile],
    spec: &VolumeSpec,
) -> Result<Vec<(Tensor, Option<Placement>)>> {
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
