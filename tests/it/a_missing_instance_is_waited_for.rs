//! The modality lists three instances and two are here: silence does not complete the study. The
//! third does; without it patience ends, and the message says what is missing.

use serde_json::{Value, json};

use crate::support::datasets::new_uid;
use crate::support::{Gateway, Options, RawPeer, Study, contract, peers};

/// Two of three images, and a step that lists the three.
fn two_of_three(gateway: &Gateway, study: &Study) {
    let images = [study.image(1), study.image(2)];
    let listed: Vec<String> = (1..=3).map(|number| study.sop_instance(number)).collect();
    let step = new_uid();
    let operations = json!([
        {"create": step, "status": "IN PROGRESS", "studies": [study.uid]},
        {"set": step, "status": "COMPLETED", "series": [listed]},
    ]);
    for answer in peers::modality(gateway.dicom_port, &operations) {
        assert_eq!(answer["status"], "0000");
    }
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
}

fn finished(gateway: &Gateway, study: &Study) -> Value {
    gateway.wait_until_done(&[&study.uid]);
    let message = gateway.messages().remove(0);
    contract::check_event(&message);
    message["data"].clone()
}

fn options() -> Options {
    Options::new()
        .set("study.quiet_period", "100ms")
        .set("study.evidence_period", "100ms")
}

#[test]
fn it_comes() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&options());
    let (study, other) = (Study::chest(), Study::chest());
    two_of_three(&gateway, &study);
    // A study that nothing is known of is done long before.
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&other.image(1)]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&other.uid]);
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&study.image(3)]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study();
    let [message] = messages[&study.uid].as_slice() else {
        panic!("{messages:?}");
    };
    let told = &message["data"]["study"];
    assert_eq!(told["instances_received"], 3);
    assert_eq!(told["completeness"]["method"], "mpps");
    assert_eq!(message["data"]["quality"], json!([]));
}

#[test]
fn it_never_comes() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&options().set("study.patience", "3s"));
    let study = Study::chest();
    two_of_three(&gateway, &study);
    let data = finished(&gateway, &study);
    let told = &data["study"];
    assert_eq!(told["instances_received"], 2);
    assert_eq!(told["instances_expected"], 3);
    assert_eq!(told["completeness"]["method"], "patience");
    let evidence = json!([{
        "kind": "mpps", "verdict": "incomplete", "expected": 3, "received": 2, "source": "MODALITY",
    }]);
    assert_eq!(told["completeness"]["evidence"], evidence);
    let remark = json!([{"code": "instances-missing", "text": "mpps incomplete (2 of 3)"}]);
    assert_eq!(data["quality"], remark);
}

/// What a start finds in the spool is held against the same evidence.
#[test]
fn a_kill_forgets_nothing_of_it() {
    if !peers::python_available() {
        return;
    }
    let mut gateway = Gateway::start(&options());
    let study = Study::chest();
    two_of_three(&gateway, &study);
    gateway.kill();
    gateway.restart();
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&study.image(3)]);
    assert_eq!(sent, [0]);
    let data = finished(&gateway, &study);
    assert_eq!(data["study"]["instances_received"], 3);
    assert_eq!(data["study"]["completeness"]["method"], "mpps");
}
