//! What a modality wants committed is what it has sent: a list that covers the study completes it, one
//! that names what is not here keeps it open, and one of a part says neither.

use serde_json::{Value, json};

use crate::support::commitment::{ask_and_leave, new_uid, reference};
use crate::support::{Gateway, Instance, Options, RawPeer, Study, contract, peers};

fn send(gateway: &Gateway, images: &[Instance]) {
    let images: Vec<&Instance> = images.iter().collect();
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &images);
    assert!(sent.iter().all(|status| *status == 0), "{sent:?}");
}

fn ask(gateway: &Gateway, images: &[Instance]) {
    let references: Vec<Value> = images.iter().map(reference).collect();
    ask_and_leave(gateway.dicom_port, &new_uid(), &references);
}

fn images(study: &Study, count: u16) -> Vec<Instance> {
    (1..=count).map(|number| study.image(number)).collect()
}

/// Silence alone would take ten minutes, and so would patience.
fn options() -> Options {
    Options::new()
        .set("study.quiet_period", "10m")
        .set("study.patience", "10m")
        .set("study.evidence_period", "200ms")
}

/// Series by series, and in one list with another study that is not here as a whole.
#[test]
fn lists_that_cover_a_study_complete_it() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&options());
    let (study, other) = (Study::chest(), Study::chest());
    let (mine, others) = (images(&study, 3), images(&other, 2));
    send(&gateway, &mine);
    send(&gateway, &others[..1]);
    ask(&gateway, &mine[..1]);
    // The list of another study's: it is complete, and the first one is a part of itself still.
    ask(&gateway, &others[..1]);
    gateway.wait_until_done(&[&other.uid]);
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");
    let both = [&mine[1..], &others[..1]].concat();
    ask(&gateway, &both);
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study();
    let message = &messages[&study.uid][0];
    contract::check_event(message);
    let told = &message["data"]["study"];
    assert_eq!(told["instances_expected"], 3);
    assert_eq!(told["completeness"]["method"], "storage-commitment");
    let evidence = json!([{
        "kind": "storage-commitment", "verdict": "complete", "expected": 3, "received": 3,
        "source": "CT2",
    }]);
    assert_eq!(told["completeness"]["evidence"], evidence);
    assert_eq!(message["data"]["quality"], json!([]));
}

#[test]
fn a_list_with_more_than_is_here_keeps_it_open() {
    if !peers::python_available() {
        return;
    }
    let options = options().set("study.quiet_period", "100ms");
    let gateway = Gateway::start(&options.set("commitment.wait", "1s"));
    let (study, other) = (Study::chest(), Study::chest());
    let (mine, others) = (images(&study, 3), images(&other, 1));
    ask(&gateway, &mine);
    send(&gateway, &mine[..2]);
    send(&gateway, &others);
    gateway.wait_until_done(&[&other.uid]);
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");
    send(&gateway, &mine[2..]);
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study();
    let told = &messages[&study.uid][0]["data"]["study"];
    assert_eq!(told["instances_received"], 3);
    assert_eq!(told["completeness"]["method"], "storage-commitment");
}
