//! Mutual TLS with `openssl s_client` as the client: which certificates and versions are taken, and
//! what becomes of the others.

use std::process::{Command, Output};

use crate::support::certificates::{Certificates, Pair, Subject};
use crate::support::{Gateway, Options, RawPeer, SOON, peers, wait_until};

#[test]
fn certificates_and_versions() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let first = certificates.authority("first");
    let second = certificates.authority("second");
    certificates.authority("stranger");
    let server = certificates.server("first", "gateway");
    let options = Options::new()
        .set("dicom.tls.bind", "127.0.0.1:0")
        .set("dicom.tls.certificate", server.certificate)
        .set("dicom.tls.key", server.key)
        .set("dicom.tls.ca", [first.clone(), second]);
    let gateway = Gateway::start(&options);
    let port = gateway.tls_port;
    let connect = |client: Option<&Pair>, more: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-brief", "-verify_return_error"]);
        command.args(["-verify_hostname", "localhost"]);
        command.args(["-connect", &format!("127.0.0.1:{port}")]);
        command.arg("-CAfile").arg(&first).args(more);
        if let Some(client) = client {
            command.arg("-cert").arg(&client.certificate);
            command.arg("-key").arg(&client.key);
        }
        peers::run(&mut command)
    };
    let counted = |result: &str, count: f64| {
        wait_until(&format!("{count} times {result}"), SOON, || {
            gateway.metric("tls_handshakes_total", &[("result", result)]) == count
        });
    };
    let ct1 = certificates.client("first", "ct1");
    let ct2 = certificates.client("second", "ct2");

    let spoken = said(&connect(Some(&ct1), &["-tls1_3"]));
    assert!(spoken.contains("TLSv1.3"), "{spoken}");
    let spoken = said(&connect(Some(&ct2), &["-tls1_2"]));
    assert!(spoken.contains("TLSv1.2"), "{spoken}");
    let spoken = said(&connect(Some(&ct1), &[]));
    assert!(
        spoken.contains("TLSv1.3"),
        "the newer one is preferred: {spoken}"
    );
    counted("ok", 3.0);

    // The alert says why, in the client's own log.
    let refused = |output: Output, alert: &str| {
        let said = said(&output);
        assert!(said.contains(alert), "no `{alert}` in: {said}");
    };
    refused(connect(None, &["-tls1_2"]), "certificate required");
    refused(connect(None, &["-ign_eof"]), "certificate required");
    counted("no-certificate", 2.0);
    let stranger = certificates.client("stranger", "ct9");
    refused(connect(Some(&stranger), &["-ign_eof"]), "unknown ca");
    refused(connect(Some(&stranger), &["-tls1_2"]), "unknown ca");
    counted("unknown-authority", 2.0);
    let life = |name: &str, from: &str, until: &str| {
        let subject = Subject {
            common_name: name,
            from,
            until,
            ..Subject::default()
        };
        certificates.issue("first", name, &subject)
    };
    let expired = life("expired", "20200101000000Z", "20210101000000Z");
    refused(
        connect(Some(&expired), &["-ign_eof"]),
        "certificate expired",
    );
    let unborn = life("unborn", "20480101000000Z", "20490101000000Z");
    refused(connect(Some(&unborn), &["-ign_eof"]), "certificate expired");
    counted("expired", 2.0);
    let subject = Subject {
        common_name: "server",
        usage: "serverAuth",
        ..Subject::default()
    };
    let not_a_client = certificates.issue("first", "not-a-client", &subject);
    refused(
        connect(Some(&not_a_client), &["-ign_eof"]),
        "unsupported certificate",
    );
    counted("bad-certificate", 1.0);
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    refused(connect(Some(&ct1), &old), "handshake failure");
    counted("protocol-version", 1.0);
    for weak in [
        "ECDHE-ECDSA-AES128-SHA256",
        "DHE-RSA-AES128-GCM-SHA256",
        "AES128-GCM-SHA256",
    ] {
        let weak = ["-tls1_2", "-cipher", weak];
        refused(connect(Some(&ct1), &weak), "handshake failure");
    }
    counted("no-common-cipher", 3.0);
    for strong in [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ] {
        let spoken = said(&connect(Some(&ct1), &["-tls1_2", "-cipher", strong]));
        assert!(spoken.contains(strong), "{spoken}");
    }
    counted("ok", 5.0);

    // A client that trusts somebody else says so.
    let mut wary = Command::new("openssl");
    wary.args(["s_client", "-brief", "-verify_return_error", "-CAfile"]);
    wary.arg(certificates.path("stranger", "pem"));
    wary.args(["-connect", &format!("127.0.0.1:{port}")]);
    peers::run(&mut wary);
    counted("distrusted", 1.0);
    // Plain DICOM on this port is closed, TLS on the other one too, with a hint in the log.
    let mut plain = RawPeer::connect(port).unwrap();
    plain.write(&RawPeer::request_bytes("CT1")).unwrap();
    plain.wait_for_close();
    counted("not-tls", 1.0);
    drop(RawPeer::connect(port).unwrap());
    counted("closed", 1.0);
    let mut wrong_port = Command::new("openssl");
    wrong_port.args([
        "s_client",
        "-connect",
        &format!("127.0.0.1:{}", gateway.dicom_port),
    ]);
    assert!(!peers::run(&mut wrong_port).status.success());
    gateway.wait_until_logged("speaks TLS, for which");
    assert!(
        !gateway.log().contains("\"WARN\""),
        "clients' mistakes are no trouble of ours"
    );
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}
