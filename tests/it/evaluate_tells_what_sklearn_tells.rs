//! `evaluate` on the golden studies of cxr-phantom, against what scikit-learn makes of the
//! probabilities that Python computed (`scripts/golden_evaluation.py`).

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::gateway::binary;
use crate::support::options::repository;
use crate::support::peers;

#[test]
fn figures_intervals_and_subgroups() {
    let dir = tempfile::tempdir().unwrap();
    let (report, html) = (dir.path().join("r.json"), dir.path().join("r.html"));
    let expected = read(&fixture("phantoms.json"));
    let output = evaluate(
        &fixture("phantoms.csv"),
        &[
            "--draws",
            &expected["draws"].to_string(),
            "--seed",
            &expected["seed"].to_string(),
            "--json",
            report.to_str().unwrap(),
            "--html",
            html.to_str().unwrap(),
        ],
    );
    peers::succeeded(&output);
    let report = read(&report);
    assert_eq!(report["account"]["studies"], 9);
    assert_eq!(report["account"]["evaluated"], 9);
    assert_eq!(report["model"]["name"], "cxr-phantom");
    for label in report["labels"].as_array().unwrap() {
        same(label, &expected["all"][label["label"].as_str().unwrap()]);
        assert_eq!(label["calibration"].as_array().unwrap().len(), 15);
        assert!(!label["roc"].as_array().unwrap().is_empty());
    }
    let mut sites = 0;
    for group in report["subgroups"].as_array().unwrap() {
        let labels = group["labels"].as_array().unwrap();
        if group["by"] == "manufacturer" {
            assert_eq!(group["value"], "PACS GATEWAY PHANTOMS");
            assert_eq!(group["studies"], 9);
            continue;
        }
        let expected = &expected["site"][group["value"].as_str().unwrap()];
        for label in labels {
            same(label, &expected[label["label"].as_str().unwrap()]);
            sites += 1;
        }
    }
    assert_eq!(sites, 4);

    let table = String::from_utf8(output.stdout).unwrap();
    let auc = figure(&report["labels"][0], "auc").unwrap();
    let row = table.lines().find(|line| line.starts_with("auc")).unwrap();
    assert!(row.contains(&format!("{auc:.3} (")), "{table}");
    let page = std::fs::read_to_string(&html).unwrap();
    for outside in ["<script", "http://", "https://", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let digest = report["model"]["sha256"].as_str().unwrap();
    assert!(page.contains(digest) && page.contains("<svg"), "{page}");
}

#[test]
fn every_study_and_every_row_is_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let golden = studies();
    let studies = dir.path().join("studies");
    for case in ["normal", "opacity", "rle"] {
        let to = studies.join(case);
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(golden.join(case).join("1.dcm"), to.join("1.dcm")).unwrap();
    }
    // One is of another body part, and one ends in the middle.
    let other = studies.join("opacity/1.dcm");
    let mut bytes = std::fs::read(&other).unwrap();
    let at = bytes.windows(6).position(|six| six == b"CHEST ").unwrap();
    bytes[at..at + 6].copy_from_slice(b"HEAD  ");
    std::fs::write(&other, bytes).unwrap();
    let short = studies.join("rle/1.dcm");
    let bytes = std::fs::read(&short).unwrap();
    std::fs::write(&short, &bytes[..bytes.len() - 2000]).unwrap();
    let labels = dir.path().join("labels.csv");
    let rows = "file,opacity\nnormal/1.dcm,0\nopacity/1.dcm,1\nnowhere/1.dcm,1\n";
    std::fs::write(&labels, rows).unwrap();
    let report = dir.path().join("r.json");
    let output = run(&labels, &studies, &["--json", report.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "a file could not be read");
    let report = read(&report);
    let account = &report["account"];
    assert_eq!(
        (&account["studies"], &account["evaluated"]),
        (&2.into(), &1.into())
    );
    assert_eq!(account["unreadable"], json!(["rle/1.dcm"]));
    assert_eq!(account["without_study"], json!(["nowhere/1.dcm"]));
    assert_eq!(account["without_label"], json!([]));
    let left_out = account["left_out"].as_object().unwrap();
    assert_eq!(left_out.len(), 1, "{account}");
    assert_eq!(left_out["no-model-applies"].as_array().unwrap().len(), 1);
    // One class only: no ranking, and nothing that looks like one.
    assert_eq!(report["labels"][0]["figures"]["auc"]["value"], Value::Null);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("not defined"), "{table}");
}

#[test]
fn a_column_that_is_no_label_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("labels.csv");
    std::fs::write(&labels, "file,opacity,opaccity\nnormal/1.dcm,0,0\n").unwrap();
    let output = evaluate(&labels, &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("`opaccity` is no label"), "{told}");
    let mut unknown = binary();
    unknown
        .args(["evaluate", "--model", "nobody", "--labels"])
        .arg(&labels);
    let output = peers::run(unknown.arg(studies()).current_dir(repository()));
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}

fn same(ours: &Value, theirs: &Value) {
    let counts = [
        "true_negatives",
        "false_positives",
        "false_negatives",
        "true_positives",
    ];
    let counts = counts.map(|name| ours["confusion"][name].as_u64().unwrap());
    assert_eq!(Value::from(counts.to_vec()), theirs["confusion"], "{ours}");
    for (name, expected) in theirs["figures"].as_object().unwrap() {
        // These two are made of probabilities, which another build of the runtime may round otherwise.
        let tolerance = match name.as_str() {
            "brier" | "ece" => 1e-4,
            _ => 1e-12,
        };
        let what = format!("{name} of {}", ours["label"]);
        let close = |ours: Option<f64>, theirs: Option<f64>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => (ours - theirs).abs() <= tolerance,
            (ours, theirs) => ours == theirs,
        };
        let value = figure(ours, name);
        assert!(
            close(value, expected.as_f64()),
            "{what}: {value:?}, not {expected}"
        );
        let ends = &theirs["intervals"][name];
        for end in 0..2 {
            let interval = &ours["figures"][name]["ci95"];
            assert!(
                close(interval[end].as_f64(), ends[end].as_f64()),
                "{what}: {interval}, not {ends}"
            );
        }
    }
}

fn figure(label: &Value, name: &str) -> Option<f64> {
    label["figures"][name]["value"].as_f64()
}

fn studies() -> PathBuf {
    repository().join("models/cxr-phantom/1.0.0/golden")
}

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures/evaluation").join(name)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn evaluate(labels: &Path, more: &[&str]) -> Output {
    run(labels, &studies(), more)
}

fn run(labels: &Path, studies: &Path, more: &[&str]) -> Output {
    let mut command = binary();
    command.args(["evaluate", "--model", "cxr-phantom", "--labels"]);
    command.arg(labels).args(more).arg(studies);
    peers::run(command.current_dir(repository()))
}
