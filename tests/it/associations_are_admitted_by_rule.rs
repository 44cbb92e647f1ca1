//! Who is not on the list is rejected for good; who comes when all places are taken is asked to come
//! back (PS3.8 Table 9-21).

use crate::support::{Answer, Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn a_calling_ae_title_that_is_not_listed() {
    let options = Options::new().set("dicom.calling_ae_titles", ["CT1", "MR2"]);
    let gateway = Gateway::start(&options);
    let ask = |calling: &str| {
        RawPeer::request(gateway.dicom_port, calling, &[])
            .unwrap()
            .1
    };
    assert_eq!(ask("CT1"), Answer::Accepted);
    assert_eq!(
        ask("CT9"),
        Answer::Rejected(1, 1, 3),
        "permanent: calling AE title not recognized"
    );
    assert_eq!(
        ask("ct1"),
        Answer::Rejected(1, 1, 3),
        "titles are case-sensitive"
    );
    let reason = [("reason", "calling-ae-title")];
    wait_until("rejections in the metrics", SOON, || {
        gateway.metric("associations_rejected_total", &reason) == 2.0
    });
}

#[test]
fn a_called_ae_title_that_is_not_ours() {
    let options = Options::new()
        .set("dicom.ae_title", "ANOTHER")
        .set("dicom.accept_any_called_ae_title", false);
    let gateway = Gateway::start(&options);
    let (_, answer) = RawPeer::request(gateway.dicom_port, "CT1", &[]).unwrap();
    assert_eq!(
        answer,
        Answer::Rejected(1, 1, 7),
        "permanent: called AE title not recognized"
    );
}

#[test]
fn one_association_too_many() {
    let gateway = Gateway::start(&Options::new().set("dicom.max_associations", 1));
    let study = Study::ct();
    let image = study.image(1);
    let mut first = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    assert_eq!(first.echo().unwrap(), 0);
    let (_, answer) = RawPeer::request(gateway.dicom_port, "CT2", &[&image]).unwrap();
    assert_eq!(
        answer,
        Answer::Rejected(2, 3, 2),
        "transient: local limit exceeded"
    );
    assert_eq!(first.store(&image), 0, "the first is not disturbed");
    first.release();
    wait_until("free place", SOON, || {
        let (_, answer) = RawPeer::request(gateway.dicom_port, "CT2", &[&image]).unwrap();
        answer == Answer::Accepted
    });
}
