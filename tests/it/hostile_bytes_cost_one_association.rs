//! Bytes that are no DICOM, or DICOM that lies about lengths: each costs its own connection, and
//! neither memory nor anybody else's association.

use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, wait_until};

/// What a gateway with two small models may grow to under attack, in bytes.
const MEMORY: f64 = 400e6;

#[test]
fn the_others_do_not_notice() {
    let gateway = Gateway::start(&Options::new());
    let study = Study::ct();
    let image = study.image(1);
    let mut witness = RawPeer::associate(gateway.dicom_port, "WITNESS", &[&image]);

    let huge = u32::MAX.to_be_bytes();
    let before_association: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03],
        &[0xFF; 4096],
        &[0x01, 0, huge[0], huge[1], huge[2], huge[3], 0, 1],
        &[0x04, 0, 0, 0, 0, 6, 0, 0, 0, 2, 1, 3],
        &[0x01, 0, 0, 0, 0, 2, 0, 1],
    ];
    for bytes in before_association {
        let mut peer = RawPeer::connect(gateway.dicom_port).unwrap();
        peer.write(bytes).unwrap();
        let ended = peer.next_pdu();
        assert!(!matches!(ended, Ok(0x02)), "{bytes:02X?} led to {ended:?}");
        assert_eq!(witness.echo().unwrap(), 0, "{bytes:02X?}");
    }

    for bytes in after_association(&image) {
        let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
        peer.write(&bytes).unwrap();
        let ended = peer.next_pdu();
        // A-ABORT, or the connection is closed.
        assert!(!matches!(ended, Ok(0x04)), "{bytes:02X?} led to {ended:?}");
        assert_eq!(witness.echo().unwrap(), 0, "{bytes:02X?}");
    }

    assert_eq!(witness.store(&image), 0);
    witness.release();
    gateway.wait_until_done(&[&study.uid]);
    assert!(gateway.metric("pdu_errors_total", &[]) >= 8.0);
    wait_until("end of the associations", SOON, || {
        gateway.metric("associations_active", &[]) == 0.0
    });
    assert!(!gateway.log().contains("panic"), "nothing panicked");
    assert!(
        gateway.resident_memory() < MEMORY,
        "{}",
        gateway.resident_memory()
    );
}

/// PDUs that may not come, or not so, on an open association.
fn after_association(image: &Instance) -> Vec<Vec<u8>> {
    let p_data = |pdv_length: u32, context: u8, flags: u8, body: &[u8]| {
        let mut pdv = pdv_length.to_be_bytes().to_vec();
        pdv.extend([context, flags]);
        pdv.extend(body);
        let mut pdu = vec![0x04, 0];
        pdu.extend(u32::try_from(pdv.len()).unwrap().to_be_bytes());
        pdu.extend(pdv);
        pdu
    };
    // A C-STORE whose Affected SOP Instance UID claims 4 GiB.
    let mut endless = vec![0, 0, 0x00, 0x10];
    endless.extend(u32::MAX.to_le_bytes());
    endless.extend(image.sop_instance.as_bytes());
    let endless_length = u32::try_from(endless.len() + 2).unwrap();
    vec![
        vec![0x04, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        vec![0x7F, 0, 0, 0, 0, 0],
        vec![0x01, 0, 0, 0, 0, 0],
        p_data(u32::MAX, 1, 0x03, &[0; 16]),
        p_data(0, 1, 0x03, &[0; 16]),
        p_data(6, 200, 0x03, &[0; 4]),
        p_data(6, 1, 0x02, &[0; 4]),
        p_data(endless_length, 3, 0x03, &endless),
        p_data(34, 3, 0x03, &[0xAB; 32]),
    ]
}
