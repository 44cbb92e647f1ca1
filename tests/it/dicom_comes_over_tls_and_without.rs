//! Two listeners side by side: what comes over TLS from DCMTK, pynetdicom and a tunnel is kept bit by bit and
//! becomes a message like what comes without.

use std::path::PathBuf;
use std::process::Command;

use crate::support::certificates::{Certificates, Subject, secured};
use crate::support::files::below;
use crate::support::tunnel::Tunnel;
use crate::support::{Gateway, RawPeer, SOON, Study, peers, wait_until};

const TITLES: [&str; 4] = ["-aet", "CT1", "-aec", "PACSGATEWAY"];

#[test]
fn one_study_by_both_ways() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::available("storescu") || !peers::python_available() {
        return;
    }
    let ca = certificates.authority("ca");
    // RSA here; the other scenarios have ECDSA.
    let subject = Subject {
        common_name: "gateway",
        names: "DNS:localhost,IP:127.0.0.1",
        usage: "serverAuth",
        key: "rsa:2048",
        ..Subject::default()
    };
    let server = certificates.issue("ca", "gateway", &subject);
    let client = certificates.client("ca", "ct1");
    let gateway = Gateway::start(&secured(&server, [ca.clone()]));
    let secure_port = gateway.tls_port;
    let study = Study::chest();
    let images: Vec<_> = (1..=5).map(|number| study.image(number)).collect();
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = images
        .iter()
        .enumerate()
        .map(|(at, image)| {
            let path = dir.path().join(format!("{at}.dcm"));
            std::fs::write(&path, image.part_10()).unwrap();
            path
        })
        .collect();

    // One that stays open while the others come and go.
    let tunnel = Tunnel::to(secure_port, &client, ca.clone());
    let mut open = RawPeer::associate(tunnel.port, "CT1", &[&images[4]]);
    for file in &files[..2] {
        let mut command = Command::new("storescu");
        command.args(TITLES).args(client.dcmtk(&ca));
        command.args(["127.0.0.1", &secure_port.to_string()]);
        peers::succeeded(&peers::run(command.arg(file)));
    }
    let mut pynetdicom = Command::new(peers::python());
    pynetdicom.env("PEER_TLS", client.pynetdicom(&ca));
    let script = "tests/it/python/pynetdicom_peer.py";
    pynetdicom.arg(crate::support::options::repository().join(script));
    pynetdicom.args(["store", &secure_port.to_string()]);
    peers::succeeded(&peers::run(pynetdicom.arg(&files[2])));
    peers::succeeded(&peers::storescu(gateway.dicom_port, &[], &files[3..4]));
    assert_eq!(open.store(&images[4]), 0);
    open.release();

    let kept: Vec<Vec<u8>> = below(&gateway.data_dir())
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    for image in &images {
        let same = |file: &&Vec<u8>| file.ends_with(&image.data_set);
        assert_eq!(kept.iter().filter(same).count(), 1, "bit by bit");
    }
    wait_until("a message about all of them", SOON, || {
        let messages = gateway.messages_by_study();
        let of_study = messages.get(&study.uid);
        let received = &gateway.study(&study.uid)["instances_received"];
        of_study.is_some() && received == 5
    });
    gateway.wait_until_done(&[&study.uid]);
    // Associations end by their release, whether or not the peer says goodbye in TLS.
    wait_until("released associations", SOON, || {
        gateway.metric("associations_total", &[("result", "released")]) == 5.0
    });
    assert_eq!(gateway.metric("associations_total", &[]), 5.0);
    assert_eq!(gateway.metric("tls_handshakes_total", &[]), 4.0);
    let (_, ready) = gateway.ask("/readyz").unwrap();
    assert!(
        ready.contains(&format!("\"dicom_tls\":{secure_port}")),
        "{ready}"
    );
    let life = gateway.metric(
        "tls_certificate_expiry_timestamp_seconds",
        &[("listener", "dicom")],
    );
    // 2049-01-01.
    assert_eq!(life, 2_493_072_000.0);
}

#[test]
fn the_plain_listener_can_be_closed() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let client = certificates.client("ca", "ct1");
    let options = secured(&server, [ca.clone()]).set("dicom.plain", false);
    let gateway = Gateway::start(&options);
    assert_eq!(gateway.dicom_port, 0, "there is none");
    let tunnel = Tunnel::to(gateway.tls_port, &client, ca);
    let image = Study::ct().image(1);
    assert_eq!(RawPeer::send(tunnel.port, "CT1", &[&image]), [0]);
    let ports = gateway.get("/readyz")["ports"].clone();
    assert!(ports["dicom"].is_null(), "{ports}");
}
