//! Rows and revisions in the orders in which they can come.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::dicom::{AeTitle, SopClassUid, SopInstanceUid, TransferSyntaxUid};
use crate::outbox::Outbox;
use crate::spool::Arrival;

const STUDY: &str = "2.25.1";

fn open() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let schema = format!("{}{}", Ledger::schema(), Outbox::schema());
    let database = Database::open(&dir.path().join("state.db"), &schema, &[]).unwrap();
    (dir, Ledger::new(database))
}

fn entry(id: u64) -> Arc<Entry> {
    Arc::new(Entry {
        id: EntryId(id),
        arrival: Arrival {
            calling_ae: AeTitle::parse("CT1").unwrap(),
            called_ae: AeTitle::parse("GATEWAY").unwrap(),
            peer: "127.0.0.1".parse().unwrap(),
            sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            sop_instance: SopInstanceUid::parse(&format!("2.25.1.{id}")).unwrap(),
            transfer_syntax: TransferSyntaxUid::parse("1.2.840.10008.1.2.1").unwrap(),
        },
        study: StudyInstanceUid::parse(STUDY).unwrap(),
        series: None,
        modality: "CT".to_owned(),
        body_part: String::new(),
        received_at: Timestamp(1),
        data_set_bytes: 10,
        digest: [u8::try_from(id).unwrap(); 32],
    })
}

fn revision(entries: &[u64]) -> Revision {
    let outcome = |id: &u64| InstanceOutcome {
        entry: EntryId(*id),
        current: true,
        decoded_at: None,
        inferred_at: None,
        refusal: None,
    };
    Revision {
        study: StudyInstanceUid::parse(STUDY).unwrap(),
        number: 1,
        digest: "set".to_owned(),
        method: "quiet-period".to_owned(),
        first_received: Timestamp(1),
        last_received: Timestamp(1),
        complete_at: Timestamp(2),
        finished_at: Timestamp(3),
        instances: entries.iter().map(outcome).collect(),
        messages: Vec::new(),
    }
}

/// An instance becomes durable while its study is taken up, so the revision knows it before the ledger
/// does. Without a second look it would count as being received for ever, and hold the study's files.
#[tokio::test]
async fn an_instance_that_a_revision_knew_before_the_ledger_is_covered() {
    let (_dir, ledger) = open();
    ledger.received(vec![entry(1)]).await.unwrap();
    ledger.finish(revision(&[1, 2])).await.unwrap();
    let handled = ledger.received(vec![entry(2)]).await.unwrap();
    assert!(handled.is_empty(), "the study is looked at once more");
    let state = async || {
        let report = ledger.study(STUDY.to_owned()).await.unwrap().unwrap();
        report.summary.state
    };
    assert_eq!(state().await, "receiving");
    let both = vec![EntryId(1), EntryId(2)];
    ledger.cover(1, both.clone(), Vec::new()).await.unwrap();
    assert_eq!(state().await, "done");
    assert_eq!(ledger.releasable(Timestamp(4)).await.unwrap(), both);
    assert_eq!(ledger.held(STUDY.to_owned()).await.unwrap(), both);
}
