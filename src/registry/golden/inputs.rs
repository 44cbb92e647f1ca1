//! The files of a golden case as what a model is given. Blocking.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use dicom::dictionary_std::tags;

use crate::decoder::{Decoders, Source};
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::dicom::uid::{SeriesInstanceUid, SopInstanceUid};
use crate::features::{self, Heard};
use crate::findings::Location;
use crate::model::selection::{Candidate, Instance, Known, judge, select};
use crate::model::{ImageSpec, InputSpec, Manifest, Placement, Tensor, VolumeSpec};
use crate::volume;

/// One sample.
pub(super) struct Input {
    /// One per `[[input]]`.
    pub tensors: Vec<Tensor>,
    pub location: Option<Location>,
    pub placement: Option<Placement>,
}

/// A file of a case.
struct File {
    path: PathBuf,
    content: DicomFile,
}

/// The samples of a case, of images the first frame of each. The names of files are the order.
pub(super) fn of(
    manifest: &Manifest,
    decoders: &Decoders,
    case: &Path,
    heard: &Heard,
) -> Result<Vec<Input>> {
    let files = files(case)?;
    let all: Vec<&File> = files.iter().collect();
    if manifest.input.len() > 1 {
        return Ok(vec![by_role(manifest, decoders, &all)?]);
    }
    match manifest.input().map_err(anyhow::Error::msg)?.1 {
        InputSpec::Features(wanted) => {
            let contents: Vec<DicomFile> = files.into_iter().map(|file| file.content).collect();
            Ok(vec![Input {
                tensors: vec![features::row(&contents, &wanted, heard)?],
                location: None,
                placement: None,
            }])
        }
        InputSpec::Volume(spec) => volumes(decoders, &all, &spec),
        InputSpec::Image(spec) => all
            .iter()
            .map(|file| image(decoders, file, &spec))
            .collect(),
    }
}

fn files(case: &Path) -> Result<Vec<File>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(case)?
        .filter_map(|item| item.ok().map(|item| item.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "dcm"))
        .collect();
    paths.sort();
    ensure!(!paths.is_empty(), "the case has no .dcm file");
    let read = |path: PathBuf| {
        let content = DicomFile::read(&path, &ReadLimits::default()).context("input")?;
        Ok(File { path, content })
    };
    paths.into_iter().map(read).collect()
}

/// One sample of several series, each in its role.
fn by_role(manifest: &Manifest, decoders: &Decoders, files: &[&File]) -> Result<Input> {
    let candidates = files.iter().filter_map(|file| {
        let known = Known::of_file(&file.content);
        let data_set = file.content.data_set();
        let instance = Instance {
            known: &known,
            data_set,
        };
        let text = |tag| {
            let text = data_set.str(tag);
            text.map(|text| text.into_owned()).unwrap_or_default()
        };
        Some(Candidate {
            item: *file,
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
    let mut whole: Option<Input> = None;
    let inputs = manifest.inputs().map_err(anyhow::Error::msg)?;
    for (input, files) in inputs.iter().zip(&selected.roles) {
        let part = match &input.spec {
            InputSpec::Image(spec) => {
                let file = files.first().context("no image")?;
                image(decoders, file, spec)?
            }
            InputSpec::Volume(spec) => {
                let mut volumes = volumes(decoders, files, spec)?;
                ensure!(volumes.len() == 1, "{} volumes", volumes.len());
                volumes.pop().context("no volume")?
            }
            InputSpec::Features(_) => bail!("features cannot be one of several inputs"),
        };
        match &mut whole {
            // The sample is where its first input is.
            Some(whole) => whole.tensors.extend(part.tensors),
            None => whole = Some(part),
        }
    }
    whole.context("no input")
}

fn image(decoders: &Decoders, file: &File, spec: &ImageSpec) -> Result<Input> {
    let (facts, tensor) = decoders.tensor(&source(&file.path), 0, spec, false)?;
    Ok(Input {
        tensors: vec![tensor],
        location: Some(Location {
            series: series(&file.content),
            sop_instance: sop_instance(&file.content),
            frame: (facts.frames > 1).then_some(1),
            area: None,
        }),
        placement: facts.placement.map(Placement::Image),
    })
}

/// The volumes of one series.
fn volumes(decoders: &Decoders, files: &[&File], spec: &VolumeSpec) -> Result<Vec<Input>> {
    let mut planes = Vec::new();
    let mut multi_frame = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let slices = volume::slices(&file.content, index)?;
        multi_frame.push(slices.len() > 1);
        planes.extend(slices);
    }
    let mut inputs = Vec::new();
    for volume in volume::arrange(planes, spec)? {
        let mut grids = Vec::new();
        for (file, frame) in volume.planes() {
            let file = files.get(*file).context("a plane of no file")?;
            let (_, grid) = decoders.plane(&source(&file.path), *frame, volume.plane(), false)?;
            grids.push(grid);
        }
        let placement = volume.placement(|file, frame| {
            let image = sop_instance(&files.get(file)?.content)?;
            let frame = u32::try_from(frame + 1).ok();
            Some((
                image,
                frame.filter(|_| multi_frame.get(file) == Some(&true)),
            ))
        });
        inputs.push(Input {
            location: Some(Location {
                series: files.first().and_then(|file| series(&file.content)),
                sop_instance: None,
                frame: None,
                area: None,
            }),
            placement: placement.map(|placement| Placement::Volume(Box::new(placement))),
            tensors: vec![volume.assemble(grids)?],
        });
    }
    Ok(inputs)
}

/// Never read by the gateway itself: nobody has looked at a golden case before.
fn source(path: &Path) -> Source {
    Source::new(path.to_owned(), "", u64::MAX)
}

fn series(file: &DicomFile) -> Option<SeriesInstanceUid> {
    let uid = file.data_set().uid(tags::SERIES_INSTANCE_UID)?;
    SeriesInstanceUid::parse(&uid).ok()
}

fn sop_instance(file: &DicomFile) -> Option<SopInstanceUid> {
    let uid = file.data_set().uid(tags::SOP_INSTANCE_UID)?;
    SopInstanceUid::parse(&uid).ok()
}
