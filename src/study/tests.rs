//! The assembler with answers made by hand: time is an argument here too.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::dicom::AeTitle;
use crate::dicom::uid::{SopClassUid, SopInstanceUid, TransferSyntaxUid};
use crate::spool::{Arrival, EntryId};

fn at(milliseconds: i64) -> Timestamp {
    Timestamp(milliseconds * 1000)
}

fn study() -> StudyInstanceUid {
    StudyInstanceUid::parse("1.2.3").unwrap()
}

fn entry(number: u64, received_at: Timestamp) -> Entry {
    Entry {
        id: EntryId(number),
        arrival: Arrival {
            calling_ae: AeTitle::parse("CT1").unwrap(),
            called_ae: AeTitle::gateway(),
            peer: std::net::IpAddr::from([127, 0, 0, 1]),
            sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            sop_instance: SopInstanceUid::parse(&format!("1.2.3.{number}")).unwrap(),
            transfer_syntax: TransferSyntaxUid::parse("1.2.840.10008.1.2.1").unwrap(),
        },
        study: study(),
        series: None,
        modality: "CT".to_owned(),
        body_part: String::new(),
        received_at,
        durable_at: None,
        data_set_bytes: 1,
        digest: [0; 32],
    }
}

/// Quiet after 5 s, evidence after 1 s, patient for 300 s, and a PACS to ask.
fn assembler() -> Assembler {
    Assembler::new(Config {
        pacs: Pacs {
            ae_title: "PACS".to_owned(),
            address: "localhost:104".to_owned(),
            ..Pacs::default()
        },
        ..Config::default()
    })
}

fn asked(assembler: &mut Assembler, now: i64) -> Option<Question> {
    let (stable, questions) = assembler.take(at(now), 8);
    assert!(stable.is_empty(), "complete by {:?}", stable[0].method);
    questions.into_iter().next()
}

fn completed(assembler: &mut Assembler, now: i64) -> Option<&'static str> {
    let (stable, _) = assembler.take(at(now), 8);
    stable.first().map(|study| study.method.as_str())
}

fn tell(assembler: &mut Assembler, question: Question, kind: Kind, verdict: Verdict) {
    let evidence = Evidence {
        verdict,
        ..Evidence::of(kind)
    };
    assembler.learn(&Answer {
        counted: None,
        evidence: vec![evidence],
        question,
    });
}

fn tell_nothing(assembler: &mut Assembler, question: Question) {
    assembler.learn(&Answer {
        question,
        evidence: Vec::new(),
        counted: None,
    });
}

#[test]
fn evidence_is_looked_for_after_a_moment_and_again_at_the_last_one() {
    let mut assembler = assembler();
    assembler.observe(&entry(1, at(0)));
    assert!(asked(&mut assembler, 999).is_none());
    assert_eq!(assembler.next_decision(at(999)), Some(at(1000)));
    let first = asked(&mut assembler, 1000).unwrap();
    assert_eq!(first.count, Count::No, "the PACS has time");
    assert!(asked(&mut assembler, 1100).is_none(), "one look at a time");
    tell_nothing(&mut assembler, first);
    assert_eq!(assembler.next_decision(at(1200)), Some(at(5000)));
    let last = asked(&mut assembler, 5000).unwrap();
    assert_eq!(last.count, Count::Ask);
    tell_nothing(&mut assembler, last);
    assert_eq!(completed(&mut assembler, 5001), Some("quiet-period"));
    assert_eq!(assembler.open_studies(), 0);
}

#[test]
fn evidence_that_says_complete_is_believed_at_once_when_it_comes_late() {
    let mut assembler = assembler();
    assembler.observe(&entry(1, at(0)));
    let look = asked(&mut assembler, 1000).unwrap();
    tell_nothing(&mut assembler, look);
    assembler.wake(&study());
    let look = asked(&mut assembler, 2000).unwrap();
    tell(&mut assembler, look, Kind::Mpps, Verdict::Complete);
    assert_eq!(completed(&mut assembler, 2010), Some("mpps"));
}

#[test]
fn an_instance_makes_what_was_known_worthless() {
    let mut assembler = assembler();
    assembler.observe(&entry(1, at(0)));
    let look = asked(&mut assembler, 1000).unwrap();
    assembler.observe(&entry(2, at(1100)));
    tell(&mut assembler, look, Kind::Mpps, Verdict::Complete);
    assert!(asked(&mut assembler, 2000).is_none());
    let look = asked(&mut assembler, 2100).unwrap();
    tell(&mut assembler, look, Kind::Mpps, Verdict::Partial);
    let last = asked(&mut assembler, 6100).unwrap();
    tell(&mut assembler, last, Kind::Mpps, Verdict::Partial);
    assert_eq!(completed(&mut assembler, 6200), Some("quiet-period"));
}

