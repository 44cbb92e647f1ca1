//! AMQPS: the broker is believed only with a certificate of the configured authority for its own name.
//! What is wrong is told, costs nobody anything, and is over as soon as the file is right.

use std::fs;
use std::path::Path;

use crate::support::certificates::{Certificates, Subject};
use crate::support::rabbit::Private;
use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_until};

#[test]
fn a_wrong_authority_is_told_and_corrected_without_a_restart() {
    let Some(mut broker) = rabbit::secure(false) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("trusted.pem");
    let others = Certificates::new().unwrap();
    fs::copy(others.authority("other"), &trusted).unwrap();
    let gateway = Gateway::start(&options(&mut broker, "127.0.0.1", &trusted));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    gateway.wait_until_away("tls", "no authority that we trust: see broker.tls.ca");

    // Both authorities in one file, as during a change from one to the other.
    let mut both = fs::read(&trusted).unwrap();
    both.extend(fs::read(broker.node().authority()).unwrap());
    fs::write(&trusted, both).unwrap();
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(gateway.get("/api/v1/status")["broker"]["connected"], true);
    assert_eq!(gateway.log().matches("broker is away").count(), 1);
}

#[test]
fn a_certificate_for_another_name_is_told() {
    let Some(mut broker) = rabbit::secure(false) else {
        return;
    };
    let authority = broker.node().authority();
    let only_address = Subject {
        common_name: "broker",
        names: "IP:127.0.0.1",
        ..Subject::default()
    };
    let certificates = broker.node().certificates();
    let presented = certificates.issue("authority", "only-address", &only_address);
    broker.node().present(&presented);
    let gateway = Gateway::start(&options(&mut broker, "localhost", &authority));
    gateway.wait_until_away("tls", "for another name than the one in broker.url");
}

#[test]
fn an_expired_certificate_is_told_once_until_it_is_renewed() {
    let Some(mut broker) = rabbit::secure(false) else {
        return;
    };
    let authority = broker.node().authority();
    let certificates = broker.node().certificates();
    let good = certificates.server("authority", "good");
    let over = Subject {
        common_name: "expired",
        names: "IP:127.0.0.1",
        until: "20200102000000Z",
        ..Subject::default()
    };
    let expired = certificates.issue("authority", "expired", &over);
    broker.node().present(&expired);
    let gateway = Gateway::start(&options(&mut broker, "127.0.0.1", &authority));
    gateway.wait_until_away("tls", "its certificate has expired");
    wait_until("more attempts", SOON, || {
        gateway.connect_failures("tls") >= 4.0
    });
    assert_eq!(gateway.log().matches("broker is away").count(), 1);
    broker.node().present(&good);
    wait_until("a connection", SOON, || {
        gateway.metric("broker_connected", &[]) == 1.0
    });
}

#[test]
fn a_broker_that_wants_a_certificate_is_told_of() {
    let Some(mut broker) = rabbit::secure(true) else {
        return;
    };
    let authority = broker.node().authority();
    let gateway = Gateway::start(&options(&mut broker, "127.0.0.1", &authority));
    gateway.wait_until_away("tls", "see broker.tls.certificate");
}

/// What is encrypted is the same protocol: the message is in the queue.
#[test]
fn a_message_arrives() {
    let Some(mut broker) = rabbit::secure(false) else {
        return;
    };
    let authority = broker.node().authority();
    let route = broker.route();
    let secure = Options::amqp(&route)
        .set("broker.url", broker.node().secure_url("127.0.0.1").as_str())
        .set("broker.tls.ca", authority);
    let gateway = Gateway::start(&secure);
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    let messages = Bus::new(&route).take(1);
    let uid = &messages[0].event["data"]["study"]["study_instance_uid"];
    assert_eq!(*uid, study.uid.as_str());
    gateway.wait_until_done(&[&study.uid]);
    let connections = broker
        .node()
        .ask(&["list_connections", "ssl", "ssl_protocol"]);
    assert!(connections.contains("true\ttlsv1.3"), "{connections}");
}

fn options(broker: &mut Private, host: &str, authority: &Path) -> Options {
    let url = broker.node().secure_url(host);
    Options::amqp(&broker.route())
        .set("broker.url", url.as_str())
        .set("broker.tls.ca", authority.to_owned())
}
