//! The planes of a series, in whatever order they come, as one volume in front of a model; a series
//! that is no volume is refused with the figure, and says nothing about one that is.

use serde_json::Value;

use crate::support::golden::{self, Case};
use crate::support::options::repository;
use crate::support::{Gateway, Options, RawPeer, Study, contract, peers};

const MODELS: &str = "tests/fixtures/models";

fn gateway() -> Gateway {
    let models = repository().join(MODELS);
    Gateway::start(&Options::new().models(models))
}

fn case(name: &str) -> Case {
    let cases = golden::cases_below(MODELS);
    cases.into_iter().find(|case| case.name == name).unwrap()
}

fn message(gateway: &Gateway, study: &str) -> Value {
    gateway.wait_until_done(&[study]);
    let event = &gateway.messages_by_study()[study][0];
    contract::check_event(event);
    event["data"].clone()
}

/// The probabilities are those of onnxruntime on the volume that numpy resampled.
#[track_caller]
fn equals(data: &Value, expected: &Value) {
    assert_eq!(data["outcome"], expected["outcome"], "{data}");
    let tolerance = expected["tolerance"].as_f64().unwrap();
    let findings = data["findings"].as_array().unwrap();
    for (label, wanted) in expected["probabilities"].as_object().unwrap() {
        let finding = findings.iter().find(|f| f["label"] == **label).unwrap();
        let difference = finding["probability"].as_f64().unwrap() - wanted.as_f64().unwrap();
        assert!(difference.abs() <= tolerance, "{label}: {finding}");
        assert_eq!(finding["location"]["kind"], "series", "{finding}");
    }
}

#[test]
fn golden_volumes_give_the_golden_findings() {
    if !peers::available("dcmsend") {
        return;
    }
    let gateway = gateway();
    let cases = golden::cases_below(MODELS);
    assert!(cases.len() >= 4, "the model has lost its golden cases");
    for case in &cases {
        // Last plane first: nothing may depend on the order of arrival.
        let backwards: Vec<_> = case.files.iter().rev().cloned().collect();
        peers::succeeded(&peers::dcmsend(gateway.dicom_port, &backwards));
        let data = message(&gateway, &case.study);
        equals(&data, &case.expected);
        assert_eq!(data["study"]["instances_received"], case.files.len());
    }
}

#[test]
fn a_missing_plane_is_refused_with_the_figure() {
    if !peers::available("dcmsend") {
        return;
    }
    let (gateway, mut case) = (gateway(), case("axial-superior-left"));
    case.files.remove(case.files.len() / 2);
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &case.files));
    let data = message(&gateway, &case.study);
    assert_eq!(data["outcome"], "skipped", "{data}");
    assert_eq!(data["reason"]["code"], "slice-gap", "{data}");
    let text = data["reason"]["text"].as_str().unwrap();
    assert!(text.contains(" mm > 5.0 mm"), "{text}");
    let study = gateway.study(&case.study);
    assert_eq!(study["instances"][0]["refusal"], "slice-gap", "{study}");
}

#[test]
fn a_finding_stands_beside_a_series_that_is_no_volume() {
    if !peers::available("dcmsend") {
        return;
    }
    let (gateway, case) = (gateway(), case("axial-superior-left"));
    // An image of the same study without a position.
    let mut scout = Study::ct();
    scout.uid.clone_from(&case.study);
    let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&scout.image(1)]);
    assert_eq!(sent, [0]);
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &case.files));
    gateway.wait_until_done(&[&case.study]);
    let messages = &gateway.messages_by_study()[&case.study];
    let data = &messages.last().unwrap()["data"];
    equals(data, &case.expected);
    assert_eq!(data["quality"][0]["code"], "instances-refused", "{data}");
}
