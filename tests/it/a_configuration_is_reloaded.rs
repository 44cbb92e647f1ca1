//! The configuration is read again while the gateway works: what may change counts from then on, what
//! is under way goes on as it began, and what cannot be read changes nothing.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::operator::Operator;
use crate::support::{Answer, Gateway, RawPeer, SOON, Study, peers, wait_until};

const RELOAD: &str = "/api/v1/reload";

fn answer(gateway: &Gateway, calling: &str) -> Answer {
    RawPeer::request(gateway.dicom_port, calling, &[])
        .unwrap()
        .1
}

/// SIGHUP, and the wait for what came of it.
fn hang_up(gateway: &Gateway, result: &str) {
    let reloads = || gateway.metric("config_reloads_total", &[("result", result)]);
    let before = reloads();
    gateway.signal(Signal::HUP);
    wait_until("reload", SOON, || reloads() == before + 1.0);
}

fn log_lines(gateway: &Gateway, message: &str) -> Vec<Value> {
    let log = gateway.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["message"] == message)
        .collect()
}

#[test]
fn sighup_lets_a_new_sender_in_while_another_sends() {
    let operator = Operator::new();
    let options = operator.options().set("dicom.calling_ae_titles", ["CT1"]);
    let gateway = Gateway::start(&options);
    let study = Study::chest();
    let images = [study.image(1), study.image(2)];
    let mut open = RawPeer::associate(gateway.dicom_port, "CT1", &[&images[0], &images[1]]);
    assert_eq!(open.store(&images[0]), 0);
    assert_eq!(answer(&gateway, "MR2"), Answer::Rejected(1, 1, 3));

    gateway.rewrite(&options.clone().set("dicom.calling_ae_titles", ["MR2"]));
    hang_up(&gateway, "applied");
    assert_eq!(answer(&gateway, "MR2"), Answer::Accepted);
    assert_eq!(answer(&gateway, "CT1"), Answer::Rejected(1, 1, 3));
    assert_eq!(open.store(&images[1]), 0, "an association keeps its rules");
    open.release();
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(gateway.study(&study.uid)["instances_received"], 2);

    gateway.wait_until_logged("configuration reloaded");
    let lines = log_lines(&gateway, "configuration reloaded");
    assert_eq!(lines[0]["applied"], "dicom.calling_ae_titles");
    assert_eq!(lines[0]["needs_restart"], "");
    assert_eq!(gateway.metric("config_reload_success", &[]), 1.0);
}

#[test]
fn a_file_that_is_refused_changes_nothing() {
    let operator = Operator::new();
    let options = operator.options().set("dicom.calling_ae_titles", ["CT1"]);
    let gateway = Gateway::start(&options);
    let taken = gateway.metric("config_reload_timestamp_seconds", &[]);
    assert!(taken > 1_700_000_000.0, "{taken}");
    let wrong = options.clone().set("dicom.calling_ae_titles", ["MR2"]);
    for (key, value, words) in [
        ("study.quiet_period", "5", "quiet_period"),
        (
            "study.quiet_perriod",
            "5s",
            "study.quiet_perriod: unknown key",
        ),
        ("log.level", "=====", "log.level"),
        ("dicom.tls.certificate", "/nowhere.pem", "dicom.tls"),
        ("models.trusted_keys", "", "models.trusted_keys"),
    ] {
        let wrong = match key {
            "models.trusted_keys" => wrong.clone().set(key, ["no key"]),
            _ => wrong.clone().set(key, value),
        };
        gateway.rewrite(&wrong);
        let (status, body) = operator.post(&gateway, RELOAD, &json!({}));
        let reason = body["error"].as_str().unwrap();
        assert_eq!(status, 409, "{key}: {body}");
        assert!(reason.contains(words), "{key}: {reason}");
        assert_eq!(answer(&gateway, "MR2"), Answer::Rejected(1, 1, 3), "{key}");
        assert_eq!(answer(&gateway, "CT1"), Answer::Accepted, "{key}");
    }
    gateway.rewrite(&wrong.clone().set("study.quiet_period", "5"));
    hang_up(&gateway, "refused");
    let lines = log_lines(
        &gateway,
        "configuration refused; everything stays as it was",
    );
    let reason = lines.last().unwrap()["reason"].as_str().unwrap();
    assert!(
        reason.contains("gateway.toml"),
        "the file is named: {reason}"
    );
    assert_eq!(answer(&gateway, "MR2"), Answer::Rejected(1, 1, 3));
    assert_eq!(gateway.metric("config_reload_success", &[]), 0.0);
    let status = gateway.get("/api/v1/status");
    assert!(status["last_reload"]["refused"].is_string(), "{status}");

    // What was wrong is put right.
    gateway.rewrite(&wrong);
    hang_up(&gateway, "applied");
    assert_eq!(gateway.metric("config_reload_success", &[]), 1.0);
    assert_eq!(answer(&gateway, "MR2"), Answer::Accepted);
}

