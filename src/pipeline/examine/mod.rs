//! A study in front of every model: which apply, what they see, what they say.

mod candidates;
mod ensemble;
mod explain;
mod heat;
mod images;
mod keep;
mod order;
mod quality;
mod roles;
mod stages;
mod table;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom::dictionary_std::tags;
use tokio::task::{block_in_place, spawn_blocking};

use super::{Pipeline, Served};
use crate::answers::ask;
use crate::clock::Timestamp;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::features::Heard;
use crate::findings::event::Remark;
use crate::findings::{self, Draft, Outcome, Said, Sample};
use crate::inference::{InferenceError, Place, Slot, Turn};
use crate::model::manifest::AppliesTo;
use crate::model::selection::{Selected, first_of_groups};
use crate::model::{InputSpec, Prepared, Tensor};
use crate::refusal::Refusal;
use crate::registry::Sites;
use crate::spool::{Entry, EntryId};
use candidates::Candidates;
pub(super) use candidates::known;
pub(super) use order::Earlier;
use order::in_order;
use stages::Stages;
pub(super) use stages::{Window, Windows};

/// Most bytes of one model's answers about one study.
const MAX_ANSWERS_BYTES: usize = 2 << 30;

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
    /// Remarks on its input.
    pub remarks: Vec<Remark>,
    /// When it was looked at, from and to, and what that consisted of.
    pub times: Option<(Timestamp, Timestamp, Windows)>,
    /// Memory of the answers that wait for the study to be read.
    held: usize,
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
            remarks: Vec::new(),
            times: None,
            held: 0,
        }
    }

    /// Counts the answers of a sample that is kept until the study is read: those of a segmenter are
    /// as large as what it looks at.
    fn hold(&mut self, sample: &Sample) -> Result<(), Refusal> {
        self.held = self.held.saturating_add(sample.bytes());
        if self.held <= MAX_ANSWERS_BYTES {
            return Ok(());
        }
        Err(Refusal::new(
            "too-large",
            format!("the model's answers need more than {MAX_ANSWERS_BYTES} bytes"),
        ))
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
    /// Findings get pictures that say why.
    pictures: bool,
    /// When the work took place.
    stages: Arc<Stages>,
}

/// Runs every one of `models` that applies, each after those it builds on; a study without one is
/// skipped with that reason. `earlier` is what is known already of models that others build on; `pictures`
/// that say why cost many samples each.
pub(super) async fn examine(
    pipeline: &Arc<Pipeline>,
    sites: &Sites,
    models: &[Served],
    turn: Turn,
    mut earlier: Earlier,
    pictures: bool,
    entries: &[Arc<Entry>],
) -> Examined {
    let turn = Arc::new(turn);
    let mut examined = Examined {
        runs: Vec::new(),
        instances: BTreeMap::new(),
        header: header(pipeline, entries).await,
    };
    let models = sites.models(&in_order(models), entries);
    let candidates = candidates::candidates(pipeline, &turn, &models, entries).await;
    let apply: Vec<(&AppliesTo, bool)> = models
        .iter()
        .zip(&candidates)
        .map(|(served, found)| (&served.package.manifest.applies_to, found.is_some()))
        .collect();
    let are_run = first_of_groups(&apply);
    for ((served, found), is_run) in models.iter().zip(candidates).zip(are_run) {
        let Some(found) = found.filter(|_| is_run) else {
            continue;
        };
        let case = Case {
            pipeline: Arc::clone(pipeline),
            served: served.clone(),
            turn: Arc::clone(&turn),
            pictures,
            stages: Arc::default(),
        };
        let manifest = &served.package.manifest;
        let heard = earlier.heard(manifest);
        let began = Timestamp::now();
        let mut run = run(&case, found, heard, &mut examined.instances).await;
        run.times = Some((began, Timestamp::now(), case.stages.windows()));
        earlier.note(manifest, &run.outcome);
        examined.runs.push(run);
    }
    if examined.runs.is_empty() {
        let refusal = Refusal::new("no-model-applies", "no model applies to any instance");
        examined
            .runs
            .push(Run::new(None, Outcome::Skipped(refusal), entries.to_vec()));
    }
    examined
}

