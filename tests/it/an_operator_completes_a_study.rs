//! Somebody who knows that a study is complete says so: over HTTP, or at the command line.

use crate::support::gateway::binary;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, contract, peers, wait_until};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// Nothing but an order completes a study in the time of a test.
fn gateway() -> (Gateway, tempfile::NamedTempFile) {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), format!("{TOKEN}\n")).unwrap();
    let options = Options::new()
        .set("study.quiet_period", "10m")
        .set("http.operate_token_files", [token.path().to_owned()]);
    (Gateway::start(&options), token)
}

fn order(gateway: &Gateway, study: &str, token: &str) -> u16 {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let port = gateway.http_port;
    let url = format!("http://127.0.0.1:{port}/api/v1/studies/{study}/complete");
    let post = agent
        .post(&url)
        .header("Authorization", format!("Bearer {token}"));
    post.send_empty().unwrap().status().as_u16()
}

#[test]
fn by_a_request() {
    let (gateway, _token) = gateway();
    let study = Study::chest();
    let images = [study.image(1), study.image(2)];
    assert_eq!(order(&gateway, &study.uid, TOKEN), 404);
    assert_eq!(order(&gateway, "no-uid", TOKEN), 404);
    let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]);
    assert_eq!(sent, [0, 0]);
    assert_eq!(
        order(&gateway, &study.uid, "another-token-of-the-tests"),
        401
    );
    assert_eq!(order(&gateway, &study.uid, TOKEN), 202);
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(order(&gateway, &study.uid, TOKEN), 409, "nothing is open");
    let messages = gateway.messages();
    let [message] = messages.as_slice() else {
        panic!("{} messages", messages.len());
    };
    contract::check_event(message);
    let told = &message["data"]["study"];
    assert_eq!(told["instances_received"], 2);
    assert_eq!(told["completeness"]["method"], "forced");
    let forced = gateway.metric("studies_completed_total", &[("method", "forced")]);
    assert_eq!(forced, 1.0);
    let revision = &gateway.study(&study.uid)["revisions"][0];
    assert_eq!(revision["completeness"], "forced");
    assert_eq!(revision["evidence"], serde_json::json!([]));

    // What comes later opens it again.
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(3)]),
        [0]
    );
    assert_eq!(order(&gateway, &study.uid, TOKEN), 202);
    wait_until("second revision", SOON, || gateway.messages().len() == 2);
    let messages = gateway.messages();
    assert_eq!(messages[1]["data"]["supersedes"], messages[0]["id"]);
}

#[test]
fn by_a_command() {
    let (gateway, token) = gateway();
    let study = Study::chest();
    let complete = |token: &std::path::Path| {
        let mut command = binary();
        command.args(["complete", &study.uid]);
        command.args(["--url", &format!("http://127.0.0.1:{}", gateway.http_port)]);
        peers::run(command.arg("--token-file").arg(token))
    };
    let unknown = complete(token.path());
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    let why = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(why.contains("the ledger knows no such study"), "{why}");
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    peers::succeeded(&complete(token.path()));
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(
        gateway.messages()[0]["data"]["study"]["completeness"]["method"],
        "forced"
    );
}

/// A token that nobody gave out.
#[test]
fn not_by_anybody() {
    let gateway = Gateway::start(&Options::new().set("study.quiet_period", "10m"));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    assert_eq!(order(&gateway, &study.uid, TOKEN), 401);
    assert_eq!(gateway.study(&study.uid)["state"], "receiving");
}
