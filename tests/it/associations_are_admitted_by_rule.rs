//! Who is not on the list is rejected for good; who comes when all places are taken is asked to come
//! back (PS3.8 Table 9-21).

use std::net::Ipv4Addr;

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
fn a_called_ae_title_that_is_ours_too() {
    let options = Options::new()
        .set("dicom.ae_title", "ANOTHER")
        .set("dicom.called_ae_titles", ["THIRD", "PACSGATEWAY"])
        .set("dicom.accept_any_called_ae_title", false);
    let gateway = Gateway::start(&options);
    let (_, answer) = RawPeer::request(gateway.dicom_port, "CT1", &[]).unwrap();
    assert_eq!(answer, Answer::Accepted);
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

#[test]
fn one_association_too_many_of_one_title() {
    let gateway = Gateway::start(&Options::new().set("dicom.max_associations_per_ae", 1));
    let first = RawPeer::associate(gateway.dicom_port, "CT1", &[]);
    let ask = |calling: &str| {
        RawPeer::request(gateway.dicom_port, calling, &[])
            .unwrap()
            .1
    };
    assert_eq!(ask("CT1"), Answer::Rejected(2, 3, 2), "transient");
    assert_eq!(ask("CT2"), Answer::Accepted, "the others have their own");
    let reason = [("reason", "local-limit-ae-title")];
    wait_until("the rejection in the metrics", SOON, || {
        gateway.metric("associations_rejected_total", &reason) == 1.0
    });
    first.release();
    wait_until("free place", SOON, || ask("CT1") == Answer::Accepted);
}

#[test]
fn a_flood_from_one_address_keeps_nobody_else_out() {
    let gateway = Gateway::start(&Options::new());
    let port = gateway.dicom_port;
    let flooder = Ipv4Addr::new(127, 0, 0, 2);
    let silent: Vec<RawPeer> = (0..200)
        .map(|_| RawPeer::connect_from(flooder, port).unwrap())
        .collect();
    // What is beyond the limits of one address is closed at once.
    let over_limit = [("kind", "over-limit")];
    wait_until("connections that are dropped", SOON, || {
        gateway.metric("connections_dropped_total", &over_limit) == 152.0
    });
    let mut other = RawPeer::associate(port, "CT1", &[]);
    assert_eq!(other.echo().unwrap(), 0);
    // The flooder's own connections that are left get as many associations as the limit says.
    let (silent, answers): (Vec<RawPeer>, Vec<Answer>) = silent
        .into_iter()
        .filter_map(|peer| peer.ask("FLOOD", &[]).ok())
        .unzip();
    let count = |wanted: Answer| answers.iter().filter(|answer| **answer == wanted).count();
    assert_eq!(count(Answer::Accepted), 32, "{answers:?}");
    assert_eq!(count(Answer::Rejected(2, 3, 2)), 16, "{answers:?}");
    assert_eq!(other.echo().unwrap(), 0);
    drop(silent);
    wait_until("free places of the flooder", SOON, || {
        let peer = RawPeer::connect_from(flooder, port);
        peer.and_then(|peer| peer.ask("FLOOD", &[]))
            .is_ok_and(|(_, answer)| answer == Answer::Accepted)
    });
}
