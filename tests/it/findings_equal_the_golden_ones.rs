//! Three senders push the golden studies, uncompressed and compressed; what arrives in a real quorum
//! queue is what Python computed, in the form that the contract promises.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::golden::{self, Case};
use crate::support::topology::{Bus, Received};
use crate::support::{Gateway, Options, contract, peers, rabbit};

#[test]
fn storescu_sends_the_golden_studies() {
    if peers::available("storescu") {
        check(|port, case| {
            let files = &case.files;
            peers::succeeded(&peers::storescu(port, proposal(&case.name), files));
        });
    }
}

#[test]
fn dcmsend_sends_the_golden_studies() {
    if peers::available("dcmsend") {
        check(|port, case| peers::succeeded(&peers::dcmsend(port, &case.files)));
    }
}

#[test]
fn pynetdicom_sends_the_golden_studies() {
    if peers::python_available() {
        check_all(|port, cases| {
            let files: Vec<PathBuf> = cases.iter().flat_map(|case| case.files.clone()).collect();
            peers::succeeded(&peers::pynetdicom(port, "store", &files));
        });
    }
}

/// The option with which `storescu` proposes the transfer syntax of a golden case, so that it sends
/// the file as it is.
fn proposal(case: &str) -> &'static [&'static str] {
    match case {
        "rle" => &["-xr"],
        "jpeg-ls" => &["-xt"],
        "jpeg-2000" => &["-xv"],
        _ => &[],
    }
}

fn check(send: impl Fn(u16, &Case)) {
    check_all(|port, cases| cases.iter().for_each(|case| send(port, case)));
}

fn check_all(send: impl Fn(u16, &[Case])) {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let (gateway, bus) = (Gateway::start(&Options::amqp(&route)), Bus::new(&route));
    let cases = golden::cases();
    send(gateway.dicom_port, &cases);
    let studies: Vec<&str> = cases.iter().map(|case| case.study.as_str()).collect();
    gateway.wait_until_done(&studies);
    let received = bus.take(cases.len());
    assert_eq!(received.len(), cases.len(), "one message per study");
    let received: BTreeMap<String, Received> = received
        .into_iter()
        .map(|message| {
            (
                text(&message.event, "/data/study/study_instance_uid"),
                message,
            )
        })
        .collect();
    for case in &cases {
        let message = &received[&case.study];
        probabilities_are_as_expected(case, &message.event);
        contract::check(message);
        the_compressed_form_arrived(&gateway, case);
    }
}

fn probabilities_are_as_expected(case: &Case, event: &Value) {
    let name = &case.name;
    assert_eq!(event["data"]["outcome"], case.expected["outcome"], "{name}");
    assert_eq!(
        event["data"]["model"]["name"],
        case.model.as_str(),
        "{name}"
    );
    let found: BTreeMap<String, f64> = event["data"]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                text(finding, "/label"),
                finding["probability"].as_f64().unwrap(),
            )
        })
        .collect();
    let wanted = case.expected["probabilities"].as_object().unwrap();
    assert_eq!(found.len(), wanted.len(), "{name}: {found:?}");
    for (label, wanted) in wanted {
        let difference = (found[label] - wanted.as_f64().unwrap()).abs();
        assert!(
            difference <= 1e-4,
            "{name}: {label} is off by {difference:e}"
        );
    }
}

/// Or the test would prove nothing about codecs: a sender may decompress before it sends.
fn the_compressed_form_arrived(gateway: &Gateway, case: &Case) {
    let wanted = match case.name.as_str() {
        "rle" => "1.2.840.10008.1.2.5",
        "jpeg-ls" => "1.2.840.10008.1.2.4.80",
        "jpeg-2000" => "1.2.840.10008.1.2.4.90",
        _ => return,
    };
    let instance = &gateway.study(&case.study)["instances"][0];
    assert_eq!(instance["transfer_syntax_uid"], wanted, "{}", case.name);
}

fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap()
        .to_owned()
}
