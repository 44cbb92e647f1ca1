//! A study in front of every model: which apply, what they see, what they say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom::dictionary_std::tags;
use tokio::task::{JoinSet, spawn_blocking};

use super::{Pipeline, Served};
use crate::clock::Timestamp;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::features;
use crate::findings::classification::{self, Sample};
use crate::findings::{Location, Outcome};
use crate::inference::{Answer, InferenceError};
use crate::model::selection::Attributes;
use crate::model::{ImageSpec, InputSpec, Tensor};
use crate::pixel;
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

/// A report of features is looked for in this many instances at most.
const MAX_FEATURE_FILES: usize = 256;

/// What became of a study.
pub(super) struct Examined {
    /// One per message.
    pub runs: Vec<Run>,
    /// What became of each instance.
    pub instances: BTreeMap<EntryId, Trace>,
    /// Attributes of the study, from its first readable instance.
    pub header: Header,
}

/// One model and the study.
pub(super) struct Run {
    /// The model; none when no model applies.
    pub model: Option<Served>,
    /// What it said.
    pub outcome: Outcome,
    /// The instances it looked at.
    pub inputs: Vec<Arc<Entry>>,
    /// Instances it should have looked at and could not.
    pub refused: usize,
    /// Time from files to tensors, added up.
    pub decoded: Duration,
    /// Longest wait for a batch.
    pub queued: Duration,
    /// Longest run that carried a sample of this study.
    pub inferred: Duration,
}

/// The way of one instance.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trace {
    pub decoded_at: Option<Timestamp>,
    pub inferred_at: Option<Timestamp>,
    pub refusal: Option<&'static str>,
}

/// Attributes that messages may carry.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    pub study_date: Option<String>,
}

impl Run {
    pub fn new(model: Option<Served>, outcome: Outcome, inputs: Vec<Arc<Entry>>) -> Self {
        Self {
            model,
            outcome,
            inputs,
            refused: 0,
            decoded: Duration::ZERO,
            queued: Duration::ZERO,
            inferred: Duration::ZERO,
        }
    }
}

impl Examined {
    /// A study that is not tried again.
    pub fn given_up(entries: &[Arc<Entry>], refusal: Refusal) -> Self {
        let trace = Trace {
            refusal: Some(refusal.code),
            ..Trace::default()
        };
        Self {
            instances: entries.iter().map(|entry| (entry.id, trace)).collect(),
            runs: vec![Run::new(None, Outcome::Failed(refusal), entries.to_vec())],
            header: Header::default(),
        }
    }
}

/// Runs every model that applies; a study without one is skipped with that reason.
pub(super) async fn examine(pipeline: &Arc<Pipeline>, entries: &[Arc<Entry>]) -> Examined {
    let mut examined = Examined {
        runs: Vec::new(),
        instances: BTreeMap::new(),
        header: header(pipeline, entries).await,
    };
    for served in &pipeline.models {
        let manifest = &served.package.manifest;
        let candidates: Vec<Arc<Entry>> = entries
            .iter()
            .filter(|entry| {
                let sop_class = entry.arrival.sop_class.as_str();
                manifest
                    .applies_to
                    .may_accept(&entry.modality, &entry.body_part, sop_class)
            })
            .cloned()
            .collect();
        if candidates.is_empty() {
            continue;
        }
        let run = match manifest.input() {
            Ok((_, InputSpec::Image(spec))) => {
                images(
                    pipeline,
                    served,
                    &spec,
                    &candidates,
                    &mut examined.instances,
                )
                .await
            }
            Ok((_, InputSpec::Features(_))) => {
                table(pipeline, served, &candidates, &mut examined.instances).await
            }
            Ok((_, InputSpec::Volume(_))) => Some(Run::new(
                Some(served.clone()),
                Outcome::Failed(Refusal::new("model-input", "volumes are not served yet")),
                candidates,
            )),
            // Manifests are validated at load.
            Err(reason) => Some(Run::new(
                Some(served.clone()),
                Outcome::Failed(Refusal::new("model-manifest", reason)),
                candidates,
            )),
        };
        examined.runs.extend(run);
    }
    if examined.runs.is_empty() {
        let refusal = Refusal::new("no-model-applies", "no model applies to any instance");
        examined
            .runs
            .push(Run::new(None, Outcome::Skipped(refusal), entries.to_vec()));
    }
    examined
}

