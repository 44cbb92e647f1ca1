//! What a model says of an image is a feature of a second one, and both are members of a third: in one
//! study, in whatever order the folders are. When one cannot answer, those that need it say so.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::files::copy_dir;
use crate::support::gateway::binary;
use crate::support::golden::{self, Case};
use crate::support::options::repository;
use crate::support::{Gateway, Options, contract, peers};

const IMAGE: &str = "cxr-phantom";
const RISK: &str = "pneumothorax-risk";
const CONSENSUS: &str = "pneumothorax-consensus";

/// A folder with the three models.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_dir(
        &repository().join("models").join(IMAGE),
        &folder.path().join(IMAGE),
    );
    let made = repository().join("tests/fixtures/combinations");
    for name in [RISK, CONSENSUS] {
        copy_dir(&made.join(name), &folder.path().join(name));
    }
    folder
}

/// The manifest of a model with `from` replaced.
fn change(models: &Path, model: &str, from: &str, to: &str) {
    let path = models.join(model).join("model.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains(from),
        "the manifest of {model} has no `{from}`"
    );
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

fn options(models: &Path) -> Options {
    Options::new().models(models.to_owned())
}

fn case() -> Case {
    let cases = golden::cases().into_iter();
    let mut cases = cases.filter(|case| case.name == "both-cr-slope");
    cases
        .next()
        .expect("the case that scripts/golden_combinations.py has read")
}

/// The file of the case with the age that `scripts/golden_combinations.py` has made up.
fn of_age(case: &Case, folder: &Path) -> std::path::PathBuf {
    let mut file = fs::read(&case.files[0]).unwrap();
    // Behind Patient's Sex (0010,0040), an element in explicit VR.
    let sex = [0x10, 0, 0x40, 0, b'C', b'S'];
    let at = file.windows(6).position(|some| some == sex).unwrap();
    let length = u16::from_le_bytes([file[at + 6], file[at + 7]]);
    let at = at + 8 + usize::from(length);
    let age = b"\x10\x00\x10\x10AS\x04\x00064Y";
    file.splice(at..at, age.iter().copied());
    let path = folder.join("of-age.dcm");
    fs::write(&path, file).unwrap();
    path
}

/// What each model said, the earliest first.
fn said(gateway: &Gateway, study: &str) -> Vec<Value> {
    gateway.wait_until_done(&[study]);
    let messages = &gateway.messages_by_study()[study];
    messages.iter().for_each(contract::check_event);
    messages.iter().map(|event| event["data"].clone()).collect()
}

fn by<'a>(said: &'a [Value], model: &str) -> &'a Value {
    let found = said.iter().find(|data| data["model"]["name"] == model);
    found.unwrap_or_else(|| panic!("no message of {model}"))
}

#[track_caller]
fn is_missing(data: &Value, upstream: &str) {
    assert_eq!(data["outcome"], "skipped", "{data}");
    assert_eq!(data["reason"]["code"], "upstream-missing", "{data}");
    let text = data["reason"]["text"].as_str().unwrap();
    assert!(text.contains(upstream), "{text}");
}

