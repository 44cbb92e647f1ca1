//! One SOP Instance UID, two contents: Success both times, both kept, and the policy says which one
//! the models see.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn keep_first() {
    let (gateway, study, [first, _]) = send_two("keep-first");
    let report = gateway.study(&study.uid);
    assert_eq!(current(&report), [digest(&first)]);
    assert_eq!(
        report["instances"].as_array().unwrap().len(),
        2,
        "both are kept"
    );
    the_message_mentions_the_duplicate(&gateway);
}

#[test]
fn keep_last() {
    let (gateway, study, [_, last]) = send_two("keep-last");
    let report = gateway.study(&study.uid);
    assert_eq!(current(&report), [digest(&last)]);
    assert_eq!(
        report["instances"].as_array().unwrap().len(),
        2,
        "both are kept"
    );
    the_message_mentions_the_duplicate(&gateway);
}

#[test]
fn quarantine() {
    let (gateway, study, [first, _]) = send_two("quarantine");
    assert_eq!(current(&gateway.study(&study.uid)), [digest(&first)]);
    let listed = gateway.get("/api/v1/quarantine");
    let reason = listed["quarantine"][0]["reason"]
        .as_str()
        .unwrap_or_default();
    assert!(reason.starts_with("duplicate-sop-instance"), "{listed}");
    assert_eq!(gateway.messages().len(), 1);
}

/// After the message: with `keep-first` nothing has changed for the models, with `keep-last` it has.
#[test]
fn after_the_message_only_keep_last_makes_a_revision() {
    for (policy, revisions) in [("keep-first", 1), ("keep-last", 2)] {
        let gateway = Gateway::start(&Options::new().set("spool.duplicates", policy));
        let study = Study::chest();
        for seed in [1, 2] {
            let image = study.image_with(1, seed);
            assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
            // The ledger hears of an instance a little after its sender.
            wait_until("instance in the ledger", SOON, || {
                gateway.study(&study.uid)["instances"][seed as usize - 1].is_object()
            });
            gateway.wait_until_done(&[&study.uid]);
        }
        let report = gateway.study(&study.uid);
        assert_eq!(report["revision"], revisions, "{policy}: {report}");
        let messages = gateway.messages();
        assert_eq!(messages.len(), revisions, "{policy}");
        if let [first, second] = messages.as_slice() {
            assert_eq!(second["data"]["supersedes"], first["id"]);
        }
    }
}

fn send_two(policy: &str) -> (Gateway, Study, [Instance; 2]) {
    let gateway = Gateway::start(&Options::new().set("spool.duplicates", policy));
    let study = Study::chest();
    let images = [study.image_with(1, 1), study.image_with(1, 2)];
    let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["data"]["study"]["instances_received"], 1);
    (gateway, study, images)
}

fn the_message_mentions_the_duplicate(gateway: &Gateway) {
    let quality = &gateway.messages()[0]["data"]["quality"];
    assert_eq!(quality[0]["code"], "duplicate-sop-instance", "{quality}");
}

fn current(report: &Value) -> Vec<String> {
    let instances = report["instances"].as_array().unwrap().iter();
    let current = instances.filter(|instance| instance["current"] == true);
    current
        .map(|instance| instance["sha256"].as_str().unwrap().to_owned())
        .collect()
}

fn digest(instance: &Instance) -> String {
    let digest = Sha256::digest(&instance.data_set);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
