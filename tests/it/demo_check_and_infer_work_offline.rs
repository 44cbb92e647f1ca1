//! The commands that need no service: `demo`, `check`, `infer`.

use std::process::Command;

use serde_json::Value;

use crate::support::gateway::binary;
use crate::support::golden;
use crate::support::options::repository;
use crate::support::peers;

#[test]
fn demo_shows_a_row_for_every_golden_study() {
    let pictures = tempfile::tempdir().unwrap();
    let mut demo = command("demo");
    demo.env("PACS_GATEWAY__ARTEFACTS__DIR", pictures.path());
    let output = peers::run(&mut demo);
    peers::succeeded(&output);
    let table = String::from_utf8(output.stdout).unwrap();
    let mut shown = 0;
    for file in std::fs::read_dir(pictures.path()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        shown += usize::from(table.contains(name.get(..18).unwrap()));
    }
    assert!(shown > 0, "the table names its pictures: {table}");
    for case in golden::cases() {
        let row = table.lines().find(|line| {
            line.starts_with(&format!("{}/{} ", case.model, case.name))
                && line.contains(&case.model)
        });
        let row = row.unwrap_or_else(|| panic!("no row for {}: {table}", case.name));
        assert!(
            row.contains(case.expected["outcome"].as_str().unwrap()),
            "{row}"
        );
    }
}

#[test]
fn check_passes_every_golden_case() {
    let output = peers::run(&mut command("check"));
    peers::succeeded(&output);
    let table = String::from_utf8(output.stdout).unwrap();
    for (model, cases) in [("cxr-phantom", 9), ("wdbc-forest", 2)] {
        let row = table.lines().find(|line| line.starts_with(model)).unwrap();
        assert!(row.contains(&format!("{cases} passed")), "{table}");
    }
}

#[test]
fn infer_prints_the_same_messages_each_time() {
    let cases = golden::cases();
    let first = infer(&cases);
    assert_eq!(first.len(), cases.len(), "one message per study");
    let second = infer(&cases);
    for (study, message) in &first {
        let again = &second[study];
        assert_eq!(message["id"], again["id"]);
        let (findings, pictures) = apart(message);
        let (findings_again, pictures_again) = apart(again);
        assert_eq!(findings, findings_again);
        for (one, other) in pictures.iter().zip(&pictures_again) {
            // On a busy machine a picture may not be ready in time; another one it never is.
            assert!(
                one == other || one.is_null() || other.is_null(),
                "{one} {other}"
            );
        }
    }
    for case in &cases {
        assert_eq!(
            first[&case.study]["data"]["outcome"],
            case.expected["outcome"]
        );
    }
}

#[test]
fn infer_names_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("letter.txt");
    std::fs::write(&file, "no DICOM").unwrap();
    let output = peers::run(command("infer").arg(&file));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("letter.txt"),
        "{output:?}"
    );
}

/// The findings without their pictures, and the pictures.
fn apart(message: &Value) -> (Vec<Value>, Vec<Value>) {
    let findings = message["data"]["findings"].as_array().unwrap().iter();
    let split = findings.cloned().map(|mut finding| {
        let picture = finding.as_object_mut().unwrap().remove("explanation");
        (finding, picture.unwrap_or_default())
    });
    split.unzip()
}

fn infer(cases: &[golden::Case]) -> std::collections::BTreeMap<String, Value> {
    let files = cases.iter().flat_map(|case| &case.files);
    let output = peers::run(command("infer").args(files));
    peers::succeeded(&output);
    let lines = String::from_utf8(output.stdout).unwrap();
    let messages = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    messages
        .map(|message| {
            let uid = message["data"]["study"]["study_instance_uid"].as_str();
            (uid.unwrap().to_owned(), message.clone())
        })
        .collect()
}

fn command(verb: &str) -> Command {
    let mut command = binary();
    command.arg(verb).current_dir(repository());
    command
}
