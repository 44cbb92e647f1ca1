//! A broker that is away keeps nobody from storing: the gateway is ready, and delivers later.

use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_until};

#[test]
fn studies_are_taken_and_delivered_when_the_broker_comes() {
    let Some(mut broker) = rabbit::private() else {
        return;
    };
    let route = broker.route();
    broker.node().stop();
    let gateway = Gateway::start(&Options::amqp(&route));
    let ready = gateway.get("/readyz");
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["broker"]["connected"], false);
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    wait_until("message in the outbox", SOON, || {
        gateway.get("/api/v1/outbox")["owed"] == 1
    });
    assert_eq!(gateway.metric("broker_connected", &[]), 0.0);

    broker.node().start();
    gateway.wait_until_done(&[&study.uid]);
    let messages = Bus::new(&route).take(1);
    assert_eq!(messages.len(), 1);
    let uid = &messages[0].event["data"]["study"]["study_instance_uid"];
    assert_eq!(*uid, study.uid.as_str());
    assert_eq!(gateway.metric("broker_connected", &[]), 1.0);
}
