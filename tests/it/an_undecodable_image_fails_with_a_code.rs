//! A number or a refusal, never a wrong number: pixels that cannot be decoded fail their study with a
//! code, and the studies beside it go on.

use crate::support::datasets::Study;
use crate::support::{Gateway, Options, RawPeer, contract};

const RLE: &str = "1.2.840.10008.1.2.5";
const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";
const UNKNOWN: &str = "1.2.840.10008.1.2.4.102";

#[test]
fn corrupt_pixels_are_refused_and_others_go_on() {
    let gateway = Gateway::start(&Options::new());
    let garbage: Vec<u8> = (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect();
    let (before, after) = (Study::chest(), Study::chest());
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&before.image(1)]),
        [0]
    );
    let broken: Vec<Study> = [RLE, JPEG_BASELINE, JPEG_LS, JPEG_2000, UNKNOWN]
        .iter()
        .map(|transfer_syntax| {
            let study = Study::chest();
            let image = study.compressed(1, transfer_syntax, &garbage);
            let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&image]);
            assert_eq!(
                sent,
                [0],
                "what cannot be decoded can be kept: {transfer_syntax}"
            );
            study
        })
        .collect();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&after.image(1)]),
        [0]
    );
    let broken: Vec<&str> = broken.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&broken);
    gateway.wait_until_done(&[&before.uid, &after.uid]);

    let messages = gateway.messages_by_study();
    for uid in &broken {
        contract::check_event(&messages[*uid][0]);
        let data = &messages[*uid][0]["data"];
        assert_eq!(data["outcome"], "failed", "{data}");
        let code = data["reason"]["code"].as_str().unwrap();
        assert_ne!(code, "internal-error", "{data}");
        assert_eq!(gateway.study(uid)["instances"][0]["refusal"], code);
        assert_eq!(data["findings"].as_array().unwrap().len(), 0);
    }
    for study in [&before, &after] {
        let data = &messages[&study.uid][0]["data"];
        assert!(
            ["finding", "no-finding"].contains(&data["outcome"].as_str().unwrap()),
            "{data}"
        );
    }
}

/// "Nothing there" must not speak of an image that no model has seen.
#[test]
fn one_broken_image_of_two_is_no_all_clear() {
    let gateway = Gateway::start(&Options::new());
    let study = Study::chest();
    let images = [study.image(1), study.compressed(2, RLE, &[0; 64])];
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]),
        [0, 0]
    );
    gateway.wait_until_done(&[&study.uid]);
    let data = &gateway.messages()[0]["data"];
    assert_ne!(data["outcome"], "no-finding", "{data}");
    let refused = &gateway.study(&study.uid)["instances"][1]["refusal"];
    assert!(refused.is_string(), "{refused}");
}
