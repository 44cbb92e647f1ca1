//! One trace per revision of a study, from the association to the broker's confirm, as a collector of
//! other people's making gets it: whole, nested, the same as in the message, over a crash too.

use std::collections::BTreeSet;

use crate::support::collector::{Collector, Trace};
use crate::support::models::{Models, edit};
use crate::support::peers::{available, storescu, succeeded};
use crate::support::topology::Bus;
use crate::support::{
    Gateway, Instance, Options, RawPeer, SOON, Study, contract, rabbit, wait_until,
};

/// What a study that two models looked at consists of.
const WHOLE: [&str; 10] = [
    "study",
    "association",
    "store",
    "assemble",
    "process",
    "model",
    "prepare",
    "infer",
    "report",
    "publish",
];

/// `cxr-phantom` and the same under another name.
fn two_models() -> Models {
    let models = Models::new();
    let first = models.folder();
    let second = models.dir().join("cxr-second");
    crate::support::files::copy_dir(&first, &second);
    edit(
        &second.join("model.toml"),
        "name = \"cxr-phantom\"",
        "name = \"cxr-second\"",
    );
    models
}

/// The names of the spans; pictures are made of findings only, and what is drawn has some or none.
fn stages(trace: &Trace) -> BTreeSet<&str> {
    let mut names = trace.names();
    names.remove("explain");
    names
}

fn ids(trace: &Trace) -> BTreeSet<&str> {
    trace.0.iter().map(|s| s.trace_id.as_str()).collect()
}

fn whole_traces(protocol: &'static str) {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let Some(collector) = Collector::start(protocol, None) else {
        return;
    };
    if !available("storescu") {
        return;
    }
    let models = two_models();
    let options = Options::amqp(&route).models(models.dir());
    let bus = Bus::new(&route);
    let gateway = Gateway::start(&collector.admit(options));
    let studies: Vec<Study> = (0..3)
        .map(|_| Study::chest().of_patient("ZZYZX^QUENTIN", "QX77003311", "ACC99887766"))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    for study in &studies {
        let files: Vec<_> = (1..=2)
            .map(|number| {
                let image = study.image(number);
                let file = dir.path().join(&image.sop_instance);
                std::fs::write(&file, image.part_10()).unwrap();
                file
            })
            .collect();
        succeeded(&storescu(gateway.dicom_port, &[], &files));
    }
    let messages = bus.take(6);
    let traces = collector.traces(3);
    assert_eq!(traces.len(), 3);

    for study in &studies {
        let report = gateway.study(&study.uid);
        let log_id = report["log_id"].as_str().unwrap();
        let of_it: Vec<_> = messages
            .iter()
            .filter(|m| m.event["data"]["study"]["study_instance_uid"] == study.uid.as_str())
            .collect();
        assert_eq!(of_it.len(), 2, "a message of each model");
        let id = report["revisions"][0]["trace_id"].as_str().unwrap();
        let trace = &traces[id];
        trace.check();
        assert_eq!(ids(trace).len(), 1);
        assert_eq!(stages(trace), BTreeSet::from(WHOLE));
        assert!(trace.0.iter().all(|s| s.attributes["study"] == log_id));
        for (name, count) in [
            ("association", 1),
            ("model", 2),
            ("infer", 2),
            ("publish", 2),
        ] {
            assert_eq!(trace.named(name).len(), count, "{name}");
        }
        // The order of the flow.
        let (association, assemble) = (trace.the("association"), trace.the("assemble"));
        let process = trace.the("process");
        assert!(association.start <= assemble.start && assemble.end <= process.start);
        for publish in trace.named("publish") {
            assert!(publish.start >= process.start);
            assert_eq!(publish.kind, 4, "a producer");
        }
        let store = trace.the("store");
        assert_eq!(store.parent, association.span_id);
        assert_eq!(store.attributes["instances"], 2);
        assert_eq!(association.attributes["ending"], "released");
        for message in of_it {
            contract::check(message);
            let parent = message.event["traceparent"].as_str().unwrap();
            let header = message.properties.headers().as_ref().unwrap();
            let header = header.inner().get("traceparent").unwrap();
            assert_eq!(header.as_long_string().unwrap().to_string(), parent);
            let publishes = trace.named("publish");
            let span = publishes.iter().find(|s| parent.contains(&s.span_id));
            let span = span.expect("the message names its span");
            assert_eq!(parent, format!("00-{id}-{}-01", span.span_id));
            assert_eq!(
                span.attributes["model"],
                message.event["data"]["model"]["name"]
            );
        }
        wait_until("the line of the study", SOON, || {
            gateway.log().lines().any(|line| {
                line.contains("study finished") && line.contains(log_id) && line.contains(id)
            })
        });
    }
    let root = &traces.values().next().unwrap().the("study").resource;
    assert_eq!(root["service.name"], "pacs-gateway");
    wait_until("every span is counted", SOON, || {
        gateway.metric("spans_exported_total", &[]) == collector.spans().len() as f64
    });
    assert_eq!(gateway.metric("spans_dropped_total", &[]), 0.0);

    let mut secrets = vec!["ZZYZX", "QUENTIN", "QX77003311", "ACC99887766", "STORESCU"];
    secrets.extend(studies.iter().map(|study| study.uid.as_str()));
    let instances: Vec<String> = studies.iter().map(|s| s.sop_instance(1)).collect();
    secrets.extend(instances.iter().map(String::as_str));
    for secret in secrets {
        assert!(!collector.text().contains(secret), "{secret} in a span");
    }
}

