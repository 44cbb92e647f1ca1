//! `broker.kind = "file"`: what the ledger calls confirmed is a line in the file, through restarts and
//! power cuts; a file that cannot be opened is a broker that is away.

use std::collections::BTreeSet;

use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn what_is_confirmed_is_a_line_whatever_happens() {
    let mut gateway = Gateway::start(&Options::new());
    let mut studies = Vec::new();
    for _ in 0..3 {
        let study = Study::chest();
        assert_eq!(
            RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
            [0]
        );
        gateway.wait_until_done(&[&study.uid]);
        gateway.kill();
        studies.push(study.uid);
        let lines = gateway.messages();
        assert_eq!(lines.len(), studies.len(), "one line per message");
        gateway.restart();
    }
    let ids = gateway
        .messages()
        .iter()
        .map(|line| line["id"].to_string())
        .collect::<BTreeSet<_>>();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_file_that_cannot_be_opened_is_a_broker_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("later/findings.ndjson");
    let gateway = Gateway::start(&Options::new().set("broker.file", file.clone()));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    wait_until("message in the outbox", SOON, || {
        gateway.get("/api/v1/outbox")["owed"] == 1
    });
    assert_eq!(gateway.get("/readyz")["broker"]["connected"], false);
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 1);
}
