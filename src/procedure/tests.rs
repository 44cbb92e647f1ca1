//! Steps in the database, and the data sets they come from.

#![allow(clippy::unwrap_used)]

use dicom::dictionary_std::tags;

use super::*;
use crate::dicom::dataset::Writer;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const SR: &str = "1.2.840.10008.5.1.4.1.1.88.67";
const SYNTAX: &str = "1.2.840.10008.1.2.1";
const DAY: i64 = 24 * 3600 * 1_000_000;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&dir.path().join("state.db"), SCHEMA, &[]).unwrap();
    (dir, Store::new(database))
}

fn created(sop_instance: &str, studies: &[&str]) -> Created {
    Created {
        sop_instance: SopInstanceUid::parse(sop_instance).unwrap(),
        calling_ae: AeTitle::parse("CT2").unwrap(),
        studies: studies
            .iter()
            .map(|uid| StudyInstanceUid::parse(uid).unwrap())
            .collect(),
        references: None,
        transfer_syntax: SYNTAX.into(),
        data_set: vec![1],
    }
}

fn changed(sop_instance: &str, state: Option<State>, references: Option<&[&str]>) -> Changed {
    let class = SopClassUid::parse(CT).unwrap();
    let reference = |uid: &&str| (class.clone(), SopInstanceUid::parse(uid).unwrap());
    Changed {
        sop_instance: SopInstanceUid::parse(sop_instance).unwrap(),
        state,
        discontinuation: None,
        references: references.map(|uids| uids.iter().map(reference).collect()),
        transfer_syntax: SYNTAX.into(),
        data_set: vec![2],
    }
}

#[tokio::test]
async fn a_step_begins_ends_and_stays_ended() {
    let (_dir, store) = store();
    let done = Outcome::Done(vec![StudyInstanceUid::parse("1.9").unwrap()]);
    let step = created("1.2", &["1.9"]);
    let create = |step: Created, at| store.create(step, Timestamp(at));
    let set = |change: Changed, at| store.set(change, Timestamp(at));
    assert_eq!(create(step.clone(), 1).await.unwrap(), done);
    assert_eq!(create(step, 2).await.unwrap(), Outcome::Duplicate);
    let end = changed("1.2", Some(State::Completed), Some(&["1.3"]));
    assert_eq!(set(end.clone(), 3).await.unwrap(), done);
    assert_eq!(set(end, 4).await.unwrap(), Outcome::Final);
    let other = changed("1.4", Some(State::Completed), Some(&["1.3"]));
    assert_eq!(set(other, 4).await.unwrap(), Outcome::Unknown);
    let steps = store.of_study("1.9".into()).await.unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].state, State::Completed);
    assert_eq!(steps[0].instances, ["1.3"]);
    let times = (steps[0].created_at.0, steps[0].updated_at.0);
    assert_eq!(times, (1, 3), "a refused change changes nothing");
}

