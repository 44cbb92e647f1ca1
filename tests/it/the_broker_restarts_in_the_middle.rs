//! The broker is restarted and then loses its power while studies pour in: every study's message is
//! there in the end.

use std::collections::BTreeSet;

use crate::support::gateway::by_study;
use crate::support::topology::Bus;
use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, rabbit, wait_until};

const STUDIES: usize = 60;

#[test]
fn every_message_is_delivered() {
    let Some(mut broker) = rabbit::private() else {
        return;
    };
    let route = broker.route();
    let options = Options::amqp(&route)
        .set("study.quiet_period", "100ms")
        .set("broker.confirm_timeout", "5s");
    let gateway = Gateway::start(&options);
    let studies: Vec<Study> = (0..STUDIES).map(|_| Study::chest()).collect();
    let images: Vec<_> = studies.iter().map(|study| study.image(1)).collect();
    let mut peer = RawPeer::associate(
        gateway.dicom_port,
        "CT1",
        &images.iter().collect::<Vec<_>>(),
    );
    let (confirmed, rest) = images.split_at(STUDIES / 3);
    let (in_flight, waiting) = rest.split_at(STUDIES / 3);
    let mut store = |images: &[Instance]| {
        for image in images {
            assert_eq!(
                peer.store(image),
                0,
                "a dead broker is not the sender's trouble"
            );
        }
    };
    let acknowledged = || gateway.metric("published_total", &[("result", "ack")]) as usize;
    store(confirmed);
    wait_until("confirms", SOON, || acknowledged() == confirmed.len());
    // An orderly restart first. It is also what makes RabbitMQ remember for good that it has the queue:
    // one declared a moment before a power cut comes back without a leader.
    broker.node().stop();
    broker.node().start();
    store(in_flight);
    wait_until("more confirms", SOON, || acknowledged() > confirmed.len());
    broker.node().kill();
    store(waiting);
    peer.release();
    wait_until("messages that wait", SOON, || {
        gateway.get("/api/v1/outbox")["owed"].as_u64().unwrap() > 0
    });
    broker.node().start();
    let uids: Vec<&str> = studies.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&uids);

    let messages = Bus::new(&route).take(STUDIES);
    let messages = by_study(messages.into_iter().map(|message| message.event).collect());
    assert_eq!(messages.len(), STUDIES, "no study is missing");
    let ids: BTreeSet<String> = messages
        .values()
        .flatten()
        .map(|event| event["id"].to_string())
        .collect();
    assert_eq!(ids.len(), STUDIES, "one id per study");
}
