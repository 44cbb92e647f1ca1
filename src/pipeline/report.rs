//! From what the models said to messages and ledger rows.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::examine::{Examined, Run};
use super::{Pipeline, Served};
use crate::clock::Timestamp;
use crate::findings::Outcome;
use crate::findings::event::{self, EvidenceFact, Remark, StudyFacts};
use crate::findings::identity::{MessageKey, message_id, routing_key};
use crate::ledger::{InstanceOutcome, Prior};
use crate::model::Role;
use crate::model::prepared::input_digest;
use crate::outbox::{Exchange, Message};
use crate::refusal::Refusal;
use crate::spool::Entry;
use crate::study::StableStudy;
use crate::study::evidence::{Evidence, Verdict};

/// The `[message]` section: what messages may say.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessageConfig {
    /// CloudEvents `source` of this gateway, a URI reference.
    pub source: String,
    /// Whether messages carry Patient ID (0010,0020).
    pub patient_id: bool,
    /// Whether messages carry Accession Number (0008,0050).
    pub accession_number: bool,
}

impl Default for MessageConfig {
    fn default() -> Self {
        Self {
            source: "urn:pacs-gateway:PACSGATEWAY".to_owned(),
            patient_id: false,
            accession_number: true,
        }
    }
}

/// A study as it was when the work on it began.
pub(super) struct Snapshot<'a> {
    /// One entry per SOP Instance UID.
    pub entries: &'a [Arc<Entry>],
    /// Others of the same SOP Instance UIDs.
    pub set_aside: usize,
    /// Digest of the instance set, hex.
    pub digest: &'a str,
    /// What is known of how complete it is, the strongest first.
    pub evidence: &'a [Evidence],
}

/// What every message about this revision says of the study.
pub(super) fn facts(
    policy: &MessageConfig,
    study: &StableStudy,
    snapshot: &Snapshot<'_>,
    prior: &Prior,
    examined: &Examined,
) -> StudyFacts {
    let Snapshot {
        entries,
        set_aside,
        digest,
        evidence,
    } = *snapshot;
    let header = &examined.header;
    let first_of = |value: fn(&Entry) -> &String| {
        let found = entries
            .iter()
            .map(|entry| value(entry))
            .find(|value| !value.is_empty());
        found.cloned().unwrap_or_default()
    };
    let last = entries.iter().max_by_key(|entry| entry.received_at);
    let mut quality = Vec::new();
    if set_aside > 0 {
        quality.push(Remark {
            code: "duplicate-sop-instance",
            text: format!("{set_aside} instances share a SOP Instance UID with other bytes"),
        });
    }
    if prior.released {
        quality.push(Remark {
            code: "earlier-instances-released",
            text: "instances of an earlier revision are no longer in the spool".to_owned(),
        });
    }
    quality.extend(remarks(evidence));
    let body_part = first_of(|entry| &entry.body_part);
    StudyFacts {
        study_instance_uid: study.uid.as_str().to_owned(),
        accession_number: header
            .accession_number
            .clone()
            .filter(|_| policy.accession_number),
        patient_id: header.patient_id.clone().filter(|_| policy.patient_id),
        modality: first_of(|entry| &entry.modality),
        body_part: (!body_part.is_empty()).then_some(body_part),
        study_date: header.study_date.clone(),
        instances: entries.len(),
        instances_expected: evidence.iter().find_map(Evidence::instances_expected),
        completeness: study.method.as_str(),
        evidence: evidence.iter().map(fact).collect(),
        calling_ae: last.map_or_else(String::new, |e| e.arrival.calling_ae.as_str().to_owned()),
        called_ae: last.map_or_else(String::new, |e| e.arrival.called_ae.as_str().to_owned()),
        instance_set_digest: digest.to_owned(),
        received_first: study.first,
        received_last: study.last,
        complete_at: study.complete_at,
        quality,
    }
}

fn fact(evidence: &Evidence) -> EvidenceFact {
    EvidenceFact {
        kind: evidence.kind.as_str(),
        verdict: evidence.verdict.as_str(),
        expected: evidence.expected,
        received: evidence.received,
        source: evidence.source.clone(),
    }
}

/// What evidence, the strongest first, says that a reader of the findings should know.
fn remarks(evidence: &[Evidence]) -> Vec<Remark> {
    let says = |verdict| move |piece: &&Evidence| piece.verdict == verdict;
    let mut remarks = Vec::new();
    let complete = evidence.iter().find(says(Verdict::Complete));
    let incomplete = evidence.iter().find(says(Verdict::Incomplete));
    if let Some((complete, incomplete)) = complete.zip(incomplete) {
        remarks.push(Remark {
            code: "evidence-disagrees",
            text: format!("{}, {}", complete.in_words(), incomplete.in_words()),
        });
    }
    for piece in evidence.iter().filter(says(Verdict::Incomplete)) {
        if piece.expected.is_some() {
            remarks.push(Remark {
                code: "instances-missing",
                text: piece.in_words(),
            });
        }
    }
    if evidence.iter().any(|piece| piece.discontinued) {
        remarks.push(Remark {
            code: "procedure-discontinued",
            text: "the modality broke off a step of this study".to_owned(),
        });
    }
    remarks
}

