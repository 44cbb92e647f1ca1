//! Two modalities send parts of one study at the same time: one message speaks of all of it.

use std::sync::Barrier;

use crate::support::{Gateway, Instance, Options, RawPeer, Study};

#[test]
fn one_message_speaks_of_all_instances() {
    let gateway = Gateway::start(&Options::new().set("study.quiet_period", "800ms"));
    let study = Study::chest();
    let images: Vec<Instance> = (1..=20).map(|number| study.image(number)).collect();
    let (left, right) = images.split_at(10);
    let both_are_in = Barrier::new(2);
    let send = |calling: &str, images: &[Instance]| {
        let all: Vec<&Instance> = images.iter().collect();
        let mut peer = RawPeer::associate(gateway.dicom_port, calling, &all);
        both_are_in.wait();
        for image in images {
            assert_eq!(peer.store(image), 0);
        }
        peer.release();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| send("CT1", left));
        scope.spawn(|| send("CT2", right));
    });
    gateway.wait_until_done(&[&study.uid]);

    let messages = gateway.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["data"]["study"]["instances_received"], 20);
    assert_eq!(messages[0]["data"]["inputs"]["count"], 20);
    let report = gateway.study(&study.uid);
    assert_eq!(report["instances_processed"], 20);
    let mut senders: Vec<&str> = report["calling_ae"]
        .as_array()
        .unwrap()
        .iter()
        .map(|title| title.as_str().unwrap())
        .collect();
    senders.sort_unstable();
    assert_eq!(senders, ["CT1", "CT2"]);
}
