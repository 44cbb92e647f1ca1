//! A model of several inputs: one series for each, and one sample of all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::quality::{self, Flags};
use super::volumes::{self, No};
use super::{Case, Run, Trace, conclude, decode, images, infer, keep, slot};
use crate::clock::Timestamp;
use crate::findings::{Location, Outcome, Sample};
use crate::model::{InputSpec, Placement, Prepared, Tensor};
use crate::pixel::Statistics;
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

/// One input of the sample.
struct Part {
    tensor: Tensor,
    location: Location,
    placement: Option<Placement>,
    statistics: Option<Statistics>,
}

/// `roles` has the instances of each input, in the order of `inputs`; the sample is located where its
/// first input is.
pub(super) async fn run(
    case: &Case,
    inputs: &[InputSpec],
    entries: Vec<Arc<Entry>>,
    roles: &[Vec<Arc<Entry>>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Run {
    let mut run = Run::new(
        Some(case.served.clone()),
        Outcome::NoFinding(Vec::new()),
        entries,
    );
    let (outcome, drafts) = match sample(case, inputs, roles, &mut run, traces).await {
        Ok(sample) => conclude(&case.served, &[sample], Vec::new()),
        Err(No::Outside(refusal)) => (Outcome::Skipped(refusal), Arc::default()),
        Err(No::Failed(refusal)) => (Outcome::Failed(refusal), Arc::default()),
    };
    run.outcome = outcome;
    keep::drafts(case, &drafts, &mut run).await;
    let now = Some(Timestamp::now());
    let refusal = run.outcome.refusal().map(|refusal| refusal.code);
    for entry in &run.inputs {
        let trace = traces.entry(entry.id).or_default();
        trace.refusal = trace.refusal.or(refusal);
        if refusal.is_none() {
            trace.decoded_at = trace.decoded_at.or(now);
            trace.inferred_at = now;
        }
    }
    run
}

async fn sample(
    case: &Case,
    inputs: &[InputSpec],
    roles: &[Vec<Arc<Entry>>],
    run: &mut Run,
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Result<Sample, No> {
    let manifest = &case.served.package.manifest;
    // Headers first: they decide whether there is a volume before anything waits for it.
    let mut planned = Vec::new();
    for (input, entries) in inputs.iter().zip(roles) {
        planned.push(match input {
            InputSpec::Volume(spec) => {
                let (series, mut volumes) = volumes::plan(case, spec, entries, run, traces).await?;
                let one = volumes.pop().filter(|_| volumes.is_empty());
                let one = one
                    .ok_or_else(|| No::Failed(Refusal::new("internal-error", "not one volume")))?;
                Some((series, one))
            }
            _ => None,
        });
    }
    let slot = slot(case).await.map_err(No::Failed)?;
    let mut flags = Flags::default();
    let (mut tensors, mut first, mut left_out) = (Vec::new(), None, None);
    for ((input, entries), volume) in inputs.iter().zip(roles).zip(planned) {
        let part = match (input, volume) {
            (InputSpec::Image(spec), _) => {
                let [entry] = entries.as_slice() else {
                    return Err(No::Failed(Refusal::new("internal-error", "not one image")));
                };
                let spec = Arc::new(spec.clone());
                let (facts, (_, tensor), took) = images::tensor(case, &spec, entry, 0)
                    .await
                    .map_err(No::Failed)?;
                run.decoded += took;
                if facts.frames > 1 {
                    return Err(No::Outside(Refusal::new(
                        "series-ambiguous",
                        format!("an image of {} frames, the model takes one", facts.frames),
                    )));
                }
                Part {
                    tensor,
                    location: images::location(entry, &facts, 0),
                    statistics: facts.statistics,
                    placement: facts.placement.map(Placement::Image),
                }
            }
            (_, Some((series, volume))) => {
                let made = volumes::assemble(case, volume, &series, run, traces)
                    .await
                    .map_err(No::Failed)?;
                Part {
                    tensor: made.tensor,
                    location: made.location,
                    statistics: made.statistics,
                    placement: made.placement,
                }
            }
            // Manifests are validated at load.
            _ => {
                return Err(No::Failed(Refusal::new(
                    "model-manifest",
                    "no image or volume",
                )));
            }
        };
        if let Some(statistics) = part.statistics {
            flags.look(manifest, &statistics);
            left_out = left_out.or_else(|| quality::leaves_out(manifest, &statistics));
        }
        tensors.push(part.tensor);
        first.get_or_insert((part.location, part.placement));
    }
    run.remarks.extend(flags.remarks());
    if let Some(refusal) = left_out {
        return Err(No::Outside(refusal));
    }
    let (location, placement) = first.unzip();
    let ((prepared, tensors), _) = decode(case, move || Ok((Prepared::of(&tensors), tensors)))
        .await
        .map_err(No::Failed)?;
    let (answers, answer) = infer(case, slot, tensors).await.map_err(No::Failed)?;
    run.prepared.push(prepared);
    run.queued = answer.queued;
    run.inferred = answer.ran;
    Ok(Sample {
        answers,
        location,
        placement: placement.flatten(),
    })
}
