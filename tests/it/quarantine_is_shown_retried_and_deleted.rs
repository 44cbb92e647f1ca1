//! What was set aside is listed with what is known of it, goes back into the spool or is deleted; by
//! who has the token, and by names that are names of entries.

use serde_json::Value;

use crate::support::operator::Operator;
use crate::support::{Gateway, RawPeer, SOON, Study, wait_for, wait_until};

#[test]
fn a_duplicate_waits_for_its_rival_to_go() {
    let operator = Operator::new();
    let options = operator
        .options()
        .set("spool.duplicates", "quarantine")
        .set("study.quiet_period", "2s")
        .set("spool.retention", "1s");
    let gateway = Gateway::start(&options);
    let study = Study::chest().of_patient("WILHELMINA^TEST", "ID-77123", "ACC-90210");
    for seed in [1, 2, 3] {
        let image = study.image_with(1, seed);
        assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    }
    let kept = quarantine(&gateway);
    assert_eq!(kept["instances"], 2);
    let [one, other] = [0, 1].map(|at| kept["quarantine"][at].clone());
    assert_eq!(one["code"], "duplicate-sop-instance");
    assert_eq!(one["sop_instance_uid"], study.sop_instance(1).as_str());
    assert_eq!(one["calling_ae"], "CT1");
    assert!(one["bytes"].as_u64().unwrap() > 8000, "{one}");
    for secret in ["WILHELMINA", "77123", "90210"] {
        assert!(!kept.to_string().contains(secret));
    }
    let [entry, deleted] = [&one, &other].map(|item| item["entry"].as_str().unwrap());
    assert_eq!(gateway.get(&format!("/api/v1/quarantine/{entry}")), one);

    // Only with the token.
    let path = format!("/api/v1/quarantine/{entry}/retry");
    assert_eq!(post_without_token(&gateway, &path), 401);
    // Not beside its rival.
    let told = operator.command(&gateway, &["quarantine", "retry", entry]);
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        !told.status.success() && words.contains("another instance"),
        "{words}"
    );
    assert_eq!(quarantine(&gateway)["instances"], 2);

    // For ever, and only if that is meant.
    let hesitant = operator.command(&gateway, &["quarantine", "rm", deleted]);
    assert_eq!(hesitant.status.code(), Some(2), "{hesitant:?}");
    let told = operator.command(&gateway, &["quarantine", "rm", deleted, "--yes"]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(quarantine(&gateway)["instances"], 1);
    for name in [deleted, "..%2F..%2Fstate", "0000000000000000"] {
        let path = format!("/api/v1/quarantine/{name}");
        assert_eq!(gateway.ask(&path).unwrap().0, 404, "{name}");
        let told = operator.command(&gateway, &["quarantine", "rm", name, "--yes"]);
        assert!(!told.status.success(), "{name}");
    }
    assert!(gateway.dir().join("spool/state.db").exists());

    // The rival has been answered for and released: now it has a place.
    wait_until("release of the rival", SOON, || {
        gateway.study(&study.uid)["instances"][0]["released"].is_string()
    });
    let told = operator.command(&gateway, &["quarantine", "retry", entry]);
    assert!(told.status.success(), "{told:?}");
    wait_until("a second revision", SOON, || {
        gateway.study(&study.uid)["revision"] == 2
    });
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study()[&study.uid].clone();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1]["data"]["supersedes"], messages[0]["id"]);
    assert_eq!(quarantine(&gateway)["instances"], 0);
}

#[test]
fn a_damaged_entry_cannot_be_retried() {
    let operator = Operator::new();
    let mut gateway = Gateway::start(&operator.options().set("study.quiet_period", "1h"));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    let row = wait_for("row", SOON, || {
        let row = gateway.study(&study.uid)["instances"][0].clone();
        row.is_object().then_some(row)
    });
    gateway.kill();
    let entry = row["entry"].as_str().unwrap();
    let file = gateway.data_dir().join(format!("{entry}.dcm"));
    let mut content = std::fs::read(&file).unwrap();
    content.truncate(content.len() - 100);
    std::fs::write(&file, content).unwrap();
    gateway.restart();
    let kept = quarantine(&gateway)["quarantine"][0].clone();
    assert_eq!(kept["code"], "corrupt-entry", "{kept}");
    let told = operator.command(&gateway, &["quarantine", "retry", entry]);
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        !told.status.success() && words.contains("damaged"),
        "{words}"
    );
    let told = operator.command(&gateway, &["quarantine", "rm", entry, "--yes"]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(quarantine(&gateway)["instances"], 0);
    // What it was stays known.
    gateway.wait_until_done(&[&study.uid]);
    let row = &gateway.study(&study.uid)["instances"][0];
    assert_eq!(row["refusal"], "instance-lost");
}

fn quarantine(gateway: &Gateway) -> Value {
    gateway.get("/api/v1/quarantine")
}

fn post_without_token(gateway: &Gateway, path: &str) -> u16 {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let url = format!("http://127.0.0.1:{}{path}", gateway.http_port);
    agent.post(&url).send_empty().unwrap().status().as_u16()
}
