//! A Storage Commitment report on the association of its request does not disturb what else is said
//! there: the peer may leave it unanswered for a while and go on sending, and may never answer it.

use crate::support::datasets::EXPLICIT;
use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, wait_until};

const PUSH_MODEL: &str = "1.2.840.10008.1.20.1";
const WELL_KNOWN: &str = "1.2.840.10008.1.20.1.1";

#[test]
fn the_association_goes_on_and_the_drain_does_not_wait() {
    let mut gateway = Gateway::start(&Options::new());
    let study = Study::ct();
    let (first, second) = (study.image(1), study.image(2));
    let requests = [
        action(&study.uid, &first),
        action(&first.sop_instance, &first),
    ];
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT2", &[&first, &requests[0]]);
    assert_eq!(peer.store(&first), 0x0000);

    ask(&mut peer, 1, &requests[0]);
    // The report: a command set and its data set. They are not answered yet.
    assert_eq!((peer.next_pdu().unwrap(), peer.next_pdu().unwrap()), (4, 4));
    assert_eq!(peer.store(&second), 0x0000);
    assert_eq!(peer.echo().unwrap(), 0x0000);
    assert_eq!(gateway.metric("commitments_open", &[]), 1.0);
    answer(&mut peer, 1);
    wait_until("the end of the request", SOON, || {
        gateway.metric("commitments_open", &[]) == 0.0
    });
    let labels = [("via", "same-association"), ("result", "reported")];
    assert_eq!(gateway.metric("commitment_reports_total", &labels), 1.0);

    // The next one is never answered; the gateway ends as if it were not there.
    ask(&mut peer, 2, &requests[1]);
    assert_eq!((peer.next_pdu().unwrap(), peer.next_pdu().unwrap()), (4, 4));
    gateway.terminate();
    assert!(gateway.wait(SOON).success());
    gateway.restart();
    assert_eq!(gateway.get("/api/v1/commitments")["open"], 1);
}

#[test]
fn an_answer_to_nothing_ends_the_association() {
    let gateway = Gateway::start(&Options::new());
    let study = Study::ct();
    let request = action(&study.uid, &study.image(1));
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT2", &[&study.image(1), &request]);
    answer(&mut peer, 7);
    assert_eq!(peer.next_pdu().unwrap(), 0x07, "A-ABORT");
}

/// A request to commit to an image, in the form of an instance.
fn action(transaction: &str, image: &Instance) -> Instance {
    let mut item = element(0x0008, 0x1150, b"UI", &image.sop_class);
    item.extend(element(0x0008, 0x1155, b"UI", &image.sop_instance));
    let mut data_set = element(0x0008, 0x1195, b"UI", transaction);
    data_set.extend([0x08, 0, 0x99, 0x11, b'S', b'Q', 0, 0]);
    data_set.extend(u32::try_from(item.len() + 8).unwrap().to_le_bytes());
    data_set.extend([0xFE, 0xFF, 0x00, 0xE0]);
    data_set.extend(u32::try_from(item.len()).unwrap().to_le_bytes());
    data_set.extend(item);
    Instance {
        sop_class: PUSH_MODEL.to_owned(),
        sop_instance: WELL_KNOWN.to_owned(),
        transfer_syntax: EXPLICIT.to_owned(),
        data_set,
    }
}

/// N-ACTION-RQ with its data set, on the third context; it is taken.
fn ask(peer: &mut RawPeer, message_id: u16, request: &Instance) {
    let command = [
        text(0x0003, PUSH_MODEL),
        number(0x0100, 0x0130),
        number(0x0110, message_id),
        number(0x0800, 0x0001),
        text(0x1001, WELL_KNOWN),
        number(0x1008, 1),
    ];
    peer.write(&p_data(0x03, &command.concat())).unwrap();
    peer.write(&p_data(0x02, &request.data_set)).unwrap();
    assert_eq!(peer.status().unwrap(), 0x0000);
}

/// N-EVENT-REPORT-RSP with Success.
fn answer(peer: &mut RawPeer, message_id: u16) {
    let command = [
        text(0x0002, PUSH_MODEL),
        number(0x0100, 0x8100),
        number(0x0120, message_id),
        number(0x0800, 0x0101),
        number(0x0900, 0x0000),
        text(0x1000, WELL_KNOWN),
    ];
    peer.write(&p_data(0x03, &command.concat())).unwrap();
}

fn p_data(control: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let mut pdu = vec![0x04, 0];
    pdu.extend((length + 6).to_be_bytes());
    pdu.extend((length + 2).to_be_bytes());
    pdu.extend([5, control]);
    pdu.extend(bytes);
    pdu
}

fn number(tag: u16, value: u16) -> Vec<u8> {
    command_element(tag, &value.to_le_bytes())
}

fn text(tag: u16, uid: &str) -> Vec<u8> {
    command_element(tag, &padded(uid))
}

fn command_element(tag: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(tag.to_le_bytes());
    bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend(value);
    bytes
}

/// An element in explicit VR little endian.
fn element(group: u16, number: u16, vr: &[u8; 2], uid: &str) -> Vec<u8> {
    let value = padded(uid);
    let mut bytes = group.to_le_bytes().to_vec();
    bytes.extend(number.to_le_bytes());
    bytes.extend(vr);
    bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend(value);
    bytes
}

fn padded(uid: &str) -> Vec<u8> {
    let mut bytes = uid.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}
