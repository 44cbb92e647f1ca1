//! A peer that stalls, wherever it stalls, is cut by a timer; its place is free afterwards, and the
//! others are served meanwhile.

use std::time::Duration;

use crate::support::{Answer, Gateway, Instance, Options, RawPeer, SOON, Study, wait_until};

/// How long a peer that trickles waits before its next byte: far below every timeout.
const TRICKLE: Duration = Duration::from_millis(100);

/// One place for an association: that it is given back can be seen.
fn gateway() -> Gateway {
    let options = Options::new()
        .set("dicom.max_associations", 2)
        .set("dicom.artim_timeout", "2s")
        .set("dicom.idle_timeout", "2s")
        .set("dicom.pdu_timeout", "2s");
    Gateway::start(&options)
}

/// Runs `stall` on an association while another is served, and waits for the timer to end it.
fn on_an_association(stall: impl FnOnce(&mut RawPeer, &Instance) + Send) {
    let gateway = gateway();
    let image = Study::ct().image(1);
    let mut stalled = RawPeer::associate(gateway.dicom_port, "SLOW", &[&image]);
    std::thread::scope(|scope| {
        let stalling = scope.spawn(|| stall(&mut stalled, &image));
        while !stalling.is_finished() || timed_out(&gateway) == 0.0 {
            let (mut other, answer) = RawPeer::request(gateway.dicom_port, "CT1", &[]).unwrap();
            assert_eq!(answer, Answer::Accepted);
            assert_eq!(other.echo().unwrap(), 0, "others are served meanwhile");
            other.release();
            std::thread::sleep(TRICKLE);
        }
    });
    places_are_free(&gateway);
}

fn timed_out(gateway: &Gateway) -> f64 {
    gateway.metric("associations_total", &[("result", "timed-out")])
}

fn places_are_free(gateway: &Gateway) {
    wait_until("free places", SOON, || {
        gateway.metric("associations_active", &[]) == 0.0
    });
    let both = [(); 2].map(|()| RawPeer::associate(gateway.dicom_port, "CT1", &[]));
    both.into_iter().for_each(RawPeer::release);
}

/// Writes bytes one at a time until the gateway does not take them any more.
fn trickle(peer: &mut RawPeer, bytes: &[u8]) {
    for byte in bytes {
        if peer.write(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(TRICKLE);
    }
    panic!("the gateway took {} bytes, one at a time", bytes.len());
}

#[test]
fn in_the_association_request() {
    let gateway = gateway();
    let mut peer = RawPeer::connect(gateway.dicom_port).unwrap();
    trickle(&mut peer, &RawPeer::request_bytes("SLOW"));
    wait_until("ARTIM in the metrics", SOON, || {
        gateway.metric("connections_dropped_total", &[("kind", "artim")]) == 1.0
    });
    places_are_free(&gateway);
}

#[test]
fn byte_by_byte_in_a_data_set() {
    on_an_association(|peer, image| {
        peer.begin_store(image).unwrap();
        let mut pdu = vec![0x04, 0, 0, 0, 0x10, 0, 0, 0, 0x0F, 0xFC, 3, 0];
        pdu.extend([0; 200]);
        trickle(peer, &pdu);
    });
}

#[test]
fn in_the_middle_of_a_data_set() {
    on_an_association(|peer, image| {
        peer.begin_store(image).unwrap();
        peer.continue_store(image, &image.data_set[..1000], false)
            .unwrap();
        peer.wait_for_close();
    });
}

#[test]
fn between_messages() {
    on_an_association(|peer, _| peer.wait_for_close());
}

/// Asks and asks and never listens: our responses fill the buffers of the kernel.
#[test]
fn a_peer_that_never_reads() {
    on_an_association(|peer, _| while peer.ask_for_echo().is_ok() {});
}

/// The release is confirmed, and then the peer does not close.
#[test]
fn after_the_release() {
    let gateway = gateway();
    let lingering: Vec<RawPeer> = (0..10)
        .map(|_| {
            let mut peer = RawPeer::associate(gateway.dicom_port, "SLOW", &[]);
            peer.write(&[0x05, 0, 0, 0, 0, 4, 0, 0, 0, 0]).unwrap();
            assert_eq!(peer.next_pdu().unwrap(), 0x06);
            peer
        })
        .collect();
    // They cost a connection each, and no place for an association.
    places_are_free(&gateway);
    let connections = || {
        let sockets = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
        let links = sockets.filter_map(|item| std::fs::read_link(item.ok()?.path()).ok());
        links
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let before = connections();
    wait_until("ARTIM closes them", SOON, || connections() + 10 <= before);
    drop(lingering);
}
