//! A model of images: every frame of every instance by itself.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::quality::{self, Flags};
use super::{Case, Run, Trace, conclude, decode, explain, heat, infer, keep, slot};
use crate::clock::Timestamp;
use crate::decoder::{Facts, Source};
use crate::findings::{Location, Outcome, Sample};
use crate::inference::Engine;
use crate::model::{ImageSpec, Placement, Prepared, Tensor};
use crate::pipeline::Pipeline;
use crate::pixel::Statistics;
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

/// What became of one instance.
#[derive(Default)]
struct Instance {
    /// Frames it has, once the first has been looked at.
    frames: Option<usize>,
    refusal: Option<Refusal>,
    /// Frames whose quality leaves the instance out.
    left_out: BTreeMap<usize, Refusal>,
    samples: BTreeMap<usize, Sample>,
    statistics: BTreeMap<usize, Statistics>,
    prepared: Vec<Prepared>,
}

/// One frame, from its file to the model's numbers.
struct Looked {
    index: usize,
    frame: usize,
    seen: Result<Seen, Refusal>,
    /// Once it is decoded.
    facts: Option<Facts>,
    decoded: Duration,
}

struct Seen {
    sample: Sample,
    prepared: Prepared,
    queued: Duration,
    inferred: Duration,
}

pub(super) async fn run(
    case: &Case,
    spec: &ImageSpec,
    candidates: &[Arc<Entry>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Run {
    let spec = Arc::new(spec.clone());
    let mut flags = Flags::default();
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
    let batch = case.served.engines.iter().map(Engine::max_batch).max();
    let window = 2 * batch.unwrap_or(1) + case.pipeline.decoders.count();
    loop {
        while tasks.len() < window
            && let Some((index, frame)) = next(&mut waiting, &instances)
        {
            let Some(entry) = candidates.get(index).map(Arc::clone) else {
                continue;
            };
            let (case, spec) = (case.clone(), Arc::clone(&spec));
            tasks.spawn(async move {
                let mut decoded = None;
                let seen = see(&case, &spec, &entry, frame, &mut decoded).await;
                let (facts, decoded) = decoded.unzip();
                Looked {
                    index,
                    frame,
                    seen,
                    facts,
                    decoded: decoded.unwrap_or_default(),
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
        let trace = traces.entry(entry.id).or_default();
        for statistics in instance.statistics.values() {
            flags.look(&case.served.package.manifest, statistics);
        }
        let unseen = instance.frames != Some(instance.samples.len() + instance.left_out.len());
        let left_out = instance.left_out.into_values().next();
        let refusal = instance.refusal.or_else(|| {
            unseen.then(|| Refusal::new("internal-error", "decoding ended abnormally"))
        });
        let refusal = refusal.or(left_out);
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
    run.remarks.extend(flags.remarks());
    run.refused = refusals.len();
    let drafts;
    (run.outcome, drafts) = conclude(&case.served, &samples, refusals);
    keep::drafts(case, &drafts, &mut run).await;
    let seen = explain::Seen {
        spec: &spec,
        candidates,
        samples: &samples,
        drafts: &drafts,
    };
    if case.pictures {
        explain::explain(case, &seen, &mut run).await;
    }
    run
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
        facts,
        decoded,
    } = looked;
    run.decoded += decoded;
    let Some(instance) = instances.get_mut(index) else {
        return;
    };
    if let Some(facts) = facts {
        if instance.frames.replace(facts.frames).is_none() && facts.frames > 1 {
            waiting.push_front((index, 1..facts.frames));
        }
        instance
            .statistics
            .extend(facts.statistics.map(|s| (frame, s)));
    }
    match seen {
        Err(refusal) if quality::is_flag(refusal.code) => {
            instance.left_out.insert(frame, refusal);
        }
        Err(refusal) => {
            instance.refusal.get_or_insert(refusal);
        }
        Ok(seen) => {
            run.queued = run.queued.max(seen.queued);
            run.inferred = run.inferred.max(seen.inferred);
            match run.hold(&seen.sample) {
                Ok(()) => drop(instance.samples.insert(frame, seen.sample)),
                Err(refusal) => drop(instance.refusal.get_or_insert(refusal)),
            }
            instance.prepared.push(seen.prepared);
        }
    }
}

/// `decoded` is what is known once the frame is decoded, and how long that took.
async fn see(
    case: &Case,
    spec: &Arc<ImageSpec>,
    entry: &Entry,
    frame: usize,
    decoded: &mut Option<(Facts, Duration)>,
) -> Result<Seen, Refusal> {
    let slot = slot(case).await?;
    let (facts, (prepared, tensor), took) = tensor(case, spec, entry, frame).await?;
    *decoded = Some((facts.clone(), took));
    let manifest = &case.served.package.manifest;
    if let Some(refusal) = facts
        .statistics
        .and_then(|s| quality::leaves_out(manifest, &s))
    {
        return Err(refusal);
    }
    let (mut answers, answer) = infer(case, slot, vec![tensor]).await?;
    heat::without_maps(manifest, &mut answers);
    Ok(Seen {
        prepared,
        queued: answer.queued,
        inferred: answer.ran,
        sample: Sample {
            answers,
            location: Some(location(entry, &facts, frame)),
            placement: facts.placement.map(Placement::Image),
        },
    })
}

/// One frame as a tensor, with the time that it took.
pub(super) async fn tensor(
    case: &Case,
    spec: &Arc<ImageSpec>,
    entry: &Entry,
    frame: usize,
) -> Result<(Facts, (Prepared, Tensor), Duration), Refusal> {
    let source = source(&case.pipeline, entry);
    let (decoders, spec) = (case.pipeline.decoders.clone(), Arc::clone(spec));
    let measure = !case.served.package.manifest.quality.is_empty();
    let ((facts, tensor), took) = decode(case, move || {
        let (facts, tensor) = decoders.tensor(&source, frame, &spec, measure)?;
        let prepared = Prepared::of(std::slice::from_ref(&tensor));
        Ok((facts, (prepared, tensor)))
    })
    .await?;
    case.pipeline
        .metrics
        .prepare_duration_seconds
        .observe(took.as_secs_f64());
    Ok((facts, tensor, took))
}

/// Where frame `frame` (from 0) of an image is.
pub(super) fn location(entry: &Entry, facts: &Facts, frame: usize) -> Location {
    Location {
        series: entry.series.clone(),
        sop_instance: Some(entry.arrival.sop_instance.clone()),
        frame: (facts.frames > 1).then(|| u32::try_from(frame + 1).unwrap_or(u32::MAX)),
        area: None,
    }
}

/// Where the file of an instance is, and how it is written.
pub(super) fn source(pipeline: &Pipeline, entry: &Entry) -> Source {
    Source::new(
        pipeline.spool.path(entry.id),
        entry.arrival.transfer_syntax.as_str(),
        entry.data_set_bytes,
    )
}
