//! What an earlier process accepted is worked on at the start, by the ordinary path; what has rotted
//! meanwhile is set aside and reported.

use crate::support::files::below;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn entries_of_an_earlier_run_are_worked_on() {
    let mut gateway = Gateway::start(&Options::new().set("study.quiet_period", "10m"));
    let studies: Vec<Study> = (0..4).map(|_| Study::chest()).collect();
    for study in &studies {
        assert_eq!(
            RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
            [0]
        );
    }
    gateway.kill();
    assert!(gateway.messages().is_empty());
    gateway.restart_with(&Options::new());
    let uids: Vec<&str> = studies.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&uids);
    assert_eq!(gateway.messages_by_study().len(), 4);
}

#[test]
fn a_corrupt_entry_is_set_aside_and_the_others_go_on() {
    let mut gateway = Gateway::start(&Options::new().set("study.quiet_period", "10m"));
    let studies: Vec<Study> = (0..3).map(|_| Study::chest()).collect();
    for study in &studies {
        assert_eq!(
            RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
            [0]
        );
    }
    // The ledger knows all of them before one rots.
    for study in &studies {
        gateway.study(&study.uid);
    }
    gateway.kill();
    let entries = below(&gateway.data_dir());
    assert_eq!(entries.len(), 3);
    // The second has lost its end, and somebody has left a file.
    let torn = std::fs::OpenOptions::new()
        .write(true)
        .open(&entries[1])
        .unwrap();
    torn.set_len(torn.metadata().unwrap().len() - 100).unwrap();
    std::fs::write(gateway.data_dir().join("notes.txt"), "by hand").unwrap();
    gateway.restart_with(&Options::new());

    let uids: Vec<&str> = studies.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&uids);
    let listed = gateway.get("/api/v1/quarantine");
    let listed = listed["quarantine"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let torn = entries[1].file_stem().unwrap().to_str().unwrap();
    let torn = listed.iter().find(|item| item["entry"] == torn).unwrap();
    assert!(
        torn["reason"].as_str().unwrap().contains("length differs"),
        "{torn}"
    );
    assert_eq!(gateway.metric("quarantined_instances_total", &[]), 2.0);
    wait_until("release of nothing else", SOON, || {
        below(&gateway.data_dir()).len() == 2
    });
    // Silence is never an answer: of the torn one, too, there is a message.
    let messages = gateway.messages_by_study();
    let outcome = |study: &Study| messages[&study.uid][0]["data"]["reason"]["code"].clone();
    assert_eq!(messages.len(), 3);
    assert_eq!(outcome(&studies[1]), "instance-lost");
    assert_ne!(outcome(&studies[0]), "instance-lost");
}

/// A study that has lost an instance to a bad disk ends like any other.
#[test]
fn a_study_with_a_corrupt_entry_ends_with_the_others() {
    let mut gateway = Gateway::start(&Options::new().set("study.quiet_period", "10m"));
    let study = Study::chest();
    let images = [study.image(1), study.image(2)];
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]),
        [0, 0]
    );
    // The ledger knows both before one of them rots.
    wait_until("both in the ledger", SOON, || {
        gateway.study(&study.uid)["instances_received"] == 2
    });
    gateway.kill();
    let entries = below(&gateway.data_dir());
    let torn = std::fs::OpenOptions::new()
        .write(true)
        .open(&entries[1])
        .unwrap();
    torn.set_len(1000).unwrap();
    gateway.restart_with(&Options::new());
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["data"]["study"]["instances_received"], 1);
    let second = &gateway.study(&study.uid)["instances"][1];
    assert!(
        second["refusal"].is_string(),
        "the ledger says what became of it: {second}"
    );
}

/// The ledger is rebuilt from the spool: what is said again is said under the same ids.
#[test]
fn a_lost_database_costs_a_repetition_and_nothing_else() {
    let mut gateway = Gateway::start(&Options::new());
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&study.uid]);
    gateway.kill();
    for file in below(&gateway.dir().join("spool")) {
        if file
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("state.db")
        {
            std::fs::remove_file(file).unwrap();
        }
    }
    gateway.restart();
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0]["id"], messages[1]["id"]);
    assert_eq!(
        messages[0]["data"]["findings"],
        messages[1]["data"]["findings"]
    );
}
