//! A folder per broken configuration: exit code 64, and the message says file, key and reason.

use std::path::Path;

use crate::support::gateway::binary;
use crate::support::options::repository;
use crate::support::peers;

#[test]
fn each_is_refused_for_its_own_reason() {
    let folder = repository().join("tests/bad_configs");
    let mut cases = 0;
    for case in std::fs::read_dir(&folder).unwrap() {
        check(&case.unwrap().path());
        cases += 1;
    }
    assert!(cases >= 10, "{cases} cases");
}

#[test]
fn a_bad_environment_variable_is_named() {
    let mut command = binary();
    command
        .env("PACS_GATEWAY__STUDY__QUIET_PERIOD", "soon")
        .arg("check");
    let output = peers::run(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(
        stderr.contains("PACS_GATEWAY__STUDY__QUIET_PERIOD"),
        "{stderr}"
    );
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let output = peers::run(binary().args(["serve", "--colour"]));
    assert_eq!(output.status.code(), Some(2));
}

/// `expected-error` holds one fragment per line; each must be in what the gateway says.
fn check(case: &Path) {
    let spool = tempfile::tempdir().unwrap();
    let mut command = binary();
    command
        .arg("serve")
        .arg("--config")
        .arg(case.join("gateway.toml"));
    command.current_dir(repository());
    command.env("PACS_GATEWAY__SPOOL__DIR", spool.path().join("spool"));
    let output = peers::run(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let name = case.file_name().unwrap().display();
    assert_eq!(output.status.code(), Some(64), "{name}: {stderr}");
    let expected = std::fs::read_to_string(case.join("expected-error")).unwrap();
    for fragment in expected.lines() {
        assert!(
            stderr.contains(fragment),
            "{name}: no `{fragment}` in: {stderr}"
        );
    }
}