#[test]
fn what_is_missing_is_looked_for_again_and_again_and_not_for_ever() {
    let mut assembler = assembler();
    assembler.observe(&entry(1, at(0)));
    let (mut now, mut looks) = (0, 0);
    let method = loop {
        now = assembler.next_decision(at(now)).unwrap().0 / 1000;
        let (stable, questions) = assembler.take(at(now), 8);
        if let Some(study) = stable.first() {
            break study.method.as_str();
        }
        for question in questions {
            looks += 1;
            // A PACS that has more is asked again each time.
            let expected = if now < 5000 { Count::No } else { Count::Ask };
            assert_eq!(question.count, expected);
            let short = Evidence::counted("PACS", 3, 1);
            assembler.learn(&Answer {
                question,
                evidence: vec![short],
                counted: Some(Counted::Instances(3)),
            });
        }
    };
    assert_eq!((method, now), ("patience", 300_000));
    assert!((10..30).contains(&looks), "{looks} looks");
}

#[test]
fn an_answer_of_the_pacs_that_satisfies_is_kept() {
    let mut assembler = assembler();
    assembler.observe(&entry(1, at(0)));
    let look = asked(&mut assembler, 5000).unwrap();
    assert_eq!(look.count, Count::Ask);
    let counted = Some(Counted::Instances(1));
    let missing = Evidence {
        verdict: Verdict::Incomplete,
        ..Evidence::of(Kind::StorageCommitment)
    };
    assembler.learn(&Answer {
        question: look,
        evidence: vec![missing, Evidence::counted("PACS", 1, 1)],
        counted,
    });
    assembler.wake(&study());
    let look = asked(&mut assembler, 6000).unwrap();
    assert_eq!(look.count, Count::Known(Counted::Instances(1)));
    assembler.observe(&entry(2, at(7000)));
    let look = asked(&mut assembler, 12_000);
    assert!(look.is_none(), "the earlier answer is on its way");
}

#[test]
fn an_answer_that_never_comes_holds_nothing_up() {
    let mut assembler = assembler();
    assembler.observe(&entry(1, at(0)));
    assert!(asked(&mut assembler, 1000).is_some());
    assert!(asked(&mut assembler, 100_000).is_none());
    let again = asked(&mut assembler, 121_000).unwrap();
    tell_nothing(&mut assembler, again);
    assert_eq!(completed(&mut assembler, 121_001), Some("quiet-period"));
}

#[test]
fn age_and_people_do_not_wait_for_evidence() {
    let mut assembler = assembler();
    assembler.observe(&entry(1, at(0)));
    assert!(asked(&mut assembler, 1000).is_some());
    assert!(assembler.force(&study()));
    assert_eq!(completed(&mut assembler, 1001), Some("forced"));
    assert!(!assembler.force(&study()), "there is nothing to force");
    assembler.observe(&entry(1, at(0)));
    assembler.observe(&entry(2, at(3_594_000)));
    let last = asked(&mut assembler, 3_599_999).unwrap();
    assert_eq!(last.count, Count::Ask);
    assert_eq!(assembler.next_decision(at(3_599_999)), Some(at(3_600_000)));
    assert_eq!(completed(&mut assembler, 3_600_000), Some("max-age"));
}

#[test]
fn a_release_counts_until_the_next_instance() {
    let mut assembler = Assembler::new(Config {
        release_period: crate::units::HumanDuration::from_secs(1),
        evidence: Vec::new(),
        ..Config::default()
    });
    assembler.observe(&entry(1, at(0)));
    assembler.released(&study(), at(100));
    assembler.observe(&entry(2, at(500)));
    assert_eq!(completed(&mut assembler, 1600), None);
    assembler.released(&study(), at(1600));
    assert_eq!(assembler.next_decision(at(1600)), Some(at(2600)));
    let method = completed(&mut assembler, 2600);
    assert_eq!(method, Some("association-release"));
}

#[test]
fn without_kinds_of_evidence_nobody_is_asked() {
    let mut assembler = Assembler::new(Config {
        evidence: Vec::new(),
        ..Config::default()
    });
    assembler.observe(&entry(1, at(0)));
    assert!(asked(&mut assembler, 4999).is_none());
    assert_eq!(completed(&mut assembler, 5000), Some("quiet-period"));
}
