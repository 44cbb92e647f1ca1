//! What the modality says it made completes the study long before silence would, and a step in
//! progress keeps it open longer.

use serde_json::json;

use crate::support::datasets::new_uid;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, contract, peers, wait_until};

#[test]
fn a_step_that_lists_what_is_here() {
    if !peers::python_available() {
        return;
    }
    // Silence alone would take ten minutes.
    let options = Options::new()
        .set("study.quiet_period", "10m")
        .set("study.patience", "10m")
        .set("study.evidence_period", "200ms");
    let gateway = Gateway::start(&options);
    let (study, step) = (Study::chest(), new_uid());
    let tell = |operation| peers::modality(gateway.dicom_port, &json!([operation]));
    let begin = json!({"create": step, "status": "IN PROGRESS", "studies": [study.uid]});
    assert_eq!(tell(begin)[0]["status"], "0000");
    let images = [study.image(1), study.image(2)];
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
    let listed = [study.sop_instance(1), study.sop_instance(2)];
    let end = json!({"set": step, "status": "COMPLETED", "series": [listed]});
    assert_eq!(tell(end)[0]["status"], "0000");
    gateway.wait_until_done(&[&study.uid]);
    let message = gateway.messages().remove(0);
    contract::check_event(&message);
    let told = &message["data"]["study"];
    assert_eq!(told["instances_received"], 2);
    assert_eq!(told["instances_expected"], 2);
    assert_eq!(told["completeness"]["method"], "mpps");
    let evidence = json!([{
        "kind": "mpps", "verdict": "complete", "expected": 2, "received": 2, "source": "MODALITY",
    }]);
    assert_eq!(told["completeness"]["evidence"], evidence);
    assert_eq!(message["data"]["quality"], json!([]));
    let revision = &gateway.study(&study.uid)["revisions"][0];
    assert_eq!(revision["completeness"], "mpps");
    assert_eq!(revision["evidence"], evidence);
    let counted = gateway.metric("studies_completed_total", &[("method", "mpps")]);
    assert_eq!(counted, 1.0);

    // One more than it lists: it says nothing of that one, and does not count it as missing.
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT2", &[&study.image(3)]),
        [0]
    );
    wait_until("the late instance", SOON, || {
        gateway.study(&study.uid)["instances_received"] == 3
    });
    assert_eq!(gateway.messages().len(), 1, "only silence can complete it");
}

/// The quiet period is over soon, and the modality is not done.
#[test]
fn a_step_in_progress_keeps_a_study_open() {
    if !peers::python_available() {
        return;
    }
    let options = Options::new()
        .set("study.quiet_period", "100ms")
        .set("study.evidence_period", "100ms");
    let gateway = Gateway::start(&options);
    let (study, other, step) = (Study::chest(), Study::chest(), new_uid());
    let tell = |operation| peers::modality(gateway.dicom_port, &json!([operation]));
    let begin = json!({"create": step, "status": "IN PROGRESS", "studies": [study.uid]});
    assert_eq!(tell(begin)[0]["status"], "0000");
    for study in [&study, &other] {
        let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&study.image(1)]);
        assert_eq!(sent, [0]);
    }
    gateway.wait_until_done(&[&other.uid]);
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");

    // It breaks off, with what it has: that is complete, and worth a remark.
    let series = [[study.sop_instance(1)]];
    let end = json!({"set": step, "status": "DISCONTINUED", "series": series, "reason": "110513"});
    assert_eq!(tell(end)[0]["status"], "0000");
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study();
    let data = &messages[&study.uid][0]["data"];
    assert_eq!(data["study"]["completeness"]["method"], "mpps");
    assert_eq!(data["quality"][0]["code"], "procedure-discontinued");
    let other = &messages[&other.uid][0]["data"]["study"];
    assert_eq!(other["completeness"]["method"], "quiet-period");
}
