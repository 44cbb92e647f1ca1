//! What does not go together is refused before anybody can connect, with its key and its file; a
//! certificate that has expired is told and served, as others decide whether they take it.

use crate::support::certificates::{Certificates, Pair, Subject, secured};
use crate::support::{Gateway, Options, SOON, wait_until};

#[test]
fn what_does_not_go_together() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let other = certificates.server("ca", "other");
    let mixed = Pair {
        key: other.key.clone(),
        ..server.clone()
    };
    let no_key = Pair {
        key: other.certificate,
        ..server.clone()
    };
    let empty = certificates.path("empty", "pem");
    std::fs::write(&empty, "").unwrap();
    let check = |options: &Options, said: &[&str]| {
        let refusal = Gateway::refusal(options);
        assert_eq!(refusal.code, Some(64), "{}", refusal.stderr);
        for part in said {
            assert!(refusal.stderr.contains(part), "{part}: {}", refusal.stderr);
        }
    };
    check(
        &secured(&mixed, [ca.clone()]),
        &["dicom.tls.certificate", "gateway.pem", "other.key"],
    );
    check(
        &secured(&no_key, [ca.clone()]),
        &["dicom.tls.key", "other.pem"],
    );
    check(
        &secured(&server, [ca, empty]),
        &["dicom.tls.ca", "empty.pem", "no certificate"],
    );
}

#[test]
fn one_that_has_expired_is_told() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let ca = certificates.authority("ca");
    let subject = Subject {
        until: "20210101000000Z",
        ..Subject::default()
    };
    let server = certificates.issue("ca", "gateway", &subject);
    let gateway = Gateway::start(&secured(&server, [ca]));
    wait_until("the warning", SOON, || {
        gateway.log().contains("our certificate has expired")
    });
    let life = gateway.metric("tls_certificate_expiry_timestamp_seconds", &[]);
    assert_eq!(life, 1_609_459_200.0, "2021-01-01");
}
