//! The whole ledger as a table, the same after a crash, filtered by sender and time, and written in
//! groups while instances arrive.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::gateway::beside;
use crate::support::peers;
use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, wait_for, wait_until};

type Rows = Vec<BTreeMap<String, String>>;

fn csv_rows(gateway: &Gateway, query: &str) -> Rows {
    let (status, body) = gateway.ask(&format!("/api/v1/ledger.csv{query}")).unwrap();
    assert_eq!(status, 200, "{body}");
    let mut reader = csv::Reader::from_reader(body.as_bytes());
    reader.deserialize().map(Result::unwrap).collect()
}

fn ndjson_rows(gateway: &Gateway) -> Vec<Value> {
    let (status, body) = gateway.ask("/api/v1/ledger.ndjson").unwrap();
    assert_eq!(status, 200, "{body}");
    let lines = body.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn wait_for_rows(gateway: &Gateway, count: usize) -> Rows {
    wait_for("rows in the export", SOON, || {
        let rows = csv_rows(gateway, "");
        (rows.len() == count).then_some(rows)
    })
}

#[test]
fn every_instance_is_a_row_with_its_times_and_outcomes() {
    let gateway = Gateway::start(&Options::new());
    assert!(csv_rows(&gateway, "").is_empty());
    let chest = Study::chest().of_patient("WILHELMINA^TEST", "ID-77123", "ACC-90210");
    let ct = Study::ct();
    // A title that a spreadsheet would take for a formula, and that has the separator in it.
    let formula = "=1+1,2";
    assert_eq!(
        RawPeer::send(gateway.dicom_port, formula, &[&chest.image(1)]),
        [0]
    );
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT3", &[&ct.image(1), &ct.image(2)]),
        [0; 2]
    );
    gateway.wait_until_done(&[&chest.uid, &ct.uid]);

    let rows = wait_for_rows(&gateway, 3);
    let x_ray = &rows[0];
    assert_eq!(x_ray["study_instance_uid"], chest.uid);
    assert_eq!(x_ray["calling_ae"], format!("'{formula}"));
    let outcome = gateway.messages_by_study()[&chest.uid][0]["data"]["outcome"].clone();
    let version = gateway.get("/api/v1/models")["models"]
        .as_array()
        .unwrap()
        .iter()
        .find(|model| model["name"] == "cxr-phantom")
        .unwrap()["version"]
        .clone();
    let (outcome, version) = (outcome.as_str().unwrap(), version.as_str().unwrap());
    assert_eq!(
        x_ray["outcomes"],
        format!("cxr-phantom@{version}={outcome}")
    );
    assert_eq!(rows[1]["outcomes"], "=skipped");
    let steps = [
        "received",
        "durable",
        "decoded",
        "inferred",
        "published",
        "confirmed",
    ];
    let times: Vec<&String> = steps.iter().map(|step| &x_ray[*step]).collect();
    assert!(
        times.iter().all(|time| !time.is_empty()) && times.is_sorted(),
        "{x_ray:?}"
    );
    // The two formats tell the same, cell by cell.
    for (row, object) in rows.iter().zip(ndjson_rows(&gateway)) {
        for (name, cell) in row {
            let value = match &object[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(cell.trim_start_matches('\''), value, "{name}");
        }
    }

    // The command writes what the server sends.
    let file = gateway.dir().join("ledger.csv");
    let words = ["ledger", "export", "-o", file.to_str().unwrap()];
    let told = peers::run(beside(&gateway).args(words));
    assert!(told.status.success(), "{told:?}");
    let (_, body) = gateway.ask("/api/v1/ledger.csv").unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), body);

    // By sender, and by time.
    let sources = gateway.get("/api/v1/sources?since=1h");
    let of = |ae: &str| {
        let all = sources["sources"].as_array().unwrap();
        all.iter()
            .find(|row| row["calling_ae"] == ae)
            .unwrap()
            .clone()
    };
    assert_eq!(of("CT3")["instances_received"], 2);
    assert_eq!(of("CT3")["instances_confirmed"], 2);
    assert_eq!(of(formula)["studies"], 1);
    let before = rows[0]["received"].as_str();
    let none = gateway.get(&format!("/api/v1/sources?until={before}"));
    assert_eq!(none["sources"], serde_json::json!([]));
    assert!(csv_rows(&gateway, &format!("?until={before}")).is_empty());
    assert_eq!(
        csv_rows(&gateway, &format!("?since={}", rows[1]["received"])).len(),
        2
    );
    let studies = |query: &str| -> Vec<String> {
        let page = gateway.get(&format!("/api/v1/studies?{query}"));
        let studies = page["studies"].as_array().unwrap().clone();
        let uid = |study: &Value| study["study_instance_uid"].as_str().unwrap().to_owned();
        studies.iter().map(uid).collect()
    };
    assert_eq!(studies("calling_ae=CT3"), [ct.uid.as_str()]);
    assert_eq!(studies("modality=DX&state=done"), [chest.uid.as_str()]);
    assert!(studies("state=receiving").is_empty());
    assert!(studies("since=2099-01-01T00:00:00Z").is_empty());
    // Page by page: the one first heard of last first, each once.
    let first = gateway.get("/api/v1/studies?limit=1");
    assert_eq!(first["studies"][0]["study_instance_uid"], ct.uid.as_str());
    let next = first["next"].as_str().unwrap();
    assert_eq!(
        studies(&format!("limit=1&cursor={next}")),
        [chest.uid.as_str()]
    );
    let (status, _) = gateway.ask("/api/v1/studies?since=yesterday").unwrap();
    assert_eq!(status, 400);

    // UIDs and AE titles, nobody's name.
    for path in [
        "ledger.csv",
        "ledger.ndjson",
        "sources",
        "studies",
        &format!("studies/{}", chest.uid),
    ] {
        let (_, body) = gateway.ask(&format!("/api/v1/{path}")).unwrap();
        for secret in ["WILHELMINA", "77123", "90210", "20260102"] {
            assert!(!body.contains(secret), "{path} tells {secret}");
        }
    }
}

