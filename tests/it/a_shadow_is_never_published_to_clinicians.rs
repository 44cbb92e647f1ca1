//! A shadow sees every study, its messages go to an exchange of their own, and nothing that is wrong
//! there reaches the findings. A canary answers for its share of the studies, always the same ones.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::support::models::Models;
use crate::support::options::repository;
use crate::support::rabbit::Route;
use crate::support::topology::{Bus, Received};
use crate::support::{Gateway, Options, RawPeer, SOON, Study, contract, peers, rabbit, wait_until};

const STUDIES: usize = 12;

/// 1.0.0 answers, 1.2.0 for half of the studies, 1.1.0 is the shadow.
fn models() -> Models {
    let models = Models::new();
    models.add("1.1.0", |_| {});
    models.add("1.2.0", |_| {});
    models.roles(
        "serve = \"1.0.0\"\nshadow = [\"1.1.0\"]\ncanary = { version = \"1.2.0\", percent = 50 }\n",
    );
    models
}

fn by_study(messages: Vec<Received>) -> BTreeMap<String, Vec<Value>> {
    let mut studies: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for message in messages {
        contract::check(&message);
        let uid = message.event["data"]["study"]["study_instance_uid"]
            .as_str()
            .unwrap();
        studies
            .entry(uid.to_owned())
            .or_default()
            .push(message.event["data"].clone());
    }
    studies
}

/// Whether the canary answers for a study, as docs/models.md defines it and Python computes it.
fn canary_answers(study: &str) -> bool {
    let code = "import hashlib, sys; \
        digest = hashlib.sha256(b'cxr-phantom\\0' + sys.argv[1].encode()).hexdigest(); \
        print(int(digest, 16) % 10000 < 5000)";
    let python = repository().join(".deps/venv/bin/python");
    let said = peers::run(Command::new(python).args(["-c", code, study]));
    peers::succeeded(&said);
    String::from_utf8(said.stdout).unwrap().trim() == "True"
}

#[test]
fn shadow_and_canary() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    if !peers::python_available() {
        return;
    }
    let models = models();
    let options = Options::amqp(&route).models(models.dir());
    let (gateway, findings) = (Gateway::start(&options), Bus::new(&route));
    let shadows = Bus::new(&route.shadow());
    let studies: Vec<Study> = (0..STUDIES).map(|_| Study::chest()).collect();
    for study in &studies {
        assert_eq!(
            RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
            [0]
        );
    }
    let first = by_study(findings.take(STUDIES));
    let shadowed = by_study(shadows.take(STUDIES));
    let mut canaries = 0;
    for study in &studies {
        let [published] = first[&study.uid].as_slice() else {
            unreachable!("one message per study");
        };
        let canary = canary_answers(&study.uid);
        canaries += usize::from(canary);
        let wanted = if canary {
            ("1.2.0", "canary")
        } else {
            ("1.0.0", "served")
        };
        let model = &published["model"];
        assert_eq!(
            (model["version"].as_str(), model["role"].as_str()),
            (Some(wanted.0), Some(wanted.1))
        );
        let [shadow] = shadowed[&study.uid].as_slice() else {
            unreachable!("one message of the shadow");
        };
        assert_eq!(shadow["model"]["version"], "1.1.0");
        assert_eq!(shadow["model"]["role"], "shadow");
    }
    assert!(
        canaries > 0 && canaries < STUDIES,
        "{canaries} of {STUDIES}"
    );

    // Another image: the same version answers again and replaces its message; the shadow's replaces nothing.
    for study in &studies {
        assert_eq!(
            RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(2)]),
            [0]
        );
    }
    let again = by_study(findings.take(STUDIES));
    let shadowed = by_study(shadows.take(STUDIES));
    for study in &studies {
        let (before, now) = (&first[&study.uid][0], &again[&study.uid][0]);
        assert_eq!(now["model"]["version"], before["model"]["version"]);
        assert!(now["supersedes"].is_string(), "{now}");
        assert!(shadowed[&study.uid][0].get("supersedes").is_none());
        let report = gateway.study(&study.uid);
        assert_eq!(
            (&report["published"], &report["state"]),
            (&Value::from(2), &Value::from("done"))
        );
    }
    assert_eq!(gateway.metric("outcomes_total", &[]), 2.0 * STUDIES as f64);
    // Two labels, two revisions; the shadow is compared with each, the served one where the canary spoke.
    let agreement = |other: &str| gateway.metric("model_agreement_total", &[("other", other)]);
    wait_until("comparisons", SOON, || {
        agreement("1.0.0") >= 4.0 * canaries as f64
    });
    assert_eq!(agreement("1.1.0"), 4.0 * STUDIES as f64);
    assert_eq!(
        gateway.metric("model_difference_count", &[("other", "1.1.0")]),
        4.0 * STUDIES as f64
    );
    assert!(gateway.metric("model_difference_sum", &[("other", "1.1.0")]) > 0.0);
    assert_eq!(findings.take_all().len() + shadows.take_all().len(), 0);
}

#[test]
fn a_missing_shadow_exchange_holds_nothing_up() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let models = models();
    let bus = Bus::new(&route);
    bus.declare_exchange();
    bus.declare_queue(&[]);
    let options = Options::amqp(&route)
        .models(models.dir())
        .set("broker.declare", "none");
    let gateway = Gateway::start(&options);
    let refused = || {
        let waiting = gateway.get("/api/v1/outbox");
        let messages = waiting["messages"].as_array().unwrap().clone();
        messages
            .iter()
            .any(|message| message["exchange"] == "shadow" && message["last_error"].is_string())
    };
    for _ in 0..3 {
        let study = Study::chest();
        assert_eq!(
            RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
            [0]
        );
        assert_eq!(bus.take(1).len(), 1);
        wait_until("a refused message of the shadow", SOON, refused);
        gateway.wait_until_done(&[&study.uid]);
    }
    assert_eq!(gateway.metric("outbox_messages", &[]), 0.0);
}

#[test]
fn the_file_broker_keeps_them_apart() {
    let models = models();
    let gateway = Gateway::start(&Options::new().models(models.dir()));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&study.uid]);
    let path = gateway.dir().join("findings.shadow");
    wait_until("a line of the shadow", SOON, || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))
    });
    let shadow: Value =
        serde_json::from_str(std::fs::read_to_string(&path).unwrap().trim()).unwrap();
    contract::check_event(&shadow);
    assert_eq!(shadow["data"]["model"]["version"], "1.1.0");
    let published = gateway.messages();
    assert_eq!(published.len(), 1);
    assert_ne!(published[0]["data"]["model"]["version"], "1.1.0");
}

impl Route {
    /// Where the shadows of this route go.
    fn shadow(&self) -> Self {
        Self {
            exchange: format!("{}.shadow", self.exchange),
            queue: format!("{}.shadow", self.queue),
            ..self.clone()
        }
    }
}
