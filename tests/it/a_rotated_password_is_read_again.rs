//! User and password from files: the ones that are there when a connection is made. They are never said.

use std::fs;

use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_until};

#[test]
fn the_next_connection_uses_the_new_one() {
    let Some(mut broker) = rabbit::private() else {
        return;
    };
    let user = format!("rotated-{}", std::process::id());
    broker.node().control(&["add_user", &user, "first secret"]);
    broker
        .node()
        .control(&["set_permissions", &user, ".*", ".*", ".*"]);
    let dir = tempfile::tempdir().unwrap();
    let (name, password) = (dir.path().join("name"), dir.path().join("password"));
    fs::write(&name, format!("{user}\n")).unwrap();
    fs::write(&password, "first secret\n").unwrap();
    let options = Options::amqp(&broker.route())
        .set("broker.username_file", name)
        .set("broker.password_file", password.clone());
    let gateway = Gateway::start(&options);
    let send = || {
        let study = Study::chest();
        let statuses = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(statuses, [0]);
        study.uid
    };
    gateway.wait_until_done(&[&send()]);

    // The broker has the new one first, as it must be: the old one is refused then.
    broker
        .node()
        .control(&["change_password", &user, "second secret"]);
    broker
        .node()
        .control(&["close_all_connections", "rotation"]);
    wait_until("a refusal", SOON, || {
        gateway.metric("broker_connect_failures_total", &[("reason", "auth")]) >= 1.0
    });
    let study = send();
    fs::write(&password, "second secret\n").unwrap();
    gateway.wait_until_done(&[&study]);
    assert!(!gateway.log().contains("secret"), "a password in the log");
    assert!(!gateway.get("/readyz").to_string().contains("secret"));

    // Without the file nobody is refused at run time, and a start is.
    fs::remove_file(&password).unwrap();
    broker
        .node()
        .control(&["close_all_connections", "rotation"]);
    wait_until("a missing file", SOON, || {
        gateway.metric("broker_connect_failures_total", &[("reason", "files")]) >= 1.0
    });
    let refusal = Gateway::refusal(&options);
    assert_eq!(refusal.code, Some(64));
    assert!(
        refusal.stderr.contains("broker.password_file"),
        "{}",
        refusal.stderr
    );
}
