//! Log lines name a study by a keyed hash, in every line about it and at every level; operators get
//! from one to the other, and nobody without the key does.

use std::process::Command;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::gateway::beside;
use crate::support::peers::{python, python_available, run, succeeded};
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

/// HMAC-SHA-256 by Python, as docs/logs.md defines it.
fn log_id(key: &str, study: &str) -> String {
    let code = "import hmac, sys; \
        print(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), 'sha256').hexdigest()[:16])";
    let said = run(Command::new(python()).args(["-c", code, key, study]));
    succeeded(&said);
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// The log, once it has said `last` twice.
fn lines(gateway: &Gateway, last: &str) -> Vec<Value> {
    let last = format!("\"message\":\"{last}\"");
    wait_until(&last, SOON, || gateway.log().matches(&last).count() >= 2);
    let log = gateway.log();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What lines with these words call the study.
fn named(lines: &[Value], words: &str) -> Vec<Value> {
    let found: Vec<Value> = lines
        .iter()
        .filter(|line| line["message"] == words)
        .map(|line| line["study"].clone())
        .collect();
    assert!(!found.is_empty(), "no line `{words}`");
    found
}

#[test]
fn in_logs_over_http_and_in_the_shell() {
    if !python_available() {
        return;
    }
    let key = "a key that two gateways share";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let options = Options::new()
        .set("log.level", "pacs_gateway=debug")
        .set("log.study_key_file", file)
        .set("study.quiet_period", "1h");
    let gateway = Gateway::start(&options);
    let studies = [Study::chest(), Study::ct()];
    for study in &studies {
        let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(sent, [0]);
        gateway.study(&study.uid);
    }
    let ids = studies.each_ref().map(|study| log_id(key, &study.uid));
    let lines = lines(&gateway, "instance stored");
    assert_eq!(named(&lines, "instance stored"), ids);
    for (study, id) in studies.iter().zip(&ids) {
        assert_eq!(gateway.study(&study.uid)["log_id"], id.as_str());
        let listed = gateway.get(&format!("/api/v1/studies?log_id={id}"));
        let listed = listed["studies"].as_array().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["study_instance_uid"], study.uid.as_str());
        assert_eq!(listed[0]["log_id"], id.as_str());
        let mut ls = beside(&gateway);
        ls.args(["study", "ls", "--log-id", id]);
        let said = run(&mut ls);
        succeeded(&said);
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains(&study.uid) && said.contains(id), "{said}");
        let other = studies.iter().find(|other| other.uid != study.uid).unwrap();
        assert!(!said.contains(&other.uid), "{said}");
    }
    let nobody = gateway.get("/api/v1/studies?log_id=0000000000000000");
    assert_eq!(nobody["studies"], Value::Array(Vec::new()));
}

#[test]
fn the_gateways_own_key_outlives_it_and_every_line_is_an_object() {
    if !python_available() {
        return;
    }
    let level = "pacs_gateway=debug";
    let mut gateway = Gateway::start(&Options::new().set("log.level", level));
    let study = Study::chest();
    let mut expected = String::new();
    for number in 1..=2 {
        let image = study.image(number);
        assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
        wait_until("revision", SOON, || {
            let report = gateway.study(&study.uid);
            report["revision"] == number && report["state"] == "done"
        });
        let key = std::fs::read_to_string(gateway.dir().join("spool/study.key")).unwrap();
        expected = log_id(&key, &study.uid);
        assert_eq!(gateway.study(&study.uid)["log_id"], expected.as_str());
        gateway.terminate();
        assert!(gateway.wait(SOON).success());
        if number == 1 {
            gateway.restart();
        }
    }
    let lines = lines(&gateway, "stopped");
    for words in ["instance stored", "study finished"] {
        assert_eq!(named(&lines, words), [expected.as_str(), expected.as_str()]);
    }
    for line in &lines {
        let text = |key: &str| {
            line[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key} of {line}"))
        };
        let at = OffsetDateTime::parse(text("timestamp"), &Rfc3339).unwrap();
        assert!(at.offset().is_utc());
        assert!(
            ["ERROR", "WARN", "INFO", "DEBUG"].contains(&text("level")),
            "{line}"
        );
        assert!(text("target").starts_with("pacs_gateway"), "{line}");
        assert!(!text("message").is_empty());
    }
    let log = gateway.log();
    for secret in [&study.uid, &study.sop_instance(1), &study.patient_id] {
        assert!(!log.contains(secret.as_str()), "{secret} in the log");
    }
}