#[test]
fn a_crash_changes_no_time_that_was_known() {
    let mut gateway = Gateway::start(&Options::new().set("study.quiet_period", "2s"));
    let study = Study::chest();
    let images: Vec<Instance> = (1..=4).map(|number| study.image(number)).collect();
    let mut known: Rows = Vec::new();
    // Killed while the study is open, and just after the response, before the ledger has the row.
    for (at, image) in images.iter().enumerate() {
        assert_eq!(RawPeer::send(gateway.dicom_port, "CT2", &[image]), [0]);
        if at % 2 == 0 {
            known = wait_for_rows(&gateway, at + 1);
        }
        gateway.kill();
        gateway.restart();
        let now = wait_for_rows(&gateway, at + 1);
        for (before, after) in known.iter().zip(&now) {
            for fixed in ["entry", "sop_instance_uid", "sha256", "received"] {
                assert_eq!(before[fixed], after[fixed]);
            }
            for time in ["durable", "durable_by", "decoded", "inferred"] {
                assert!(
                    before[time].is_empty() || before[time] == after[time],
                    "{time}: {before:?} became {after:?}"
                );
            }
        }
        let newest = &now[at];
        // One of the two, never both: a start does not know when it was durable.
        assert_ne!(
            newest["durable"].is_empty(),
            newest["durable_by"].is_empty()
        );
        known = now;
    }
    gateway.wait_until_done(&[&study.uid]);
    let done = csv_rows(&gateway, "");
    gateway.kill();
    gateway.restart();
    assert_eq!(csv_rows(&gateway, ""), done);
}

#[test]
fn arrivals_are_written_in_groups() {
    const COUNT: u16 = 100;
    let gateway = Gateway::start(&Options::new().set("study.quiet_period", "1h"));
    let study = Study::ct();
    let images: Vec<Instance> = (1..=COUNT).map(|number| study.image(number)).collect();
    let all: Vec<&Instance> = images.iter().collect();
    let wal = gateway.dir().join("spool/state.db-wal");
    let before = commits(&std::fs::read(&wal).unwrap_or_default());
    let sent = RawPeer::send(gateway.dicom_port, "CT2", &all);
    assert_eq!(sent.len(), usize::from(COUNT));
    wait_until("rows of all", SOON, || {
        let study = gateway.study(&study.uid);
        study["instances_received"] == COUNT
    });
    let commits = commits(&std::fs::read(&wal).unwrap()) - before;
    println!("{COUNT} instances, {commits} commits of the database");
    assert!(
        (1..=usize::from(COUNT) / 2).contains(&commits),
        "{commits} commits"
    );
}

/// Commits in a write-ahead log of SQLite that has not begun anew (<https://sqlite.org/fileformat2.html>
/// §4.1): frames whose header says how large the database is.
fn commits(wal: &[u8]) -> usize {
    let Some(header) = wal.get(..32) else {
        return 0;
    };
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let page = number(&header[8..12]) as usize;
    let salt = &header[16..24];
    let frames = wal[32..].chunks_exact(24 + page);
    frames
        .take_while(|frame| &frame[8..16] == salt)
        .filter(|frame| number(&frame[4..8]) > 0)
        .count()
}