#[test]
fn the_command_says_what_counts_now_and_what_waits_for_a_restart() {
    let operator = Operator::new();
    let options = operator.options();
    let mut gateway = Gateway::start(&options);
    let changed = options
        .clone()
        .set("log.level", "debug")
        .set("study.quiet_period", "200ms")
        .set("dicom.ae_title", "ANOTHER")
        .set("decode.workers", 1)
        .set("broker.queue", "a-secret-place");
    gateway.rewrite(&changed);
    let output = operator.command(&gateway, &["reload"]);
    peers::succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        report["applied"],
        json!(["study.quiet_period", "log.level"])
    );
    assert_eq!(
        report["needs_restart"],
        json!(["dicom.ae_title", "decode.workers", "broker.queue"])
    );
    assert!(!text.contains("secret"), "values are not shown: {text}");
    assert!(!gateway.log().contains("a-secret-place"));
    assert_eq!(report["certificates"], json!([]));

    // It stays true until the restart, and what counts is not told twice.
    let (status, again) = operator.post(&gateway, RELOAD, &json!({}));
    assert_eq!((status, &again["applied"]), (200, &json!([])));
    assert_eq!(again["needs_restart"], report["needs_restart"]);
    let page = operator.command(&gateway, &["status"]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("3 keys need a restart"), "{page}");
    gateway.terminate();
    gateway.wait(SOON);
    gateway.restart();
    let (_, after) = operator.post(&gateway, RELOAD, &json!({}));
    assert_eq!(after["needs_restart"], json!([]));
}

#[test]
fn the_log_speaks_louder() {
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options());
    assert_eq!(answer(&gateway, "CT1"), Answer::Accepted);
    assert!(log_lines(&gateway, "association established").is_empty());
    gateway.rewrite(&operator.options().set("log.level", "debug"));
    hang_up(&gateway, "applied");
    assert_eq!(answer(&gateway, "CT1"), Answer::Accepted);
    wait_until("line below info", SOON, || {
        !log_lines(&gateway, "association established").is_empty()
    });
    gateway.rewrite(&operator.options().set("log.level", "warn"));
    hang_up(&gateway, "applied");
    gateway.take_log();
    let study = Study::chest();
    RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    gateway.wait_until_done(&[&study.uid]);
    assert!(!gateway.log().contains("\"INFO\""), "{}", gateway.log());
}

#[test]
fn a_quiet_period_counts_for_the_next_study() {
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options().set("study.quiet_period", "10m"));
    let (before, after) = (Study::chest(), Study::chest());
    RawPeer::send(gateway.dicom_port, "CT1", &[&before.image(1)]);
    wait_until("study", SOON, || {
        gateway.study(&before.uid)["state"] == "receiving"
    });
    wait_until("open study", SOON, || {
        gateway.metric("studies_open", &[]) == 1.0
    });
    gateway.rewrite(&operator.options().set("study.quiet_period", "200ms"));
    hang_up(&gateway, "applied");
    // The pipeline takes the new rule with its next look.
    RawPeer::send(gateway.dicom_port, "CT1", &[&after.image(1)]);
    gateway.wait_until_done(&[&after.uid]);
    assert_eq!(
        gateway.study(&before.uid)["state"],
        "receiving",
        "a study keeps the rule it began with"
    );
}

/// Reloads, back and forth, while studies pour in: each is there once.
#[test]
fn under_load_nothing_is_lost() {
    const STUDIES: usize = 40;
    let operator = Operator::new();
    let plain = operator
        .options()
        .all_models()
        .set("study.quiet_period", "100ms");
    let gateway = Gateway::start(&plain);
    let studies: Vec<Study> = (0..STUDIES).map(|_| Study::chest()).collect();
    // With fewer models, too.
    let other = operator
        .options()
        .set("study.quiet_period", "50ms")
        .set("study.concurrency", 2)
        .set("broker.window", 3)
        .set("dicom.max_pdu_length", 16384)
        .set("spool.limits.max_bytes", "100GiB")
        .set("spool.limits.resume_bytes", "90GiB");
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            for study in &studies {
                let images = [study.image(1), study.image(2)];
                let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]);
                assert_eq!(sent, [0, 0]);
            }
        });
        let mut reloads = 0;
        while !sending.is_finished() || reloads < 6 {
            let options = if reloads % 2 == 0 { &other } else { &plain };
            gateway.rewrite(options);
            let (status, report) = operator.post(&gateway, RELOAD, &json!({}));
            assert_eq!(status, 200, "{report}");
            assert_eq!(report["models"]["refused"], json!([]));
            reloads += 1;
        }
        sending.join().unwrap();
    });
    let uids: Vec<&str> = studies.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&uids);
    let messages = gateway.messages_by_study();
    for study in &studies {
        assert_eq!(gateway.study(&study.uid)["instances_received"], 2);
        assert!(messages.contains_key(&study.uid));
    }
}
