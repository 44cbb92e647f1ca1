//! A model that hangs, crashes or eats memory ends its own process. What it does that on is refused,
//! and nothing else; a model that does it again and again is fenced, while the others go on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::files::copy_dir;
use crate::support::options::repository;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_for, wait_until};

/// Stored value that the models of `scripts/misbehaving_models.py` misbehave on.
const MARKED: u16 = 4095;
const ORDINARY: u16 = 1000;

/// Each with the modality it applies to, the code of the refusal and the word of the metric.
const MISBEHAVING: [(&str, &str, &str, &str); 3] = [
    ("hangs", "MR", "inference-timeout", "timeout"),
    ("eats-memory", "MG", "inference-memory", "memory"),
    ("crashes", "XA", "inference-crashed", "crash"),
];

/// A folder with these models and the one of chest films.
fn models(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = repository().join("tests/fixtures/misbehaving");
    for name in names {
        copy_dir(&fixtures.join(name), &dir.path().join(name));
    }
    let chest = repository().join("models/cxr-phantom");
    copy_dir(&chest, &dir.path().join("cxr-phantom"));
    dir
}

fn options(models: &Path) -> Options {
    Options::new()
        .models(models.to_owned())
        .set("inference.sessions", 1)
        .set("inference.timeout", "1s")
        .set("inference.memory", "2GiB")
        .set("inference.fence_time", "1h")
}

/// Sends one image of a new study and gives what the message says of it.
fn ask(gateway: &Gateway, modality: &'static str, value: u16) -> Value {
    let study = Study::chest().of_modality(modality);
    let sent = RawPeer::send(gateway.dicom_port, "XR1", &[&study.filled(1, value)]);
    assert_eq!(sent, [0]);
    gateway.wait_until_done(&[&study.uid]);
    gateway.messages_by_study()[&study.uid][0]["data"].clone()
}

fn looked_at(data: &Value) -> bool {
    ["finding", "no-finding"].contains(&data["outcome"].as_str().unwrap())
}

fn failed_with(data: &Value, code: &str) {
    assert_eq!(data["outcome"], "failed", "{data}");
    assert_eq!(data["reason"]["code"], code, "{data}");
}

fn state(gateway: &Gateway, model: &str) -> Value {
    let models = gateway.get("/api/v1/models")["models"].clone();
    let mut models = models.as_array().unwrap().iter();
    models.find(|m| m["name"] == model).unwrap()["state"].clone()
}

#[test]
fn each_is_fenced_and_the_others_keep_answering() {
    let names = MISBEHAVING.map(|(name, ..)| name);
    let models = models(&names);
    let gateway = Gateway::start(&options(models.path()).set("inference.fence_after", 2));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // All the while somebody sends chest films, and each is looked at.
        let films = scope.spawn(|| {
            let mut films = 0;
            while !done.load(Ordering::Relaxed) {
                let data = ask(&gateway, "DX", ORDINARY);
                assert!(looked_at(&data), "{data}");
                films += 1;
            }
            films
        });
        for (name, modality, code, reason) in MISBEHAVING {
            let data = ask(&gateway, modality, ORDINARY);
            assert!(looked_at(&data), "{name}: {data}");
            while gateway.metric("model_fenced", &[("model", name)]) == 0.0 {
                let deaths = || {
                    let labels = [("model", name), ("reason", reason)];
                    gateway.metric("inference_worker_deaths_total", &labels)
                };
                let before = deaths();
                failed_with(&ask(&gateway, modality, MARKED), code);
                assert!(deaths() > before, "{name}");
            }
            failed_with(&ask(&gateway, modality, ORDINARY), "model-fenced");
            assert_eq!(state(&gateway, name), "fenced");
        }
        done.store(true, Ordering::Relaxed);
        assert!(films.join().unwrap() > 0);
    });
    assert_eq!(state(&gateway, "cxr-phantom"), "serving");
    let labels = [("model", "cxr-phantom")];
    assert_eq!(gateway.metric("model_fenced", &labels), 0.0);
    assert_eq!(
        gateway.metric("inference_worker_deaths_total", &labels),
        0.0
    );
}

