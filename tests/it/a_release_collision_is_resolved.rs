//! Both sides ask for the release at the same time (Sta7, Sta9 and Sta11 of PS3.8 9.2): the requestor,
//! which our command line is, confirms first and then waits for its own confirmation. As an acceptor
//! the gateway never asks for a release.

use std::net::TcpListener;
use std::thread;

use crate::support::RawPeer;
use crate::support::gateway::binary;
use crate::support::pdus::{
    ABORT, AC, P_DATA, RELEASE_RP, RELEASE_RQ, RQ, VERIFICATION, element, item, p_data, pdu, pdv,
};
use crate::support::peers;

/// Serves one C-ECHO; then `last` goes out without waiting, and what comes after the requestor's own
/// A-RELEASE-RQ is given back, with the end of the connection as 0.
fn echo_against(last: Vec<u8>) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("PEER@{}", listener.local_addr().unwrap());
    let peer = thread::spawn(move || {
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        assert_eq!(peer.read_pdu().unwrap().0, RQ);
        let mut body = vec![0, 1];
        body.resize(68, 0);
        body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
        let accepted = [&[1, 0, 0, 0][..], &item(0x40, b"1.2.840.10008.1.2")].concat();
        body.extend(item(0x21, &accepted));
        body.extend(item(0x50, &item(0x51, &[0, 0, 0x40, 0])));
        peer.write(&pdu(AC, &body)).unwrap();
        assert_eq!(peer.read_pdu().unwrap().0, P_DATA);
        let mut response = element(0x0002, format!("{VERIFICATION}\0").as_bytes());
        for (number, value) in [
            (0x0100, 0x8030_u16),
            (0x0120, 1),
            (0x0800, 0x0101),
            (0x0900, 0),
        ] {
            response.extend(element(number, &value.to_le_bytes()));
        }
        let answer = p_data(&[pdv(1, 3, &response)]);
        peer.write(&[&answer[..], &last].concat()).unwrap();
        assert_eq!(peer.read_pdu().unwrap().0, RELEASE_RQ);
        let mut heard = Vec::new();
        if last.first() == Some(&RELEASE_RQ) {
            heard.push(peer.next_pdu().unwrap_or(0));
        }
        peer.write(&pdu(RELEASE_RP, &[0; 4])).unwrap();
        heard.push(peer.next_pdu().unwrap_or(0));
        heard
    });
    peers::succeeded(&peers::run(binary().args(["echo", "--to", &to])));
    peer.join().unwrap()
}

#[test]
fn the_requestor_confirms_first() {
    assert_eq!(echo_against(pdu(RELEASE_RQ, &[0; 4])), [RELEASE_RP, 0]);
}

#[test]
fn data_on_their_way_are_ignored_and_nonsense_is_aborted() {
    assert_eq!(echo_against(Vec::new()), [0]);
    assert_eq!(echo_against(p_data(&[pdv(1, 3, b"late")])), [0]);
    assert_eq!(echo_against(pdu(RQ, &[0; 80]))[0], ABORT);
}
