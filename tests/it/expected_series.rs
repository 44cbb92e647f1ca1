//! A protocol brings certain series: with all of them the study is complete, and without it is waited
//! for.

use crate::support::{Gateway, Instance, Options, RawPeer, Study, contract};

const CHEST: &str = r#"
[[expected_series]]
name = "chest in two planes"
when = [{ attribute = "Modality", equals = "DX" }]
series = [
    { when = [{ attribute = "SeriesDescription", matches = "pa" }], min_instances = 2 },
    { when = [{ attribute = "SeriesDescription", matches = "lat" }] },
]
"#;

fn options() -> Options {
    let table: toml::Table = toml::from_str(CHEST).unwrap();
    Options::new().set("study.expected_series", table["expected_series"].clone())
}

/// An image in a series of its own.
fn image(study: &Study, number: u16, series: &str) -> Instance {
    let mut uid = format!("{}.{}", study.uid, series.len());
    if uid.len() % 2 == 1 {
        uid.push('1');
    }
    study
        .image(number)
        .with((0x0008, 0x103E), b"LO", series.as_bytes())
        .with((0x0020, 0x000E), b"UI", uid.as_bytes())
}

fn finished(gateway: &Gateway, study: &Study) -> serde_json::Value {
    gateway.wait_until_done(&[&study.uid]);
    let message = gateway.messages().remove(0);
    contract::check_event(&message);
    message["data"].clone()
}

#[test]
fn all_of_them_make_it_complete() {
    let options = options()
        .set("study.quiet_period", "10m")
        .set("study.patience", "10m")
        .set("study.evidence_period", "200ms");
    let gateway = Gateway::start(&options);
    let study = Study::chest();
    let first = [image(&study, 1, "PA"), image(&study, 2, "lateral")];
    let sent = RawPeer::send(gateway.dicom_port, "DX1", &[&first[0], &first[1]]);
    assert_eq!(sent, [0, 0]);
    // One of the two of the first series is missing.
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");
    let last = image(&study, 3, "PA");
    assert_eq!(RawPeer::send(gateway.dicom_port, "DX1", &[&last]), [0]);
    let data = finished(&gateway, &study);
    assert_eq!(data["study"]["instances_received"], 3);
    let completeness = &data["study"]["completeness"];
    assert_eq!(completeness["method"], "expected-series");
    let evidence = serde_json::json!([{
        "kind": "expected-series",
        "verdict": "complete",
        "expected": 2,
        "received": 2,
        "source": "chest in two planes",
    }]);
    assert_eq!(completeness["evidence"], evidence);
    assert!(
        data["study"].get("instances_expected").is_none(),
        "series are no instances"
    );
    assert_eq!(data["quality"], serde_json::json!([]));
}

#[test]
fn what_is_missing_is_waited_for_and_told() {
    let options = options()
        .set("study.quiet_period", "100ms")
        .set("study.patience", "2s");
    let gateway = Gateway::start(&options);
    let study = Study::chest();
    let images = [image(&study, 1, "PA"), image(&study, 2, "PA")];
    let sent = RawPeer::send(gateway.dicom_port, "DX1", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
    let data = finished(&gateway, &study);
    let completeness = &data["study"]["completeness"];
    assert_eq!(completeness["method"], "patience");
    assert_eq!(completeness["evidence"][0]["verdict"], "incomplete");
    let remark = &data["quality"][0];
    assert_eq!(remark["code"], "instances-missing");
    assert_eq!(remark["text"], "expected-series incomplete (1 of 2)");
}

/// Another protocol's study is none of its business.
#[test]
fn other_studies_are_complete_as_before() {
    let gateway = Gateway::start(&options());
    let study = Study::ct();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    let data = finished(&gateway, &study);
    let completeness = &data["study"]["completeness"];
    assert_eq!(completeness["method"], "quiet-period");
    assert_eq!(completeness["evidence"], serde_json::json!([]));
}
