//! What is wrong behind the gateway is told, in readiness details and metrics, and answered in DICOM. It
//! is no reason to take the port away: where to would the senders go?

use crate::support::ports::own_port;
use crate::support::{Answer, Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn both_are_told_and_the_gateway_stays_ready() {
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", own_port());
    let options = Options::new()
        .set("broker.kind", "amqp")
        .set("broker.url", url.as_str())
        .set("spool.limits.max_bytes", "1MiB")
        .set("spool.limits.resume_bytes", "512KiB")
        .set("study.quiet_period", "10m");
    let mut gateway = Gateway::start(&options);
    let mut study = Study::ct();
    study.side = 724;
    let (first, second) = (study.image(1), study.image(2));
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&first]);
    assert_eq!(peer.store(&first), 0);
    assert_eq!(peer.store(&second), 0xA700, "out of resources");
    peer.release();
    let (_, answer) = RawPeer::request(gateway.dicom_port, "CT2", &[&first]).unwrap();
    assert_eq!(answer, Answer::Rejected(2, 3, 1), "come back later");

    wait_until("the broker's state", SOON, || {
        let broker = &gateway.get("/api/v1/status")["broker"];
        broker["connected"] == false && broker["error"].as_str().is_some()
    });
    let ready = gateway.get("/readyz");
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["spool"]["accepting"], false);
    assert_eq!(ready["spool"]["reason"], "spool-full");
    assert_eq!(gateway.ask("/livez").unwrap().0, 200);
    let told = |name, labels: &[_], value| {
        wait_until(name, SOON, || gateway.metric(name, labels) >= value);
    };
    told("spool_shedding", &[], 1.0);
    told(
        "broker_connect_failures_total",
        &[("reason", "refused")],
        1.0,
    );
    told(
        "associations_rejected_total",
        &[("reason", "congestion")],
        1.0,
    );
    assert_eq!(gateway.metric("broker_connected", &[]), 0.0);
    gateway.terminate();
    assert_eq!(gateway.wait(SOON).code(), Some(0));
}