/// One message per run, and one per earlier message that nothing replaces.
pub(super) fn messages(
    pipeline: &Pipeline,
    models: &[Served],
    facts: &StudyFacts,
    prior: &Prior,
    examined: &Examined,
) -> Vec<Message> {
    let mut messages: Vec<Message> = examined
        .runs
        .iter()
        .filter_map(|run| message(pipeline, facts, prior, run, None))
        .collect();
    let answered: HashSet<&str> = examined.runs.iter().map(model_name).collect();
    let mut orphans: Vec<&String> = prior
        .messages
        .iter()
        .filter(|(model, last)| !answered.contains(model.as_str()) && last.outcome != "superseded")
        .map(|(model, _)| model)
        .collect();
    orphans.sort();
    for model in orphans {
        let served = models
            .iter()
            .find(|served| served.package.manifest.name == *model);
        let refusal = Refusal::new(
            "model-no-longer-applies",
            "the study has changed and this model does not apply to it any more",
        );
        let run = Run::new(served.cloned(), Outcome::Superseded(refusal), Vec::new());
        messages.extend(message(pipeline, facts, prior, &run, Some(model)));
    }
    messages
}

/// The message of one run. That of a shadow goes where shadows go.
pub(super) fn message(
    pipeline: &Pipeline,
    facts: &StudyFacts,
    prior: &Prior,
    run: &Run,
    orphan: Option<&str>,
) -> Option<Message> {
    let manifest = run.model.as_ref().map(|model| &model.package.manifest);
    let name = orphan.unwrap_or_else(|| model_name(run));
    let version = manifest.map_or("", |manifest| manifest.version.as_str());
    let id = message_id(&MessageKey {
        study: &facts.study_instance_uid,
        model: name,
        version,
        model_sha256: manifest.map_or("", |manifest| manifest.sha256.as_str()),
        instance_set: &facts.instance_set_digest,
        rerun: prior.rerun,
    })
    .to_string();
    let mut facts = facts.clone();
    if let Some(input) = run.inputs.first().filter(|_| run.model.is_some()) {
        facts.modality.clone_from(&input.modality);
        facts.body_part = Some(input.body_part.clone()).filter(|part| !part.is_empty());
    }
    if run.refused > 0 {
        facts.quality.push(Remark {
            code: "instances-refused",
            text: format!(
                "{} of {} images were refused",
                run.refused,
                run.inputs.len()
            ),
        });
    }
    facts.quality.extend(run.remarks.iter().cloned());
    let supersedes = prior
        .messages
        .get(name)
        .map(|last| last.id.clone())
        .filter(|last| *last != id);
    let now = Timestamp::now();
    let trace = pipeline
        .tracer
        .study(&facts.study_instance_uid, prior.revision + 1);
    let traceparent = trace.map(|trace| trace.traceparent(trace.span_id("publish", &id)));
    let result = event::Result {
        id: id.clone(),
        traceparent: traceparent.clone(),
        supersedes,
        model: manifest,
        role: run.model.as_ref().map_or(Role::Served, |model| model.role),
        outcome: &run.outcome,
        inputs: run
            .inputs
            .iter()
            .map(|entry| entry.arrival.sop_instance.as_str().to_owned())
            .collect(),
        input_digest: input_digest(&run.prepared),
        decoded_ms: millis(run.decoded),
        queued_ms: millis(run.queued),
        inferred_ms: millis(run.inferred),
    };
    let body = event::encode(&pipeline.source, now, &facts, &pipeline.runtime, &result)
        .inspect_err(|err| tracing::error!(error = %err, "message not encoded"))
        .ok()?;
    Some(Message {
        id,
        study: facts.study_instance_uid.clone(),
        revision: prior.revision + 1,
        model: name.to_owned(),
        model_version: version.to_owned(),
        outcome: run.outcome.as_str().to_owned(),
        exchange: match run.model.as_ref().map(|model| model.role) {
            Some(Role::Shadow) => Exchange::Shadow,
            _ => Exchange::Findings,
        },
        routing_key: routing_key(
            run.outcome.as_str(),
            run.outcome.priority(),
            &facts.modality,
            facts.body_part.as_deref().unwrap_or_default(),
            name,
        ),
        body,
        created_at: now,
        traceparent,
    })
}

/// A ledger row for every entry of the snapshot. What arrived after it belongs to the next revision.
pub(super) fn instances(
    current: &[Arc<Entry>],
    others: &[Arc<Entry>],
    examined: &Examined,
) -> Vec<InstanceOutcome> {
    let row = |entry: &Arc<Entry>, current: bool| {
        let trace = examined
            .instances
            .get(&entry.id)
            .copied()
            .unwrap_or_default();
        InstanceOutcome {
            entry: entry.id,
            current,
            decoded_at: trace.decoded_at,
            inferred_at: trace.inferred_at,
            refusal: trace.refusal.map(str::to_owned),
        }
    };
    let current = current.iter().map(|entry| row(entry, true));
    current
        .chain(others.iter().map(|entry| row(entry, false)))
        .collect()
}

fn model_name(run: &Run) -> &str {
    run.model
        .as_ref()
        .map_or("", |model| &model.package.manifest.name)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
