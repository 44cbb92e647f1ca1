//! Instances that are broken on purpose, by C-STORE: each gets one of the statuses that are right for
//! it, and the next peer notices nothing.

use std::process::Command;

use crate::corpus;
use crate::support::peers::run;
use crate::support::{Gateway, Options, SOON, wait_until};

/// What a gateway with its models may grow to, in bytes.
const MEMORY: f64 = 512e6;

#[test]
fn and_the_gateway_goes_on() {
    let Some(corpus) = corpus::folder() else {
        return;
    };
    let Some(folder) = corpus::bad_files(&corpus) else {
        return;
    };
    let gateway = Gateway::start(&Options::new().all_models());
    let result = gateway.dir().join("result.csv");
    let port = gateway.dicom_port.to_string();
    let mut command = Command::new("python3");
    command
        .arg(corpus.join("send_raw.py"))
        .args(["127.0.0.1", &port, "PACSGATEWAY"])
        .arg(folder.join("bad.csv"))
        .arg("--out")
        .arg(&result);
    let output = run(&mut command);
    assert!(output.status.success(), "{output:?}");

    let sent = corpus::rows(&result);
    let expected = corpus::rows(&corpus.join("bad.csv"));
    let expected = expected.iter().filter(|row| row["dimse"] == "yes").count();
    assert_eq!(sent.len(), expected);
    let wrong: Vec<String> = sent
        .iter()
        // NOCTX: a syntax or class that is not negotiated cannot be sent at all.
        .filter(|row| !matches!(row["verdict"].as_str(), "OK" | "NOCTX"))
        .chain(sent.iter().filter(|row| row["echo"].starts_with("DEAD")))
        .map(|row| {
            let (file, got, allowed) = (&row["file"], &row["got"], &row["allowed"]);
            format!("{file}: {got} instead of {allowed}, echo {}", row["echo"])
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    let untried = sent.iter().filter(|row| row["verdict"] == "NOCTX").count();
    eprintln!("{} answered, {untried} not negotiated", sent.len());
    assert!(untried <= 20, "{untried} were not negotiated");

    wait_until("end of the associations", SOON, || {
        gateway.metric("associations_active", &[]) == 0.0
    });
    assert!(!gateway.log().contains("panic"), "nothing panicked");
    let memory = gateway.resident_memory();
    assert!(memory < MEMORY, "{memory}");
}
