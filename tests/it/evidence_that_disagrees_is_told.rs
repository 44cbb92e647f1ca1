//! By the modality's list the study is complete, and the PACS has one more: it is waited for, and the
//! message names both.

use serde_json::json;

use crate::support::datasets::new_uid;
use crate::support::pacs::Pacs;
use crate::support::{Gateway, Options, RawPeer, Study, contract, peers};

#[test]
fn both_are_named_with_their_figures() {
    if !peers::python_available() {
        return;
    }
    let pacs = Pacs::pynetdicom("counts");
    let target = pacs.target();
    let (ae_title, address) = target.split_once('@').unwrap();
    // Evidence is not believed before the quiet period is over, so that both are heard.
    let options = Options::new()
        .set("study.quiet_period", "1s")
        .set("study.evidence_period", "1s")
        .set("study.patience", "3s")
        .set("study.pacs.ae_title", ae_title)
        .set("study.pacs.address", address);
    let gateway = Gateway::start(&options);
    let (study, step) = (Study::chest(), new_uid());
    let images: Vec<_> = (1..=3).map(|number| study.image(number)).collect();
    pacs.fill(&images);
    let listed = [study.sop_instance(1), study.sop_instance(2)];
    let operations = json!([
        {"create": step, "status": "IN PROGRESS", "studies": [study.uid]},
        {"set": step, "status": "COMPLETED", "series": [listed]},
    ]);
    peers::modality(gateway.dicom_port, &operations);
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
    gateway.wait_until_done(&[&study.uid]);
    let message = gateway.messages().remove(0);
    contract::check_event(&message);
    let data = &message["data"];
    let told = &data["study"];
    assert_eq!(told["instances_received"], 2);
    assert_eq!(told["instances_expected"], 2, "the modality knows best");
    assert_eq!(told["completeness"]["method"], "patience");
    let verdicts: Vec<_> = told["completeness"]["evidence"]
        .as_array()
        .unwrap()
        .iter()
        .map(|piece| (piece["kind"].as_str(), piece["verdict"].as_str()))
        .collect();
    let expected = [
        (Some("mpps"), Some("complete")),
        (Some("pacs-count"), Some("incomplete")),
    ];
    assert_eq!(verdicts, expected);
    let remarks = json!([
        {
            "code": "evidence-disagrees",
            "text": "mpps complete (2 of 2), pacs-count incomplete (2 of 3)",
        },
        {"code": "instances-missing", "text": "pacs-count incomplete (2 of 3)"},
    ]);
    assert_eq!(data["quality"], remarks);
}
