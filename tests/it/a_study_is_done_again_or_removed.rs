//! An operator has a study that has ended done once more, as after the repair of a model, or has its
//! instances removed. Neither happens to one that is under way, and no promise is broken by mistake.

use serde_json::{Value, json};

use crate::support::commitment::{ask_and_leave, new_uid, reference};
use crate::support::operator::Operator;
use crate::support::{Gateway, RawPeer, SOON, Study, contract, peers, wait_until};

fn retry(operator: &Operator, gateway: &Gateway, study: &str) -> (u16, Value) {
    operator.post(
        gateway,
        &format!("/api/v1/studies/{study}/retry"),
        &json!({}),
    )
}

/// `study rm`: exit code and what it said.
fn remove(operator: &Operator, gateway: &Gateway, words: &[&str]) -> (Option<i32>, String) {
    let output = operator.command(gateway, &[&["study", "rm"], words].concat());
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    (output.status.code(), said.into_owned())
}

fn files(gateway: &Gateway) -> usize {
    gateway.data_dir().read_dir().unwrap().count()
}

#[test]
fn once_more() {
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options());
    let study = Study::chest();
    let images = [study.image(1), study.image(2)];
    assert_eq!(retry(&operator, &gateway, &study.uid).0, 404);
    assert_eq!(retry(&operator, &gateway, "no-uid").0, 404);
    let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
    gateway.wait_until_done(&[&study.uid]);

    let command = operator.command(&gateway, &["study", "retry", &study.uid]);
    peers::succeeded(&command);
    let said: Value = serde_json::from_slice(&command.stdout).unwrap();
    assert_eq!(said["instances"], 2);
    wait_until("second revision", SOON, || gateway.messages().len() == 2);
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages();
    let [first, second] = messages.as_slice() else {
        panic!("{} messages", messages.len());
    };
    contract::check_event(second);
    assert_ne!(first["id"], second["id"]);
    assert_eq!(second["data"]["supersedes"], first["id"]);
    assert_eq!(
        first["data"]["findings"], second["data"]["findings"],
        "the same images and the same model say the same"
    );
    let report = gateway.study(&study.uid);
    assert_eq!(report["revisions"].as_array().unwrap().len(), 2);
    assert_eq!(report["instances_received"], 2);
}

#[test]
fn not_under_way_and_once_more_after_a_kill() {
    let operator = Operator::new();
    let slow = operator.options().set("study.quiet_period", "10m");
    let mut gateway = Gateway::start(&slow);
    let study = Study::chest();
    RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");
    let (status, body) = retry(&operator, &gateway, &study.uid);
    assert_eq!(status, 409, "{body}");
    let words = [study.uid.as_str(), "--reason", "x", "--yes", "--force"];
    let (code, said) = remove(&operator, &gateway, &words);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("still received or worked on"), "{said}");
    assert_eq!(files(&gateway), 1);

    peers::succeeded(&operator.command(&gateway, &["complete", &study.uid]));
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(retry(&operator, &gateway, &study.uid).0, 202);
    assert_eq!(
        retry(&operator, &gateway, &study.uid).0,
        409,
        "it is open again, as its quiet period is long"
    );
    gateway.kill();
    gateway.restart_with(&operator.options());
    wait_until("second revision", SOON, || gateway.messages().len() == 2);
    gateway.wait_until_done(&[&study.uid]);
}

