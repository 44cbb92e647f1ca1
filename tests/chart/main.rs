//! The Helm chart: with a real Helm 3, with the library of Helm 4, and with the real binary.
//!
//! What Kubernetes' own schemas, YAML and Helm's library are needed for is asked by `run.py`, one part per
//! test here. A part that finds something prints it and fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::Path;
use std::process::Command;

#[test]
fn both_helms_render_every_set_of_values_and_all_of_it_is_valid() {
    run("rendering");
}

#[test]
fn the_rendered_configuration_is_the_one_asked_for_and_the_gateway_takes_it() {
    run("configuration");
}

#[test]
fn the_gateway_of_a_pod_answers_the_charts_own_echo_and_no_stranger() {
    run("serving");
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    run("refusals");
}

#[test]
fn a_pod_gets_the_time_that_the_drain_needs() {
    run("shutdown");
}

#[test]
fn models_are_fetched_and_a_wrong_sum_ends_the_start() {
    run("fetching");
}

#[test]
fn schema_and_readme_tell_every_value() {
    run("documents");
}

#[test]
fn the_rabbitmq_operator_makes_what_the_gateway_would() {
    run("topology");
}

/// Runs one part, or says that it was skipped because `scripts/setup.sh` has not fetched what it needs.
fn run(part: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".deps/chart-venv/bin/python");
    for needed in [
        &python,
        &root.join(".deps/helm/helm3"),
        &root.join(".deps/helm/libhelm4.so"),
    ] {
        if !needed.exists() {
            let reason = format!(
                "{} is not there: run scripts/setup.sh chart",
                needed.display()
            );
            let required = std::env::var("PACS_GATEWAY_TEST_REQUIRE").is_ok_and(|v| v == "1");
            assert!(!required, "PACS_GATEWAY_TEST_REQUIRE is set, and {reason}");
            let _ = writeln!(std::io::stderr(), "SKIPPED {part}: {reason}");
            return;
        }
    }
    let output = Command::new(python)
        .arg(root.join("tests/chart/run.py"))
        .arg(part)
        .arg(env!("CARGO_BIN_EXE_pacs-gateway"))
        .env("HELM_DRIVER", "memory")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