#[track_caller]
fn probability(data: &Value, label: &str) -> f64 {
    let findings = data["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["label"] == label);
    finding.unwrap()["probability"].as_f64().unwrap()
}

#[test]
fn an_image_a_risk_and_a_consensus() {
    if !peers::available("dcmsend") {
        return;
    }
    let (models, case) = (models(), case());
    let gateway = Gateway::start(&options(models.path()));
    let file = of_age(&case, models.path());
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &[file]));
    let said = said(&gateway, &case.study);
    let order: Vec<&str> = said
        .iter()
        .map(|data| data["model"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(order, [IMAGE, RISK, CONSENSUS], "each after those it needs");
    for model in [RISK, CONSENSUS] {
        let expected = models
            .path()
            .join(model)
            .join("1/golden/sixty-four/expected.json");
        let expected: Value = serde_json::from_slice(&fs::read(expected).unwrap()).unwrap();
        let data = by(&said, model);
        let wanted = probability_of(&expected);
        let found = probability(data, "pneumothorax");
        assert!(
            (found - wanted).abs() <= 1e-4,
            "{model}: {found}, not {wanted}"
        );
        assert_eq!(data["outcome"], expected["outcome"], "{model}");
        assert_eq!(data["inputs"]["count"], 1, "{model}");
    }
    // The consensus has no file; its digest is of its members'.
    let digests: Vec<&str> = said
        .iter()
        .map(|data| data["model"]["sha256"].as_str().unwrap())
        .collect();
    assert!(
        digests.iter().all(|digest| digest.len() == 64),
        "{digests:?}"
    );
    assert!(!digests[..2].contains(&digests[2]), "{digests:?}");
}

fn probability_of(expected: &Value) -> f64 {
    expected["probabilities"]["pneumothorax"].as_f64().unwrap()
}

#[test]
fn one_that_cannot_answer_is_named_by_those_that_need_it() {
    if !peers::available("dcmsend") {
        return;
    }
    let (models, case) = (models(), case());
    let gateway = Gateway::start(&options(models.path()));
    // The case as it is has no age.
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &case.files));
    let said = said(&gateway, &case.study);
    assert_eq!(by(&said, IMAGE)["outcome"], case.expected["outcome"]);
    assert_eq!(by(&said, RISK)["reason"]["code"], "feature-missing");
    is_missing(by(&said, CONSENSUS), RISK);
}

#[test]
fn a_model_that_does_not_apply_leaves_the_value_that_the_manifest_states() {
    if !peers::available("dcmsend") {
        return;
    }
    let (models, case) = (models(), case());
    change(
        models.path(),
        IMAGE,
        "view = [\"PA\", \"AP\"]",
        "view = [\"LL\"]",
    );
    let file = of_age(&case, models.path());
    let gateway = Gateway::start(&options(models.path()));
    peers::succeeded(&peers::dcmsend(
        gateway.dicom_port,
        std::slice::from_ref(&file),
    ));
    let first = said(&gateway, &case.study);
    assert_eq!(first.len(), 2, "{first:?}");
    is_missing(by(&first, RISK), IMAGE);
    is_missing(by(&first, CONSENSUS), IMAGE);
    drop(gateway);

    for label in ["opacity", "pneumothorax"] {
        let model = format!("model = {{ name = \"{IMAGE}\", label = \"{label}\" }}");
        change(
            models.path(),
            RISK,
            &model,
            &format!("{model}\nmissing = 0.5"),
        );
    }
    let gateway = Gateway::start(&options(models.path()));
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &[file]));
    let second = said(&gateway, &case.study);
    let risk = by(&second, RISK);
    assert!(risk["reason"].is_null(), "{risk}");
    is_missing(by(&second, CONSENSUS), IMAGE);
}

#[test]
fn check_runs_their_golden_cases_and_refuses_what_does_not_fit() {
    let models = models();
    let mut check = binary();
    check.arg("check");
    check.env("PACS_GATEWAY__MODELS__DIR", models.path());
    let output = peers::run(&mut check);
    peers::succeeded(&output);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(table.matches("1 passed").count(), 2, "{table}");
    assert!(
        table.contains("mean of cxr-phantom, pneumothorax-risk"),
        "{table}"
    );

    let alone = options(models.path()).set("models.only", [IMAGE, CONSENSUS]);
    let found = Gateway::refusal(&alone).stderr;
    let needs = "models.only: `pneumothorax-consensus` needs `pneumothorax-risk`";
    assert!(found.contains(needs), "{found}");

    change(
        models.path(),
        RISK,
        "label = \"opacity\"",
        "label = \"nodule\"",
    );
    let refusal = || Gateway::refusal(&options(models.path()));
    let found = refusal();
    assert_eq!(found.code, Some(64));
    for word in [
        "pneumothorax-risk/model.toml",
        "needs `nodule` of the model `cxr-phantom`, which reports opacity, pneumothorax",
    ] {
        assert!(found.stderr.contains(word), "{}", found.stderr);
    }
    change(
        models.path(),
        RISK,
        "name = \"cxr-phantom\", label = \"nodule\"",
        "name = \"pneumothorax-consensus\", label = \"pneumothorax\"",
    );
    let found = refusal();
    let circle =
        "`pneumothorax-consensus` needs `pneumothorax-risk` needs `pneumothorax-consensus`";
    assert!(found.stderr.contains(circle), "{}", found.stderr);
}