/// One model on what of the study it applies to.
async fn run(
    case: &Case,
    found: Candidates,
    heard: Heard,
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Run {
    let Selected {
        inside,
        roles,
        outside,
        reason,
    } = match found.select(&case.served, traces) {
        Ok(selected) => selected,
        Err(run) => return *run,
    };
    let manifest = &case.served.package.manifest;
    let inputs = manifest.inputs();
    let specs = inputs.map(|inputs| inputs.into_iter().map(|i| i.spec).collect::<Vec<_>>());
    let mut run = match specs.as_deref() {
        _ if manifest.is_ensemble_of_models() => ensemble::run(case, inside, &heard),
        Ok([InputSpec::Image(spec)]) => images::run(case, spec, &inside, traces).await,
        Ok([InputSpec::Volume(spec)]) => volumes::run(case, spec, &inside, traces).await,
        Ok([InputSpec::Features(wanted)]) => {
            table::run(case, wanted.clone(), &inside, heard, traces).await
        }
        Ok(several) => roles::run(case, several, inside, &roles, traces).await,
        // Manifests are validated at load.
        Err(reason) => Run::new(
            Some(case.served.clone()),
            Outcome::Failed(Refusal::new("model-manifest", reason.as_str())),
            inside,
        ),
    };
    candidates::leave_out(&mut run, outside, reason);
    run
}

/// A label that is present stands even when other images were refused. "Nothing there" does not: it
/// would speak of images that no model has seen. Also gives the files that go with the findings.
fn conclude(
    served: &Served,
    samples: &[Sample],
    refusals: Vec<Refusal>,
) -> (Outcome, Arc<Vec<Draft>>) {
    let manifest = &served.package.manifest;
    let without = |outcome| (outcome, Arc::default());
    // A failure says more than an image that was left out for its quality.
    let (left_out, failed): (Vec<Refusal>, Vec<Refusal>) =
        refusals.into_iter().partition(|r| quality::is_flag(r.code));
    let failed = failed.into_iter().map(Outcome::Failed);
    let mut refused = failed.chain(left_out.into_iter().map(Outcome::Skipped));
    if samples.is_empty() {
        let nothing = || Refusal::new("no-pixel-data", "no image could be looked at");
        return without(refused.next().unwrap_or_else(|| Outcome::Failed(nothing())));
    }
    // Regions of a volume take seconds.
    let reading = match block_in_place(|| findings::read(manifest, samples)) {
        Ok(reading) => reading,
        Err(refusal) if refusal.code == "too-few-instances" => {
            return without(Outcome::Skipped(refusal));
        }
        Err(refusal) => return without(Outcome::Failed(refusal)),
    };
    match (Outcome::of(reading.findings), refused.next()) {
        (Outcome::NoFinding(_), Some(refused)) => without(refused),
        (outcome, _) => (outcome, Arc::new(reading.drafts)),
    }
}

/// Waits for a place in the model's queue, so that tensors do not pile up in front of it.
async fn slot(case: &Case) -> Result<Slot, Refusal> {
    let engine = case.served.engines.first().ok_or_else(|| {
        let reason = "the model has no graph of its own";
        Refusal::new("model-manifest", reason)
    })?;
    engine.slot(&case.turn).await.map_err(refused)
}

/// The longest of the times that the answers to one sample took.
struct Times {
    queued: Duration,
    ran: Duration,
}

/// What every graph of the model says of a sample and of its mirror images.
async fn infer(
    case: &Case,
    slot: Slot,
    tensors: Vec<Tensor>,
) -> Result<(Vec<Said>, Times), Refusal> {
    let (engines, manifest) = (&case.served.engines, &case.served.package.manifest);
    let asked = ask(engines, manifest, &case.turn, slot, tensors).await;
    let asked = asked.map_err(refused)?;
    let name = [manifest.name.as_str()];
    let metrics = &case.pipeline.metrics;
    let mut times = Times {
        queued: Duration::ZERO,
        ran: Duration::ZERO,
    };
    for run in &asked.runs {
        times.queued = times.queued.max(run.queued);
        times.ran = times.ran.max(run.ran);
        case.stages.inferred(run.queued, run.ran, run.batch);
        metrics
            .inference_queue_seconds
            .with_label_values(&name)
            .observe(run.queued.as_secs_f64());
        metrics
            .inference_duration_seconds
            .with_label_values(&name)
            .observe(run.ran.as_secs_f64());
        metrics
            .inference_batch_size
            .with_label_values(&name)
            .observe(run.batch as f64);
    }
    Ok((asked.said, times))
}

/// Waits for a place among the decoders.
async fn place(pipeline: &Pipeline, turn: &Turn) -> Place {
    let asked = Instant::now();
    let place = pipeline.decoding.enter(turn).await;
    let waited = &pipeline.metrics.decode_queue_seconds;
    waited.observe(asked.elapsed().as_secs_f64());
    place
}

/// Runs CPU work off the runtime, in turn, a bounded number at a time, and times it.
async fn decode<T: Send + 'static>(
    case: &Case,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<(T, Duration), Refusal> {
    let abnormal = || Refusal::new("internal-error", "decoding ended abnormally");
    let place = place(&case.pipeline, &case.turn).await;
    let stages = Arc::clone(&case.stages);
    spawn_blocking(move || {
        let started = Instant::now();
        let outcome = work();
        drop(place);
        let took = started.elapsed();
        stages.prepared(took);
        outcome.map(|value| (value, took))
    })
    .await
    .map_err(|_| abnormal())?
}

fn refused(err: InferenceError) -> Refusal {
    Refusal::new(err.code(), err.to_string())
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
