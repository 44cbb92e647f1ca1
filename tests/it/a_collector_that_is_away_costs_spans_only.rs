//! Traces are a courtesy: a collector that is away, hangs or refuses delays no study, and what it does
//! not get is counted.

use std::time::{Duration, Instant};

use crate::support::collector::Collector;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

fn send(gateway: &Gateway, studies: usize) -> Vec<String> {
    let mut uids = Vec::new();
    for _ in 0..studies {
        let study = Study::chest();
        let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(sent, [0]);
        uids.push(study.uid);
    }
    let all: Vec<&str> = uids.iter().map(String::as_str).collect();
    gateway.wait_until_done(&all);
    uids
}

#[test]
fn studies_go_on_and_spans_are_kept_until_it_is_back() {
    let Some(mut collector) = Collector::start("grpc", None) else {
        return;
    };
    for how in ["busy", "hang"] {
        collector.behave(how);
        let before = collector.traces(0).len();
        let mut gateway = Gateway::start(&collector.admit(Options::new()));
        let uids = send(&gateway, 2);
        let told = "the collector takes no traces; studies go on without";
        // A collector that hangs is noticed by the deadline of a request.
        gateway.wait_until_logged(told);
        collector.behave("take");
        let traces = collector.traces(before + 2);
        for uid in uids {
            let report = gateway.study(&uid);
            let id = report["revisions"][0]["trace_id"].as_str().unwrap();
            traces[id].check();
        }
        assert_eq!(gateway.log().matches(told).count(), 1, "{how}");
        gateway.wait_until_logged("the collector takes traces again");
        assert_eq!(gateway.metric("spans_dropped_total", &[]), 0.0);
        gateway.terminate();
        assert!(gateway.wait(SOON).success());
    }
}

#[test]
fn what_is_refused_is_counted_and_not_tried_again() {
    let Some(mut collector) = Collector::start("http", None) else {
        return;
    };
    collector.behave("refuse");
    let gateway = Gateway::start(&collector.admit(Options::new()));
    send(&gateway, 1);
    let refused = [("reason", "refused")];
    wait_until("spans that are counted", SOON, || {
        gateway.metric("spans_dropped_total", &refused) >= 10.0
    });
    assert!(collector.spans().is_empty());
}

#[test]
fn nobody_waits_for_a_collector_at_the_end() {
    let options = Options::new().set("traces.endpoint", "http://127.0.0.1:1");
    let mut gateway = Gateway::start(&options);
    send(&gateway, 1);
    gateway.terminate();
    let asked = Instant::now();
    assert!(gateway.wait(SOON).success());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    gateway.wait_until_logged("the collector takes no traces");
}