#[tokio::test]
async fn the_last_list_counts_and_a_change_without_one_keeps_it() {
    let (_dir, store) = store();
    store
        .create(created("1.2", &["1.9"]), Timestamp(1))
        .await
        .unwrap();
    for (at, change) in [
        (2, changed("1.2", None, Some(&["1.3", "1.4"]))),
        (3, changed("1.2", Some(State::InProgress), Some(&["1.4"]))),
        (4, changed("1.2", Some(State::Completed), None)),
    ] {
        let outcome = store.set(change, Timestamp(at)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{at}: {outcome:?}");
    }
    let steps = store.of_study("1.9".into()).await.unwrap();
    assert_eq!(steps[0].state, State::Completed);
    assert_eq!(steps[0].instances, ["1.4"]);
}

#[tokio::test]
async fn a_step_ends_only_once_a_series_was_told() {
    let (_dir, store) = store();
    for uid in ["1.2", "1.3"] {
        let step = created(uid, &["1.9"]);
        store.create(step, Timestamp(1)).await.unwrap();
    }
    for state in [State::Completed, State::Discontinued] {
        let early = store.set(changed("1.2", Some(state), None), Timestamp(2));
        assert_eq!(early.await.unwrap(), Outcome::NoSeries);
    }
    // A series without instances is one.
    let empty = changed("1.2", Some(State::Discontinued), Some(&[]));
    let done = store.set(empty, Timestamp(3)).await.unwrap();
    assert!(matches!(done, Outcome::Done(_)));
    // And one that N-CREATE told counts.
    let mut step = created("1.4", &["1.9"]);
    step.references = Some(changed("1.4", None, Some(&["1.5"])).references.unwrap());
    store.create(step, Timestamp(1)).await.unwrap();
    let done = store.set(changed("1.4", Some(State::Completed), None), Timestamp(2));
    assert!(matches!(done.await.unwrap(), Outcome::Done(_)));
    let steps = store.of_study("1.9".into()).await.unwrap();
    let step = steps.iter().find(|step| step.sop_instance_uid == "1.4");
    assert_eq!(step.unwrap().instances, ["1.5"]);
}

#[tokio::test]
async fn a_step_of_no_study_is_kept_and_ends() {
    let (_dir, store) = store();
    let step = created("1.2", &[]);
    let none = Outcome::Done(Vec::new());
    assert_eq!(store.create(step, Timestamp(1)).await.unwrap(), none);
    let end = changed("1.2", Some(State::Completed), Some(&["1.3"]));
    assert_eq!(store.set(end, Timestamp(2)).await.unwrap(), none);
    assert!(store.of_study("1.9".into()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_ended_is_forgotten_and_what_goes_on_waits_a_week() {
    let (_dir, store) = store();
    for uid in ["1.2", "1.3"] {
        let step = created(uid, &["1.9"]);
        store.create(step, Timestamp(0)).await.unwrap();
    }
    let end = changed("1.2", Some(State::Completed), Some(&["1.5"]));
    store.set(end, Timestamp(DAY)).await.unwrap();
    let known = async || {
        let steps = store.of_study("1.9".into()).await.unwrap();
        let uids = steps.into_iter().map(|step| step.sop_instance_uid);
        uids.collect::<Vec<_>>()
    };
    let expire = |before: i64, now: i64| store.expire(Timestamp(before), Timestamp(now));
    expire(DAY, 2 * DAY).await.unwrap();
    assert_eq!(known().await, ["1.2", "1.3"]);
    expire(DAY + 1, 2 * DAY).await.unwrap();
    assert_eq!(known().await, ["1.3"]);
    expire(7 * DAY, 7 * DAY).await.unwrap();
    assert_eq!(known().await, ["1.3"]);
    expire(8 * DAY, 7 * DAY + 1).await.unwrap();
    assert!(known().await.is_empty());
    let left = store.database.read(|connection| {
        connection.query_row(
            "SELECT (SELECT count(*) FROM procedure_step) + (SELECT count(*) FROM procedure_study)
                    + (SELECT count(*) FROM procedure_reference)",
            [],
            |row| row.get::<_, i64>(0),
        )
    });
    assert_eq!(left.unwrap(), 0);
}

/// SOP class and instance of images, and of other instances.
type Series<'a> = [&'a [(&'a str, &'a str)]; 2];

/// A data set with a status, studies, and series.
fn data_set(status: Option<&str>, studies: &[&str], series: Option<&[Series<'_>]>) -> Vec<u8> {
    let mut writer = Writer::new(SYNTAX).unwrap();
    let references = |item: &mut Writer, (class, instance): &(&str, &str)| {
        item.text(tags::REFERENCED_SOP_CLASS_UID, *b"UI", class);
        item.text(tags::REFERENCED_SOP_INSTANCE_UID, *b"UI", instance);
    };
    if let Some(status) = status {
        writer.text(tags::PERFORMED_PROCEDURE_STEP_STATUS, *b"CS", status);
    }
    writer.sequence(
        tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE,
        studies,
        |item, study| {
            item.text(tags::STUDY_INSTANCE_UID, *b"UI", study);
        },
    );
    if let Some(series) = series {
        writer.sequence(
            tags::PERFORMED_SERIES_SEQUENCE,
            series,
            |item, [images, others]| {
                item.sequence(tags::REFERENCED_IMAGE_SEQUENCE, *images, references)
                    .sequence(
                        tags::REFERENCED_NON_IMAGE_COMPOSITE_SOP_INSTANCE_SEQUENCE,
                        *others,
                        references,
                    );
            },
        );
    }
    writer.finish()
}

#[test]
fn a_beginning_must_be_in_progress() {
    let status = "Performed Procedure Step Status";
    let begin = |status| Beginning::read(&data_set(status, &["1.9"], None), SYNTAX);
    assert_eq!(begin(Some("IN PROGRESS")).unwrap().studies.len(), 1);
    assert_eq!(begin(None).unwrap_err(), Fault::Missing(status));
    assert_eq!(begin(Some("")).unwrap_err(), Fault::NoValue(status));
    for other in ["COMPLETED", "DISCONTINUED", "STARTED", "in progress"] {
        assert_eq!(begin(Some(other)).unwrap_err(), Fault::Value(status));
    }
}

#[test]
fn studies_come_once_each_and_what_is_no_uid_is_left_out() {
    let bytes = data_set(
        Some("IN PROGRESS"),
        &["1.9", "", "../x", "1.8", "1.9"],
        None,
    );
    let read = Beginning::read(&bytes, SYNTAX).unwrap();
    let uids: Vec<&str> = read.studies.iter().map(StudyInstanceUid::as_str).collect();
    assert_eq!(uids, ["1.8", "1.9"]);
    assert_eq!(read.references, None);
}

#[test]
fn all_instances_of_all_series_are_listed_once() {
    let listed = |series: &[Series<'_>]| {
        let read = Change::read(&data_set(Some("COMPLETED"), &[], Some(series)), SYNTAX)?;
        assert_eq!(read.state, Some(State::Completed));
        let uids = |list: Vec<(SopClassUid, SopInstanceUid)>| {
            list.into_iter()
                .map(|(class, uid)| (class.to_string(), uid.to_string()))
                .collect::<Vec<_>>()
        };
        Ok::<_, Fault>(read.references.map(uids))
    };
    let pair = |class: &str, uid: &str| (class.to_owned(), uid.to_owned());
    assert_eq!(
        listed(&[
            [&[(CT, "1.1"), (CT, "1.2"), (CT, "1.1")], &[(SR, "1.3")]],
            [&[(CT, "1.4")], &[]],
        ]),
        Ok(Some(vec![
            pair(CT, "1.1"),
            pair(CT, "1.2"),
            pair(SR, "1.3"),
            pair(CT, "1.4"),
        ]))
    );
    assert_eq!(listed(&[]), Ok(None), "no series");
    assert_eq!(listed(&[[&[], &[]]]), Ok(Some(Vec::new())), "an empty one");
    // A list with holes would be complete when the study is not.
    let refused = [
        (CT, "", Fault::NoValue("Referenced SOP")),
        ("", "1.2", Fault::NoValue("Referenced SOP")),
        (CT, "1.2/3", Fault::Value("Referenced SOP")),
        (SR, "1.1", Fault::Value("Referenced SOP")),
    ];
    for (class, instance, fault) in refused {
        let images: &[(&str, &str)] = &[(CT, "1.1"), (class, instance)];
        assert_eq!(listed(&[[images, &[]]]), Err(fault), "{class} {instance}");
    }
}

#[test]
fn a_list_that_is_no_sequence_is_no_empty_list() {
    let mut writer = Writer::new(SYNTAX).unwrap();
    writer
        .text(tags::PERFORMED_PROCEDURE_STEP_STATUS, *b"CS", "COMPLETED")
        .sequence(tags::PERFORMED_SERIES_SEQUENCE, [()], |item, ()| {
            item.text(tags::REFERENCED_IMAGE_SEQUENCE, *b"UN", "1.2.3");
        });
    let read = Change::read(&writer.finish(), SYNTAX);
    assert_eq!(read.unwrap_err(), Fault::Unreadable);
}

#[test]
fn a_reason_is_a_code_of_a_discontinued_step() {
    let read = |status: &str, code: &str| {
        let mut writer = Writer::new(SYNTAX).unwrap();
        writer
            .text(tags::PERFORMED_PROCEDURE_STEP_STATUS, *b"CS", status)
            .sequence(
                tags::PERFORMED_PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE,
                [code],
                |item, code| {
                    item.text(tags::CODE_VALUE, *b"SH", code);
                },
            );
        let read = Change::read(&writer.finish(), SYNTAX).unwrap();
        read.discontinuation
    };
    assert_eq!(read("DISCONTINUED", "110513").unwrap(), "110513");
    assert_eq!(read("COMPLETED", "110513"), None);
    for text in ["Doe^Jane moved", "12345678901234567"] {
        assert_eq!(read("DISCONTINUED", text), None, "{text}");
    }
}

#[test]
fn damaged_bytes_are_unreadable_and_never_a_panic() {
    let series: &[Series<'_>] = &[[&[(CT, "1.1")], &[]]];
    let whole = data_set(Some("COMPLETED"), &["1.9"], Some(series));
    for end in 0..whole.len() {
        let cut = &whole[..end];
        let (begun, changed) = (Beginning::read(cut, SYNTAX), Change::read(cut, SYNTAX));
        assert!(begun.is_err(), "cut at {end}");
        // Between two elements a cut leaves a data set, then without the list.
        assert!(changed.is_err() || changed.unwrap().references.is_none());
    }
    assert_eq!(Change::read(&[], SYNTAX).unwrap_err(), Fault::Unreadable);
    for at in 0..whole.len() {
        for byte in [0, 1, 0x2E, 0x31, 0x55, 0x7F, 0x80, 0xFE, 0xFF] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            for syntax in [SYNTAX, "1.2.840.10008.1.2"] {
                let _ = Beginning::read(&bytes, syntax);
                if let Ok(change) = Change::read(&bytes, syntax) {
                    let listed = change.references.map_or(0, |list| list.len());
                    assert!(listed <= 1, "byte {at} as {byte:02X} lists {listed}");
                }
            }
        }
    }
}
