//! The OpenAPI document against the running gateway: schemathesis makes requests that it allows and
//! requests that it forbids, for whoever operates, reads, or has no token. Nothing may be answered with
//! a status, a media type, a header or a body that the document does not promise, nor with 5xx.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::commitment::{ask_and_leave, new_uid, reference};
use crate::support::files::copy_dir;
use crate::support::golden;
use crate::support::options::repository;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, peers, wait_until};

/// Thousands of requests, made in Python.
const PATIENCE: Duration = Duration::from_secs(600);

const READ: &str = "the-token-of-a-reader";

/// A Python that has schemathesis: the tests' own, or that of an installed one.
fn python() -> Option<PathBuf> {
    let own = repository().join(".deps/venv/bin/schemathesis");
    let found = own
        .is_file()
        .then_some(own)
        .or_else(|| peers::find("schemathesis"));
    if found.is_none() {
        peers::skip("schemathesis is not installed; run `make setup`");
    }
    Some(found?.with_file_name("python"))
}

/// A gateway with something to tell of: findings with pictures, messages that are owed, an instance in
/// quarantine, a commitment that waits, a step of a modality.
fn gateway(models: &Path) -> Gateway {
    let options = Options::new()
        .models(models.to_owned())
        .set("models.poll", "1h")
        .set("spool.duplicates", "quarantine")
        .set("broker.file", "/nonexistent/findings")
        .set("commitment.wait", "1h")
        .set("http.read_tokens", [READ]);
    let gateway = Gateway::start(&options);
    let case = golden::cases_below("models/cxr-phantom/1.0.0/golden");
    let case = case
        .iter()
        .find(|case| case.name == "pneumothorax")
        .unwrap();
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &case.files));
    let study = Study::chest();
    for seed in [1, 2] {
        let image = study.image_with(1, seed);
        assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    }
    let (here, late) = (study.image(1), study.image(2));
    ask_and_leave(
        gateway.dicom_port,
        &new_uid(),
        &[reference(&here), reference(&late)],
    );
    wait_until("two messages", SOON, || {
        gateway.get("/api/v1/outbox")["owed"] == 2
    });
    gateway
}

/// The document with names of what is there, so that not everything is 404.
fn document(gateway: &Gateway) -> Value {
    let first = |list: &str, field: &str, key: &str| {
        let value = gateway.get(&format!("/api/v1/{list}"))[field][0][key].clone();
        assert!(value.is_string(), "{list}");
        value
    };
    let artefacts = gateway.dir().join("spool/artefacts");
    let artefact = std::fs::read_dir(artefacts).unwrap().next().unwrap();
    let artefact = artefact.unwrap().file_name().into_string().unwrap();
    let mut document = gateway.get("/api/v1/openapi.json");
    for (path, item) in document["paths"].as_object_mut().unwrap() {
        for operation in item.as_object_mut().unwrap().values_mut() {
            let parameters = operation
                .get_mut("parameters")
                .and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                let example = match parameter["name"].as_str().unwrap() {
                    "uid" => first("studies", "studies", "study_instance_uid"),
                    "id" => first("outbox", "messages", "id"),
                    "entry" => first("quarantine", "quarantine", "entry"),
                    "name" if path.contains("artefacts") => artefact.as_str().into(),
                    "name" => first("models", "models", "name"),
                    _ => continue,
                };
                parameter["example"] = example;
            }
        }
    }
    document
}

/// Who asks, and what is asked of them.
enum Role {
    Guest,
    Reader,
    Operator,
}

fn ask(role: &Role) {
    let Some(python) = python() else {
        return;
    };
    if !peers::python_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let model = "cxr-phantom";
    copy_dir(
        &repository().join("models").join(model),
        &models.join(model),
    );
    let gateway = gateway(&models);
    let file = folder.path().join("openapi.json");
    let document = document(&gateway);
    std::fs::write(&file, document.to_string()).unwrap();
    let items = document["paths"].as_object().unwrap().values();
    let operations: usize = items.map(|item| item.as_object().unwrap().len()).sum();
    let authorization = match role {
        Role::Guest => None,
        Role::Reader => Some(format!("Bearer {READ}")),
        Role::Operator => Some(gateway.authorization()),
    };
    // Who may not come in is asked less: a guess costs time, on purpose.
    let arguments = match role {
        Role::Guest => ["--phases", "examples,fuzzing", "-n", "2"],
        _ => ["--phases", "examples,coverage,fuzzing", "-n", "10"],
    };
    // A paused listener is not ready, which is no server error but looks like one: paused at the end.
    let pause = "/api/v1/listener/pause";
    let rounds: &[(&[&str], usize)] = match role {
        Role::Operator => &[
            (&["--exclude-path", pause], operations - 1),
            (&["--include-path", pause], 1),
        ],
        _ => &[(&[], operations)],
    };
    for (chosen, tested) in rounds {
        let mut command = Command::new(&python);
        command.arg(repository().join("tests/it/python/schemathesis_run.py"));
        // It keeps its own files where it runs.
        command.arg("run").arg(&file).current_dir(folder.path());
        command.args(["--url", &format!("http://127.0.0.1:{}", gateway.http_port)]);
        command.args([
            "--checks",
            "all",
            "--generation-deterministic",
            "--no-color",
        ]);
        command.args(["--workers", "4", "--request-timeout", "30"]);
        command.args(arguments).args(*chosen);
        if let Some(authorization) = &authorization {
            command.args(["-H", &format!("Authorization: {authorization}")]);
        }
        let told = peers::run_within(PATIENCE, &mut command);
        let words = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.status.success(), "{words}");
        assert!(words.contains(&format!("Tested: {tested}")), "{words}");
    }
    let answered = |status: &str| gateway.metric("http_requests_total", &[("status", status)]);
    let expected: &[(&str, f64)] = match role {
        Role::Guest => &[("401", 10.0)],
        Role::Reader => &[("200", 50.0), ("403", 10.0)],
        Role::Operator => &[("200", 50.0)],
    };
    for (status, more_than) in expected {
        assert!(
            answered(status) > *more_than,
            "{status}: {}",
            answered(status)
        );
    }
    assert_eq!(answered("500"), 0.0);
}

#[test]
fn for_who_has_no_token() {
    ask(&Role::Guest);
}

#[test]
fn for_who_reads() {
    ask(&Role::Reader);
}

#[test]
fn for_who_operates() {
    ask(&Role::Operator);
}
