//! The measurements of a structured report in front of models that scikit-learn trained: a quantity
//! with its operating point, and probabilities.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::gateway::binary;
use crate::support::golden::{self, Case};
use crate::support::options::repository;
use crate::support::{contract, peers};

const MODELS: &str = "tests/fixtures/tabular";

/// What the models `only` say of a report, by name.
fn infer(case: &Case, only: &[&str]) -> BTreeMap<String, Value> {
    let mut infer = binary();
    infer.arg("infer");
    infer.env("PACS_GATEWAY__MODELS__DIR", repository().join(MODELS));
    for model in only {
        infer.args(["--model", model]);
    }
    let output = peers::run(infer.args(&case.files));
    peers::succeeded(&output);
    let lines = String::from_utf8(output.stdout).unwrap();
    let events = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    events
        .map(|event: Value| {
            contract::check_event(&event);
            let model = event["data"]["model"]["name"].as_str().unwrap();
            (model.to_owned(), event["data"].clone())
        })
        .collect()
}

#[test]
fn what_scikit_learn_says_of_a_report_is_the_message() {
    let cases = golden::cases_below(MODELS);
    let models: Vec<&str> = cases.iter().map(|case| case.model.as_str()).collect();
    assert_eq!(models, ["linear", "svc-scaled"]);
    for case in &cases {
        // The other one has columns of the same names, and says something about them too.
        let said = infer(case, &models);
        assert_eq!(said.len(), 2);
        let data = &said[&case.model];
        assert_eq!(data["outcome"], case.expected["outcome"], "{data}");
        let findings = data["findings"].as_array().unwrap();
        let probabilities = case.expected["probabilities"].as_object();
        for finding in findings {
            let label = finding["label"].as_str().unwrap();
            let Some(probabilities) = probabilities else {
                // A quantity is no probability; its operating point is in its unit.
                assert!(finding["probability"].is_null(), "{finding}");
                assert_eq!(finding["threshold"], 120.0, "{finding}");
                assert_eq!(finding["present"], data["outcome"] == "finding");
                continue;
            };
            let off =
                finding["probability"].as_f64().unwrap() - probabilities[label].as_f64().unwrap();
            assert!(off.abs() <= 1e-5, "{label}: {finding}");
        }
    }
}

#[test]
fn check_compares_quantities_too() {
    let mut check = binary();
    check.arg("check");
    check.env("PACS_GATEWAY__MODELS__DIR", repository().join(MODELS));
    let output = peers::run(&mut check);
    peers::succeeded(&output);
    let table = String::from_utf8(output.stdout).unwrap();
    for model in ["linear", "svc-scaled"] {
        let row = table.lines().find(|line| line.starts_with(model)).unwrap();
        assert!(row.contains("1 passed"), "{row}");
    }
}
