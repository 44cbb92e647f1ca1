//! SIGTERM: newcomers are asked to come back, the message in hand is finished, nothing is lost, and the
//! exit code says that all is well.

use std::time::{Duration, Instant};

use crate::support::files::below;
use crate::support::{Answer, Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn the_message_in_hand_is_finished_and_newcomers_are_turned_away() {
    let options = Options::new()
        .set("study.quiet_period", "10m")
        .set("shutdown.associations", "30s");
    let mut gateway = Gateway::start(&options);
    let mut study = Study::chest();
    study.side = 600;
    let (first, second) = (study.image(1), study.image(2));
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&first]);
    assert_eq!(peer.store(&first), 0);
    peer.begin_store(&second).unwrap();
    let (part, rest) = second.data_set.split_at(600_000);
    peer.continue_store(&second, part, false).unwrap();
    wait_until("half of the second on disk", SOON, || {
        below(&gateway.data_dir()).len() == 2
    });

    gateway.terminate();
    wait_until("end of readiness", SOON, || {
        gateway
            .ask("/readyz")
            .is_some_and(|(status, body)| status == 503 && body.contains("draining"))
    });
    let newcomer = RawPeer::request(gateway.dicom_port, "CT2", &[&first]);
    let answer = newcomer.map(|(_, answer)| answer).unwrap();
    assert_eq!(
        answer,
        Answer::Rejected(2, 3, 1),
        "transient: temporary congestion"
    );
    peer.continue_store(&second, rest, true).unwrap();
    assert_eq!(peer.status().unwrap(), 0, "the message in hand is answered");
    assert_eq!(
        peer.next_pdu().unwrap(),
        0x07,
        "then the association is aborted"
    );
    assert_eq!(gateway.wait(SOON).code(), Some(0));

    gateway.restart_with(&Options::new());
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["data"]["study"]["instances_received"], 2);
}

#[test]
fn who_goes_on_sending_is_told_to_try_again() {
    let mut gateway = Gateway::start(&Options::new());
    let study = Study::chest();
    let (first, second) = (study.image(1), study.image(2));
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&first]);
    assert_eq!(peer.store(&first), 0);
    gateway.terminate();
    gateway.wait_until_logged("\"draining\"");
    assert_eq!(peer.store(&second), 0xA700, "out of resources");
    assert_eq!(peer.echo().unwrap(), 0, "the association lives on");
    assert_eq!(peer.try_release().unwrap(), 0x06, "and ends as it should");
    assert_eq!(gateway.wait(SOON).code(), Some(0));
    assert!(!gateway.log().contains("not drained"));
}

#[test]
fn everything_goes_on_for_the_delay() {
    let mut gateway = Gateway::start(&Options::new().set("shutdown.delay", "3s"));
    let told = Instant::now();
    gateway.terminate();
    wait_until("end of readiness", SOON, || {
        gateway
            .ask("/readyz")
            .is_some_and(|(status, body)| status == 503 && body.contains("draining"))
    });
    let study = Study::chest();
    let statuses = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    assert_eq!(statuses, [0], "who did not notice yet is served");
    assert_eq!(gateway.wait(SOON).code(), Some(0));
    assert!(told.elapsed() >= Duration::from_secs(3));
    gateway.wait_until_logged("not ready any more");
    assert_eq!(gateway.messages().len(), 1, "what came is finished");
}

#[test]
fn a_second_signal_cuts_the_delay_short() {
    let mut gateway = Gateway::start(&Options::new().set("shutdown.delay", "10m"));
    gateway.terminate();
    gateway.wait_until_logged("not ready any more");
    gateway.terminate();
    assert_eq!(gateway.wait(SOON).code(), Some(1));
}

#[test]
fn an_idle_gateway_ends_at_once() {
    let mut gateway = Gateway::start(&Options::new());
    gateway.terminate();
    assert_eq!(gateway.wait(SOON).code(), Some(0));
    gateway.wait_until_logged("\"stopped\"");
    assert!(
        !gateway.log().contains("not drained"),
        "nothing had to be abandoned"
    );
}
