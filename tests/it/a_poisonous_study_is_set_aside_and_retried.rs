//! A study that takes the whole gateway down, again and again, ends in a message and in quarantine.
//! Others are finished meanwhile. Put back by an operator, it is worked on as if it were new.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::operator::Operator;
use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, wait_until};

const MAX_ATTEMPTS: i64 = 2;

#[test]
fn after_the_last_attempt_it_is_given_up() {
    let operator = Operator::new();
    let options = operator.options().set("study.max_attempts", MAX_ATTEMPTS);
    let mut gateway = Gateway::start(&options);
    let mut poison = Study::chest();
    poison.side = 512;
    let images: Vec<Instance> = (1..=24).map(|number| poison.rle(number)).collect();
    let all: Vec<&Instance> = images.iter().collect();
    let mut others = Vec::new();
    let another = |gateway: &Gateway| {
        let study = Study::ct();
        assert_eq!(
            RawPeer::send(gateway.dicom_port, "CT3", &[&study.image(1)]),
            [0]
        );
        study.uid
    };
    others.push(another(&gateway));
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT2", &all), [0; 24]);
    for attempt in 1..=MAX_ATTEMPTS {
        wait_for_attempt(&gateway, &poison.uid, attempt);
        gateway.kill();
        gateway.restart();
        others.push(another(&gateway));
    }
    let all_others: Vec<&str> = others.iter().map(String::as_str).collect();
    gateway.wait_until_done(&all_others);
    gateway.wait_until_done(&[&poison.uid]);

    let messages = gateway.messages_by_study();
    for other in &others {
        assert_eq!(messages[other].len(), 1, "{other}");
    }
    let [failed] = messages[&poison.uid].as_slice() else {
        panic!("{:?}", messages[&poison.uid]);
    };
    assert_eq!(failed["data"]["outcome"], "failed");
    assert_eq!(failed["data"]["reason"]["code"], "study-failed-repeatedly");
    wait_until("quarantine of all", SOON, || {
        quarantine(&gateway)["instances"] == 24
    });
    wait_until("gauge", SOON, || {
        gateway.metric("quarantine_instances", &[]) == 24.0
    });
    let kept = &quarantine(&gateway)["quarantine"][0];
    assert_eq!(kept["code"], "study-failed-repeatedly");
    assert_eq!(kept["study_instance_uid"], poison.uid.as_str());
    assert_eq!(kept["calling_ae"], "CT2");
    let row = &gateway.study(&poison.uid)["instances"][0];
    assert_eq!(row["refusal"], "study-failed-repeatedly");
    assert!(row["released"].is_string());

    // The same instances once more are known; only an operator has it done again.
    let told = operator.command(&gateway, &["quarantine", "retry", "--study", &poison.uid]);
    assert!(told.status.success(), "{told:?}");
    wait_until("a second revision", SOON, || {
        gateway.study(&poison.uid)["revision"] == 2
    });
    gateway.wait_until_done(&[&poison.uid]);
    let messages = gateway.messages_by_study()[&poison.uid].clone();
    let of = |model: &str| -> Vec<&Value> {
        let name = |m: &&Value| m["data"]["model"]["name"].as_str().unwrap_or("") == model;
        messages.iter().filter(name).collect()
    };
    let [answer] = of("cxr-phantom")[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(answer["data"]["study"]["instances_received"], 24);
    assert_ne!(answer["data"]["outcome"], "failed");
    let [_, over] = of("")[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(over["data"]["outcome"], "superseded");
    assert_eq!(over["data"]["supersedes"], failed["id"]);
    assert_ne!(over["id"], failed["id"]);
    assert_eq!(quarantine(&gateway)["instances"], 0);
    let row = &gateway.study(&poison.uid)["instances"][0];
    assert!(
        row["refusal"].is_null() && row["released"].is_null(),
        "{row}"
    );
    assert_eq!(row["calling_ae"], Value::Null);
}

/// A study that the gateway could not read in time says so; looked at again it gets its answer, under
/// another id, which replaces the first.
#[test]
fn a_retry_of_an_instance_leads_to_a_new_message() {
    let operator = Operator::new();
    let options = operator
        .options()
        .set("decode.workers", 1)
        .set("decode.timeout", "2s");
    let gateway = Gateway::start(&options);
    for pid in crate::a_decoder_that_dies_costs_one_instance::decoders(&gateway) {
        crate::a_decoder_that_dies_costs_one_instance::signal(pid, "-STOP");
    }
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT2", &[&study.rle(1)]),
        [0]
    );
    gateway.wait_until_done(&[&study.uid]);
    let kept = quarantine(&gateway)["quarantine"][0].clone();
    assert_eq!(kept["code"], "decoder-timeout");
    assert_eq!(kept["in_spool"], true);
    let entry = kept["entry"].as_str().unwrap();
    let told = operator.command(&gateway, &["quarantine", "retry", entry]);
    assert!(told.status.success(), "{told:?}");
    wait_until("a second revision", SOON, || {
        gateway.study(&study.uid)["revision"] == 2
    });
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study()[&study.uid].clone();
    let [failed, answer] = messages.as_slice() else {
        panic!("{messages:?}");
    };
    assert_eq!(failed["data"]["reason"]["code"], "decoder-timeout");
    assert_ne!(answer["data"]["outcome"], "failed", "{answer}");
    assert_eq!(answer["data"]["supersedes"], failed["id"]);
    assert_eq!(quarantine(&gateway)["instances"], 0);
}

fn quarantine(gateway: &Gateway) -> Value {
    gateway.get("/api/v1/quarantine")
}

/// Looks into the gateway's database until the attempt has been counted: the work has begun.
fn wait_for_attempt(gateway: &Gateway, study: &str, number: i64) {
    let path = gateway.dir().join("spool/state.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        let query = "SELECT coalesce(max(attempts), 0) FROM attempt WHERE study = ?1";
        let seen: i64 = database
            .query_row(query, [study], |row| row.get(0))
            .unwrap();
        if seen >= number {
            assert_eq!(seen, number);
            return;
        }
        assert!(Instant::now() < deadline, "attempt {number} was not begun");
        std::thread::sleep(Duration::from_millis(1));
    }
}
