//! A PACS is asked when the quiet period is over: what it says confirms the silence, or prolongs it.

use serde_json::json;

use crate::support::pacs::{AE_TITLE, Pacs};
use crate::support::{Gateway, Instance, Options, RawPeer, Study, contract, peers};

fn options(pacs: &Pacs) -> Options {
    let target = pacs.target();
    let (ae_title, address) = target.split_once('@').unwrap();
    Options::new()
        .set("study.quiet_period", "100ms")
        .set("study.evidence_period", "100ms")
        .set("study.pacs.ae_title", ae_title)
        .set("study.pacs.address", address)
}

fn images(study: &Study, count: u16) -> Vec<Instance> {
    (1..=count).map(|number| study.image(number)).collect()
}

fn questions(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("pacs_questions_total", &[("result", result)])
}

/// The PACS has three, the gateway first two and then three.
#[test]
fn more_than_are_here() {
    if !peers::python_available() {
        return;
    }
    let pacs = Pacs::pynetdicom("counts");
    let gateway = Gateway::start(&options(&pacs));
    let study = Study::chest();
    let images = images(&study, 3);
    pacs.fill(&images);
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
    // The PACS does not know this one, so silence decides.
    let other = Study::chest();
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&other.image(1)]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&other.uid]);
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&images[2]]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study();
    let message = &messages[&study.uid][0];
    contract::check_event(message);
    let told = &message["data"]["study"];
    assert_eq!(told["instances_received"], 3);
    assert_eq!(told["instances_expected"], 3);
    assert_eq!(told["completeness"]["method"], "pacs-count");
    let evidence = json!([{
        "kind": "pacs-count", "verdict": "complete", "expected": 3, "received": 3, "source": AE_TITLE,
    }]);
    assert_eq!(told["completeness"]["evidence"], evidence);
    let other = &messages[&other.uid][0]["data"]["study"]["completeness"];
    assert_eq!(other["method"], "quiet-period");
    assert_eq!(other["evidence"][0]["verdict"], "unknown");
    assert!(questions(&gateway, "counted") >= 2.0);
    assert!(questions(&gateway, "uncounted") >= 1.0);
    assert_eq!(questions(&gateway, "failed"), 0.0);
}

/// DCMTK's `dcmqrscp` knows the study and leaves the optional key out: that says nothing.
#[test]
fn a_pacs_that_does_not_count_vetoes_nothing() {
    if !peers::available("dcmqrscp") {
        return;
    }
    let pacs = Pacs::dcmtk();
    let gateway = Gateway::start(&options(&pacs));
    let study = Study::chest();
    let images = images(&study, 3);
    pacs.fill(&images);
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&images[0]]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&study.uid]);
    let told = &gateway.messages()[0]["data"]["study"];
    assert_eq!(told["completeness"]["method"], "quiet-period");
    let evidence = json!([{"kind": "pacs-count", "verdict": "unknown", "source": AE_TITLE}]);
    assert_eq!(told["completeness"]["evidence"], evidence);
    assert!(told.get("instances_expected").is_none());
}

/// A PACS that hangs costs its timeout, once, and no study its end.
#[test]
fn a_pacs_that_does_not_answer_holds_nothing_up() {
    if !peers::python_available() {
        return;
    }
    let pacs = Pacs::pynetdicom("silent");
    let gateway = Gateway::start(&options(&pacs).set("study.pacs.timeout", "1s"));
    let studies: Vec<Study> = (0..3).map(|_| Study::chest()).collect();
    for study in &studies {
        let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&study.image(1)]);
        assert_eq!(sent, [0]);
        gateway.wait_until_done(&[&study.uid]);
    }
    for message in gateway.messages() {
        let completeness = &message["data"]["study"]["completeness"];
        assert_eq!(completeness["method"], "quiet-period");
        assert_eq!(completeness["evidence"][0]["verdict"], "unknown");
    }
    let words = "did not say how many instances";
    gateway.wait_until_logged(words);
    assert_eq!(
        gateway.log().matches(words).count(),
        1,
        "it is left alone after the first"
    );
    assert_eq!(questions(&gateway, "failed"), 1.0);
    assert!(questions(&gateway, "not-asked") >= 2.0);
    let asked = gateway.metric("pacs_question_duration_seconds_count", &[]);
    assert_eq!(asked, 1.0);
}