/// What one image led to.
enum Seen {
    /// The manifest's conditions on the file do not hold, or it has no pixels.
    NotApplicable,
    Refused(Refusal),
    Answered(Vec<Sample>),
}

struct Image {
    seen: Seen,
    decoded: Duration,
    queued: Duration,
    inferred: Duration,
}

async fn images(
    pipeline: &Arc<Pipeline>,
    served: &Served,
    spec: &ImageSpec,
    candidates: &[Arc<Entry>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Option<Run> {
    let mut tasks = JoinSet::new();
    let mut images: BTreeMap<usize, Image> = BTreeMap::new();
    // Enough to fill batches while others decode; the engine's slots bound what is in memory.
    let window = 2 * served.engine.max_batch() + 2;
    for (index, entry) in candidates.iter().enumerate() {
        while tasks.len() >= window {
            collect(tasks.join_next().await, &mut images);
        }
        let (pipeline, served) = (Arc::clone(pipeline), served.clone());
        let (spec, entry) = (spec.clone(), Arc::clone(entry));
        tasks.spawn(async move { (index, image(&pipeline, &served, spec, &entry).await) });
    }
    while !tasks.is_empty() {
        collect(tasks.join_next().await, &mut images);
    }
    let mut run = Run::new(
        Some(served.clone()),
        Outcome::NoFinding(Vec::new()),
        Vec::new(),
    );
    let mut samples = Vec::new();
    let mut refusals = Vec::new();
    let now = Timestamp::now();
    for (index, entry) in candidates.iter().enumerate() {
        // A task that ended by a panic has left no image: that is a refusal too.
        let image = images.remove(&index).unwrap_or_else(|| Image {
            seen: Seen::Refused(Refusal::new("internal-error", "decoding ended abnormally")),
            decoded: Duration::ZERO,
            queued: Duration::ZERO,
            inferred: Duration::ZERO,
        });
        run.decoded += image.decoded;
        run.queued = run.queued.max(image.queued);
        run.inferred = run.inferred.max(image.inferred);
        let trace = traces.entry(entry.id).or_default();
        match image.seen {
            Seen::NotApplicable => continue,
            Seen::Refused(refusal) => {
                trace.refusal = Some(refusal.code);
                refusals.push(refusal);
            }
            Seen::Answered(answered) => {
                trace.decoded_at = Some(now);
                trace.inferred_at = Some(now);
                samples.extend(answered);
            }
        }
        run.inputs.push(Arc::clone(entry));
    }
    if run.inputs.is_empty() {
        return None;
    }
    run.refused = refusals.len();
    run.outcome = conclude(served, run.inputs.len(), &samples, refusals);
    Some(run)
}

fn collect(
    ended: Option<Result<(usize, Image), tokio::task::JoinError>>,
    images: &mut BTreeMap<usize, Image>,
) {
    if let Some(Ok((index, image))) = ended {
        images.insert(index, image);
    }
}

/// A label that is present stands even when other images were refused. "Nothing there" does not: it
/// would speak of images that no model has seen.
fn conclude(served: &Served, inputs: usize, samples: &[Sample], refusals: Vec<Refusal>) -> Outcome {
    let manifest = &served.package.manifest;
    if inputs < manifest.applies_to.min_instances {
        return Outcome::Skipped(Refusal::new(
            "too-few-instances",
            format!(
                "{inputs} instances, the model needs {}",
                manifest.applies_to.min_instances
            ),
        ));
    }
    let refused = refusals.into_iter().next();
    if samples.is_empty() {
        let nothing = || Refusal::new("no-pixel-data", "no image could be looked at");
        return Outcome::Failed(refused.unwrap_or_else(nothing));
    }
    let findings = classification::read(&manifest.output, manifest.applies_to.level, samples);
    match (findings.map(Outcome::of), refused) {
        (Err(refusal), _) | (Ok(Outcome::NoFinding(_)), Some(refusal)) => Outcome::Failed(refusal),
        (Ok(outcome), _) => outcome,
    }
}

/// Every frame of one instance, from its file to the model's numbers.
async fn image(
    pipeline: &Arc<Pipeline>,
    served: &Served,
    spec: ImageSpec,
    entry: &Arc<Entry>,
) -> Image {
    let mut image = Image {
        seen: Seen::NotApplicable,
        decoded: Duration::ZERO,
        queued: Duration::ZERO,
        inferred: Duration::ZERO,
    };
    image.seen = match frames(pipeline, served, spec, entry, &mut image).await {
        Ok(None) => Seen::NotApplicable,
        Ok(Some(samples)) => Seen::Answered(samples),
        // Reports and presentation states share modality and body part with the images.
        Err(refusal) if refusal.code == "no-pixel-data" => Seen::NotApplicable,
        Err(refusal) => Seen::Refused(refusal),
    };
    image
}

async fn frames(
    pipeline: &Arc<Pipeline>,
    served: &Served,
    spec: ImageSpec,
    entry: &Arc<Entry>,
    image: &mut Image,
) -> Result<Option<Vec<Sample>>, Refusal> {
    let spec = Arc::new(spec);
    let mut slot = Some(served.engine.slot().await.map_err(refused)?);
    let path = pipeline.spool.path(entry.id);
    let applies_to = served.package.manifest.applies_to.clone();
    let arrival = Arc::clone(entry);
    let opened = decode(pipeline, move || {
        let file = DicomFile::read(&path, &ReadLimits::default())
            .map_err(|err| Refusal::new("data-set-unreadable", err.to_string()))?;
        Ok(applies_to
            .accepts(&attributes(&file, &arrival))
            .then(|| Arc::new(file)))
    });
    let (Some(file), _) = opened.await? else {
        return Ok(None);
    };
    let count = file
        .data_set()
        .int(tags::NUMBER_OF_FRAMES)
        .and_then(|frames| usize::try_from(frames).ok())
        .unwrap_or(1)
        .max(1);
    let mut samples = Vec::new();
    for frame in 0..count {
        let slot = match slot.take() {
            Some(slot) => slot,
            None => served.engine.slot().await.map_err(refused)?,
        };
        let (file, spec, limits) = (
            Arc::clone(&file),
            Arc::clone(&spec),
            pipeline.limits.clone(),
        );
        let (tensor, took) = decode(pipeline, move || {
            pixel::prepare(&pixel::Frames::open(&file, &limits)?, frame, &spec)
        })
        .await?;
        image.decoded += took;
        pipeline
            .metrics
            .prepare_duration_seconds
            .observe(took.as_secs_f64());
        let answer = infer(pipeline, served, slot, tensor).await?;
        image.queued = image.queued.max(answer.queued);
        image.inferred = image.inferred.max(answer.ran);
        samples.push(Sample {
            values: answer.values,
            location: Some(Location {
                series: entry.series.clone(),
                sop_instance: Some(entry.arrival.sop_instance.clone()),
                frame: (count > 1).then(|| u32::try_from(frame + 1).unwrap_or(u32::MAX)),
            }),
        });
    }
    Ok(Some(samples))
}

/// A model of features sees the study's reports and attributes as one row.
async fn table(
    pipeline: &Arc<Pipeline>,
    served: &Served,
    candidates: &[Arc<Entry>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Option<Run> {
    let mut run = Run::new(
        Some(served.clone()),
        Outcome::NoFinding(Vec::new()),
        Vec::new(),
    );
    match row(pipeline, served, candidates, &mut run).await {
        Ok(None) => return None,
        Ok(Some(sample)) => {
            run.outcome = conclude(served, run.inputs.len(), &[sample], Vec::new());
        }
        // Without its features the study is outside of what the model is for.
        Err(refusal) if refusal.code.starts_with("feature-") => {
            run.outcome = Outcome::Skipped(refusal);
        }
        Err(refusal) => run.outcome = Outcome::Failed(refusal),
    }
    let refusal = run.outcome.refusal().map(|refusal| refusal.code);
    let now = Some(Timestamp::now()).filter(|_| refusal.is_none());
    for entry in &run.inputs {
        let trace = traces.entry(entry.id).or_default();
        trace.refusal = trace.refusal.or(refusal);
        trace.decoded_at = trace.decoded_at.or(now);
        trace.inferred_at = trace.inferred_at.or(now);
    }
    Some(run)
}

async fn row(
    pipeline: &Arc<Pipeline>,
    served: &Served,
    candidates: &[Arc<Entry>],
    run: &mut Run,
) -> Result<Option<Sample>, Refusal> {
    let slot = served.engine.slot().await.map_err(refused)?;
    let package = Arc::clone(&served.package);
    let wanted: Vec<_> = candidates
        .iter()
        .take(MAX_FEATURE_FILES)
        .map(|entry| (Arc::clone(entry), pipeline.spool.path(entry.id)))
        .collect();
    let reading = decode(pipeline, move || {
        let (mut files, mut inputs) = (Vec::new(), Vec::new());
        for (entry, path) in wanted {
            let file = DicomFile::read(&path, &ReadLimits::default())
                .map_err(|err| Refusal::new("data-set-unreadable", err.to_string()))?;
            if package
                .manifest
                .applies_to
                .accepts(&attributes(&file, &entry))
            {
                files.push(file);
                inputs.push(entry);
            }
        }
        let InputSpec::Features(wanted) = package
            .manifest
            .input()
            .map_err(|reason| Refusal::new("model-manifest", reason))?
            .1
        else {
            return Err(Refusal::new(
                "model-manifest",
                "the model wants no features",
            ));
        };
        let row = if files.is_empty() {
            None
        } else {
            Some(features::row(&files, &wanted))
        };
        Ok((inputs, row))
    });
    let ((inputs, row), took) = reading.await?;
    run.inputs = inputs;
    run.decoded = took;
    let Some(row) = row else { return Ok(None) };
    let answer = infer(pipeline, served, slot, row?).await?;
    run.queued = answer.queued;
    run.inferred = answer.ran;
    Ok(Some(Sample {
        values: answer.values,
        location: None,
    }))
}

async fn infer(
    pipeline: &Pipeline,
    served: &Served,
    slot: crate::inference::Slot,
    tensor: Tensor,
) -> Result<Answer, Refusal> {
    let answer = served.engine.infer(slot, tensor).await.map_err(refused)?;
    let name = [served.package.manifest.name.as_str()];
    let metrics = &pipeline.metrics;
    metrics
        .inference_queue_seconds
        .with_label_values(&name)
        .observe(answer.queued.as_secs_f64());
    metrics
        .inference_duration_seconds
        .with_label_values(&name)
        .observe(answer.ran.as_secs_f64());
    metrics
        .inference_batch_size
        .with_label_values(&name)
        .observe(answer.batch as f64);
    Ok(answer)
}

/// Runs CPU work off the runtime, a bounded number at a time, and times it.
async fn decode<T: Send + 'static>(
    pipeline: &Pipeline,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<(T, Duration), Refusal> {
    let abnormal = || Refusal::new("internal-error", "decoding ended abnormally");
    let permit = Arc::clone(&pipeline.decoders)
        .acquire_owned()
        .await
        .map_err(|_| abnormal())?;
    spawn_blocking(move || {
        let started = Instant::now();
        let outcome = work();
        drop(permit);
        outcome.map(|value| (value, started.elapsed()))
    })
    .await
    .map_err(|_| abnormal())?
}

fn refused(err: InferenceError) -> Refusal {
    let code = match err {
        InferenceError::Failed(_) => "inference-failed",
        InferenceError::Timeout(_) => "inference-timeout",
        InferenceError::Stopped => "inference-stopped",
    };
    Refusal::new(code, err.to_string())
}

fn attributes(file: &DicomFile, entry: &Entry) -> Attributes {
    let text = |tag| file.data_set().str(tag).map(|text| text.trim().to_owned());
    Attributes {
        modality: entry.modality.clone(),
        body_part: entry.body_part.clone(),
        view: text(tags::VIEW_POSITION).unwrap_or_default(),
        sop_class: entry.arrival.sop_class.as_str().to_owned(),
    }
}

async fn header(pipeline: &Pipeline, entries: &[Arc<Entry>]) -> Header {
    let Some(path) = entries.first().map(|entry| pipeline.spool.path(entry.id)) else {
        return Header::default();
    };
    let reading = spawn_blocking(move || {
        let file = DicomFile::read(&path, &ReadLimits::default()).ok()?;
        let text = |tag| {
            let text = file.data_set().str(tag)?.trim().to_owned();
            (!text.is_empty()).then(|| text.chars().take(64).collect())
        };
        let date = |date: &String| date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
        Some(Header {
            accession_number: text(tags::ACCESSION_NUMBER),
            patient_id: text(tags::PATIENT_ID),
            study_date: text(tags::STUDY_DATE).filter(date),
        })
    });
    reading.await.ok().flatten().unwrap_or_default()
}
