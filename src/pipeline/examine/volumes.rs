//! A model of volumes: the planes of each series as one.
//!
//! Headers first: they decide which planes a volume consists of, and whether it is one. Then the
//! planes are decoded, and put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::images::{known, source};
use super::{Case, Run, Trace, conclude, decode, infer, slot};
use crate::clock::Timestamp;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::findings::{Location, Outcome, Sample};
use crate::model::selection::Condition;
use crate::model::{Prepared, VolumeSpec};
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};
use crate::volume::{Slice, Volume, arrange, slices};

/// Why a series gave no number.
enum No {
    /// It is not what the model is for.
    Outside(Refusal),
    /// It should have worked.
    Failed(Refusal),
}

/// A series in front of the model.
#[derive(Default)]
struct Series {
    entries: Vec<Arc<Entry>>,
    samples: Vec<Sample>,
    no: Option<No>,
}

pub(super) async fn run(
    case: &Case,
    spec: &VolumeSpec,
    candidates: &[Arc<Entry>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Option<Run> {
    let mut by_series: BTreeMap<&str, Vec<Arc<Entry>>> = BTreeMap::new();
    for entry in candidates {
        let series = entry.series.as_ref().map_or("", |uid| uid.as_str());
        by_series.entry(series).or_default().push(Arc::clone(entry));
    }
    let mut run = Run::new(
        Some(case.served.clone()),
        Outcome::NoFinding(Vec::new()),
        Vec::new(),
    );
    let (mut samples, mut outside, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for entries in by_series.into_values() {
        let series = series(case, spec, entries, &mut run, traces).await;
        run.inputs.extend(series.entries);
        samples.extend(series.samples);
        match series.no {
            Some(No::Outside(refusal)) => outside.push(refusal),
            Some(No::Failed(refusal)) => failed.push(refusal),
            None => {}
        }
    }
    // A scout beside the series that the model is for is no reason to say less about that one.
    if !samples.is_empty() || !failed.is_empty() {
        outside.retain(|refusal| refusal.code != "too-few-planes");
    }
    if run.inputs.is_empty() {
        return None;
    }
    let only_outside = failed.is_empty();
    failed.append(&mut outside);
    run.outcome = match conclude(&case.served, run.inputs.len(), &samples, failed) {
        Outcome::Failed(refusal) if only_outside => Outcome::Skipped(refusal),
        outcome => outcome,
    };
    Some(run)
}

async fn series(
    case: &Case,
    spec: &VolumeSpec,
    entries: Vec<Arc<Entry>>,
    run: &mut Run,
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Series {
    let mut series = Series::default();
    let (mut planes, mut unreadable) = (Vec::new(), None);
    for (entry, header) in headers(case, &entries).await {
        match header {
            // Not of this model, or a report among the images.
            Ok(None) => continue,
            Err(refusal) if refusal.code == "no-pixel-data" => continue,
            Ok(Some(slices)) => planes.extend(slices.into_iter().map(|slice| Slice {
                file: series.entries.len(),
                ..slice
            })),
            Err(refusal) => {
                run.refused += 1;
                traces.entry(entry.id).or_default().refusal = Some(refusal.code);
                unreadable.get_or_insert(refusal);
            }
        }
        series.entries.push(entry);
    }
    if series.entries.is_empty() {
        return series;
    }
    // A volume without one of its planes would be another volume.
    if let Some(refusal) = unreadable {
        series.no = Some(match refusal.code.starts_with("geometry-") {
            true => No::Outside(refusal),
            false => No::Failed(refusal),
        });
        return series;
    }
    let volumes = match arrange(planes, spec) {
        Ok(volumes) => volumes,
        Err(refusal) => {
            for entry in &series.entries {
                traces.entry(entry.id).or_default().refusal = Some(refusal.code);
            }
            series.no = Some(match refusal.code {
                "too-large" => No::Failed(refusal),
                _ => No::Outside(refusal),
            });
            return series;
        }
    };
    for volume in volumes {
        match look(case, volume, &series.entries, run, traces).await {
            Ok(sample) => series.samples.push(sample),
            Err(refusal) => series.no = Some(No::Failed(refusal)),
        }
    }
    series
}

/// The header of every instance as slices; `None` where the model does not apply to it.
async fn headers(
    case: &Case,
    entries: &[Arc<Entry>],
) -> Vec<(Arc<Entry>, Result<Option<Vec<Slice>>, Refusal>)> {
    let work = entries.iter().map(|entry| {
        let path = case.pipeline.spool.path(entry.id);
        let condition = Condition {
            applies_to: case.served.package.manifest.applies_to.clone(),
            known: known(entry),
        };
        move || {
            let file = DicomFile::read(&path, &ReadLimits::default())?;
            if !condition.holds(file.data_set()) {
                return Ok(None);
            }
            slices(&file, 0).map(Some)
        }
    });
    let read = in_order(case, work).await;
    entries
        .iter()
        .cloned()
        .zip(read.into_iter().map(|(header, _)| header))
        .collect()
}

async fn look(
    case: &Case,
    volume: Volume,
    entries: &[Arc<Entry>],
    run: &mut Run,
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Result<Sample, Refusal> {
    // As many volumes are in memory as the model's queue has places.
    let slot = slot(case).await?;
    let plane = Arc::new(volume.plane().clone());
    let missing = || Refusal::new("internal-error", "a plane of no instance");
    let planned: Vec<&Arc<Entry>> = volume
        .planes()
        .iter()
        .map(|(file, _)| entries.get(*file).ok_or_else(missing))
        .collect::<Result<_, _>>()?;
    let work = planned
        .iter()
        .zip(volume.planes())
        .map(|(entry, (_, frame))| {
            let source = source(&case.pipeline, entry);
            let (decoders, plane, frame) =
                (case.pipeline.decoders.clone(), Arc::clone(&plane), *frame);
            move || decoders.plane(&source, frame, &plane)
        });
    let decoded = in_order(case, work).await;
    let now = Some(Timestamp::now());
    let (mut grids, mut first) = (Vec::new(), None);
    for (entry, (grid, took)) in planned.iter().zip(decoded) {
        let trace = traces.entry(entry.id).or_default();
        run.decoded += took;
        match grid {
            Ok(grid) => {
                case.pipeline
                    .metrics
                    .prepare_duration_seconds
                    .observe(took.as_secs_f64());
                trace.decoded_at = now;
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
    let ids: Vec<EntryId> = planned.iter().map(|entry| entry.id).collect();
    let series = planned.first().and_then(|entry| entry.series.clone());
    let ((prepared, tensors), took) = decode(case, move || {
        let tensors = vec![volume.assemble(grids)?];
        Ok((Prepared::of(&tensors), tensors))
    })
    .await?;
    run.decoded += took;
    let (answers, answer) = infer(case, slot, tensors).await?;
    run.prepared.push(prepared);
    run.queued = run.queued.max(answer.queued);
    run.inferred = run.inferred.max(answer.ran);
    let now = Some(Timestamp::now());
    for id in ids {
        traces.entry(id).or_default().inferred_at = now;
    }
    Ok(Sample {
        answers,
        placement: None,
        location: Some(Location {
            series,
            sop_instance: None,
            frame: None,
            area: None,
        }),
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
