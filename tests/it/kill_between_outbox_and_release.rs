//! The message is owed and not delivered, the instances are about to be released, and the process is
//! killed: the message is delivered once, with the id it had, and the spool is emptied.

use crate::support::files::below;
use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_for, wait_until};

#[test]
fn an_owed_message_survives_and_its_instances_go() {
    let Some(mut broker) = rabbit::private() else {
        return;
    };
    let route = broker.route();
    broker.node().stop();
    let options = Options::amqp(&route).set("spool.retention", "0s");
    let mut gateway = Gateway::start(&options);
    let study = Study::chest();
    let image = study.image(1);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    let owed = wait_for("message in the outbox", SOON, || {
        let outbox = gateway.get("/api/v1/outbox");
        (outbox["owed"] == 1).then(|| outbox["messages"][0].clone())
    });
    assert_eq!(gateway.study(&study.uid)["state"], "publishing");
    gateway.kill();

    broker.node().start();
    gateway.restart();
    gateway.wait_until_done(&[&study.uid]);
    wait_until("release of the instance", SOON, || {
        below(&gateway.data_dir()).is_empty()
    });
    let bus = Bus::new(&route);
    let messages = bus.take(1);
    assert_eq!(messages.len(), 1, "delivered once");
    assert_eq!(messages[0].event["id"], owed["id"]);
    let instance = &gateway.study(&study.uid)["instances"][0];
    assert!(instance["released"].is_string(), "{instance}");
    assert!(instance["confirmed"].is_string(), "{instance}");
}