#[test]
fn a_fence_opens_again_when_the_model_answers() {
    let models = models(&["crashes"]);
    let options = options(models.path())
        .set("inference.fence_after", 2)
        .set("inference.fence_time", "500ms");
    let gateway = Gateway::start(&options);
    failed_with(&ask(&gateway, "XA", MARKED), "inference-crashed");
    assert_eq!(gateway.metric("model_fenced", &[("model", "crashes")]), 1.0);
    let died = [("model", "crashes"), ("result", "died")];
    assert_eq!(gateway.metric("inference_runs_total", &died), 2.0);
    wait_for("answer of the model", SOON, || {
        let data = ask(&gateway, "XA", ORDINARY);
        looked_at(&data).then_some(()).or_else(|| {
            failed_with(&data, "model-fenced");
            None
        })
    });
    assert_eq!(gateway.metric("model_fenced", &[("model", "crashes")]), 0.0);
    assert_eq!(state(&gateway, "crashes"), "serving");
}

#[test]
fn one_image_that_kills_the_model_does_not_take_its_neighbours_along() {
    let models = models(&["crashes"]);
    let gateway = Gateway::start(&options(models.path()).set("inference.fence_after", 100));
    let study = Study::chest().of_modality("XA");
    let values = [ORDINARY, ORDINARY, MARKED, ORDINARY, ORDINARY, ORDINARY];
    let images: Vec<_> = (1..).zip(values).map(|(n, v)| study.filled(n, v)).collect();
    let images: Vec<_> = images.iter().collect();
    assert_eq!(RawPeer::send(gateway.dicom_port, "XA1", &images), [0; 6]);
    gateway.wait_until_done(&[&study.uid]);
    let report = gateway.study(&study.uid);
    let refusals: Vec<&Value> = report["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| &instance["refusal"])
        .filter(|refusal| !refusal.is_null())
        .collect();
    assert_eq!(refusals, ["inference-crashed"], "{report}");
}

#[test]
fn a_process_that_is_killed_is_replaced_and_nothing_is_refused() {
    let models = models(&[]);
    let gateway = Gateway::start(&options(models.path()));
    for pid in workers(&gateway) {
        let pid = pid.to_string();
        assert!(
            Command::new("kill")
                .args(["-KILL", &pid])
                .status()
                .unwrap()
                .success()
        );
    }
    let data = ask(&gateway, "DX", ORDINARY);
    assert!(looked_at(&data), "{data}");
    let labels = [("model", "cxr-phantom"), ("reason", "crash")];
    assert_eq!(
        gateway.metric("inference_worker_deaths_total", &labels),
        1.0
    );
}

#[test]
fn a_process_that_hangs_does_not_outlive_a_gateway_that_is_killed() {
    let models = models(&["hangs"]);
    let mut gateway = Gateway::start(&options(models.path()).set("inference.timeout", "3s"));
    let pids = workers(&gateway);
    let used = || -> u64 { pids.iter().map(|pid| processor_ticks(*pid)).sum() };
    let before = used();
    let study = Study::chest().of_modality("MR");
    RawPeer::send(gateway.dicom_port, "MR1", &[&study.filled(1, MARKED)]);
    // An idle process uses none.
    wait_until("model at work", SOON, || used() > before + 10);
    gateway.kill();
    // A process that nobody has waited for has no command line any more.
    wait_until("end of its processes", SOON, || {
        pids.iter().all(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline"));
            line.is_err() || line.is_ok_and(|line| line.is_empty())
        })
    });
}

/// Processor time of a process in clock ticks, proc_pid_stat(5).
fn processor_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The process ids of the gateway's models.
fn workers(gateway: &Gateway) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let children: String = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .collect();
    let found: Vec<u32> = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("inference-worker"))
        })
        .collect();
    assert!(!found.is_empty());
    found
}
