//! A message that no queue wants holds up its study and no other. An operator can have it sent at once,
//! or give it up; then it is discarded, which is not the same as confirmed.

use serde_json::Value;

use crate::support::operator::Operator;
use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_for, wait_until};

#[test]
fn the_next_message_of_its_study_goes() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let operator = Operator::new();
    let bus = Bus::new(&route);
    bus.declare_exchange();
    // Somebody wants studies without a model, and nobody else anything.
    bus.declare_queue_for("skipped.#");
    let options = operator.admit(Options::amqp(&route).set("broker.declare", "none"));
    let gateway = Gateway::start(&options);
    let (chest, ct) = (Study::chest(), Study::ct());
    let send = |study: &Study, number| {
        let image = study.image(number);
        assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    };
    send(&chest, 1);
    let first = wait_for("refused message", SOON, || {
        let message = gateway.get("/api/v1/outbox")["messages"][0].clone();
        message["last_error"].is_string().then_some(message)
    });
    send(&ct, 1);
    gateway.wait_until_done(&[&ct.uid]);
    assert_eq!(bus.take(1)[0].event["data"]["outcome"], "skipped");

    send(&chest, 2);
    wait_until("a second revision", SOON, || {
        gateway.study(&chest.uid)["revision"] == 2
    });
    let id = first["id"].as_str().unwrap();
    let shown = gateway.get(&format!("/api/v1/outbox/{id}"));
    assert_eq!(shown["study_instance_uid"], chest.uid.as_str());
    assert!(shown["routing_key"].is_string() && shown["body"].is_null());
    let hesitant = operator.command(&gateway, &["outbox", "rm", id, "--reason", "x"]);
    assert_eq!(hesitant.status.code(), Some(2), "{hesitant:?}");
    let reason = "nobody is bound to it, ticket 17";
    let told = operator.command(&gateway, &["outbox", "rm", id, "--reason", reason, "--yes"]);
    assert!(told.status.success(), "{told:?}");
    let again = operator.command(&gateway, &["outbox", "rm", id, "--reason", reason, "--yes"]);
    assert!(!again.status.success(), "{again:?}");

    // The second is now the oldest of its study, and owed.
    let second = wait_for("second message", SOON, || {
        let message = gateway.get("/api/v1/outbox")["messages"][0].clone();
        (message["last_error"].is_string() && message["id"] != id).then_some(message)
    });
    bus.declare_queue(&[]);
    let told = operator.command(&gateway, &["outbox", "retry", "--all"]);
    assert!(told.status.success(), "{told:?}");
    gateway.wait_until_done(&[&chest.uid]);
    let taken = bus.take(1);
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].event["id"], second["id"]);

    let report = gateway.study(&chest.uid);
    assert_eq!(
        (
            &report["published"],
            &report["confirmed"],
            &report["discarded"]
        ),
        (&2.into(), &1.into(), &1.into())
    );
    let message = &report["messages"][0];
    assert_eq!(message["discard_reason"], reason);
    assert!(message["discarded"].is_string() && message["confirmed"] == Value::Null);
    let (_, csv) = gateway.ask("/api/v1/ledger.ndjson").unwrap();
    let rows: Vec<Value> = csv
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_chest = rows
        .iter()
        .find(|row| row["study_instance_uid"] == chest.uid.as_str());
    assert!(of_chest.is_some());
}
