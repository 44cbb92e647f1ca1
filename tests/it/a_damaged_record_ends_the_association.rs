//! TLS sees what TCP does not: a byte that was changed on the way ends the connection, and the instance
//! it was in is not stored. Nor is one whose connection was cut without a word.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use crate::support::certificates::{Certificates, secured};
use crate::support::files::below;
use crate::support::tunnel::Tunnel;
use crate::support::{Gateway, RawPeer, SOON, Study, wait_until};

/// What happens to the stream of a sender after so many bytes: in the middle of the second image.
const DAMAGE_AT: usize = 12_000;

#[derive(Clone, Copy)]
enum Damage {
    Flip,
    Cut,
}

#[test]
fn a_byte_that_was_changed() {
    check(Damage::Flip);
}

#[test]
fn a_connection_that_was_cut() {
    check(Damage::Cut);
}

fn check(damage: Damage) {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let client = certificates.client("ca", "ct1");
    let gateway = Gateway::start(&secured(&server, [ca.clone()]));
    let line = line(gateway.tls_port, damage);
    let tunnel = Tunnel::to(line, &client, ca);
    let study = Study::ct();
    let images = [study.image(1), study.image(2)];
    let length = images[0].data_set.len();
    assert!((4_000..10_000).contains(&length), "{length}");
    let mut peer = RawPeer::associate(tunnel.port, "CT1", &[&images[0]]);
    assert_eq!(peer.store(&images[0]), 0);
    assert!(peer.try_store(&images[1]).is_err(), "there is no answer");
    wait_until("the lost connection in the metrics", SOON, || {
        let lost = [("result", "connection-lost")];
        gateway.metric("associations_total", &lost) == 1.0
    });
    assert_eq!(
        gateway.metric("pdu_errors_total", &[]),
        0.0,
        "DICOM saw none of it"
    );
    wait_until("only the first image in the spool", SOON, || {
        let kept = below(&gateway.data_dir());
        let whole = |file: &[u8]| file.ends_with(&images[0].data_set);
        kept.len() == 1 && std::fs::read(&kept[0]).is_ok_and(|file| whole(&file))
    });
}

/// A line to a port of this machine with a fault in it; gives its own port.
fn line(port: u16, damage: Damage) -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let own_port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (near, _) = socket.accept().unwrap();
        let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (back, forth) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        std::thread::spawn(move || carry(back, forth, None));
        carry(near, far, Some(damage));
    });
    own_port
}

fn carry(mut from: TcpStream, mut to: TcpStream, damage: Option<Damage>) {
    let (mut buffer, mut passed) = ([0; 4096], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let at = DAMAGE_AT.wrapping_sub(passed);
        match damage {
            Some(Damage::Flip) if at < count => buffer[at] ^= 1,
            Some(Damage::Cut) if at < count => break,
            _ => {}
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed += count;
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
