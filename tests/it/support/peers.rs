//! Other people's DICOM: DCMTK's senders, and pynetdicom through a small script.
//!
//! A peer that is not installed skips its scenario visibly; with `PACS_GATEWAY_TEST_REQUIRE=1`, as in
//! CI, it fails it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::options::repository;
use super::{reaper, wait_for};

/// Longest run of a peer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether a program is installed; says so when it is not, and fails where it is required.
pub fn available(program: &str) -> bool {
    let found = find(program).is_some();
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Reports a skipped scenario past the test runner's capture.
///
/// # Panics
/// When `PACS_GATEWAY_TEST_REQUIRE` is set to 1.
pub fn skip(reason: &str) {
    let required = std::env::var("PACS_GATEWAY_TEST_REQUIRE").is_ok_and(|value| value == "1");
    assert!(!required, "PACS_GATEWAY_TEST_REQUIRE is set, and {reason}");
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/bin".into()])
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// DCMTK's `storescu`, with its own options before the files.
pub fn storescu(port: u16, options: &[&str], files: &[PathBuf]) -> Output {
    let mut command = Command::new("storescu");
    command.args(["-aet", "STORESCU", "-aec", "PACSGATEWAY"]);
    command.args(options).args(["127.0.0.1", &port.to_string()]);
    run(command.args(files))
}

/// DCMTK's `dcmsend`.
pub fn dcmsend(port: u16, files: &[PathBuf]) -> Output {
    let mut command = Command::new("dcmsend");
    command.args(["-aet", "DCMSEND", "-aec", "PACSGATEWAY"]);
    command.args(["127.0.0.1", &port.to_string()]);
    run(command.args(files))
}

/// DCMTK's `echoscu`.
pub fn echoscu(port: u16) -> Output {
    let mut command = Command::new("echoscu");
    command.args(["-aet", "ECHOSCU", "-aec", "PACSGATEWAY"]);
    run(command.args(["127.0.0.1", &port.to_string()]))
}

/// Whether the tests' own Python is set up.
pub fn python_available() -> bool {
    let found = python().is_file();
    if !found {
        skip("the tests' Python is not set up; run `make setup`");
    }
    found
}

/// `tests/it/python/pynetdicom_peer.py` with these arguments.
pub fn pynetdicom(port: u16, verb: &str, files: &[PathBuf]) -> Output {
    let mut command = Command::new(python());
    command.arg(repository().join("tests/it/python/pynetdicom_peer.py"));
    command.args([verb, &port.to_string()]);
    run(command.args(files))
}

/// Performed procedure steps from pynetdicom: the operations of `tests/it/python/modality.py` on one
/// association. Gives the command sets of the responses.
#[track_caller]
pub fn modality(port: u16, operations: &serde_json::Value) -> Vec<serde_json::Value> {
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, operations).unwrap();
    let mut command = Command::new(python());
    command.arg(repository().join("tests/it/python/modality.py"));
    let output = run(command.arg(port.to_string()).arg(file.path()));
    succeeded(&output);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The tests' own Python.
pub fn python() -> PathBuf {
    repository().join(".deps/venv/bin/python")
}

/// Runs a command to its end. One that misses the deadline ends with the test process.
pub fn run(command: &mut Command) -> Output {
    run_within(DEADLINE, command)
}

/// The same for one that has much to do.
pub fn run_within(deadline: Duration, command: &mut Command) -> Output {
    let program = Path::new(command.get_program()).display().to_string();
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id();
    reaper::adopt(pid);
    let ended = std::thread::spawn(move || child.wait_with_output());
    wait_for(&format!("end of {program}"), deadline, || {
        ended.is_finished().then_some(())
    });
    reaper::spare(pid);
    ended.join().unwrap().unwrap()
}

/// Fails with what the peer said unless it succeeded.
#[track_caller]
pub fn succeeded(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// [`skip`] for what only root can do: required of root only, as not every CI is.
pub fn skip_unless_root(reason: &str) {
    if rustix::process::geteuid().is_root() {
        skip(reason);
    } else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
    }
}
