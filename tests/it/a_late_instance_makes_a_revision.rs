//! What comes after the message makes a second one, which names the one that it replaces.

use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, contract, rabbit, wait_until};

#[test]
fn the_second_message_names_the_first() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let bus = Bus::new(&route);
    let gateway = Gateway::start(&Options::amqp(&route));
    let study = Study::chest();
    for number in [1, 2] {
        let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(number)]);
        assert_eq!(sent, [0]);
        gateway.wait_until_done(&[&study.uid]);
    }
    let messages = bus.take(2);
    let [first, second] = messages.as_slice() else {
        panic!("{} messages", messages.len());
    };
    contract::check(second);
    let (first, second) = (&first.event, &second.event);
    assert_eq!(second["data"]["supersedes"], first["id"], "in this order");
    assert_ne!(second["id"], first["id"]);
    assert_eq!(first["data"]["study"]["instances_received"], 1);
    assert_eq!(second["data"]["study"]["instances_received"], 2);

    let report = gateway.study(&study.uid);
    assert_eq!(report["revision"], 2);
    assert_eq!(report["revisions"].as_array().unwrap().len(), 2);
    assert_eq!(report["messages"][1]["revision"], 2);
    assert_eq!(gateway.metric("study_revisions_total", &[]), 1.0);
}

/// After the release only the late instance is at hand: the message says so.
#[test]
fn a_revision_of_released_instances_says_so() {
    let gateway = Gateway::start(&Options::new().set("spool.retention", "0s"));
    let study = Study::chest();
    let send = |number| RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(number)]);
    assert_eq!(send(1), [0]);
    wait_until("release", SOON, || {
        gateway.study(&study.uid)["instances"][0]["released"].is_string()
    });
    assert_eq!(send(2), [0]);
    wait_until("second message", SOON, || gateway.messages().len() == 2);
    let messages = gateway.messages();
    let quality = &messages[1]["data"]["quality"];
    assert_eq!(
        quality[0]["code"], "earlier-instances-released",
        "{quality}"
    );
    assert_eq!(messages[1]["data"]["supersedes"], messages[0]["id"]);
}
