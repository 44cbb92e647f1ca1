//! A model of images: every frame of every instance by itself.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Case, Run, Trace, conclude, decode, infer, slot};
use crate::clock::Timestamp;
use crate::decoder::Source;
use crate::findings::{Location, Outcome, Sample};
use crate::model::selection::{Attributes, Condition};
use crate::model::{ImageSpec, Placement, Prepared};
use crate::pipeline::Pipeline;
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

/// What became of one instance.
#[derive(Default)]
struct Instance {
    /// Frames it has, once the first has been looked at.
    frames: Option<usize>,
    /// The manifest's conditions on the file do not hold, or it has no pixels.
    not_applicable: bool,
    refusal: Option<Refusal>,
    samples: BTreeMap<usize, Sample>,
    prepared: Vec<Prepared>,
}

/// One frame, from its file to the model's numbers.
struct Looked {
    index: usize,
    frame: usize,
    /// None when the model does not apply to the instance.
    seen: Result<Option<Seen>, Refusal>,
    decoded: Duration,
}

struct Seen {
    sample: Sample,
    prepared: Prepared,
    frames: usize,
    queued: Duration,
    inferred: Duration,
}

pub(super) async fn run(
    case: &Case,
    spec: ImageSpec,
    candidates: &[Arc<Entry>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Option<Run> {
    let spec = Arc::new(spec);
    let mut run = Run::new(
        Some(case.served.clone()),
        Outcome::NoFinding(Vec::new()),
        Vec::new(),
    );
    let mut instances: Vec<Instance> = candidates.iter().map(|_| Instance::default()).collect();
    // First frames first; an instance with more of them adds the rest when that is known.
    let mut waiting: VecDeque<(usize, Range<usize>)> =
        (0..candidates.len()).map(|index| (index, 0..1)).collect();
    let mut tasks = JoinSet::new();
    // Enough to fill batches while others decode; the engine's slots bound what is in memory.
    let window = 2 * case.served.engine.max_batch() + case.pipeline.decoders.count();
    loop {
        while tasks.len() < window
            && let Some((index, frame)) = next(&mut waiting, &instances)
        {
            let Some(entry) = candidates.get(index).map(Arc::clone) else {
                continue;
            };
            let (case, spec) = (case.clone(), Arc::clone(&spec));
            tasks.spawn(async move {
                let mut decoded = Duration::ZERO;
                let seen = see(&case, &spec, &entry, frame, &mut decoded).await;
                Looked {
                    index,
                    frame,
                    seen,
                    decoded,
                }
            });
        }
        match tasks.join_next().await {
            None => break,
            // A task that ended by a panic has left its frame unseen, which is found below.
            Some(Err(_)) => {}
            Some(Ok(looked)) => note(looked, &mut instances, &mut waiting, &mut run),
        }
    }
    let mut samples = Vec::new();
    let mut refusals = Vec::new();
    let now = Timestamp::now();
    for (entry, instance) in candidates.iter().zip(instances) {
        if instance.not_applicable {
            continue;
        }
        let trace = traces.entry(entry.id).or_default();
        let unseen = instance.frames != Some(instance.samples.len());
        let refusal = instance.refusal.or_else(|| {
            unseen.then(|| Refusal::new("internal-error", "decoding ended abnormally"))
        });
        match refusal {
            Some(refusal) => {
                trace.refusal = Some(refusal.code);
                refusals.push(refusal);
            }
            None => {
                trace.decoded_at = Some(now);
                trace.inferred_at = Some(now);
                run.prepared.extend(instance.prepared);
                samples.extend(instance.samples.into_values());
            }
        }
        run.inputs.push(Arc::clone(entry));
    }
    if run.inputs.is_empty() {
        return None;
    }
    run.refused = refusals.len();
    run.outcome = conclude(&case.served, run.inputs.len(), &samples, refusals);
    Some(run)
}

/// The next frame that is worth looking at.
fn next(
    waiting: &mut VecDeque<(usize, Range<usize>)>,
    instances: &[Instance],
) -> Option<(usize, usize)> {
    while let Some((index, frames)) = waiting.front_mut() {
        let index = *index;
        let spoilt = instances.get(index).is_none_or(|i| i.refusal.is_some());
        match frames.next().filter(|_| !spoilt) {
            Some(frame) => return Some((index, frame)),
            None => waiting.pop_front(),
        };
    }
    None
}

fn note(
    looked: Looked,
    instances: &mut [Instance],
    waiting: &mut VecDeque<(usize, Range<usize>)>,
    run: &mut Run,
) {
    let Looked {
        index,
        frame,
        seen,
        decoded,
    } = looked;
    run.decoded += decoded;
    let Some(instance) = instances.get_mut(index) else {
        return;
    };
    match seen {
        Ok(None) => instance.not_applicable = true,
        // Reports and presentation states share modality and body part with the images.
        Err(refusal) if refusal.code == "no-pixel-data" => instance.not_applicable = true,
        Err(refusal) => {
            instance.refusal.get_or_insert(refusal);
        }
        Ok(Some(seen)) => {
            run.queued = run.queued.max(seen.queued);
            run.inferred = run.inferred.max(seen.inferred);
            if instance.frames.replace(seen.frames).is_none() && seen.frames > 1 {
                waiting.push_front((index, 1..seen.frames));
            }
            instance.prepared.push(seen.prepared);
            instance.samples.insert(frame, seen.sample);
        }
    }
}

async fn see(
    case: &Case,
    spec: &Arc<ImageSpec>,
    entry: &Entry,
    frame: usize,
    decoded: &mut Duration,
) -> Result<Option<Seen>, Refusal> {
    let slot = slot(case).await?;
    let source = source(&case.pipeline, entry);
    // The first frame decides for the instance.
    let condition = (frame == 0).then(|| Condition {
        applies_to: case.served.package.manifest.applies_to.clone(),
        known: known(entry),
    });
    let (decoders, spec) = (case.pipeline.decoders.clone(), Arc::clone(spec));
    let (prepared, took) = decode(case, move || {
        let tensor = decoders.tensor(&source, frame, &spec, condition)?;
        Ok(tensor.map(|(facts, tensor)| {
            let tensors = vec![tensor];
            (facts, Prepared::of(&tensors), tensors)
        }))
    })
    .await?;
    let Some((facts, prepared, tensors)) = prepared else {
        return Ok(None);
    };
    *decoded = took;
    case.pipeline
        .metrics
        .prepare_duration_seconds
        .observe(took.as_secs_f64());
    let (answers, answer) = infer(case, slot, tensors).await?;
    Ok(Some(Seen {
        prepared,
        frames: facts.frames,
        queued: answer.queued,
        inferred: answer.ran,
        sample: Sample {
            answers,
            placement: facts.placement.map(Placement::Image),
            location: Some(Location {
                series: entry.series.clone(),
                sop_instance: Some(entry.arrival.sop_instance.clone()),
                frame: (facts.frames > 1).then(|| u32::try_from(frame + 1).unwrap_or(u32::MAX)),
                area: None,
            }),
        },
    }))
}

/// Where the file of an instance is, and how it is written.
pub(super) fn source(pipeline: &Pipeline, entry: &Entry) -> Source {
    Source::new(
        pipeline.spool.path(entry.id),
        entry.arrival.transfer_syntax.as_str(),
        entry.data_set_bytes,
    )
}

/// What the spool knows of an instance without opening its file.
pub(super) fn known(entry: &Entry) -> Attributes {
    Attributes {
        modality: entry.modality.clone(),
        body_part: entry.body_part.clone(),
        view: String::new(),
        sop_class: entry.arrival.sop_class.as_str().to_owned(),
    }
}
