//! Decoding happens in processes of its own: one that is killed is replaced unnoticed, one that
//! hangs or needs too much memory costs its instance, and the gateway goes on.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_for};

/// The process ids of the gateway's decoding processes, at least one.
pub fn decoders(gateway: &Gateway) -> Vec<u32> {
    wait_for("decoding process", SOON, || {
        let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).ok()?;
        let children: String = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .collect();
        let found: Vec<u32> = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.contains("decode-worker"))
            })
            .collect();
        (!found.is_empty()).then_some(found)
    })
}

pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn send(gateway: &Gateway, study: &Study) -> Value {
    let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.rle(1)]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&study.uid]);
    gateway.messages_by_study()[&study.uid][0]["data"].clone()
}

fn looked_at(data: &Value) -> bool {
    ["finding", "no-finding"].contains(&data["outcome"].as_str().unwrap())
}

#[test]
fn one_that_is_killed_is_replaced_and_nothing_is_refused() {
    let gateway = Gateway::start(&Options::new().set("decode.workers", 1));
    for pid in decoders(&gateway) {
        signal(pid, "-KILL");
    }
    let data = send(&gateway, &Study::chest());
    assert!(looked_at(&data), "{data}");
    let deaths = gateway.metric("decoder_deaths_total", &[("reason", "crash")]);
    assert_eq!(deaths, 1.0);
    assert_eq!(
        gateway.get("/api/v1/quarantine")["quarantine"],
        serde_json::json!([])
    );
}

#[test]
fn one_that_hangs_is_ended_and_its_instance_refused() {
    let options = Options::new()
        .set("decode.workers", 1)
        .set("decode.timeout", "2s");
    let gateway = Gateway::start(&options);
    let (hanging, next) = (Study::chest(), Study::chest());
    for pid in decoders(&gateway) {
        signal(pid, "-STOP");
    }
    let data = send(&gateway, &hanging);
    assert_eq!(data["outcome"], "failed", "{data}");
    assert_eq!(data["reason"]["code"], "decoder-timeout", "{data}");
    refused_and_kept(&gateway, &hanging, "decoder-timeout", "timeout");

    let data = send(&gateway, &next);
    assert!(looked_at(&data), "{data}");
}

#[test]
fn one_that_needs_too_much_memory_is_ended_and_its_instance_refused() {
    let options = Options::new()
        .set("decode.workers", 1)
        .set("decode.memory", "64MiB");
    let gateway = Gateway::start(&options);
    let (mut huge, ordinary) = (Study::chest(), Study::chest());
    // 32 MiB as stored, 64 MiB as floats.
    huge.side = 4096;
    let data = send(&gateway, &huge);
    assert_eq!(data["reason"]["code"], "decoder-memory", "{data}");
    refused_and_kept(&gateway, &huge, "decoder-memory", "memory");

    let data = send(&gateway, &ordinary);
    assert!(looked_at(&data), "{data}");
}

/// The ledger and the metric say so, and the file is kept for people to look at.
fn refused_and_kept(gateway: &Gateway, study: &Study, code: &str, death: &str) {
    assert_eq!(gateway.study(&study.uid)["instances"][0]["refusal"], code);
    assert!(gateway.metric("decoder_deaths_total", &[("reason", death)]) >= 1.0);
    let failed = [("result", "failed")];
    assert_eq!(gateway.metric("decode_requests_total", &failed), 1.0);
    assert_eq!(gateway.metric("decoder_workers_busy", &[]), 0.0);
    assert_eq!(
        gateway.metric("quarantined_instances_total", &[("reason", code)]),
        1.0
    );
    let kept = gateway.get("/api/v1/quarantine")["quarantine"].clone();
    assert_eq!(kept.as_array().unwrap().len(), 1, "{kept}");
    assert!(
        kept[0]["reason"].as_str().unwrap().starts_with(code),
        "{kept}"
    );
}
