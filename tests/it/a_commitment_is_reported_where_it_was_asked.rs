//! Storage Commitment while the association of the request stays open: pynetdicom asks, and hears
//! on the same association what is committed and what is not, and why.

use serde_json::{Value, json};

use crate::support::commitment::{asks, events, new_uid, reference, request};
use crate::support::gateway::beside;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, peers, wait_until};

const PUSH_MODEL: &str = "1.2.840.10008.1.20.1";
const WELL_KNOWN: &str = "1.2.840.10008.1.20.1.1";
const MR_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.4";
const WORKLIST: &str = "1.2.840.10008.5.1.4.31";

#[test]
fn what_is_durable_is_committed() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let study = Study::ct();
    let images = [study.image(1), study.image(2), study.image(3)];
    let all = images.each_ref();
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT2", &all), [0, 0, 0]);

    // Two requests one after the other, the second with an instance named twice.
    let [first, second] = [new_uid(), new_uid()];
    let list = images.each_ref().map(reference);
    let twice = [list[0].clone(), list[0].clone()];
    let requests = [asks(&first, &list), asks(&second, &twice)];
    let said = request(gateway.dicom_port, &requests, 2, json!({}));
    let answers = said.iter().filter(|line| line["action"] == "0000");
    assert_eq!(answers.count(), 2);
    let events = events(&said);
    for (transaction, list) in [(first, &list[..]), (second, &twice)] {
        let about = |event: &&&Value| event["transaction"] == transaction;
        let event = events.iter().find(about).unwrap();
        assert_eq!(event["type"], 1);
        assert_eq!(event["sop_class"], PUSH_MODEL);
        assert_eq!(event["sop_instance"], WELL_KNOWN);
        assert_eq!(event["committed"], json!(list));
        let elements = json!(["TransactionUID", "ReferencedSOPSequence"]);
        assert_eq!(event["elements"], elements);
    }
    let labels = [("via", "same-association"), ("result", "reported")];
    wait_until("reports in the metrics", SOON, || {
        gateway.metric("commitment_reports_total", &labels) == 2.0
            && gateway.metric("commitments_open", &[]) == 0.0
    });
    assert_eq!(
        gateway.metric("commitments_total", &[("result", "committed")]),
        2.0
    );
}

#[test]
fn what_is_not_is_failed_with_its_reason() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new().set("commitment.wait", "1s"));
    let study = Study::ct();
    let (here, other) = (study.image(1), study.image(2));
    RawPeer::send(gateway.dicom_port, "CT2", &[&here, &other]);
    let (transaction, unknown, task) = (new_uid(), new_uid(), new_uid());
    let list = [
        reference(&here),
        json!([MR_IMAGE, other.sop_instance]),
        json!([here.sop_class, unknown]),
        json!([WORKLIST, task]),
    ];
    let requests = [asks(&transaction, &list)];
    let said = request(gateway.dicom_port, &requests, 1, json!({}));
    let event = events(&said)[0];
    assert_eq!(event["type"], 2);
    assert_eq!(event["committed"], json!(list[..1]));
    // Both lists together are the request.
    assert_eq!(event["failed"], json!(list[1..]));
    assert_eq!(event["reasons"], json!(["0119", "0112", "0122"]));
    let listed = gateway.get("/api/v1/commitments");
    let row = &listed["commitments"][0];
    assert_eq!(row["transaction_uid"], transaction);
    assert_eq!((&row["instances"], &row["failed"]), (&json!(4), &json!(3)));
    assert_eq!(row["calling_ae"], "CT2");
    let output = peers::run(beside(&gateway).args(["commitment", "ls"]));
    peers::succeeded(&output);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains(&transaction), "{table}");
}

#[test]
fn a_transaction_that_is_in_use_fails_whole() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let study = Study::ct();
    let image = study.image(1);
    RawPeer::send(gateway.dicom_port, "CT2", &[&image]);
    // The first stays open, as one of its instances is not here.
    let transaction = new_uid();
    let missing = json!([image.sop_class, new_uid()]);
    let requests = [
        asks(&transaction, &[reference(&image), missing.clone()]),
        asks(&transaction, &[reference(&image)]),
    ];
    let said = request(gateway.dicom_port, &requests, 1, json!({}));
    let event = events(&said)[0];
    assert_eq!(
        (&event["type"], &event["reasons"]),
        (&json!(2), &json!(["0131"]))
    );
    assert_eq!(event["failed"], json!([reference(&image)]));
    assert_eq!(gateway.metric("commitments_open", &[]), 1.0);
}
