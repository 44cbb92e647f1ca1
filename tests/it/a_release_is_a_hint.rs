//! With `study.release_period` the orderly end of the last association that delivered a study makes
//! the wait for it shorter. An association that breaks off says nothing.

use crate::support::{Gateway, Options, RawPeer, Study};

#[test]
fn the_last_release_counts() {
    let options = Options::new()
        .set("study.quiet_period", "10m")
        .set("study.release_period", "200ms");
    let gateway = Gateway::start(&options);
    let (first, second) = (Study::chest(), Study::chest());
    let images = [first.image(1), second.image(1), first.image(2)];

    // Two associations deliver the first study; the second study's sender breaks off.
    let mut open = RawPeer::associate(gateway.dicom_port, "CT1", &[&images[2]]);
    assert_eq!(open.store(&images[2]), 0);
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &[&images[0]]);
    assert_eq!(sent, [0]);
    let mut broken = RawPeer::associate(gateway.dicom_port, "CT3", &[&images[1]]);
    assert_eq!(broken.store(&images[1]), 0);
    broken.vanish();
    // A third one shows that releases are heard.
    let third = Study::chest();
    let sent = RawPeer::send(gateway.dicom_port, "CT4", &[&third.image(1)]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&third.uid]);
    for study in [&first, &second] {
        assert_eq!(gateway.study(&study.uid)["state"], "receiving");
    }
    open.release();
    gateway.wait_until_done(&[&first.uid]);
    let messages = gateway.messages_by_study();
    let told = &messages[&first.uid][0]["data"]["study"];
    assert_eq!(told["instances_received"], 2);
    assert_eq!(told["completeness"]["method"], "association-release");
    assert!(!messages.contains_key(&second.uid));
}
