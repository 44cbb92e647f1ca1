//! RabbitMQ acknowledges a message that no queue took, and returns it. That is not a delivery: the
//! message stays owed, is counted, and arrives once a queue is bound.

use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_for};

#[test]
fn without_a_declaration_it_waits_for_a_binding() {
    check("none");
}

#[test]
fn with_a_verified_exchange_it_waits_for_a_binding() {
    check("passive");
}

fn check(declare: &str) {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let bus = Bus::new(&route);
    bus.declare_exchange();
    let gateway = Gateway::start(&Options::amqp(&route).set("broker.declare", declare));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    let owed = wait_for("refused message", SOON, || {
        let message = gateway.get("/api/v1/outbox")["messages"][0].clone();
        message["last_error"].is_string().then_some(message)
    });
    assert!(
        owed["last_error"].as_str().unwrap().contains("NO_ROUTE"),
        "{owed}"
    );
    assert!(gateway.metric("published_total", &[("result", "returned")]) >= 1.0);
    assert_eq!(gateway.metric("published_total", &[("result", "ack")]), 0.0);
    assert_eq!(gateway.study(&study.uid)["state"], "publishing");

    bus.declare_queue(&[]);
    gateway.wait_until_done(&[&study.uid]);
    let messages = bus.take(1);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].event["id"], owed["id"]);
}
