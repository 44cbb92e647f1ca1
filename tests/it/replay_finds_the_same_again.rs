//! A message is replayed: from files under other names, and from the spool of the running gateway.
//! What is the same is called the same, and what is not is named.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::gateway::binary;
use crate::support::golden::{self, Case};
use crate::support::{Gateway, Options, contract, peers};

#[test]
fn the_same_again_from_a_folder_and_from_the_spool() {
    let gateway = Gateway::start(&Options::new().all_models());
    let cases: Vec<Case> = golden::cases()
        .into_iter()
        .filter(|case| {
            ["two-views", "jpeg-ls"].contains(&case.name.as_str()) || case.model == "wdbc-forest"
        })
        .collect();
    assert_eq!(cases.len(), 7, "every kind of model is among them");
    let files = cases.iter().flat_map(|case| &case.files);
    let mut send = binary();
    let target = format!("PACSGATEWAY@127.0.0.1:{}", gateway.dicom_port);
    peers::succeeded(&peers::run(
        send.args(["send", "--to", &target]).args(files),
    ));
    let studies: Vec<&str> = cases.iter().map(|case| case.study.as_str()).collect();
    gateway.wait_until_done(&studies);
    let messages = gateway.messages_by_study();

    // All files in one folder, under names that say nothing.
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("files");
    std::fs::create_dir(&folder).unwrap();
    for (number, file) in cases.iter().flat_map(|case| &case.files).enumerate() {
        std::fs::copy(file, folder.join(number.to_string())).unwrap();
    }
    for case in &cases {
        let message = &messages[&case.study][0];
        contract::check_event(message);
        let digest = message["data"]["inputs"]["input_digest"].as_str().unwrap();
        assert_eq!(digest.len(), 64);
        let event = write(dir.path(), message);
        let output = replay(&gateway, &event, Some(&folder));
        peers::succeeded(&output);
        let table = String::from_utf8(output.stdout).unwrap();
        for what in [
            "instance set",
            "input digest",
            "preprocessing",
            "ONNX Runtime",
            "outcome",
        ] {
            let row = table.lines().find(|line| line.contains(what)).unwrap();
            assert!(row.ends_with("same"), "{table}");
        }
        // The gateway runs on meanwhile, and its spool is as it was.
        peers::succeeded(&replay(&gateway, &case.study, None));
    }
    assert_eq!(gateway.get("/readyz")["ready"], true);
    assert_eq!(gateway.messages().len(), cases.len());
}

#[test]
fn what_differs_is_named_and_what_cannot_be_replayed_is_another_answer() {
    let options = Options::new().all_models();
    let gateway = Gateway::start(&options);
    let case = golden::cases()
        .into_iter()
        .find(|case| case.name == "two-views")
        .unwrap();
    let output = peers::run(
        binary()
            .args(["infer", "--config"])
            .arg(config(&gateway))
            .args(&case.files),
    );
    peers::succeeded(&output);
    let message: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = case.files[0].parent().unwrap();

    let mut other = message.clone();
    other["data"]["findings"][0]["probability"] = json!(0.25);
    let table = says(
        &replay(&gateway, &write(dir.path(), &other), Some(folder)),
        1,
    );
    let row = table.lines().find(|line| line.contains("DIFFERS")).unwrap();
    assert!(
        row.contains("finding opacity") && row.contains("probability by 7.5e-1"),
        "{table}"
    );
    assert_eq!(table.matches("DIFFERS").count(), 1, "{table}");

    let mut other = message.clone();
    other["data"]["inputs"]["input_digest"] = json!("0".repeat(64));
    let table = says(
        &replay(&gateway, &write(dir.path(), &other), Some(folder)),
        1,
    );
    let row = table.lines().find(|line| line.contains("DIFFERS")).unwrap();
    assert!(row.contains("input digest"), "{table}");

    let mut other = message.clone();
    other["data"]["model"]["version"] = json!("0.9.0");
    let told = says(
        &replay(&gateway, &write(dir.path(), &other), Some(folder)),
        64,
    );
    assert!(told.contains("cxr-phantom@0.9.0"), "{told}");

    // One of the two images is gone.
    let half = dir.path().join("half");
    std::fs::create_dir(&half).unwrap();
    std::fs::copy(&case.files[0], half.join("1.dcm")).unwrap();
    let told = says(
        &replay(&gateway, &write(dir.path(), &message), Some(&half)),
        64,
    );
    assert!(told.contains("1 of 2 instances"), "{told}");
    // The gateway has never received it.
    let told = says(&replay(&gateway, &write(dir.path(), &message), None), 64);
    assert!(told.contains("--from"), "{told}");
}

fn write(dir: &Path, message: &Value) -> String {
    let path = dir.join("event.json");
    std::fs::write(&path, message.to_string()).unwrap();
    path.display().to_string()
}

fn config(gateway: &Gateway) -> std::path::PathBuf {
    gateway.dir().join("gateway.toml")
}

fn replay(gateway: &Gateway, what: &str, from: Option<&Path>) -> Output {
    let mut command = binary();
    command
        .arg("replay")
        .arg(what)
        .arg("--config")
        .arg(config(gateway));
    if let Some(from) = from {
        command.arg("--from").arg(from);
    }
    peers::run(&mut command)
}

#[track_caller]
fn says(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}
