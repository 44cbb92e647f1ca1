//! A study in front of every model: which apply, what they see, what they say.

mod images;
mod table;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom::dictionary_std::tags;
use tokio::task::spawn_blocking;

use super::{Pipeline, Served};
use crate::clock::Timestamp;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::findings::{self, Outcome, Said, Sample};
use crate::inference::{Answer, InferenceError, Slot, Turn};
use crate::model::{InputSpec, Prepared, Tensor};
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

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
    /// What the model was given, a sample each.
    pub prepared: Vec<Prepared>,
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
            prepared: Vec::new(),
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

/// A study in front of one model. Cheap to clone, for the tasks that look at its parts.
#[derive(Clone)]
struct Case {
    pipeline: Arc<Pipeline>,
    served: Served,
    turn: Arc<Turn>,
}

/// Runs every model that applies; a study without one is skipped with that reason.
pub(super) async fn examine(
    pipeline: &Arc<Pipeline>,
    turn: Turn,
    entries: &[Arc<Entry>],
) -> Examined {
    let turn = Arc::new(turn);
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
        let case = Case {
            pipeline: Arc::clone(pipeline),
            served: served.clone(),
            turn: Arc::clone(&turn),
        };
        let traces = &mut examined.instances;
        let run = match manifest.input() {
            Ok((_, InputSpec::Image(spec))) => images::run(&case, spec, &candidates, traces).await,
            Ok((_, InputSpec::Volume(spec))) => {
                volumes::run(&case, &spec, &candidates, traces).await
            }
            Ok((_, InputSpec::Features(_))) => table::run(&case, &candidates, traces).await,
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
    let findings = findings::read(manifest, samples).map(|reading| reading.findings);
    match (findings.map(Outcome::of), refused) {
        (Err(refusal), _) | (Ok(Outcome::NoFinding(_)), Some(refusal)) => Outcome::Failed(refusal),
        (Ok(outcome), _) => outcome,
    }
}

/// Waits for a place in the model's queue, so that tensors do not pile up in front of it.
async fn slot(case: &Case) -> Result<Slot, Refusal> {
    case.served.engine.slot(&case.turn).await.map_err(refused)
}

/// Also gives the times of the slowest answer.
async fn infer(
    case: &Case,
    slot: Slot,
    tensors: Vec<Tensor>,
) -> Result<(Vec<Said>, Answer), Refusal> {
    let answer = case.served.engine.infer(slot, tensors).await;
    let answer = answer.map_err(refused)?;
    let name = [case.served.package.manifest.name.as_str()];
    let metrics = &case.pipeline.metrics;
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
    let said = Said {
        outputs: answer.outputs.clone(),
        flip: None,
    };
    Ok((vec![said], answer))
}

/// Runs CPU work off the runtime, a bounded number at a time, and times it.
async fn decode<T: Send + 'static>(
    case: &Case,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<(T, Duration), Refusal> {
    let abnormal = || Refusal::new("internal-error", "decoding ended abnormally");
    let permit = Arc::clone(&case.pipeline.decoding)
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
