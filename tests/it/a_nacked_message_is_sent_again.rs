//! A full queue makes the broker refuse (basic.nack): the message stays owed until there is room.

use lapin::types::AMQPValue;

use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_for};

#[test]
fn it_arrives_once_the_queue_has_room() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let bus = Bus::new(&route);
    bus.declare_exchange();
    bus.declare_queue(&[
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ]);
    let gateway = Gateway::start(&Options::amqp(&route).set("broker.declare", "passive"));
    let (first, second) = (Study::chest(), Study::chest());
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&first.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&first.uid]);
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&second.image(1)]),
        [0]
    );
    let error = wait_for("refused message", SOON, || {
        let outbox = gateway.get("/api/v1/outbox");
        outbox["messages"][0]["last_error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(error.contains("nack"), "{error}");
    assert!(gateway.metric("published_total", &[("result", "nack")]) >= 1.0);

    bus.purge();
    gateway.wait_until_done(&[&second.uid]);
    let messages = bus.take(1);
    assert_eq!(messages.len(), 1);
    let uid = &messages[0].event["data"]["study"]["study_instance_uid"];
    assert_eq!(*uid, second.uid.as_str());
}
