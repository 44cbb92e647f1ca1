//! An exchange of the same name and other arguments is an operator's mistake that no retry mends: the
//! gateway says what the broker said, and delivers once the mistake is mended.

use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_for};

#[test]
fn the_brokers_words_are_in_the_status_report() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let bus = Bus::new(&route);
    // Without the alternate exchange that the gateway declares.
    bus.declare_exchange();
    let gateway = Gateway::start(&Options::amqp(&route));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    let error = wait_for("error of the broker", SOON, || {
        let broker = gateway.get("/api/v1/status")["broker"].clone();
        broker["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("alternate-exchange"), "{error}");
    bus.delete_exchange();
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(bus.take(1).len(), 1);
}
