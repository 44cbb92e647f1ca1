//! A model of features: the study's reports and attributes as one row.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::images::known;
use super::{Case, Run, Trace, conclude, decode, infer, slot};
use crate::clock::Timestamp;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::features;
use crate::findings::{Outcome, Sample};
use crate::model::selection::Condition;
use crate::model::{InputSpec, Prepared};
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

/// A report of features is looked for in this many instances at most.
const MAX_FEATURE_FILES: usize = 256;

pub(super) async fn run(
    case: &Case,
    candidates: &[Arc<Entry>],
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Option<Run> {
    let mut run = Run::new(
        Some(case.served.clone()),
        Outcome::NoFinding(Vec::new()),
        Vec::new(),
    );
    match row(case, candidates, &mut run).await {
        Ok(None) => return None,
        Ok(Some(sample)) => {
            run.outcome = conclude(&case.served, run.inputs.len(), &[sample], Vec::new());
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
    case: &Case,
    candidates: &[Arc<Entry>],
    run: &mut Run,
) -> Result<Option<Sample>, Refusal> {
    let slot = slot(case).await?;
    let package = Arc::clone(&case.served.package);
    let wanted: Vec<_> = candidates
        .iter()
        .take(MAX_FEATURE_FILES)
        .map(|entry| (Arc::clone(entry), case.pipeline.spool.path(entry.id)))
        .collect();
    let reading = decode(case, move || {
        let (mut files, mut inputs) = (Vec::new(), Vec::new());
        for (entry, path) in wanted {
            let file = DicomFile::read(&path, &ReadLimits::default())
                .map_err(|err| Refusal::new("data-set-unreadable", err.to_string()))?;
            let condition = Condition {
                applies_to: package.manifest.applies_to.clone(),
                known: known(&entry),
            };
            if condition.holds(file.data_set()) {
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
    let tensors = vec![row?];
    // Some hundred numbers at most: not worth a thread.
    let prepared = Prepared::of(&tensors);
    let (answers, answer) = infer(case, slot, tensors).await?;
    run.prepared.push(prepared);
    run.queued = answer.queued;
    run.inferred = answer.ran;
    Ok(Some(Sample {
        answers,
        location: None,
        placement: None,
    }))
}
