//! Three senders push the golden studies, uncompressed and compressed; what arrives in a real quorum
//! queue is what Python computed, in the form that the contract promises.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

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
    // A sender that has to wait for a processor pauses inside a volume.
    let options = Options::amqp(&route)
        .all_models()
        .set("study.quiet_period", "2s");
    let (gateway, bus) = (Gateway::start(&options), Bus::new(&route));
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
        findings_are_as_expected(&gateway, case, &message.event);
        contract::check(message);
        the_compressed_form_arrived(&gateway, case);
    }
}

fn findings_are_as_expected(gateway: &Gateway, case: &Case, event: &Value) {
    let name = format!("{} {}", case.model, case.name);
    assert_eq!(event["data"]["outcome"], case.expected["outcome"], "{name}");
    assert_eq!(
        event["data"]["model"]["name"],
        case.model.as_str(),
        "{name}"
    );
    let findings = event["data"]["findings"].as_array().unwrap();
    match case.expected["kind"].as_str().unwrap() {
        "detection" => boxes_are_as_expected(&name, findings, &case.expected),
        "segmentation" => {
            probabilities_are_as_expected(&name, findings, &case.expected);
            regions_are_as_expected(gateway, &name, findings, &case.expected);
        }
        _ => probabilities_are_as_expected(&name, findings, &case.expected),
    }
}

fn probabilities_are_as_expected(name: &str, findings: &[Value], expected: &Value) {
    let wanted = expected["probabilities"].as_object().unwrap();
    assert_eq!(findings.len(), wanted.len(), "{name}: {findings:?}");
    for finding in findings {
        let label = text(finding, "/label");
        near(
            &format!("{name}: {label}"),
            &finding["probability"],
            &wanted[&label],
            1e-4,
        );
    }
}

/// What is present are the boxes, in their order; what is not tells the highest probability seen.
fn boxes_are_as_expected(name: &str, findings: &[Value], expected: &Value) {
    let (present, absent): (Vec<&Value>, Vec<&Value>) = findings
        .iter()
        .partition(|finding| finding["present"] == true);
    let boxes = expected["boxes"].as_array().unwrap();
    assert_eq!(present.len(), boxes.len(), "{name}: {findings:?}");
    for (finding, wanted) in present.iter().zip(boxes) {
        assert_eq!(finding["label"], wanted["label"], "{name}");
        assert_eq!(finding["location"]["kind"], "box", "{name}");
        near(name, &finding["probability"], &wanted["probability"], 1e-4);
        let allowed = expected["tolerances"]["box"].as_f64().unwrap();
        for side in 0..4 {
            let found = &finding["location"]["coordinates"][side];
            near(name, found, &wanted["box"][side], allowed);
        }
    }
    for finding in absent {
        let label = text(finding, "/label");
        near(
            name,
            &finding["probability"],
            &expected["probabilities"][&label],
            1e-4,
        );
    }
}

fn regions_are_as_expected(gateway: &Gateway, name: &str, findings: &[Value], expected: &Value) {
    for finding in findings {
        let region = &expected["regions"][text(finding, "/label")];
        if region["voxels"] == 0 {
            assert_eq!(finding["present"], false, "{name}");
            continue;
        }
        let measured = finding["measurements"].as_array().unwrap();
        for (unit, key) in [("ml", "volume_ml"), ("mm", "diameter_mm")] {
            let one = measured.iter().find(|one| one["unit"] == unit).unwrap();
            let allowed = expected["tolerances"][key].as_f64().unwrap();
            near(
                &format!("{name}: {key}"),
                &one["value"],
                &region[key],
                allowed,
            );
        }
        let reference = text(finding, "/location/reference");
        let (status, _, mask) = gateway.fetch(&reference).unwrap();
        assert_eq!(status, 200, "{name}: {reference}");
        let mut voxels = Vec::new();
        let mut file = GzDecoder::new(mask.as_slice());
        file.read_to_end(&mut voxels).unwrap();
        // NIfTI-1: header, and four bytes that say that no extension follows.
        let digest: String = Sha256::digest(&voxels[352..])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(region["mask_sha256"], digest, "{name}: the mask");
    }
}

fn near(name: &str, found: &Value, wanted: &Value, allowed: f64) {
    let difference = (found.as_f64().unwrap() - wanted.as_f64().unwrap()).abs();
    assert!(difference <= allowed, "{name} is off by {difference:e}");
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
