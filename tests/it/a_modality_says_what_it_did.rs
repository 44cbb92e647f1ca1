//! Performed procedure steps from pynetdicom: what the modality says is written down before it is
//! answered, shown with the study, and what the standard forbids is refused with its status.

use serde_json::{Value, json};

use crate::support::datasets::new_uid;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, peers, wait_until};

const BEGUN: &str = "IN PROGRESS";

/// The statuses of these operations.
#[track_caller]
fn statuses(gateway: &Gateway, operations: &Value) -> Vec<String> {
    let answers = peers::modality(gateway.dicom_port, operations);
    answers
        .iter()
        .map(|answer| answer["status"].as_str().unwrap().to_owned())
        .collect()
}

/// A study with one image, which the ledger therefore knows.
fn known_study(gateway: &Gateway) -> Study {
    let study = Study::ct();
    let stored = RawPeer::send(gateway.dicom_port, "CT2", &[&study.image(1)]);
    assert_eq!(stored, [0]);
    study
}

#[track_caller]
fn steps(gateway: &Gateway, study: &Study) -> Vec<Value> {
    let report = gateway.study(&study.uid);
    report["procedure_steps"].as_array().unwrap().clone()
}

#[test]
fn a_step_is_shown_with_its_study() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let (study, second) = (known_study(&gateway), known_study(&gateway));
    assert!(steps(&gateway, &study).is_empty());
    let (step, listed) = (new_uid(), [study.sop_instance(1), study.sop_instance(2)]);
    let begin = json!([{"create": step, "status": BEGUN, "studies": [study.uid, second.uid]}]);
    assert_eq!(statuses(&gateway, &begin), ["0000"]);
    let shown = steps(&gateway, &study);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["sop_instance_uid"], step);
    assert_eq!(shown[0]["calling_ae"], "MODALITY");
    assert_eq!(shown[0]["state"], "in-progress");
    assert_eq!(shown[0]["instances"], json!([]));

    // Progress first, then the end, with two series of which the last instance is no image.
    let end = json!([
        {"set": step, "series": [[listed[0]]]},
        {"set": step, "status": "COMPLETED", "series": [listed, [listed[0], "1.2.3.4"]]},
    ]);
    assert_eq!(statuses(&gateway, &end), ["0000", "0000"]);
    let shown = steps(&gateway, &study);
    assert_eq!(shown, steps(&gateway, &second), "a step of two studies");
    assert_eq!(shown[0]["state"], "completed");
    // The first instance comes twice: as an image, and as an image again.
    let expected = json!([listed[0], listed[1], "1.2.3.4"]);
    assert_eq!(shown[0]["instances"], expected);
    let time = |key: &str| shown[0][key].as_str().unwrap().to_owned();
    assert!(time("created") < time("updated"), "{shown:?}");
    let (_, text) = gateway
        .ask(&format!("/api/v1/studies/{}", study.uid))
        .unwrap();
    assert!(!text.contains("INVENTED") && !gateway.log().contains("INVENTED"));
}

#[test]
fn a_discontinued_step_says_why() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let study = known_study(&gateway);
    let step = new_uid();
    let operations = json!([
        {"create": step, "status": BEGUN, "studies": [study.uid]},
        {"set": step, "status": "DISCONTINUED", "series": [[]], "reason": "110513"},
    ]);
    assert_eq!(statuses(&gateway, &operations), ["0000", "0000"]);
    let shown = steps(&gateway, &study);
    assert_eq!(shown[0]["state"], "discontinued");
    assert_eq!(shown[0]["discontinuation_reason"], "110513");
}

#[test]
fn what_the_standard_forbids_is_refused() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let study = known_study(&gateway);
    let (step, other) = (new_uid(), new_uid());
    let create = |status: Value| json!({"create": other, "status": status, "studies": [study.uid]});
    let set = |uid: &str, status: &str| json!({"set": uid, "status": status, "series": [["1.2"]]});
    for (operation, status) in [
        (create(json!("COMPLETED")), "0106"),
        (create(json!("")), "0121"),
        (create(Value::Null), "0120"),
        (set(&other, "COMPLETED"), "0112"),
        (
            json!({"create": step, "status": BEGUN, "studies": []}),
            "0000",
        ),
        (
            json!({"create": step, "status": BEGUN, "studies": [study.uid]}),
            "0111",
        ),
        (set(&step, "DONE"), "0106"),
        (json!({"set": step, "status": "COMPLETED"}), "0121"),
        (
            json!({"set": step, "status": "COMPLETED", "series": []}),
            "0121",
        ),
        (
            json!({"set": step, "status": "COMPLETED", "series": [["1.2", ""]]}),
            "0121",
        ),
        (set(&step, "COMPLETED"), "0000"),
    ] {
        assert_eq!(
            statuses(&gateway, &json!([operation])),
            [status],
            "{operation}"
        );
    }
    let late = peers::modality(gateway.dicom_port, &json!([set(&step, "DISCONTINUED")]));
    assert_eq!(late[0]["status"], "0110");
    assert_eq!(late[0]["error_id"], "A710");
    assert_eq!(late[0]["instance"], step.as_str());
    let comment = late[0]["comment"].as_str().unwrap();
    assert!(comment.contains("may no longer be updated"), "{comment}");
    assert!(
        steps(&gateway, &study).is_empty(),
        "none of them is of the study"
    );
    let refused = gateway.metric(
        "dimse_requests_total",
        &[("command", "n-set"), ("status", "0110")],
    );
    assert_eq!(refused, 1.0);
}

