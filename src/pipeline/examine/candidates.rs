//! Which instances of a study each model looks at.
//!
//! Every header that a model may want is read once, for all models together; nothing of it is kept
//! but what [`judge`] says.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::{JoinSet, spawn_blocking};

use super::{Run, Trace};
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::findings::Outcome;
use crate::findings::event::Remark;
use crate::inference::Turn;
use crate::model::Manifest;
use crate::model::manifest::Choose;
use crate::model::selection::{Candidate, Fit, Instance, Known, Selected, judge, select};
use crate::pipeline::{Pipeline, Served};
use crate::refusal::Refusal;
use crate::spool::{Entry, EntryId};

/// Headers that are read in one piece of work.
const HEADERS: usize = 16;

/// What an entry is to a model.
#[derive(Clone)]
enum Judged {
    /// Nothing.
    No,
    /// One of its instances.
    Yes(Fit),
    /// It might be one; its header cannot be read.
    Unreadable(Refusal),
}

/// The instances that a model applies to, at least one.
pub(super) struct Candidates {
    of: Vec<Candidate<Arc<Entry>>>,
    unreadable: Option<Refusal>,
}

/// For each model, the instances that it applies to; none when there are none.
pub(super) async fn candidates(
    pipeline: &Arc<Pipeline>,
    turn: &Arc<Turn>,
    models: &[Served],
    entries: &[Arc<Entry>],
) -> Vec<Option<Candidates>> {
    let mut tasks = JoinSet::new();
    let mut judged: BTreeMap<EntryId, Vec<Judged>> = BTreeMap::new();
    let manifests: Vec<_> = models.iter().map(|m| Arc::clone(&m.package)).collect();
    for entries in entries.chunks(HEADERS) {
        while tasks.len() >= 2 * pipeline.decoders.count() {
            judged.extend(
                tasks
                    .join_next()
                    .await
                    .and_then(Result::ok)
                    .into_iter()
                    .flatten(),
            );
        }
        let (entries, manifests) = (entries.to_vec(), manifests.clone());
        let (pipeline, turn) = (Arc::clone(pipeline), Arc::clone(turn));
        tasks.spawn(async move {
            let permit = super::place(&pipeline, &turn).await;
            let work = spawn_blocking(move || {
                let manifests: Vec<&Manifest> = manifests.iter().map(|p| &p.manifest).collect();
                let look = |entry: &Arc<Entry>| (entry.id, look(&pipeline, &manifests, entry));
                entries.iter().map(look).collect::<Vec<_>>()
            });
            let judged = work.await.unwrap_or_default();
            drop(permit);
            judged
        });
    }
    while let Some(ended) = tasks.join_next().await {
        judged.extend(ended.into_iter().flatten());
    }
    let of_model = |(index, served): (usize, &Served)| {
        let (mut of, mut unreadable) = (Vec::new(), None);
        for entry in entries {
            let fit = match judged.get(&entry.id).and_then(|judged| judged.get(index)) {
                Some(Judged::No) => continue,
                Some(Judged::Yes(fit)) => fit.clone(),
                Some(Judged::Unreadable(refusal)) => {
                    unreadable.get_or_insert_with(|| refusal.clone());
                    Fit::default()
                }
                // The work on its header ended by a panic.
                None if !served.package.manifest.applies_to.may_accept(&known(entry)) => continue,
                None => {
                    let abnormal = "reading a header ended abnormally";
                    unreadable.get_or_insert_with(|| Refusal::new("internal-error", abnormal));
                    Fit::default()
                }
            };
            of.push(Candidate {
                item: Arc::clone(entry),
                series: series(entry).to_owned(),
                instance: entry.arrival.sop_instance.as_str().to_owned(),
                fit,
            });
        }
        (!of.is_empty()).then_some(Candidates { of, unreadable })
    };
    models.iter().enumerate().map(of_model).collect()
}

/// What each model makes of one entry. Blocking.
fn look(pipeline: &Pipeline, manifests: &[&Manifest], entry: &Entry) -> Vec<Judged> {
    let known = known(entry);
    let wanted = |manifest: &&&Manifest| manifest.applies_to.may_accept(&known);
    if !manifests.iter().any(|manifest| wanted(&manifest)) {
        return vec![Judged::No; manifests.len()];
    }
    let file = DicomFile::read(&pipeline.spool.path(entry.id), &ReadLimits::default());
    let file = file.map_err(Refusal::from);
    let judged = manifests.iter().map(|manifest| {
        if !wanted(&manifest) {
            return Judged::No;
        }
        match &file {
            Err(refusal) => Judged::Unreadable(refusal.clone()),
            Ok(file) => {
                let instance = Instance {
                    known: &known,
                    data_set: file.data_set(),
                };
                judge(manifest, &instance).map_or(Judged::No, Judged::Yes)
            }
        }
    });
    judged.collect()
}

impl Candidates {
    /// What of them the model looks at.
    ///
    /// # Errors
    /// The end of the study for this model: it is skipped, or it cannot be told what belongs to it.
    pub(super) fn select(
        self,
        served: &Served,
        traces: &mut BTreeMap<EntryId, Trace>,
    ) -> Result<Selected<Arc<Entry>>, Box<Run>> {
        let manifest = &served.package.manifest;
        let end = |outcome, inputs| Box::new(Run::new(Some(served.clone()), outcome, inputs));
        let chooses = manifest.applies_to.choose == Choose::First || manifest.input.len() > 1;
        // The one that cannot be read could be the one.
        if let Some(refusal) = self.unreadable.filter(|_| chooses) {
            let entries = self
                .of
                .into_iter()
                .map(|candidate| candidate.item)
                .collect();
            return Err(end(Outcome::Failed(refusal), entries));
        }
        let selected = select(manifest, self.of)
            .map_err(|(refusal, entries)| end(Outcome::Skipped(refusal), entries))?;
        for entry in &selected.outside {
            let trace = traces.entry(entry.id).or_default();
            trace.refusal = selected.reason.as_ref().map(|refusal| refusal.code);
        }
        match &selected.reason {
            Some(refusal) if selected.inside.is_empty() => {
                Err(end(Outcome::Skipped(refusal.clone()), selected.outside))
            }
            _ => Ok(selected),
        }
    }
}

/// Adds what was left out to a run on the rest: a label that is present stands, "nothing there" does
/// not.
pub(super) fn leave_out(run: &mut Run, outside: Vec<Arc<Entry>>, reason: Option<Refusal>) {
    let Some(reason) = reason.filter(|_| !outside.is_empty()) else {
        return;
    };
    let left_out = outside.len();
    run.inputs.extend(outside);
    run.remarks.push(Remark {
        code: reason.code,
        text: format!(
            "{left_out} of {} instances: {}",
            run.inputs.len(),
            reason.text
        ),
    });
    if matches!(run.outcome, Outcome::NoFinding(_)) {
        run.outcome = Outcome::Skipped(reason);
    }
}

/// What the spool knows of an instance without opening its file.
pub(in crate::pipeline) fn known(entry: &Entry) -> Known {
    Known {
        modality: entry.modality.clone(),
        body_part: entry.body_part.clone(),
        sop_class: entry.arrival.sop_class.as_str().to_owned(),
        transfer_syntax: entry.arrival.transfer_syntax.as_str().to_owned(),
        calling_ae: entry.arrival.calling_ae.as_str().to_owned(),
        called_ae: entry.arrival.called_ae.as_str().to_owned(),
    }
}

/// Series Instance UID, or empty.
pub(super) fn series(entry: &Entry) -> &str {
    entry.series.as_ref().map_or("", |uid| uid.as_str())
}
