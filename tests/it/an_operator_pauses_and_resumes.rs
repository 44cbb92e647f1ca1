//! An operator has the listener or the broker's side wait: nothing is lost, and everything goes on where
//! it was.

use std::collections::BTreeSet;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::operator::Operator;
use crate::support::topology::Bus;
use crate::support::{Answer, Gateway, Options, RawPeer, SOON, Study, peers, rabbit, wait_until};

fn answer(gateway: &Gateway) -> Answer {
    RawPeer::request(gateway.dicom_port, "CT1", &[]).unwrap().1
}

#[test]
fn the_listener() {
    let operator = Operator::new();
    let gateway = Gateway::start(&operator.options());
    let study = Study::chest();
    let (image, late) = (study.image(1), study.image(2));
    let mut open = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    let words = ["pause", "listener", "--reason", "new disk"];
    peers::succeeded(&operator.command(&gateway, &words));

    assert_eq!(answer(&gateway), Answer::Rejected(2, 3, 1), "transient");
    assert_eq!(open.store(&image), 0, "what is open goes on");
    open.release();
    let (status, body) = gateway.ask("/readyz").unwrap();
    assert_eq!(status, 503, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["reason"], "listener paused");
    assert_eq!(body["paused"], json!(["listener"]));
    let status = gateway.get("/api/v1/status");
    assert_eq!(status["paused"]["listener"]["reason"], "new disk");
    assert_eq!(gateway.metric("paused", &[("what", "listener")]), 1.0);
    assert_eq!(gateway.metric("paused", &[("what", "broker")]), 0.0);
    // What is here is worked on.
    gateway.wait_until_done(&[&study.uid]);
    let page = operator.command(&gateway, &["status"]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(
        page.contains("PAUSED since") && page.contains(": new disk"),
        "{page}"
    );

    if peers::available("dcmsend") {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("late.dcm");
        std::fs::write(&file, late.part_10()).unwrap();
        let files = [file];
        let turned_away = peers::dcmsend(gateway.dicom_port, &files);
        let said = String::from_utf8_lossy(&turned_away.stderr).into_owned()
            + &String::from_utf8_lossy(&turned_away.stdout);
        assert!(said.contains("Association Rejected"), "{said}");
        peers::succeeded(&operator.command(&gateway, &["resume", "listener"]));
        peers::succeeded(&peers::dcmsend(gateway.dicom_port, &files));
        wait_until("second revision", SOON, || {
            gateway.study(&study.uid)["instances_received"] == 2
        });
    } else {
        peers::succeeded(&operator.command(&gateway, &["resume", "listener"]));
    }
    assert_eq!(answer(&gateway), Answer::Accepted);
    assert_eq!(gateway.ask("/readyz").unwrap().0, 200);
    assert_eq!(gateway.metric("paused", &[("what", "listener")]), 0.0);
}

#[test]
fn for_a_while_only() {
    let operator = Operator::new();
    let mut gateway = Gateway::start(&operator.options());
    let pause = "/api/v1/listener/pause";
    for (body, status) in [
        (json!({ "for": "soon" }), 422),
        (json!({ "for": 5 }), 422),
        (json!({ "reason": "two\nlines" }), 422),
        (json!({ "until": "tomorrow" }), 422),
    ] {
        assert_eq!(operator.post(&gateway, pause, &body).0, status, "{body}");
    }
    assert_eq!(answer(&gateway), Answer::Accepted, "none of them pauses");
    // A pause that nobody remembers ends.
    let (_, body) = operator.post(&gateway, pause, &json!({ "for": "8d" }));
    let time = |of: &str| {
        let text = body["paused"][of].as_str().unwrap();
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    };
    let days = (time("until") - time("since")).whole_hours();
    assert!((7 * 24 - 1..=7 * 24).contains(&days), "{body}");
    let (status, body) = operator.post(&gateway, pause, &json!({ "for": "2s" }));
    assert_eq!(status, 200);
    assert!(body["paused"]["until"].is_string(), "{body}");
    assert_eq!(answer(&gateway), Answer::Rejected(2, 3, 1));
    wait_until("end of the pause", SOON, || {
        answer(&gateway) == Answer::Accepted
    });
    gateway.wait_until_logged("the pause is over");
    let (_, body) = operator.post(&gateway, "/api/v1/listener/resume", &json!({}));
    assert_eq!(body["was_paused"], false);

    // A gateway that starts works.
    operator.post(&gateway, pause, &json!({}));
    assert_eq!(answer(&gateway), Answer::Rejected(2, 3, 1));
    gateway.kill();
    gateway.restart();
    assert_eq!(answer(&gateway), Answer::Accepted);
}

#[test]
fn not_by_anybody() {
    let gateway = Gateway::start(&Options::new());
    let operator = Operator::new();
    for path in ["listener/pause", "broker/pause", "broker/resume", "reload"] {
        let path = format!("/api/v1/{path}");
        assert_eq!(operator.post(&gateway, &path, &json!({})).0, 401, "{path}");
    }
    assert_eq!(answer(&gateway), Answer::Accepted);
}

#[test]
fn the_broker() {
    const STUDIES: usize = 10;
    let Some(route) = rabbit::shared() else {
        return;
    };
    let operator = Operator::new();
    let options = operator.admit(Options::amqp(&route));
    let gateway = Gateway::start(&options.set("study.quiet_period", "100ms"));
    wait_until("connection", SOON, || {
        gateway.metric("broker_connected", &[]) == 1.0
    });
    peers::succeeded(&operator.command(&gateway, &["pause", "broker", "--for", "1h"]));
    wait_until("end of the connection", SOON, || {
        gateway.metric("broker_connected", &[]) == 0.0
    });
    let studies: Vec<Study> = (0..STUDIES).map(|_| Study::chest()).collect();
    for study in &studies {
        let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(sent, [0], "a pause is not the sender's trouble");
    }
    let owed = || gateway.get("/api/v1/outbox")["owed"].as_u64().unwrap();
    wait_until("messages that wait", SOON, || owed() == STUDIES as u64);
    let (status, body) = gateway.ask("/readyz").unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["broker"]["paused"], true);
    assert!(body["broker"].get("error").is_none(), "it is no failure");
    assert_eq!(gateway.metric("published_total", &[]), 0.0);

    peers::succeeded(&operator.command(&gateway, &["resume", "broker"]));
    let uids: Vec<&str> = studies.iter().map(|study| study.uid.as_str()).collect();
    gateway.wait_until_done(&uids);
    let messages = Bus::new(&route).take(STUDIES);
    let ids: BTreeSet<String> = messages
        .iter()
        .map(|message| message.event["id"].to_string())
        .collect();
    assert_eq!(ids.len(), STUDIES, "each once");
    assert_eq!(
        gateway.metric("published_total", &[("result", "ack")]),
        STUDIES as f64
    );
}

/// A drain does not wait for messages that are not to be sent.
#[test]
fn a_drain_ends_it() {
    let operator = Operator::new();
    let options = operator.options().set("shutdown.outbox", "60s");
    let mut gateway = Gateway::start(&options);
    let (status, _) = operator.post(&gateway, "/api/v1/broker/pause", &json!({}));
    assert_eq!(status, 200);
    let study = Study::chest();
    RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    wait_until("message that waits", SOON, || {
        gateway.get("/api/v1/outbox")["owed"] == 1
    });
    gateway.terminate();
    assert!(gateway.wait(SOON).success());
    assert!(gateway.messages().is_empty());
    gateway.restart();
    gateway.wait_until_done(&[&study.uid]);
}
