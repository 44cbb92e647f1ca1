//! The ledger on a real database, with the spool and the outbox.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use super::*;
use crate::dicom::ae_title::AeTitle;
use crate::dicom::uid::{SopClassUid, SopInstanceUid, TransferSyntaxUid};
use crate::outbox::{Exchange, Outbox};
use crate::spool::{Arrival, Spool};

fn open() -> (tempfile::TempDir, Ledger, Outbox) {
    let dir = tempfile::tempdir().unwrap();
    let database = crate::state::open(dir.path()).unwrap();
    (dir, Ledger::new(database.clone()), Outbox::new(database))
}

fn entry(id: u64, study: u64, calling_ae: &str) -> Arc<Entry> {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&id.to_be_bytes());
    let at = Timestamp(i64::try_from(id).unwrap() * 1000);
    Arc::new(Entry {
        id: EntryId(id),
        arrival: Arrival {
            calling_ae: AeTitle::parse(calling_ae).unwrap(),
            called_ae: AeTitle::gateway(),
            peer: "192.0.2.7".parse().unwrap(),
            sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            sop_instance: SopInstanceUid::parse(&format!("2.25.1{id}")).unwrap(),
            transfer_syntax: TransferSyntaxUid::parse("1.2.840.10008.1.2.1").unwrap(),
        },
        study: StudyInstanceUid::parse(&format!("2.25.9{study}")).unwrap(),
        series: None,
        modality: "CT".to_owned(),
        body_part: String::new(),
        received_at: at,
        durable_at: Some(Timestamp(at.0 + 5)),
        data_set_bytes: 524_288,
        digest,
    })
}

fn revision(entries: &[Arc<Entry>], number: u32, digest: &str) -> Revision {
    let study = entries[0].study.clone();
    let now = Timestamp::now();
    Revision {
        number,
        digest: digest.to_owned(),
        method: "quiet-period".to_owned(),
        evidence: serde_json::Value::Null,
        first_received: now,
        last_received: now,
        complete_at: now,
        finished_at: now,
        instances: entries
            .iter()
            .map(|entry| InstanceOutcome {
                entry: entry.id,
                current: true,
                decoded_at: Some(now),
                inferred_at: Some(now),
                refusal: None,
            })
            .collect(),
        messages: vec![Message {
            id: format!("{study}-{number}-{digest}"),
            study: study.as_str().to_owned(),
            revision: number,
            model: "m".to_owned(),
            model_version: "1".to_owned(),
            outcome: "finding".to_owned(),
            exchange: Exchange::Findings,
            routing_key: "k".to_owned(),
            body: vec![b' '; 2000],
            created_at: now,
            traceparent: None,
        }],
        study,
    }
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip_while_instances_arrive() {
    let (_dir, ledger, _) = open();
    for id in 1..=5 {
        ledger.received(vec![entry(id, id, "CT1")]).await.unwrap();
    }
    let page = |cursor| StudyFilter {
        cursor,
        limit: 2,
        ..StudyFilter::default()
    };
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let found = ledger.studies(page(cursor)).await.unwrap();
        let uids = found.studies.iter().map(|s| s.study_instance_uid.clone());
        seen.extend(uids);
        // A study of a later page grows, one of an earlier page too, and a new one comes.
        let late = 10 + seen.len() as u64;
        for study in [1, 5, late] {
            let grown = entry(late * 100 + study, study, "CT1");
            ledger.received(vec![grown]).await.unwrap();
        }
        let Some(next) = found.next else { break };
        cursor = Some(next.parse().unwrap());
    }
    assert_eq!(
        seen,
        ["2.25.95", "2.25.94", "2.25.93", "2.25.92", "2.25.91"]
    );
}

#[tokio::test]
async fn a_sender_is_told_how_many_have_arrived_and_where_they_are() {
    let (_dir, ledger, outbox) = open();
    let sent: Vec<_> = (1..=4).map(|id| entry(id, 1, "CT2")).collect();
    ledger.received(sent.clone()).await.unwrap();
    ledger.received(vec![entry(9, 2, "MR,1")]).await.unwrap();
    ledger.finish(revision(&sent[..3], 1, "a")).await.unwrap();
    let all = ledger.sources(Span::default()).await.unwrap();
    let [ct, mr] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(
        (
            ct.instances_received,
            ct.instances_open,
            ct.instances_processed
        ),
        (4, 1, 3)
    );
    assert_eq!((ct.studies, ct.instances_confirmed), (1, 0));
    assert_eq!((mr.calling_ae.as_str(), mr.instances_received), ("MR,1", 1));
    outbox.confirmed(vec![1], Timestamp(7)).await.unwrap();
    let all = ledger.sources(Span::default()).await.unwrap();
    assert_eq!(all[0].instances_confirmed, 3);
    let span = Span {
        since: sent[1].received_at,
        until: sent[3].received_at,
    };
    let some = ledger.sources(span).await.unwrap();
    assert_eq!((some.len(), some[0].instances_received), (1, 2));
}

