//! RabbitMQ short of memory blocks whoever publishes. Instances are taken and studies finished all the
//! same; their messages wait, it is told, and each is delivered once when the alarm is over.

use std::collections::BTreeSet;

use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_until};

const STUDIES: usize = 30;

#[test]
fn reception_goes_on_and_nothing_is_sent_twice() {
    let Some(mut broker) = rabbit::private() else {
        return;
    };
    let mut route = broker.route();
    // A short heartbeat: a blocked connection must live on for many of them.
    route.url.push_str("?heartbeat=2");
    // Shorter than the alarm: being blocked must not count as a confirm that is late.
    let options = Options::amqp(&route).set("broker.confirm_timeout", "3s");
    let gateway = Gateway::start(&options);
    let first = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&first.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&first.uid]);

    broker
        .node()
        .control(&["set_vm_memory_high_watermark", "0.000001"]);
    let studies: Vec<Study> = (0..STUDIES).map(|_| Study::chest()).collect();
    for study in &studies {
        let statuses = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(
            statuses,
            [0],
            "a blocked broker is not the sender's trouble"
        );
    }
    wait_until("the alarm in /readyz", SOON, || {
        gateway.get("/readyz")["broker"]["blocked"] == true
    });
    assert_eq!(gateway.metric("broker_blocked", &[]), 1.0);
    assert_eq!(gateway.get("/readyz")["ready"], true);
    let finished = |study: &&Study| gateway.study(&study.uid)["published"] == 1;
    wait_until("studies that are finished", SOON, || {
        studies.iter().filter(finished).count() == STUDIES
    });
    let owed = || gateway.get("/api/v1/outbox")["owed"].as_u64().unwrap();
    // Several times the confirm timeout and the heartbeat: the connection is kept.
    let started = std::time::Instant::now();
    wait_until("a long alarm", SOON, || started.elapsed().as_secs() >= 10);
    assert!(owed() >= STUDIES as u64 - 1, "{} are owed", owed());
    assert_eq!(gateway.get("/readyz")["broker"]["blocked"], true);

    broker
        .node()
        .control(&["set_vm_memory_high_watermark", "0.6"]);
    let uids: Vec<&str> = studies.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&uids);
    wait_until("the end of the alarm", SOON, || {
        gateway.metric("broker_blocked", &[]) == 0.0
    });
    let messages = Bus::new(&route).take_all();
    let ids: BTreeSet<String> = messages
        .iter()
        .map(|message| message.event["id"].to_string())
        .collect();
    assert_eq!(ids.len(), STUDIES + 1, "no study is missing");
    assert_eq!(messages.len(), ids.len(), "none was sent twice");
    let connected = gateway.log().matches("broker connected").count();
    assert_eq!(connected, 1, "the connection was never made anew");
}
