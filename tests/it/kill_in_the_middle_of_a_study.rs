//! Half of the slices, SIGKILL, the other half: the last message speaks of all of them.

use serde_json::Value;

use crate::support::{Gateway, Instance, Options, RawPeer, Study};

#[test]
fn the_last_message_speaks_of_all_instances() {
    let mut gateway = Gateway::start(&Options::new().set("study.quiet_period", "1s"));
    let study = Study::chest();
    let images: Vec<Instance> = (1..=8).map(|number| study.image(number)).collect();
    let (first_half, second_half) = images.split_at(4);

    let all: Vec<&Instance> = images.iter().collect();
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &all);
    for image in first_half {
        assert_eq!(peer.store(image), 0x0000);
    }
    // The fifth is on its way when the power goes.
    peer.begin_store(&second_half[0]).unwrap();
    let half = &second_half[0].data_set[..1000];
    peer.continue_store(&second_half[0], half, false).unwrap();
    gateway.kill();
    gateway.restart();
    let rest: Vec<&Instance> = second_half.iter().collect();
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &rest), [0; 4]);
    gateway.wait_until_done(&[&study.uid]);

    let messages = gateway.messages();
    let last = messages.last().unwrap();
    assert_eq!(last["data"]["study"]["instances_received"], 8);
    assert_eq!(last["data"]["inputs"]["count"], 8);
    // The start may have found the first half quiet for long enough: then the whole is a revision.
    match messages.as_slice() {
        [only] => assert_eq!(only["data"]["supersedes"], Value::Null),
        [first, second] => {
            assert_eq!(first["data"]["study"]["instances_received"], 4);
            assert_eq!(second["data"]["supersedes"], first["id"]);
        }
        _ => panic!("{} messages", messages.len()),
    }
}
