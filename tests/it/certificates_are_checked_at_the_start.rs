//! What does not go together is refused before anybody can connect, with its key and its file, and `check`
//! says so beforehand; a certificate that has expired is told and served, as others decide whether they
//! take it.

use std::path::PathBuf;

use crate::support::certificates::{Certificates, Pair, Subject, secured};
use crate::support::gateway::Refusal;
use crate::support::{Gateway, Options};

/// Refused by `serve` and by `check`, in words that have all of these parts.
fn refused(options: &Options, said: &[&str]) {
    for subcommand in ["serve", "check"] {
        let Refusal { code, stderr } = Gateway::refusal_of(subcommand, options);
        assert_eq!(code, Some(64), "{subcommand}: {stderr}");
        for part in said {
            assert!(stderr.contains(part), "{subcommand}: {part}: {stderr}");
        }
    }
}

#[test]
fn what_does_not_go_together() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let other = certificates.server("ca", "other");
    let empty = certificates.path("empty", "pem");
    std::fs::write(&empty, "").unwrap();

    let mixed = Pair {
        key: other.key.clone(),
        ..server.clone()
    };
    let no_key = Pair {
        key: other.certificate.clone(),
        ..server.clone()
    };
    let authorities = [ca.clone()];
    refused(
        &secured(&mixed, authorities.clone()),
        &["dicom.tls.certificate", "gateway.pem", "other.key"],
    );
    refused(
        &secured(&no_key, authorities),
        &["dicom.tls.key", "other.pem"],
    );
    let no_authority = ["dicom.tls.ca", "empty.pem", "no certificate"];
    refused(&secured(&server, [ca, empty.clone()]), &no_authority);
    // Without a listener they are for connections of ours.
    let peers = Options::new().set("dicom.tls.ca", [empty.clone()]);
    refused(&peers, &no_authority);

    let collector = Options::new()
        .set("traces.endpoint", "https://127.0.0.1:4317")
        .set("traces.ca", empty);
    refused(&collector, &["traces.ca", "empty.pem"]);

    let https = |certificate: &PathBuf, key: &PathBuf, said: &[&str]| {
        let options = Options::new().set("http.tls.certificate", certificate.clone());
        refused(&options.set("http.tls.key", key.clone()), said);
    };
    let nowhere = PathBuf::from("/nonexistent");
    https(
        &server.certificate,
        &other.key,
        &["http.tls.certificate", "gateway.pem", "other.key"],
    );
    https(&server.certificate, &PathBuf::new(), &["http.tls.key"]);
    https(&PathBuf::new(), &server.key, &["http.tls.certificate"]);
    https(
        &nowhere,
        &server.key,
        &["http.tls.certificate", "/nonexistent"],
    );
}

#[test]
fn tokens_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    std::fs::write(&short, "guess-me\n").unwrap();
    refused(
        &Options::new().set("http.read_token_files", [short]),
        &["http.read_token_files", "short", "at least 16 characters"],
    );
    refused(
        &Options::new().set("http.operate_token_files", [folder.path().join("absent")]),
        &["http.operate_token_files", "absent", "No such file"],
    );
    let secret = "two words of a secret";
    let options = Options::new().set("http.operate_tokens", [secret]);
    refused(&options, &["http.operate_tokens", "one word"]);
    assert!(
        !Gateway::refusal_of("check", &options)
            .stderr
            .contains(secret)
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
    gateway.wait_until_logged("our certificate has expired");
    let life = gateway.metric("tls_certificate_expiry_timestamp_seconds", &[]);
    assert_eq!(life, 1_609_459_200.0, "2021-01-01");
}
