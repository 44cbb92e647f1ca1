//! A collector behind TLS: its certificate must come from the authority that `traces.ca` names.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::collector::Collector;
use crate::support::peers::{available, run, succeeded};
use crate::support::{Gateway, Options, RawPeer, SOON, Study};

/// An authority, and a certificate of it for `localhost`: `ca.pem`, `certificate.pem`, `key.pem`.
fn certificates(dir: &Path) {
    std::fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for command in [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"),
        format!("req {key} -keyout key.pem -out request.pem -subj /CN=localhost"),
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out certificate.pem"
            .to_owned(),
    ] {
        let mut openssl = Command::new("openssl");
        openssl.args(command.split_whitespace()).current_dir(dir);
        succeeded(&run(&mut openssl));
    }
}

fn spans_arrive_only_where_they_are_trusted(protocol: &'static str) {
    if !available("openssl") {
        return;
    }
    let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(ours.path());
    certificates(others.path());
    let file = |name: &str| -> PathBuf { ours.path().join(name) };
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let Some(collector) = Collector::start(protocol, Some((&certificate, &key))) else {
        return;
    };
    for (ca, trusted) in [
        (others.path().join("ca.pem"), false),
        (file("ca.pem"), true),
    ] {
        let options = collector.admit_over("https", Options::new());
        let mut gateway = Gateway::start(&options.set("traces.ca", ca));
        let study = Study::chest();
        let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(sent, [0]);
        gateway.wait_until_done(&[&study.uid]);
        if trusted {
            collector.traces(1);
        } else {
            gateway.wait_until_logged("the collector takes no traces");
        }
        gateway.terminate();
        assert!(gateway.wait(SOON).success());
        assert_eq!(collector.spans().is_empty(), !trusted);
    }
}

#[test]
fn over_grpc() {
    spans_arrive_only_where_they_are_trusted("grpc");
}

#[test]
fn over_http() {
    spans_arrive_only_where_they_are_trusted("http");
}
