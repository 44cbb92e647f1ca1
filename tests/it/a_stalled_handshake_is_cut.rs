//! Clients that begin a TLS handshake and go no further: ARTIM ends them, and they cost nobody else
//! anything beyond the rule of admission.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::certificates::{Certificates, secured};
use crate::support::{Gateway, RawPeer, SOON, peers, wait_until};

/// The first bytes of a ClientHello.
const BEGUN: [u8; 10] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03];

#[test]
fn sixty_four_half_open_handshakes() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::available("echoscu") {
        return;
    }
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let client = certificates.client("ca", "ct1");
    let artim = Duration::from_secs(6);
    let options = secured(&server, [ca.clone()]).set("dicom.artim_timeout", "6s");
    let gateway = Gateway::start(&options);
    let flooder = Ipv4Addr::new(127, 0, 0, 2);
    let started = Instant::now();
    let mut stalled: Vec<RawPeer> = (0..64)
        .map(|_| {
            let mut peer = RawPeer::connect_from(flooder, gateway.tls_port).unwrap();
            let _ = peer.write(&BEGUN);
            peer
        })
        .collect();
    // An address has 32 associations and a waiting room for 16 connections.
    let over_limit = [("kind", "over-limit")];
    wait_until("those that are too many", SOON, || {
        gateway.metric("connections_dropped_total", &over_limit) == 16.0
    });
    let mut echo = Command::new("echoscu");
    echo.args(client.dcmtk(&ca));
    echo.args(["127.0.0.1", &gateway.tls_port.to_string()]);
    peers::succeeded(&peers::run(&mut echo));
    // Both listeners count together.
    let mut plain = RawPeer::associate(gateway.dicom_port, "CT1", &[]);
    assert_eq!(plain.echo().unwrap(), 0);
    assert!(started.elapsed() < artim, "nobody had to wait for them");
    stalled.iter_mut().for_each(RawPeer::wait_for_close);
    let cut = started.elapsed();
    assert!(cut >= artim && cut < artim * 3, "{cut:?}");
    wait_until("the timeouts in the metrics", SOON, || {
        gateway.metric("tls_handshakes_total", &[("result", "timeout")]) == 48.0
    });
    assert_eq!(plain.echo().unwrap(), 0);
    let again = RawPeer::connect_from(flooder, gateway.dicom_port).unwrap();
    assert!(again.ask("FLOOD", &[]).is_ok(), "the places are free again");
}