#[test]
fn out_of_the_spool() {
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options());
    let (study, other) = (Study::chest(), Study::chest());
    let (image, others) = (study.image(1), other.image(1));
    RawPeer::send(gateway.dicom_port, "CT1", &[&image, &others]);
    gateway.wait_until_done(&[&study.uid, &other.uid]);
    let uid = study.uid.as_str();

    let (code, said) = remove(&operator, &gateway, &[uid, "--reason", "wrong patient"]);
    assert_eq!((code, files(&gateway)), (Some(2), 2), "{said}");
    assert!(said.contains("say --yes"), "{said}");
    let (code, said) = remove(&operator, &gateway, &[uid, "--reason", "  ", "--yes"]);
    assert_eq!((code, files(&gateway)), (Some(1), 2), "{said}");
    let (code, said) = remove(&operator, &gateway, &["1.2.3", "--reason", "x", "--yes"]);
    assert_eq!((code, files(&gateway)), (Some(1), 2), "{said}");
    let words = [uid, "--reason", "wrong patient", "--yes"];
    let (code, said) = remove(&operator, &gateway, &words);
    assert_eq!((code, files(&gateway)), (Some(0), 1), "{said}");

    let report = gateway.study(uid);
    assert_eq!(report["removals"][0]["reason"], "wrong patient");
    assert_eq!(report["removals"][0]["instances"], 1);
    assert!(report["instances"][0]["released"].is_string(), "{report}");
    assert_eq!(report["instances_received"], 1, "the ledger remembers");
    assert_eq!(gateway.study(&other.uid)["removals"], json!([]));

    let (code, said) = remove(&operator, &gateway, &words);
    assert_eq!(code, Some(1));
    assert!(said.contains("none of its instances"), "{said}");
    assert_eq!(retry(&operator, &gateway, uid).0, 409);
    // Sent again it is the same as before: nothing new to say, until somebody wants it.
    RawPeer::send(gateway.dicom_port, "CT1", &[&image]);
    wait_until("the instance", SOON, || {
        gateway.study(uid)["instances"].as_array().unwrap().len() == 2
    });
    let (status, body) = retry(&operator, &gateway, uid);
    assert_eq!(status, 202, "{body}");
    wait_until("message", SOON, || {
        gateway.messages_by_study()[uid].len() == 2
    });
}

#[test]
fn part_of_a_study_is_not_done_again() {
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options());
    let study = Study::chest();
    let words = [study.uid.as_str(), "--reason", "x", "--yes"];
    RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(remove(&operator, &gateway, &words).0, Some(0));
    RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(2)]);
    wait_until("second revision", SOON, || gateway.messages().len() == 2);
    gateway.wait_until_done(&[&study.uid]);
    let (status, body) = retry(&operator, &gateway, &study.uid);
    assert_eq!(status, 409);
    let reason = body["error"].as_str().unwrap();
    assert!(reason.starts_with("1 of its instances"), "{reason}");
}

#[test]
fn what_is_owed_stays_owed() {
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options());
    peers::succeeded(&operator.command(&gateway, &["pause", "broker"]));
    let study = Study::chest();
    RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    wait_until("message that waits", SOON, || {
        gateway.get("/api/v1/outbox")["owed"] == 1
    });
    let words = [study.uid.as_str(), "--reason", "disk", "--yes"];
    let (code, said) = remove(&operator, &gateway, &words);
    assert_eq!((code, files(&gateway)), (Some(1), 1), "{said}");
    assert!(said.contains("still owed"), "{said}");
    let forced = [&words[..], &["--force"]].concat();
    let (code, said) = remove(&operator, &gateway, &forced);
    assert_eq!((code, files(&gateway)), (Some(0), 0), "{said}");
    peers::succeeded(&operator.command(&gateway, &["resume", "broker"]));
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(gateway.messages().len(), 1);
}

#[test]
fn what_is_committed_is_kept_unless_somebody_insists() {
    if !peers::python_available() {
        return;
    }
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options());
    let study = Study::chest();
    let image = study.image(1);
    RawPeer::send(gateway.dicom_port, "CT2", &[&image]);
    gateway.wait_until_done(&[&study.uid]);
    ask_and_leave(gateway.dicom_port, &new_uid(), &[reference(&image)]);
    wait_until("judgement", SOON, || {
        gateway.metric("commitments_total", &[("result", "committed")]) == 1.0
    });
    let words = [study.uid.as_str(), "--reason", "disk", "--yes"];
    let (code, said) = remove(&operator, &gateway, &words);
    assert_eq!((code, files(&gateway)), (Some(1), 1), "{said}");
    assert!(said.contains("committed to their sender"), "{said}");
    let forced = [&words[..], &["--force"]].concat();
    assert_eq!(remove(&operator, &gateway, &forced).0, Some(0));
    assert_eq!(files(&gateway), 0);
}
