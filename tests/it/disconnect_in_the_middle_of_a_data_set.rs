//! A sender that goes away in the middle of a data set leaves nothing behind.

use crate::support::files::below;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn nothing_is_kept_and_the_gateway_goes_on() {
    let gateway = Gateway::start(&Options::new());
    let mut study = Study::ct();
    // Large enough that a part of it is on disk before the rest comes.
    study.side = 1500;
    let image = study.image(1);
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    peer.begin_store(&image).unwrap();
    let (part, rest) = image.data_set.split_at(3_000_000);
    peer.continue_store(&image, part, false).unwrap();
    wait_until("half an instance on disk", SOON, || {
        below(&gateway.data_dir()).len() == 1
    });
    peer.vanish();
    wait_until("removal of the half", SOON, || {
        below(&gateway.data_dir()).is_empty()
    });
    wait_until("end of the association", SOON, || {
        gateway.metric("associations_active", &[]) == 0.0
    });
    assert_eq!(
        gateway.get("/api/v1/studies")["studies"]
            .as_array()
            .unwrap()
            .len(),
        0
    );

    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    peer.begin_store(&image).unwrap();
    peer.continue_store(&image, part, false).unwrap();
    peer.continue_store(&image, rest, true).unwrap();
    assert_eq!(
        peer.status().unwrap(),
        0,
        "the same instance is welcome afterwards"
    );
    peer.release();
    gateway.wait_until_done(&[&study.uid]);
}
