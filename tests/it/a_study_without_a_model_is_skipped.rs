//! Silence is never an answer: a study that no model applies to gets a message that says so.

use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, Study, contract, rabbit};

#[test]
fn its_message_says_why() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let bus = Bus::new(&route);
    let gateway = Gateway::start(&Options::amqp(&route));
    let study = Study::ct();
    let images = [study.image(1), study.image(2)];
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]),
        [0, 0]
    );
    let messages = bus.take(1);
    let (event, data) = (&messages[0].event, &messages[0].event["data"]);
    assert_eq!(data["outcome"], "skipped", "{event}");
    assert_eq!(data["reason"]["code"], "no-model-applies");
    assert_eq!(data["study"]["study_instance_uid"], study.uid.as_str());
    assert_eq!(data["study"]["instances_received"], 2);
    assert_eq!(data["findings"].as_array().unwrap().len(), 0);
    assert_eq!(data["model"], serde_json::Value::Null);
    contract::check(&messages[0]);
    assert_eq!(messages[0].routing_key, "skipped.routine.ct.chest._");
    gateway.wait_until_done(&[&study.uid]);
}
