//! A model of volumes: the planes of each series as one.
//!
//! Headers first: they decide which planes a volume consists of, and whether it is one. Then the
//! planes are decoded, and put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::images::source;
use super::quality::{self, Flags};
use super::{Case, Run, Trace, candidates, conclude, decode, infer, keep, slot};
use crate::clock::Timestamp;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::findings::{Location, Outcome, Sample};
use crate::model::{Placement, Prepared, Tensor, VolumeSpec};
use crate::pixel::Statistics;
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};
use crate::volume::{Slice, Volume, arrange, slices};

/// Why a series gave no number.
pub(super) enum No {
    /// It is not what the model is for.
    Outside(Refusal),
    /// It should have worked.
    Failed(Refusal),
}

/// A series in front of the model.
pub(super) struct Series {
    entries: Vec<Arc<Entry>>,
    /// Whether each of them has several frames.
    multi_frame: Vec<bool>,
}

pub(super) async fn run(
    case: &Case,
    spec: &VolumeSpec,
    candidates: &[Arc<Entry>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Run {
    let mut by_series: BTreeMap<&str, Vec<Arc<Entry>>> = BTreeMap::new();
    for entry in candidates {
        let series = candidates::series(entry);
        by_series.entry(series).or_default().push(Arc::clone(entry));
    }
    let mut run = Run::new(
        Some(case.served.clone()),
        Outcome::NoFinding(Vec::new()),
        candidates.to_vec(),
    );
    let mut flags = Flags::default();
    let (mut samples, mut outside, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for entries in by_series.into_values() {
        let no = match plan(case, spec, &entries, &mut run, traces).await {
            Ok((series, volumes)) => {
                look(
                    case,
                    volumes,
                    &series,
                    &mut run,
                    &mut flags,
                    traces,
                    &mut samples,
                )
                .await
            }
            Err(no) => Some(no),
        };
        match no {
            Some(No::Outside(refusal)) => outside.push(refusal),
            Some(No::Failed(refusal)) => failed.push(refusal),
            None => {}
        }
    }
    // A scout beside the series that the model is for is no reason to say less about that one.
    if !samples.is_empty() || !failed.is_empty() {
        outside.retain(|refusal| refusal.code != "too-few-planes");
    }
    run.remarks.extend(flags.remarks());
    let only_outside = failed.is_empty();
    failed.append(&mut outside);
    let (outcome, drafts) = conclude(&case.served, &samples, failed);
    run.outcome = match outcome {
        Outcome::Failed(refusal) if only_outside => Outcome::Skipped(refusal),
        outcome => outcome,
    };
    keep::drafts(case, &drafts, &mut run).await;
    run
}

/// The volumes of one series.
pub(super) async fn plan(
    case: &Case,
    spec: &VolumeSpec,
    entries: &[Arc<Entry>],
    run: &mut Run,
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Result<(Series, Vec<Volume>), No> {
    let (mut planes, mut unreadable) = (Vec::new(), None);
    let mut multi_frame = vec![false; entries.len()];
    for (index, header) in headers(case, entries).await.into_iter().enumerate() {
        match header {
            Ok(slices) => {
                if let Some(several) = multi_frame.get_mut(index) {
                    *several = slices.len() > 1;
                }
                planes.extend(slices.into_iter().map(|slice| Slice {
                    file: index,
                    ..slice
                }));
            }
            Err(refusal) => {
                run.refused += 1;
                if let Some(entry) = entries.get(index) {
                    traces.entry(entry.id).or_default().refusal = Some(refusal.code);
                }
                unreadable.get_or_insert(refusal);
            }
        }
    }
    // A volume without one of its planes would be another volume.
    if let Some(refusal) = unreadable {
        return Err(match refusal.code.starts_with("geometry-") {
            true => No::Outside(refusal),
            false => No::Failed(refusal),
        });
    }
    let volumes = arrange(planes, spec).map_err(|refusal| {
        for entry in entries {
            traces.entry(entry.id).or_default().refusal = Some(refusal.code);
        }
        match refusal.code {
            "too-large" => No::Failed(refusal),
            _ => No::Outside(refusal),
        }
    })?;
    let series = Series {
        entries: entries.to_vec(),
        multi_frame,
    };
    Ok((series, volumes))
}

/// The header of every instance as slices.
async fn headers(case: &Case, entries: &[Arc<Entry>]) -> Vec<Result<Vec<Slice>, Refusal>> {
    let work = entries.iter().map(|entry| {
        let path = case.pipeline.spool.path(entry.id);
        move || slices(&DicomFile::read(&path, &ReadLimits::default())?, 0)
    });
    let read = in_order(case, work).await;
    read.into_iter().map(|(header, _)| header).collect()
}

/// Shows the volumes of a series to the model, one after the other.
async fn look(
    case: &Case,
    volumes: Vec<Volume>,
    series: &Series,
    run: &mut Run,
    flags: &mut Flags,
    traces: &mut BTreeMap<EntryId, Trace>,
    samples: &mut Vec<Sample>,
) -> Option<No> {
    let manifest = &case.served.package.manifest;
    let mut no = None;
    for volume in volumes {
        // As many volumes are in memory as the model's queue has places.
        let slot = match slot(case).await {
            Ok(slot) => slot,
            Err(refusal) => {
                no = Some(No::Failed(refusal));
                continue;
            }
        };
        let made = match assemble(case, volume, series, run, traces).await {
            Ok(made) => made,
            Err(refusal) => {
                no = Some(No::Failed(refusal));
                continue;
            }
        };
        if let Some(statistics) = &made.statistics {
            flags.look(manifest, statistics);
            if let Some(refusal) = quality::leaves_out(manifest, statistics) {
                for entry in &made.entries {
                    traces.entry(entry.id).or_default().refusal = Some(refusal.code);
                }
                run.refused += made.entries.len();
                no.get_or_insert(No::Outside(refusal));
                continue;
            }
        }
        match infer(case, slot, vec![made.tensor]).await {
            Ok((answers, answer)) => {
                run.prepared.push(made.prepared);
                run.queued = run.queued.max(answer.queued);
                run.inferred = run.inferred.max(answer.ran);
                let now = Some(Timestamp::now());
                for entry in &made.entries {
                    traces.entry(entry.id).or_default().inferred_at = now;
                }
                let sample = Sample {
                    answers,
                    placement: made.placement,
                    location: Some(made.location),
                };
                match run.hold(&sample) {
                    Ok(()) => samples.push(sample),
                    Err(refusal) => no = Some(No::Failed(refusal)),
                }
            }
            Err(refusal) => no = Some(No::Failed(refusal)),
        }
    }
    no
}

/// A volume as a tensor.
pub(super) struct Made {
    pub tensor: Tensor,
    pub prepared: Prepared,
    pub location: Location,
    pub placement: Option<Placement>,
    /// Over its planes, before they were resampled.
    pub statistics: Option<Statistics>,
    /// The instances of its planes.
    pub entries: Vec<Arc<Entry>>,
}

/// Decodes the planes of a volume and puts them together.
pub(super) async fn assemble(
    case: &Case,
    volume: Volume,
    of: &Series,
    run: &mut Run,
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Result<Made, Refusal> {
    let plane = Arc::new(volume.plane().clone());
    let measure = !case.served.package.manifest.quality.is_empty();
    let missing = || Refusal::new("internal-error", "a plane of no instance");
    let planned: Vec<Arc<Entry>> = volume
        .planes()
        .iter()
        .map(|(file, _)| of.entries.get(*file).cloned().ok_or_else(missing))
        .collect::<Result<_, _>>()?;
    let work = planned
        .iter()
        .zip(volume.planes())
        .map(|(entry, (_, frame))| {
            let source = source(&case.pipeline, entry);
            let (decoders, plane, frame) =
                (case.pipeline.decoders.clone(), Arc::clone(&plane), *frame);
            move || decoders.plane(&source, frame, &plane, measure)
        });
    let decoded = in_order(case, work).await;
    let now = Some(Timestamp::now());
    let (mut grids, mut statistics, mut first) = (Vec::new(), None::<Statistics>, None);
    for (entry, (grid, took)) in planned.iter().zip(decoded) {
        let trace = traces.entry(entry.id).or_default();
        run.decoded += took;
        match grid {
            Ok((facts, grid)) => {
                case.pipeline
                    .metrics
                    .prepare_duration_seconds
                    .observe(took.as_secs_f64());
                trace.decoded_at = now;
                statistics = match (statistics, facts.statistics) {
                    (Some(all), Some(one)) => Some(all.and(one)),
                    (all, one) => all.or(one),
                };
                grids.push(grid);
            }
            Err(refusal) => {
                run.refused += usize::from(trace.refusal.is_none());
                trace.refusal = Some(refusal.code);
                first.get_or_insert(refusal);
            }
        }
    }
    if let Some(refusal) = first {
        return Err(refusal);
    }
    let series = planned.first().and_then(|entry| entry.series.clone());
    let placement = volume.placement(|file, frame| {
        let frame = u32::try_from(frame + 1).unwrap_or(u32::MAX);
        let image = of.entries.get(file)?.arrival.sop_instance.clone();
        Some((image, of.multi_frame.get(file)?.then_some(frame)))
    });
    let ((prepared, tensor), took) = decode(case, move || {
        let tensor = volume.assemble(grids)?;
        Ok((Prepared::of(std::slice::from_ref(&tensor)), tensor))
    })
    .await?;
    run.decoded += took;
    Ok(Made {
        tensor,
        prepared,
        statistics,
        entries: planned,
        placement: placement.map(|placement| Placement::Volume(Box::new(placement))),
        location: Location {
            series,
            sop_instance: None,
            frame: None,
            area: None,
        },
    })
}

/// Runs each piece of work off the runtime, as many at a time as there are decoders, and gives the
/// results with their times in the order of the work.
async fn in_order<T: Send + 'static, F>(
    case: &Case,
    work: impl Iterator<Item = F>,
) -> Vec<(Result<T, Refusal>, Duration)>
where
    F: FnOnce() -> Result<T, Refusal> + Send + 'static,
{
    let window = 2 * case.pipeline.decoders.count();
    let (mut tasks, mut done) = (JoinSet::new(), BTreeMap::new());
    let mut count = 0;
    for (index, work) in work.enumerate() {
        while tasks.len() >= window {
            done.extend(tasks.join_next().await.and_then(Result::ok));
        }
        let case = case.clone();
        tasks.spawn(async move {
            let outcome = match decode(&case, work).await {
                Ok((value, took)) => (Ok(value), took),
                Err(refusal) => (Err(refusal), Duration::ZERO),
            };
            (index, outcome)
        });
        count = index + 1;
    }
    while let Some(ended) = tasks.join_next().await {
        done.extend(ended.ok());
    }
    let abnormal = || Refusal::new("internal-error", "decoding ended abnormally");
    (0..count)
        .map(|index| {
            done.remove(&index)
                .unwrap_or_else(|| (Err(abnormal()), Duration::ZERO))
        })
        .collect()
}
