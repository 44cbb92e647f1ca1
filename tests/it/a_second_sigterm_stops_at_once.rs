//! A second SIGTERM waits for nobody, and what was acknowledged is still there.

use std::time::{Duration, Instant};

use crate::support::files::below;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn it_waits_for_nobody_and_loses_nothing() {
    let options = Options::new()
        .set("study.quiet_period", "10m")
        .set("shutdown.associations", "10m");
    let mut gateway = Gateway::start(&options);
    let mut study = Study::chest();
    study.side = 600;
    let (first, second) = (study.image(1), study.image(2));
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&first]);
    assert_eq!(peer.store(&first), 0);
    peer.begin_store(&second).unwrap();
    peer.continue_store(&second, &second.data_set[..600_000], false)
        .unwrap();
    wait_until("half of the second on disk", SOON, || {
        below(&gateway.data_dir()).len() == 2
    });
    gateway.terminate();
    wait_until("drain", SOON, || {
        gateway
            .ask("/readyz")
            .is_some_and(|(status, _)| status == 503)
    });
    let asked = Instant::now();
    gateway.terminate();
    let status = gateway.wait(SOON);
    assert_eq!(
        status.code(),
        Some(1),
        "a drain that was cut short is no success"
    );
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );

    gateway.restart_with(&Options::new());
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages();
    assert_eq!(messages[0]["data"]["study"]["instances_received"], 1);
}
