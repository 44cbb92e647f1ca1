//! Instances that were acknowledged and that a damaged disk has taken since.
//!
//! The spool sets a corrupt entry aside at start; the ledger still knows it. Silence is never an
//! answer: a study that has nothing else left ends in a `failed` message, and any other goes on with
//! what it has, the ledger saying what is missing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::examine::{Examined, Header, Run};
use super::{Pipeline, report};
use crate::clock::Timestamp;
use crate::durable::database::DatabaseError;
use crate::findings::Outcome;
use crate::findings::identity::instance_set_digest;
use crate::ledger::{InstanceOutcome, LOST, Lost, Revision};
use crate::refusal::Refusal;
use crate::study::StableStudy;
use crate::study::completeness::Method;

/// Runs once, at start. A failure leaves the rows open for the next start.
pub(super) async fn account_for(pipeline: &Arc<Pipeline>) {
    if let Err(err) = all(pipeline).await {
        tracing::error!(error = %err, "lost instances could not be accounted for");
    }
}

async fn all(pipeline: &Arc<Pipeline>) -> Result<(), DatabaseError> {
    let present: HashSet<_> = pipeline
        .spool
        .entries()
        .iter()
        .map(|entry| entry.id)
        .collect();
    let mut studies: BTreeMap<_, Vec<Lost>> = BTreeMap::new();
    for lost in pipeline.ledger.lost(present).await? {
        studies.entry(lost.study.clone()).or_default().push(lost);
    }
    for (study, lost) in studies {
        tracing::error!(
            study = %pipeline.study_key.log_id(study.as_str()),
            instances = lost.len(),
            "acknowledged instances are gone; see quarantine"
        );
        let revision = pipeline.ledger.prior(&study).await?.revision;
        let now = Timestamp::now();
        let entries: Vec<_> = lost.iter().map(|lost| lost.entry).collect();
        if pipeline.spool.study(&study).current.is_empty() {
            failed(pipeline, &lost, now).await?;
            pipeline.ledger.released(entries, now).await?;
        } else {
            pipeline.ledger.write_off(entries, revision, now).await?;
        }
    }
    Ok(())
}

/// The message of a study of which nothing is left.
async fn failed(
    pipeline: &Arc<Pipeline>,
    lost: &[Lost],
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let (Some(first), Some(last)) = (lost.first(), lost.last()) else {
        return Ok(());
    };
    let digest = instance_set_digest(
        lost.iter()
            .map(|lost| (lost.sop_instance.as_str(), &lost.digest)),
    );
    let mut prior = pipeline.ledger.prior(&first.study).await?;
    // What was said of an earlier revision still holds.
    prior.messages.clear();
    let study = StableStudy {
        uid: first.study.clone(),
        method: Method::QuietPeriod,
        first: first.received_at,
        last: last.received_at,
        complete_at: now,
        counted: None,
    };
    let refusal = Refusal::new(LOST, "the instances were damaged on the gateway's disk");
    let examined = Examined {
        runs: vec![Run::new(None, Outcome::Failed(refusal), Vec::new())],
        instances: BTreeMap::new(),
        header: Header::default(),
    };
    let snapshot = report::Snapshot {
        entries: &[],
        set_aside: 0,
        digest: &digest,
        evidence: &[],
    };
    let facts = report::facts(
        &pipeline.rules.get().message,
        &study,
        &snapshot,
        &prior,
        &examined,
    );
    let messages = report::messages(pipeline, &[], &facts, &prior, &examined);
    pipeline
        .ledger
        .finish(Revision {
            study: study.uid,
            number: prior.revision + 1,
            digest,
            method: study.method.as_str().to_owned(),
            evidence: serde_json::json!([]),
            first_received: study.first,
            last_received: study.last,
            complete_at: now,
            finished_at: now,
            instances: lost
                .iter()
                .map(|lost| InstanceOutcome {
                    entry: lost.entry,
                    current: true,
                    decoded_at: None,
                    inferred_at: None,
                    refusal: Some(LOST.to_owned()),
                })
                .collect(),
            messages,
        })
        .await?;
    pipeline.outbox_wake.notify_one();
    Ok(())
}
