//! Orthanc sends to the gateway, takes from it, asks it for Storage Commitment and is asked by it.

use serde_json::{Value, json};

use crate::support::gateway::binary;
use crate::support::orthanc::{Orthanc, TITLE};
use crate::support::{Gateway, Instance, Options, SOON, Study, peers, wait_until};

/// Orthanc and a gateway that know each other.
fn pair(transcoding: bool, options: &Options) -> Option<(Orthanc, Gateway)> {
    let mut orthanc = Orthanc::new()?;
    let options = options
        .clone()
        .set(&format!("dicom.peers.{TITLE}"), orthanc.address().as_str());
    let gateway = Gateway::start(&options);
    orthanc.start(&gateway, transcoding);
    Some((orthanc, gateway))
}

fn store(orthanc: &Orthanc, studies: &[&str]) -> (u16, Value) {
    let body = json!({ "Resources": studies, "Synchronous": true });
    orthanc.post("/modalities/gateway/store", &body)
}

#[test]
fn it_sends_with_and_without_transcoding() {
    for transcoding in [false, true] {
        let Some((orthanc, gateway)) = pair(transcoding, &Options::new()) else {
            return;
        };
        let study = Study::chest();
        let study_id = orthanc.upload(&study.image(1));
        orthanc.upload(&study.rle(2));
        let (status, answer) = store(&orthanc, &[&study_id]);
        assert_eq!(status, 200, "{answer}");
        gateway.wait_until_done(&[&study.uid]);
        assert_eq!(gateway.study(&study.uid)["instances_received"], 2);
        let messages = gateway.messages_by_study().remove(&study.uid).unwrap();
        let outcomes: Vec<&Value> = messages
            .iter()
            .map(|message| &message["data"]["outcome"])
            .collect();
        let judged = |outcome: &&Value| **outcome == "finding" || **outcome == "no-finding";
        assert!(outcomes.iter().any(judged), "{outcomes:?}");
    }
}

#[test]
fn a_kill_in_the_middle_of_its_transfer() {
    let Some((orthanc, mut gateway)) = pair(true, &Options::new()) else {
        return;
    };
    let mut study = Study::ct();
    study.side = 512;
    let uploaded: Vec<String> = (1..=60)
        .map(|number| orthanc.upload(&study.image(number)))
        .collect();
    let study_id = uploaded[0].as_str();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| store(&orthanc, &[study_id]));
        wait_until("some instances", SOON, || {
            std::fs::read_dir(gateway.data_dir()).unwrap().count() > 5
        });
        gateway.kill();
        let (status, answer) = sending.join().unwrap();
        assert_ne!(status, 200, "the kill came too late: {answer}");
    });
    gateway.restart();
    orthanc.find(&gateway);
    let (status, answer) = store(&orthanc, &[study_id]);
    assert_eq!(status, 200, "{answer}");
    wait_until("all instances", SOON, || {
        gateway.study(&study.uid)["instances_received"] == 60
    });
    gateway.wait_until_done(&[&study.uid]);
}

#[test]
fn it_takes_what_the_gateway_sends() {
    let Some((orthanc, gateway)) = pair(false, &Options::new()) else {
        return;
    };
    let to = format!("{TITLE}@{}", orthanc.address());
    peers::succeeded(&peers::run(binary().args(["echo", "--to", &to])));
    let study = Study::chest();
    let images = [study.image(1), study.rle(2)];
    let files: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(number, image)| {
            let path = gateway.dir().join(format!("{number}.dcm"));
            std::fs::write(&path, image.part_10()).unwrap();
            path
        })
        .collect();
    peers::succeeded(&peers::run(
        binary().args(["send", "--to", &to]).args(&files),
    ));
    let there = orthanc.ask("/instances").unwrap();
    let kept: Vec<Vec<u8>> = there
        .as_array()
        .unwrap()
        .iter()
        .map(|id| {
            let path = format!("/instances/{}/file", id.as_str().unwrap());
            orthanc.fetch(&path).unwrap()
        })
        .collect();
    assert_eq!(kept.len(), images.len());
    for image in &images {
        let same = |file: &&Vec<u8>| file.ends_with(&image.data_set);
        assert!(kept.iter().any(|file| same(&file)), "bit by bit");
    }
    let found = peers::run(binary().args(["find", "--to", &to, &study.uid]));
    peers::succeeded(&found);
    let said = String::from_utf8(found.stdout).unwrap();
    assert!(said.contains('2'), "the count of the PACS: {said}");
}

#[test]
fn it_asks_for_storage_commitment() {
    let options = Options::new().set("commitment.wait", "1s");
    let Some((orthanc, gateway)) = pair(false, &options) else {
        return;
    };
    let study = Study::ct();
    let images: Vec<Instance> = (1..=3).map(|number| study.image(number)).collect();
    let study_ids: Vec<String> = images.iter().map(|image| orthanc.upload(image)).collect();
    let (status, answer) = store(&orthanc, &[&study_ids[0]]);
    assert_eq!(status, 200, "{answer}");
    fn name(image: &Instance) -> (&str, &str) {
        (&image.sop_class, &image.sop_instance)
    }
    let all: Vec<_> = images.iter().map(name).collect();
    let report = orthanc.commitment(&all);
    assert_eq!(report["Status"], "Success", "{report}");
    assert_eq!(report["Success"].as_array().unwrap().len(), 3, "{report}");

    // One that was never sent, and one under another class.
    let never = study.image(9);
    let chest = Study::chest().image(1);
    let asked = [
        name(&images[0]),
        name(&never),
        (chest.sop_class.as_str(), images[1].sop_instance.as_str()),
    ];
    let report = orthanc.commitment(&asked);
    assert_eq!(report["Status"], "Failure", "{report}");
    assert_eq!(report["Success"].as_array().unwrap().len(), 1, "{report}");
    let reason = |uid: &str| {
        let failures = report["Failures"].as_array().unwrap().iter();
        let mut found = failures.filter(|failure| failure["SOPInstanceUID"] == uid);
        found.next().unwrap()["FailureReason"].clone()
    };
    assert_eq!(
        reason(&never.sop_instance),
        0x0112,
        "no such object instance"
    );
    assert_eq!(
        reason(&images[1].sop_instance),
        0x0119,
        "class / instance conflict"
    );
    drop(gateway);
}
