//! A collector behind TLS: its certificate must come from the authority that `traces.ca` names.

use crate::support::certificates::Certificates;
use crate::support::collector::Collector;
use crate::support::{Gateway, Options, RawPeer, SOON, Study};

fn spans_arrive_only_where_they_are_trusted(protocol: &'static str) {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let (ours, others) = (
        certificates.authority("ours"),
        certificates.authority("others"),
    );
    let own = certificates.server("ours", "collector");
    let Some(collector) = Collector::start(protocol, Some((&own.certificate, &own.key))) else {
        return;
    };
    for (ca, trusted) in [(others, false), (ours, true)] {
        let options = collector.admit_over("https", Options::new());
        let mut gateway = Gateway::start(&options.set("traces.ca", ca));
        let study = Study::chest();
        let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(sent, [0]);
        gateway.wait_until_done(&[&study.uid]);
        if trusted {
            collector.traces(1);
        } else {
            gateway.wait_until_logged("the collector takes no traces");
        }
        gateway.terminate();
        assert!(gateway.wait(SOON).success());
        assert_eq!(collector.spans().is_empty(), !trusted);
    }
}

#[test]
fn over_grpc() {
    spans_arrive_only_where_they_are_trusted("grpc");
}

#[test]
fn over_http() {
    spans_arrive_only_where_they_are_trusted("http");
}
