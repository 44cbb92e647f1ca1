//! A multi-frame instance: each frame is decoded by whoever is free and looked at by itself, the
//! finding is the highest, and it names its frame.

use serde_json::Value;

use crate::support::{Gateway, Options, RawPeer, Study};

const FRAMES: u16 = 9;

fn findings(gateway: &Gateway, study: &Study) -> Vec<Value> {
    gateway.wait_until_done(&[&study.uid]);
    let data = &gateway.messages_by_study()[&study.uid][0]["data"];
    let found = data["findings"].as_array().unwrap().clone();
    assert!(!found.is_empty(), "{data}");
    found
}

#[test]
fn and_the_finding_names_the_highest() {
    let gateway = Gateway::start(&Options::new().set("decode.workers", 3));
    let several = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&several.frames(1, FRAMES)]),
        [0]
    );
    // The same pixels, each frame as an instance of a study of its own.
    let single: Vec<Study> = (0..FRAMES).map(|_| Study::chest()).collect();
    for (study, seed) in single.iter().zip(1..) {
        let image = study.image_with(1, seed);
        assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    }
    let alone: Vec<Vec<Value>> = single.iter().map(|s| findings(&gateway, s)).collect();
    for (label, finding) in findings(&gateway, &several).iter().enumerate() {
        let probability = |frame: &Vec<Value>| frame[label]["probability"].as_f64().unwrap();
        let (frame, highest) = alone
            .iter()
            .map(probability)
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap();
        assert_eq!(finding["probability"].as_f64(), Some(highest), "{finding}");
        assert_eq!(finding["location"]["frame"], frame + 1, "{finding}");
    }
}
