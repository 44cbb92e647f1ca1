//! Success means durable: after SIGKILL right behind the last response every study still gets its
//! message, and however often the gateway is killed, a study's messages carry one id.

use std::collections::BTreeSet;

use crate::support::gateway::by_study;
use crate::support::topology::Bus;
use crate::support::{Gateway, Instance, Options, RawPeer, Study, rabbit};

#[test]
fn every_study_gets_its_message() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let bus = Bus::new(&route);
    let mut gateway = Gateway::start(&Options::amqp(&route));
    let studies: Vec<Study> = (0..6)
        .map(|index| {
            if index % 2 == 0 {
                Study::chest()
            } else {
                Study::ct()
            }
        })
        .collect();
    let images: Vec<Instance> = studies
        .iter()
        .flat_map(|study| [study.image(1), study.image(2)])
        .collect();
    let mut peer = RawPeer::associate(
        gateway.dicom_port,
        "CT1",
        &images.iter().collect::<Vec<_>>(),
    );
    for image in &images {
        assert_eq!(peer.store(image), 0x0000);
    }
    gateway.kill();
    // Twice more while it works: what is done once too often must not be seen from outside.
    for _ in 0..2 {
        gateway.restart();
        gateway.kill();
    }
    gateway.restart();
    let uids: Vec<&str> = studies.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&uids);

    let messages = bus
        .take(studies.len())
        .into_iter()
        .map(|message| message.event);
    let messages = by_study(messages.collect());
    assert_eq!(messages.len(), studies.len());
    let mut all_ids = BTreeSet::new();
    for study in &studies {
        let messages = &messages[&study.uid];
        let ids: BTreeSet<&str> = messages
            .iter()
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), 1, "a repeated message keeps its id");
        assert_eq!(messages[0]["data"]["study"]["instances_received"], 2);
        assert_eq!(messages[0]["data"]["supersedes"], serde_json::Value::Null);
        all_ids.extend(ids.into_iter().map(str::to_owned));
    }
    assert_eq!(all_ids.len(), studies.len(), "ids are distinct");
}
