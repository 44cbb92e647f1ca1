//! A model of features: the study's reports and attributes as one row.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Case, Run, Trace, conclude, decode, infer, slot};
use crate::clock::Timestamp;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::features::{self, Heard};
use crate::findings::{Outcome, Sample};
use crate::model::Prepared;
use crate::model::manifest::Feature;
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

/// Features are looked for in this many instances at most.
const MAX_FEATURE_FILES: usize = 256;

pub(super) async fn run(
    case: &Case,
    wanted: Vec<Feature>,
    candidates: &[Arc<Entry>],
    heard: Heard,
    traces: &mut BTreeMap<EntryId, Trace>,
) -> Run {
    let mut run = Run::new(
        Some(case.served.clone()),
        Outcome::NoFinding(Vec::new()),
        candidates.iter().take(MAX_FEATURE_FILES).cloned().collect(),
    );
    match row(case, wanted, heard, &mut run).await {
        Ok(sample) => (run.outcome, _) = conclude(&case.served, &[sample], Vec::new()),
        // Without its features the study is outside of what the model is for.
        Err(refusal)
            if refusal.code.starts_with("feature-") || refusal.code == "upstream-missing" =>
        {
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
    run
}

async fn row(
    case: &Case,
    wanted: Vec<Feature>,
    heard: Heard,
    run: &mut Run,
) -> Result<Sample, Refusal> {
    let slot = slot(case).await?;
    let spool = case.pipeline.spool.clone();
    let paths: Vec<_> = run
        .inputs
        .iter()
        .map(|entry| spool.path(entry.id))
        .collect();
    let (row, took) = decode(case, move || {
        let read = |path| DicomFile::read(path, &ReadLimits::default());
        let files = paths.iter().map(|path| read(path));
        let files = files
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| Refusal::new("data-set-unreadable", err.to_string()))?;
        features::row(&files, &wanted, &heard)
    })
    .await?;
    run.decoded = took;
    let tensors = vec![row];
    // Some hundred numbers at most: not worth a thread.
    let prepared = Prepared::of(&tensors);
    let (answers, answer) = infer(case, slot, tensors).await?;
    run.prepared.push(prepared);
    run.queued = answer.queued;
    run.inferred = answer.ran;
    Ok(Sample {
        answers,
        location: None,
        placement: None,
    })
}
