//! From where connections and calling AE titles may come.

use std::net::Ipv4Addr;

use crate::support::{Answer, Gateway, Options, RawPeer, SOON, wait_until};

fn ask(gateway: &Gateway, last: u8, calling: &str) -> Answer {
    let from = Ipv4Addr::new(127, 0, 0, last);
    let peer = RawPeer::connect_from(from, gateway.dicom_port).unwrap();
    peer.ask(calling, &[])
        .map_or(Answer::Gone, |(_, answer)| answer)
}

#[test]
fn an_address_that_is_not_listed_is_not_even_heard() {
    let options = Options::new().set("dicom.addresses", ["127.0.0.2/32", "127.0.0.128/25"]);
    let gateway = Gateway::start(&options);
    assert_eq!(ask(&gateway, 2, "CT1"), Answer::Accepted);
    assert_eq!(ask(&gateway, 200, "CT1"), Answer::Accepted);
    assert_eq!(ask(&gateway, 3, "CT1"), Answer::Gone);
    let mut silent =
        RawPeer::connect_from(Ipv4Addr::new(127, 0, 0, 4), gateway.dicom_port).unwrap();
    silent.wait_for_close();
    wait_until("both in the metrics", SOON, || {
        gateway.metric("connections_dropped_total", &[("kind", "address")]) == 2.0
    });
}

#[test]
fn a_title_that_comes_from_elsewhere() {
    let options = Options::new()
        .set("dicom.addresses_by_ae.CT1", ["127.0.0.2/32"])
        .set(
            "dicom.addresses_by_ae.MR1",
            ["127.0.0.2/32", "127.0.0.3/32"],
        );
    let gateway = Gateway::start(&options);
    for (last, calling, answer) in [
        (2, "CT1", Answer::Accepted),
        (3, "CT1", Answer::Rejected(1, 1, 3)),
        (3, "MR1", Answer::Accepted),
        (4, "MR1", Answer::Rejected(1, 1, 3)),
        (4, "OTHER", Answer::Accepted),
    ] {
        assert_eq!(
            ask(&gateway, last, calling),
            answer,
            "{calling} from {last}"
        );
    }
    wait_until("both in the metrics", SOON, || {
        gateway.metric("associations_rejected_total", &[("reason", "address")]) == 2.0
    });
}
