//! How many instances of a study does a PACS have? `find` asks as the gateway does, and an answer that
//! does not say is none.

use std::time::{Duration, Instant};

use crate::support::gateway::binary;
use crate::support::pacs::Pacs;
use crate::support::{Instance, Study, peers};

/// Exit code, stdout and stderr of `find`.
fn find(target: &str, study: &str) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.args(["find", "--to", target, "--patience", "5s", study]);
    let output = peers::run(&mut command);
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[track_caller]
fn says(target: &str, study: &str, reason: &str) {
    let (code, answer, error) = find(target, study);
    assert_eq!((code, answer.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains(reason), "{error}");
}

fn images(study: &Study, count: u16) -> Vec<Instance> {
    (1..=count).map(|number| study.image(number)).collect()
}

#[test]
fn a_pacs_that_counts_is_believed() {
    if !peers::python_available() {
        return;
    }
    counts(&Pacs::pynetdicom("counts"));
}

#[test]
fn orthanc_counts() {
    if let Some(pacs) = Pacs::orthanc() {
        counts(&pacs);
    }
}

fn counts(pacs: &Pacs) {
    let (one, other) = (Study::ct(), Study::chest());
    pacs.fill(&images(&one, 3));
    pacs.fill(&images(&other, 2));
    for (study, count) in [(&one, "3"), (&other, "2")] {
        let (code, answer, error) = find(&pacs.target(), &study.uid);
        assert_eq!((code, answer.as_str()), (Some(0), count), "{error}");
    }
    pacs.fill(&images(&one, 4));
    assert_eq!(find(&pacs.target(), &one.uid).1, "4");
    says(&pacs.target(), "1.2.3", "does not know the study");
}

#[test]
fn dcmtk_knows_a_study_and_does_not_count() {
    if !peers::available("dcmqrscp") {
        return;
    }
    let pacs = Pacs::dcmtk();
    let study = Study::ct();
    pacs.fill(&images(&study, 3));
    says(&pacs.target(), &study.uid, "does not say Number of Study");
    says(&pacs.target(), "1.2.3", "does not know the study");
    let unknown = pacs.target().replace("TESTPACS", "OTHER");
    says(&unknown, &study.uid, "rejected the association");
}

#[test]
fn what_is_no_answer_is_an_error() {
    if !peers::python_available() {
        return;
    }
    let study = Study::ct();
    for (habit, reason) in [
        ("omits", "does not say Number of Study"),
        ("disagrees", "two counts for one study"),
        ("floods", "more matches than a study has"),
        ("fails", "C-FIND with status C001"),
    ] {
        let pacs = Pacs::pynetdicom(habit);
        pacs.fill(&images(&study, 2));
        says(&pacs.target(), &study.uid, reason);
    }
}

#[test]
fn nobody_waits_for_a_pacs_that_is_silent_or_gone() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Accepts the connection and says nothing.
    let port = free.local_addr().unwrap().port();
    let mute = format!("TESTPACS@127.0.0.1:{port}");
    let started = Instant::now();
    says(&mute, "1.2.3", "did not react in time");
    assert!(started.elapsed() >= Duration::from_secs(5));
    drop(free);
    says(&mute, "1.2.3", "failed to establish an association");
    if peers::python_available() {
        let pacs = Pacs::pynetdicom("silent");
        says(&pacs.target(), "1.2.3", "did not react in time");
        // Its answer counts, however long it holds the association.
        let pacs = Pacs::pynetdicom("lingers");
        says(&pacs.target(), "1.2.3", "does not know the study");
    }
    assert!(started.elapsed() < Duration::from_secs(40));
}
