//! Load balancers, port scanners and lost browsers: each probe is counted as what it is, and costs
//! neither memory nor file descriptors nor lines of the log.

use crate::support::{Gateway, Options, RawPeer, SOON, wait_until};

const ROUNDS: usize = 700;

/// What the gateway may grow by: allocator noise, in bytes.
const GROWTH: f64 = 24e6;

#[test]
fn five_thousand_probes() {
    let options = Options::new()
        .set("dicom.artim_timeout", "2s")
        .set("dicom.max_associations", 256)
        .set("dicom.max_associations_per_peer", 256);
    let gateway = Gateway::start(&options);
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        // A TLS ClientHello.
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03],
        // nmap's probe for RPC.
        b"\x80\0\0\x28\x72\xFE\x1D\x13\0\0\0\0\0\0\0\x02\0\x01\x86\xA0\0\x01\x97\x7C\0\0\0\0",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 11112\r\n",
        b"HELP\r\n\r\n",
    ];
    let round = || {
        drop(RawPeer::connect(gateway.dicom_port).unwrap());
        RawPeer::connect(gateway.dicom_port).unwrap().reset();
        for bytes in garbage {
            let mut peer = RawPeer::connect(gateway.dicom_port).unwrap();
            peer.write(bytes).unwrap();
            peer.wait_for_close();
        }
    };
    // Whatever is made once is made now.
    (0..20).for_each(|_| round());
    let settled = || {
        gateway.metric("connections_dropped_total", &[("kind", "probe")])
            + gateway.metric("pdu_errors_total", &[("kind", "unrecognized-pdu")])
    };
    wait_until("the first rounds in the metrics", SOON, || {
        settled() == 140.0
    });
    let (memory, files) = (gateway.resident_memory(), open_files(&gateway));

    let mut silent: Vec<RawPeer> = (0..50)
        .map(|_| RawPeer::connect(gateway.dicom_port).unwrap())
        .collect();
    (0..ROUNDS).for_each(|_| round());
    let mut witness = RawPeer::associate(gateway.dicom_port, "CT1", &[]);
    assert_eq!(witness.echo().unwrap(), 0);
    witness.release();
    silent.iter_mut().for_each(RawPeer::wait_for_close);

    let all = 7.0 * (20 + ROUNDS) as f64;
    wait_until("all probes in the metrics", SOON, || settled() == all);
    let count = |name: &str, kind: &str| gateway.metric(name, &[("kind", kind)]);
    assert_eq!(count("connections_dropped_total", "probe"), all * 2.0 / 7.0);
    assert_eq!(count("connections_dropped_total", "artim"), 50.0);
    wait_until("closed files", SOON, || open_files(&gateway) <= files + 3);
    let growth = gateway.resident_memory() - memory;
    assert!(growth < GROWTH, "grew by {growth} bytes");
    let log = gateway.log();
    let told = log.matches("does not speak DICOM").count();
    assert!((1..=40).contains(&told), "{told} lines");
    assert!(!log.contains("\"WARN\"") && !log.contains("\"ERROR\""));
}

fn open_files(gateway: &Gateway) -> usize {
    let folder = format!("/proc/{}/fd", gateway.pid());
    std::fs::read_dir(folder).unwrap().count()
}
