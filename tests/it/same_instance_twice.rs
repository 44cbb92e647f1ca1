//! Senders repeat themselves. The same bytes are accepted each time and kept, counted and reported
//! once, whether the repeat comes at once, after the message, or after the instances were released.

use crate::support::files::below;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn at_once() {
    let gateway = Gateway::start(&Options::new());
    let study = Study::chest();
    let image = study.image(1);
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&image, &image]),
        [0, 0]
    );
    assert_eq!(below(&gateway.data_dir()).len(), 1);
    one_message_about_one_instance(&gateway, &study);
}

#[test]
fn after_the_message() {
    let gateway = Gateway::start(&Options::new());
    let study = Study::chest();
    let image = study.image(1);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    one_message_about_one_instance(&gateway, &study);
}

#[test]
fn after_the_release() {
    let gateway = Gateway::start(&Options::new().set("spool.retention", "0s"));
    let study = Study::chest();
    let image = study.image(1);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    let empty = || below(&gateway.data_dir()).is_empty();
    wait_until("release", SOON, empty);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    one_message_about_one_instance(&gateway, &study);
    wait_until("release of the repeat", SOON, empty);
}

/// A later study that is done shows that an earlier one would have been reported by now.
fn one_message_about_one_instance(gateway: &Gateway, study: &Study) {
    let marker = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&marker.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&marker.uid, &study.uid]);
    let messages = gateway.messages_by_study();
    assert_eq!(messages[&study.uid].len(), 1);
    assert_eq!(
        messages[&study.uid][0]["data"]["study"]["instances_received"],
        1
    );
    let report = gateway.study(&study.uid);
    assert_eq!(report["instances_received"], 1, "{report}");
    assert_eq!(report["revision"], 1, "{report}");
}
