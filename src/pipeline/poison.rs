//! Studies that do not end, and instances that end what looks at them.
//!
//! An attempt is counted, durably, before the work. What counts is an attempt that this process did not
//! survive, or that ended by itself. A database that cannot be written is no fault of the study: its
//! attempt then goes on in this process, and is not counted again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use super::{Pipeline, examine};
use crate::clock::Timestamp;
use crate::decoder;
use crate::dicom::uid::StudyInstanceUid;
use crate::durable::database::DatabaseError;
use crate::ledger::GIVEN_UP;
use crate::spool::{Entry, EntryId};

/// The attempts of this process that have neither led to a revision nor ended by themselves: of each
/// study the instance set and the number.
#[derive(Debug, Default)]
pub struct Attempts {
    open: Mutex<HashMap<StudyInstanceUid, (String, u32)>>,
}

impl Attempts {
    fn open(&self, study: &StudyInstanceUid, digest: &str) -> Option<u32> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, number) = open.get(study)?;
        (of == digest).then_some(*number)
    }

    fn begin(&self, study: &StudyInstanceUid, digest: &str, number: u32) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(study.clone(), (digest.to_owned(), number));
    }

    /// The attempt has ended.
    pub(super) fn ended(&self, study: &StudyInstanceUid) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(study);
    }
}

/// The number of the attempt at these instances that begins or goes on now, from 1.
pub(super) async fn begin_attempt(
    pipeline: &Pipeline,
    study: &StudyInstanceUid,
    digest: &str,
) -> Result<u32, DatabaseError> {
    if let Some(number) = pipeline.attempts.open(study, digest) {
        return Ok(number);
    }
    let number = pipeline.ledger.begin_attempt(study, digest).await?;
    pipeline.attempts.begin(study, digest, number);
    Ok(number)
}

/// Runs once, at start: retries that a crash has interrupted, and given-up studies that it kept from
/// being set aside. A failure leaves both to the next start.
pub(super) async fn finish_what_was_begun(pipeline: &Arc<Pipeline>) {
    match pipeline.ledger.resume_retries(&pipeline.spool).await {
        Ok(0) => {}
        Ok(entries) => tracing::info!(entries, "retry finished that a crash had interrupted"),
        Err(err) => tracing::error!(error = %err, "an interrupted retry cannot be finished"),
    }
    match pipeline.ledger.given_up().await {
        Ok(given_up) => {
            let entries = pipeline.spool.entries();
            let present: HashSet<EntryId> = entries.iter().map(|entry| entry.id).collect();
            let here = given_up.into_iter().filter(|id| present.contains(id));
            set_aside(pipeline, here.collect()).await;
        }
        Err(err) => tracing::error!(error = %err, "given-up studies are not looked for"),
    }
}

/// Moves the instances of a given-up study into quarantine. What fails is done at the next start.
pub(super) async fn set_aside(pipeline: &Pipeline, ids: Vec<EntryId>) {
    let mut moved = Vec::new();
    for id in ids {
        let spool = pipeline.spool.clone();
        let reason = format!("{GIVEN_UP}: see the failed message");
        match spawn_blocking(move || spool.quarantine(id, &reason)).await {
            Ok(Ok(())) => moved.push(id),
            Ok(Err(err)) => tracing::warn!(entry = %id, error = %err, "not quarantined"),
            Err(_) => {}
        }
    }
    if moved.is_empty() {
        return;
    }
    count(pipeline, GIVEN_UP, moved.len());
    // Entries that are not in the spool are no news at the next start.
    if let Err(err) = pipeline.ledger.released(moved, Timestamp::now()).await {
        tracing::warn!(error = %err, "the ledger does not know of the quarantine yet");
    }
}

/// A file that ends a decoding process is a defect of a codec, an attack, or a limit that is too
/// tight. Somebody has to look at it, after the study is released too.
pub(super) async fn keep_what_broke_a_decoder(
    pipeline: &Pipeline,
    entries: &[Arc<Entry>],
    examined: &examine::Examined,
) {
    for entry in entries {
        let refusal = examined.instances.get(&entry.id).and_then(|t| t.refusal);
        let Some(code) = refusal.filter(|code| code.starts_with(decoder::REFUSAL)) else {
            continue;
        };
        let (spool, id) = (pipeline.spool.clone(), entry.id);
        let kept = spawn_blocking(move || {
            spool.keep_for_inquiry(id, &format!("{code}: see the message of the study"))
        });
        match kept.await {
            Ok(Ok(())) => count(pipeline, code, 1),
            Ok(Err(err)) => tracing::warn!(entry = %entry.id, error = %err, "not kept"),
            Err(_) => {}
        }
    }
}

fn count(pipeline: &Pipeline, code: &str, instances: usize) {
    pipeline
        .metrics
        .quarantined_instances_total
        .with_label_values(&[code])
        .inc_by(instances as u64);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_goes_on_for_the_same_instances_only() {
        let study = StudyInstanceUid::parse("1.2.3").unwrap();
        let attempts = Attempts::default();
        attempts.begin(&study, "a", 3);
        assert_eq!(attempts.open(&study, "a"), Some(3));
        assert_eq!(attempts.open(&study, "b"), None);
        attempts.ended(&study);
        assert_eq!(attempts.open(&study, "a"), None);
    }
}