#[test]
fn requests_that_no_library_sends_are_answered() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let (mpps, ct) = ("1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.1.1.2");
    let whole = json!({"create": new_uid(), "status": BEGUN, "studies": []});
    for kind in ["create", "set"] {
        let raw = |class: &str, instance: &str, bytes: Option<u32>| json!({"raw": kind, "class": class, "instance": instance, "bytes": bytes});
        let operations = json!([
            raw(ct, "1.2", Some(64)),
            raw(mpps, "../x", Some(64)),
            raw(mpps, "1.2", None),
            raw(mpps, "1.2", Some(65)),
            raw(mpps, "1.2", Some((8 << 20) + 2)),
        ]);
        let expected = ["0118", "0117", "0212", "0110", "0213"];
        assert_eq!(statuses(&gateway, &operations), expected, "{kind}");
    }
    let get = json!([{"raw": "get", "class": mpps, "instance": "1.2", "bytes": null}]);
    assert_eq!(statuses(&gateway, &get), ["0211"]);
    // None of them has cost more than its response.
    assert_eq!(statuses(&gateway, &json!([whole])), ["0000"]);
    wait_until("four releases", SOON, || {
        gateway.metric("associations_total", &[("result", "released")]) == 4.0
    });
}

#[test]
fn a_step_that_ended_goes_with_the_ledgers_retention() {
    if !peers::python_available() {
        return;
    }
    let mut gateway = Gateway::start(&Options::new().set("ledger.retention", "1ms"));
    let study = known_study(&gateway);
    let (ended, goes_on) = (new_uid(), new_uid());
    let operations = json!([
        {"create": ended, "status": BEGUN, "studies": [study.uid]},
        {"create": goes_on, "status": BEGUN, "studies": [study.uid]},
        {"set": ended, "status": "COMPLETED", "series": [["1.2"]]},
    ]);
    assert_eq!(statuses(&gateway, &operations), ["0000"; 3]);
    assert_eq!(steps(&gateway, &study).len(), 2);
    // Old rows go at the start, and every ten minutes.
    gateway.kill();
    gateway.restart();
    wait_until("one step that goes on", SOON, || {
        let left = steps(&gateway, &study);
        left.len() == 1 && left[0]["sop_instance_uid"] == goes_on.as_str()
    });
}

#[test]
fn a_full_spool_takes_no_new_step_and_lets_the_others_end() {
    if !peers::python_available() {
        return;
    }
    let options = Options::new()
        .set("spool.limits.max_bytes", "8KiB")
        .set("spool.limits.resume_bytes", "4KiB")
        .set("study.quiet_period", "10m");
    let gateway = Gateway::start(&options);
    let image = gateway.dir().join("image.dcm");
    std::fs::write(&image, Study::ct().image(1).part_10()).unwrap();
    let step = new_uid();
    let operations = json!([
        {"create": step, "status": BEGUN, "studies": []},
        {"store": image},
        {"create": null, "status": BEGUN, "studies": [], "until": "0213"},
        {"set": step, "status": "COMPLETED", "series": [["1.2"]]},
    ]);
    let expected = ["0000", "0000", "0213", "0000"];
    assert_eq!(statuses(&gateway, &operations), expected);
}

#[test]
fn a_step_without_a_name_is_given_one() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let study = known_study(&gateway);
    let nameless = json!({"create": null, "status": BEGUN, "studies": [study.uid]});
    let answers = peers::modality(gateway.dicom_port, &json!([nameless, nameless]));
    let names: Vec<&str> = answers
        .iter()
        .map(|answer| answer["instance"].as_str().unwrap())
        .collect();
    assert!(names[0].starts_with("2.25.") && names[0] != names[1]);
    let end = json!([{"set": names[1], "status": "COMPLETED", "series": [["1.2"]]}]);
    assert_eq!(statuses(&gateway, &end), ["0000"]);
    let shown = steps(&gateway, &study);
    assert_eq!(shown[0]["sop_instance_uid"], names[0]);
    assert_eq!(shown[0]["state"], "in-progress");
    assert_eq!(shown[1]["state"], "completed");
}

#[test]
fn a_step_survives_a_kill_and_lists_thousands() {
    if !peers::python_available() {
        return;
    }
    let mut gateway = Gateway::start(&Options::new());
    let study = known_study(&gateway);
    let step = new_uid();
    let begin = json!([{"create": step, "status": BEGUN, "studies": [study.uid]}]);
    assert_eq!(statuses(&gateway, &begin), ["0000"]);
    gateway.kill();
    gateway.restart();
    let list = json!({"root": new_uid(), "count": 5000});
    let end = json!([{"set": step, "status": "COMPLETED", "series": [list]}]);
    assert_eq!(statuses(&gateway, &end), ["0000"]);
    gateway.kill();
    gateway.restart();
    let shown = steps(&gateway, &study);
    assert_eq!(shown[0]["state"], "completed");
    assert_eq!(shown[0]["instances"].as_array().unwrap().len(), 5000);
    assert_eq!(statuses(&gateway, &end), ["0110"]);
}
