//! What is being received lies on disk, not in memory: as many associations as there may be, each in
//! the middle of a large instance.

use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, wait_until};

/// The default of `dicom.max_associations`.
const ASSOCIATIONS: usize = 64;

/// Two blocks of 256 KiB and a receive buffer of twice that, with room for the allocator.
const EACH: f64 = 1.5e6;

#[test]
fn sixty_four_at_the_same_time() {
    let options = Options::new()
        .set("dicom.max_associations_per_peer", 64)
        .set("dicom.max_associations_per_ae", 64);
    let gateway = Gateway::start(&options);
    let mut study = Study::ct();
    // 8 MB; what is sent of it is 5 MB, more than three times what may stay in memory.
    study.side = 2000;
    let image = study.image(1);
    let before = gateway.resident_memory();
    let mut senders: Vec<(RawPeer, Instance)> = (0..ASSOCIATIONS)
        .map(|number| {
            let mut image = image.clone();
            // Its own instance: the last digits of the UID, of the same length.
            let suffix = format!("{:02}", number + 10);
            let old = image.sop_instance.clone();
            let new = format!("{}{suffix}", &old[..old.len() - 2]);
            let at = image
                .data_set
                .windows(old.len())
                .position(|bytes| bytes == old.as_bytes())
                .unwrap();
            image.data_set[at..at + new.len()].copy_from_slice(new.as_bytes());
            image.sop_instance = new;
            (
                RawPeer::associate(gateway.dicom_port, "CT1", &[&image]),
                image,
            )
        })
        .collect();
    let piece = 500_000;
    for (peer, image) in &mut senders {
        peer.begin_store(image).unwrap();
    }
    for step in 0..10 {
        for (peer, image) in &mut senders {
            let bytes = &image.data_set[step * piece..(step + 1) * piece];
            peer.continue_store(image, bytes, false).unwrap();
        }
    }
    let received = (ASSOCIATIONS * 10 * piece) as f64;
    wait_until("the pieces", SOON, || {
        gateway.metric("received_bytes_total", &[]) > received * 0.95
    });
    let each = (gateway.resident_memory() - before) / ASSOCIATIONS as f64;
    eprintln!("{each:.0} bytes of memory per association that receives");
    assert!(each < EACH, "{each} bytes each");
    for (peer, image) in &mut senders {
        let rest = &image.data_set[10 * piece..];
        peer.continue_store(image, rest, true).unwrap();
    }
    for (mut peer, _) in senders {
        assert_eq!(peer.status().unwrap(), 0);
        peer.release();
    }
    wait_until("all instances", SOON, || {
        gateway.study(&study.uid)["instances_received"] == ASSOCIATIONS as u64
    });
}
