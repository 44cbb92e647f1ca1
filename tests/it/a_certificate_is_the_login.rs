//! SASL EXTERNAL: the broker knows the gateway by its certificate, and nobody types a password.

use std::fs;

use crate::support::certificates::{Pair, Subject};
use crate::support::{Gateway, Options, RawPeer, Study, rabbit};

#[test]
fn the_right_one_publishes_and_others_are_told_why_not() {
    let Some(mut broker) = rabbit::secure(true) else {
        return;
    };
    let user = format!("gateway-{}", std::process::id());
    broker.node().control(&["add_user", &user, "not used"]);
    let all = [".*", ".*", ".*"];
    let allow = [&["set_permissions", &user][..], &all].concat();
    broker.node().control(&allow);
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("ours.pem"), dir.path().join("ours.key"));
    let use_ = |pair: &Pair| {
        fs::copy(&pair.key, &key).unwrap();
        fs::copy(&pair.certificate, &certificate).unwrap();
    };
    let certificates = broker.node().certificates();
    let issue = |authority: &str, file: &str, common_name: &str| {
        let subject = Subject {
            common_name,
            usage: "clientAuth",
            ..Subject::default()
        };
        certificates.issue(authority, file, &subject)
    };
    certificates.authority("stranger");
    let nobody = issue("authority", "nobody", "nobody");
    let strangers = issue("stranger", "strangers", &user);
    let mine = issue("authority", "mine", &user);
    let trusted = broker.node().authority();
    let url = broker.node().secure_url("127.0.0.1");
    let options = Options::amqp(&broker.route())
        .set("broker.url", url.as_str())
        .set("broker.sasl", "external")
        .set("broker.tls.ca", trusted)
        .set("broker.tls.certificate", certificate.clone())
        .set("broker.tls.key", key.clone());

    // A name that is no user of the broker's.
    use_(&nobody);
    let gateway = Gateway::start(&options);
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    gateway.wait_until_away("auth", "ACCESS_REFUSED");

    // The right name from somebody else.
    use_(&strangers);
    gateway.wait_until_away("tls", "see broker.tls.certificate");

    // A renewal that went wrong: the key is of another certificate.
    fs::copy(&mine.certificate, &certificate).unwrap();
    gateway.wait_until_away("files", "broker.tls.key");

    use_(&mine);
    gateway.wait_until_done(&[&study.uid]);
    let users = broker
        .node()
        .ask(&["list_connections", "user", "auth_mechanism"]);
    assert!(users.contains(&format!("{user}\tEXTERNAL")), "{users}");

    // The same mistakes at a start are refused, with the key.
    fs::copy(&strangers.key, &key).unwrap();
    let refusal = Gateway::refusal(&options);
    assert_eq!(refusal.code, Some(64));
    assert!(
        refusal.stderr.contains("broker.tls.key"),
        "{}",
        refusal.stderr
    );
    fs::remove_file(&certificate).unwrap();
    let refusal = Gateway::refusal(&options);
    assert_eq!(refusal.code, Some(64));
    assert!(
        refusal.stderr.contains("broker.tls.certificate") && refusal.stderr.contains("ours.pem"),
        "{}",
        refusal.stderr
    );
}
