//! What `/metrics` says is right after known traffic, and in the form that Prometheus wants: a
//! parser that is not ours reads it, promtool too, and the conventions for names and units hold.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::options::repository;
use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, peers, rabbit, wait_until};

/// More series than any of our metrics has with two models and the modalities of this scenario.
const MOST_SERIES: &str = "30";
/// Stand for the patient, and must not be found.
const NAME: &str = "ZZYZX^QUENTIN";
const ID: &str = "QX77003311";

/// What was sent, as the peers know it.
#[derive(Default)]
struct Sent {
    stored: usize,
    refused: usize,
    bytes: usize,
    associations: usize,
}

impl Sent {
    fn send(&mut self, port: u16, instances: &[&Instance], statuses: &[u16]) {
        assert_eq!(RawPeer::send(port, "CT1", instances), statuses);
        self.associations += 1;
        for (instance, status) in instances.iter().zip(statuses) {
            match status {
                0 => self.stored += 1,
                _ => self.refused += 1,
            }
            self.bytes += instance.data_set.len();
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_traffic() {
    let Some(mut broker) = rabbit::private() else {
        return;
    };
    let route = broker.route();
    let options = Options::amqp(&route)
        .all_models()
        .set("dicom.calling_ae_titles", ["CT1", "SILENT"])
        .set("spool.duplicates", "quarantine")
        .set("broker.confirm_timeout", "5s");
    let gateway = Gateway::start(&options);
    let port = gateway.dicom_port;
    let at_start = gateway.ask("/metrics").unwrap().1;
    let mut sent = Sent::default();

    // Three studies that a model looks at, one that none applies to, one that cannot be decoded.
    let of_somebody = |study: Study| study.of_patient(NAME, ID, "ACC99887766");
    let chest: Vec<Study> = (0..3).map(|_| of_somebody(Study::chest())).collect();
    let images: Vec<Instance> = chest.iter().map(|study| study.image(1)).collect();
    sent.send(port, &images.iter().collect::<Vec<_>>(), &[0; 3]);
    let ct = of_somebody(Study::ct().requested("STAT"));
    sent.send(port, &[&ct.image(1), &ct.image(2)], &[0; 2]);
    let broken = of_somebody(Study::chest());
    let undecodable = broken.compressed(1, "1.2.840.10008.1.2.5", &[7; 100]);
    sent.send(port, &[&undecodable], &[0]);
    // The same bytes once more, other bytes under a known UID, and what no command would describe.
    sent.send(port, &[&images[0]], &[0]);
    sent.send(port, &[&chest[0].image_with(1, 99)], &[0]);
    let mut mismatch = chest[0].image(9);
    mismatch.sop_instance = chest[0].sop_instance(10);
    sent.send(port, &[&mismatch], &[0xA900]);
    let mut malformed = chest[0].image(11);
    malformed.data_set.truncate(50);
    sent.send(port, &[&malformed], &[0xC000]);
    // Peers that want no images.
    let mut echo = RawPeer::associate(port, "CT1", &[]);
    (0..4).for_each(|_| assert_eq!(echo.echo().unwrap(), 0));
    echo.release();
    RawPeer::associate(port, "CT1", &[]).reset();
    for _ in 0..2 {
        drop(RawPeer::request(port, "STRANGER", &[]).unwrap());
    }
    let mut browser = RawPeer::connect(port).unwrap();
    browser.write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    browser.wait_for_close();

    let metric = |name: &str, labels: &[(&str, &str)]| gateway.metric(name, labels) as usize;
    let acknowledged = || metric("published_total", &[("result", "ack")]);
    wait_until("the first messages", SOON, || acknowledged() == 5);

    // A broker that is away: what is owed shows, and then what was owed.
    broker.node().stop();
    wait_until("an outage in the metrics", SOON, || {
        gateway.metric("broker_connected", &[]) == 0.0
            && metric("broker_connect_failures_total", &[("reason", "refused")]) > 0
    });
    let late = of_somebody(Study::chest());
    sent.send(port, &[&late.image(1)], &[0]);
    wait_until("a message that is owed", SOON, || {
        metric("outbox_messages", &[]) == 1 && metric("outbox_oldest_age_seconds", &[]) >= 1
    });
    let in_the_outage = gateway.ask("/metrics").unwrap().1;
    broker.node().start();
    wait_until("the last message", SOON, || acknowledged() == 6);
    wait_until("quiet", SOON, || {
        metric("outbox_messages", &[]) + metric("associations_active", &[]) == 0
            && metric("associations_total", &[]) == sent.associations + 2
    });

    let expect = |name: &str, labels: &[(&str, &str)], value: usize| {
        assert_eq!(metric(name, labels), value, "{name} {labels:?}");
    };
    // Reception.
    let status = |status| [("command", "c-store"), ("status", status)];
    expect("dimse_requests_total", &status("0000"), sent.stored);
    expect("dimse_requests_total", &status("A900"), 1);
    expect("dimse_requests_total", &status("C000"), 1);
    expect("dimse_requests_total", &[("command", "c-echo")], 4);
    expect("received_bytes_total", &[], sent.bytes);
    let both = sent.stored + sent.refused;
    expect("store_duration_seconds_count", &[], both);
    expect("spool_commit_duration_seconds_count", &[], sent.stored);
    let sender = |ae, result| [("calling_ae", ae), ("result", result)];
    expect(
        "sender_instances_total",
        &sender("CT1", "stored"),
        sent.stored,
    );
    expect("sender_instances_total", &sender("CT1", "refused"), 2);
    expect("sender_instances_total", &[("calling_ae", "SILENT")], 0);
    let ended = |result| [("result", result)];
    expect(
        "associations_total",
        &ended("released"),
        sent.associations + 1,
    );
    expect("associations_total", &ended("connection-lost"), 1);
    let lasted = "association_duration_seconds_count";
    expect(lasted, &[], sent.associations + 2);
    let reason = [("reason", "calling-ae-title")];
    expect("associations_rejected_total", &reason, 2);
    expect("pdu_errors_total", &[("kind", "unrecognized-pdu")], 1);
    expect("associations_limit", &[], 64);
    expect("spool_write_errors_total", &[], 0);
    // The repeated one is not kept twice, the other bytes are in quarantine.
    expect("quarantine_instances", &[], 1);
    let aside = [("reason", "duplicate-sop-instance")];
    expect("quarantined_instances_total", &aside, 1);
    // Studies.
    expect("studies_completed_total", &[("method", "quiet-period")], 6);
    expect("study_assembly_duration_seconds_count", &[], 6);
    expect("study_processing_duration_seconds_count", &[], 6);
    expect("study_deferrals_total", &[], 0);
    for gauge in ["open", "in_work", "running", "oldest_open_age_seconds"] {
        expect(&format!("studies_{gauge}"), &[], 0);
    }
    expect("studies_oldest_in_work_age_seconds", &[], 0);
    let outcome = |outcome| [("outcome", outcome)];
    let looked_at = metric("outcomes_total", &outcome("finding"))
        + metric("outcomes_total", &outcome("no-finding"));
    assert_eq!(looked_at, 4);
    expect("outcomes_total", &outcome("failed"), 1);
    expect("outcomes_total", &outcome("skipped"), 1);
    let labels = [("modality", "DX"), ("priority", "routine")];
    expect("time_to_finding_seconds_count", &labels, 5);
    let labels = [("modality", "CT"), ("priority", "stat")];
    expect("time_to_finding_seconds_count", &labels, 1);
    // Pixels and models.
    let frames = |result| [("result", result)];
    expect("decode_requests_total", &frames("refused"), 1);
    assert!(metric("decode_requests_total", &frames("decoded")) >= 4);
    expect("decode_requests_total", &frames("failed"), 0);
    expect("decoder_workers_busy", &[], 0);
    expect("decode_queue_depth", &[], 0);
    let model = [("model", "cxr-phantom")];
    let answered = [("model", "cxr-phantom"), ("result", "answered")];
    assert!(metric("inference_runs_total", &answered) >= 4);
    for gauge in ["queue_depth", "slots_waiting", "sessions_busy"] {
        expect(&format!("inference_{gauge}"), &model, 0);
    }
    assert!(metric("inference_sessions", &model) >= 1);
    // Delivery, and the books.
    expect("broker_connected", &[], 1);
    expect("broker_connections_total", &[], 2);
    expect("publish_latency_seconds_count", &[], 6);
    assert!(metric("publish_confirm_duration_seconds_count", &[]) >= 2);
    assert!(metric("database_commits_total", &[("result", "committed")]) >= 6);
    expect("database_commits_total", &[("result", "failed")], 0);
    assert!(gateway.metric("database_bytes", &[]) >= 4096.0);
    let (free, size) = (
        gateway.metric("spool_free_bytes", &[]),
        gateway.metric("spool_capacity_bytes", &[]),
    );
    assert!(0.0 < free && free < size, "{free} of {size}");
    expect("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);

    // The form, at three moments of this life.
    let at_end = gateway.ask("/metrics").unwrap().1;
    let root = chest[0].sop_instance(1);
    let secrets = [NAME, ID, "ACC99887766", "STRANGER", &root, &chest[0].uid];
    if peers::python_available() {
        for (later, earlier) in [(&in_the_outage, &at_start), (&at_end, &in_the_outage)] {
            let said = exposition(gateway.dir(), later, Some(earlier), &secrets);
            assert!(said.status.success(), "{}", text(&said));
        }
    }
    if peers::available("promtool") {
        let said = promtool(gateway.dir(), &at_end);
        let complaints = complaints(&said);
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

#[test]
fn the_checks_find_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let bad = "\
# TYPE pacs_gateway_x_total gauge
pacs_gateway_x_total{uid=\"1.2.840.113619.2.55\"} 1
# HELP pacs_gateway_wait_ms wait
# TYPE pacs_gateway_wait_ms histogram
pacs_gateway_wait_ms_bucket{le=\"1\"} 3
pacs_gateway_wait_ms_bucket{le=\"+Inf\"} 2
pacs_gateway_wait_ms_sum 3
pacs_gateway_wait_ms_count 3
";
    if peers::python_available() {
        let said = exposition(dir.path(), bad, None, &["113619"]);
        assert!(!said.status.success());
        for complaint in [
            "x_total: no HELP",
            "x_total: a gauge",
            "looks like a UID",
            "{'ms'}",
            "counts of buckets fall",
            "+Inf is not the count",
            "'113619' is in the metrics",
        ] {
            assert!(
                text(&said).contains(complaint),
                "{complaint}: {}",
                text(&said)
            );
        }
    }
    if peers::available("promtool") {
        assert!(!complaints(&promtool(dir.path(), bad)).is_empty());
    }
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    if !peers::available("promtool") {
        return;
    }
    let rules = repository().join("helm/pacs-gateway/files/alerts.yaml");
    for (verb, file) in [
        ("check", rules),
        ("test", repository().join("tests/rules/alerts.test.yaml")),
    ] {
        let mut command = Command::new(peers::find("promtool").unwrap());
        let output = peers::run(command.args([verb, "rules"]).arg(file));
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    if !peers::available("promtool") {
        return;
    }
    let dashboard = repository().join("helm/pacs-gateway/files/dashboard.json");
    let dashboard = std::fs::read_to_string(dashboard).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array());
    // As Grafana would ask; promtool parses rules, and JSON is YAML.
    let rules: Vec<Value> = targets
        .flatten()
        .enumerate()
        .map(|(number, target)| {
            let asked = target["expr"].as_str().unwrap();
            let asked = asked.replace("$__rate_interval", "5m");
            json!({ "record": format!("dashboard:{number}"), "expr": asked })
        })
        .collect();
    assert!(rules.len() > 50, "{} expressions", rules.len());
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yaml");
    std::fs::write(&path, rules.to_string()).unwrap();
    let mut command = Command::new(peers::find("promtool").unwrap());
    let output = peers::run(command.args(["check", "rules"]).arg(path));
    assert!(output.status.success(), "{}", text(&output));
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// prometheus-client's parser and our rules for names, units and labels.
fn exposition(dir: &Path, later: &str, earlier: Option<&str>, secrets: &[&str]) -> Output {
    let mut command = Command::new(peers::python());
    command.arg(repository().join("tests/python/exposition.py"));
    for (name, text) in [("later.txt", Some(later)), ("earlier.txt", earlier)] {
        let Some(text) = text else { continue };
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        command.arg(path);
    }
    command.args(["--most", MOST_SERIES]);
    for secret in secrets {
        command.args(["--secret", secret]);
    }
    peers::run(&mut command)
}

fn promtool(dir: &Path, metrics: &str) -> Output {
    let path = dir.join("metrics.txt");
    std::fs::write(&path, metrics).unwrap();
    let program = peers::find("promtool").unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg("exec \"$0\" check metrics <\"$1\"");
    peers::run(command.arg(program).arg(path))
}

/// What promtool says of our metrics. The names of `process_` metrics are the client library's.
fn complaints(output: &Output) -> Vec<String> {
    let text = text(output);
    let lines = text.lines().filter(|line| !line.starts_with("process_"));
    lines.map(str::to_owned).collect()
}