#[tokio::test]
async fn a_study_that_is_to_be_done_again_says_so_until_it_was() {
    let (dir, ledger, _) = open();
    let config = crate::spool::Config {
        dir: dir.path().join("spool"),
        ..crate::spool::Config::default()
    };
    let (spool, _) = Spool::open(config).unwrap();
    assert!(matches!(
        ledger.retry(&spool, vec![EntryId(3)]).await,
        Err(TurnoverError::Spool(_))
    ));
    let entries = vec![entry(1, 1, "CT2")];
    ledger.received(entries.clone()).await.unwrap();
    ledger.finish(revision(&entries, 1, "a")).await.unwrap();
    let study = entries[0].study.clone();
    ledger
        .released(vec![EntryId(1)], Timestamp(1))
        .await
        .unwrap();
    ledger.begin_attempt(&study, "a").await.unwrap();
    assert!(!ledger.prior(&study).await.unwrap().rerun_due);
    ledger.reopen(entries.clone()).await.unwrap();
    let prior = ledger.prior(&study).await.unwrap();
    assert_eq!(
        (prior.rerun, prior.rerun_due, prior.released),
        (1, true, false)
    );
    // It is no known instance, and its attempts begin anew.
    assert!(ledger.received(entries.clone()).await.unwrap().is_empty());
    assert_eq!(ledger.begin_attempt(&study, "a").await.unwrap(), 1);
    ledger.finish(revision(&entries, 2, "a")).await.unwrap();
    let prior = ledger.prior(&study).await.unwrap();
    assert_eq!(
        (prior.revision, prior.rerun, prior.rerun_due),
        (2, 1, false)
    );
    ledger.reopen(entries).await.unwrap();
    assert_eq!(ledger.prior(&study).await.unwrap().rerun, 2);
}

/// `cargo test --lib a_hundred_thousand -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn a_hundred_thousand_instances_are_asked_about() {
    let (_dir, ledger, _) = open();
    let begun = Instant::now();
    for study in 0..200 {
        let ids = study * 500..(study + 1) * 500;
        let ae = format!("CT{}", study % 4);
        let entries: Vec<_> = ids.map(|id| entry(id, study, &ae)).collect();
        ledger.received(entries.clone()).await.unwrap();
        if study < 190 {
            ledger.finish(revision(&entries, 1, "a")).await.unwrap();
        }
    }
    println!("filled in {:?}", begun.elapsed());
    let told = |what: &str, begun: Instant, rows: usize| {
        println!("{what}: {rows} rows in {:?}", begun.elapsed());
    };
    let limit = |limit| StudyFilter {
        limit,
        ..StudyFilter::default()
    };
    let begun = Instant::now();
    let page = ledger.studies(limit(100)).await.unwrap();
    told("studies, 100 of 200", begun, page.studies.len());
    let begun = Instant::now();
    let filter = StudyFilter {
        calling_ae: Some("CT2".to_owned()),
        state: Some(State::Receiving),
        ..limit(100)
    };
    let page = ledger.studies(filter).await.unwrap();
    told("studies of CT2, receiving", begun, page.studies.len());
    let begun = Instant::now();
    let study = ledger.study("2.25.910".to_owned()).await.unwrap().unwrap();
    told("one study", begun, study.instances.len());
    let begun = Instant::now();
    let sources = ledger.sources(Span::default()).await.unwrap();
    told("sources, all of time", begun, sources.len());
    let begun = Instant::now();
    let span = Span {
        since: Timestamp(95_000_000),
        ..Span::default()
    };
    told(
        "sources, the last 5000",
        begun,
        ledger.sources(span).await.unwrap().len(),
    );
    let begun = Instant::now();
    let releasable = ledger.releasable(Timestamp(0), Timestamp(0)).await.unwrap();
    told("releasable", begun, releasable.len());
    let (begun, mut rows, mut after) = (Instant::now(), 0, None);
    loop {
        let page = ledger.export(after, Span::default(), 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = EntryId::from_file_name(&format!("{}.dcm", last.entry));
        rows += page.len();
    }
    told("export", begun, rows);
}

/// An instance becomes durable while its study is taken up, so the revision knows it before the ledger
/// does. Without a second look it would count as being received for ever, and hold the study's files.
#[tokio::test]
async fn an_instance_that_a_revision_knew_before_the_ledger_is_covered() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::new(crate::state::open(dir.path()).unwrap());
    let both = [entry(1, 1, "CT1"), entry(2, 1, "CT1")];
    ledger.received(vec![both[0].clone()]).await.unwrap();
    let mut covered = revision(&both, 1, "set");
    covered.messages.clear();
    ledger.finish(covered).await.unwrap();
    let handled = ledger.received(vec![both[1].clone()]).await.unwrap();
    assert!(handled.is_empty(), "the study is looked at once more");
    let study = both[0].study.as_str().to_owned();
    let state = async || {
        let report = ledger.study(study.clone()).await.unwrap().unwrap();
        report.summary.state
    };
    assert_eq!(state().await, State::Receiving);
    let ids = vec![EntryId(1), EntryId(2)];
    ledger.cover(1, ids.clone(), Vec::new()).await.unwrap();
    assert_eq!(state().await, State::Done);
    let now = Timestamp::now();
    let releasable = ledger.releasable(Timestamp(now.0 + 1), now).await.unwrap();
    assert_eq!(releasable, ids);
    assert_eq!(ledger.held(study.clone()).await.unwrap(), ids);
}