#[test]
fn whole_traces_arrive_over_grpc() {
    whole_traces("grpc");
}

#[test]
fn whole_traces_arrive_over_http() {
    whole_traces("http");
}

/// Killed while messages are owed, and again while instances wait: what comes later belongs to what
/// came before.
#[test]
fn a_trace_goes_on_after_a_kill() {
    let Some(mut broker) = rabbit::private() else {
        return;
    };
    let Some(collector) = Collector::start("grpc", None) else {
        return;
    };
    let route = broker.route();
    broker.node().stop();
    let options = collector.admit(Options::amqp(&route));
    let mut gateway = Gateway::start(&options);
    let study = Study::chest();
    let image = study.image(1);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    wait_until("message in the outbox", SOON, || {
        gateway.get("/api/v1/outbox")["owed"] == 1
    });
    // A kill loses what has not left yet.
    wait_until("the first half of the trace", SOON, || {
        collector.spans().iter().any(|span| span.name == "report")
            && collector.spans().iter().any(|span| span.name == "store")
    });
    gateway.kill();
    broker.node().start();
    gateway.restart();
    gateway.wait_until_done(&[&study.uid]);
    let traces = collector.traces(1);
    let report = gateway.study(&study.uid);
    let trace = &traces[report["revisions"][0]["trace_id"].as_str().unwrap()];
    assert_eq!(stages(trace), BTreeSet::from(WHOLE));
    let roots: Vec<_> = trace.named("study");
    assert_eq!(roots.len(), 1);
    let known: BTreeSet<&str> = trace.0.iter().map(|s| s.span_id.as_str()).collect();
    assert_eq!(known.len(), trace.0.len(), "nothing was told twice");
    for span in trace.0.iter().filter(|span| !span.parent.is_empty()) {
        assert!(known.contains(span.parent.as_str()), "{span:#?}");
    }
    // Two processes have told of it.
    let instances: BTreeSet<String> = trace
        .0
        .iter()
        .map(|span| span.resource["service.instance.id"].to_string())
        .collect();
    assert_eq!(instances.len(), 2);
    let event = &Bus::new(&route).take(1)[0].event;
    assert!(
        event["traceparent"]
            .as_str()
            .unwrap()
            .contains(&trace.0[0].trace_id)
    );
}

#[test]
fn a_late_instance_begins_a_trace_of_its_own() {
    let Some(collector) = Collector::start("http", None) else {
        return;
    };
    let gateway = Gateway::start(&collector.admit(Options::new()));
    let study = Study::chest();
    let images: Vec<Instance> = (1..=2).map(|number| study.image(number)).collect();
    // The first association goes on until the second revision is over.
    let all: Vec<&Instance> = images.iter().collect();
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &all);
    assert_eq!(peer.store(&images[0]), 0);
    collector.traces(1);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT2", &[&images[1]]), [0]);
    let traces = collector.traces(2);
    peer.release();
    // The last span that an association makes.
    wait_until("the association that was open", SOON, || {
        let spans = collector.spans();
        spans.iter().filter(|s| s.name == "store").count() == 2
    });
    let revisions = gateway.study(&study.uid)["revisions"].clone();
    assert_eq!(traces.len(), 2);
    for (number, revision) in revisions.as_array().unwrap().iter().enumerate() {
        let id = revision["trace_id"].as_str().unwrap();
        let spans: Vec<_> = collector.spans();
        let of = |name: &str| {
            let mut found = spans.iter().filter(|s| s.trace_id == id && s.name == name);
            let one = found.next().unwrap_or_else(|| panic!("no {name} in {id}"));
            assert!(found.next().is_none(), "two of {name} in {id}");
            one
        };
        assert_eq!(of("study").attributes["revision"], number + 1);
        assert_eq!(of("store").attributes["instances"], 1);
        assert_eq!(of("assemble").attributes["instances"], number + 1);
    }
}

#[test]
fn what_is_not_sampled_leaves_no_trace() {
    let Some(collector) = Collector::start("grpc", None) else {
        return;
    };
    let options = collector
        .admit(Options::new())
        .set_number("traces", "sample", 0.0);
    let mut gateway = Gateway::start(&options);
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&study.uid]);
    let event = &gateway.messages()[0];
    assert!(event.get("traceparent").is_none(), "{event}");
    gateway.terminate();
    assert!(gateway.wait(SOON).success());
    assert!(collector.spans().is_empty());
}
