//! Storage Commitment requests that are none are refused with the standard's status, and nothing is
//! promised by them.

use serde_json::{Value, json};

use crate::support::commitment::{asks, new_uid, reference, request};
use crate::support::{Gateway, Options, Study, peers};

#[test]
fn each_mistake_has_its_status() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    let image = reference(&Study::ct().image(1));
    let good = || asks(&new_uid(), std::slice::from_ref(&image));
    let cases: [(Value, Value, &str); 6] = [
        (
            good(),
            json!({ "sop_class": "1.2.840.10008.5.1.4.1.1.2" }),
            "0118",
        ),
        (good(), json!({ "sop_instance": "1.2.3" }), "0112"),
        (good(), json!({ "action_type": 2 }), "0123"),
        (json!({}), json!({}), "0115"),
        (asks(&new_uid(), &[]), json!({}), "0115"),
        (asks("", std::slice::from_ref(&image)), json!({}), "0115"),
    ];
    for (entry, more, status) in cases {
        let said = request(gateway.dicom_port, &[entry], 0, more);
        assert_eq!(said, [json!({ "action": status })]);
        let labels = [("command", "n-action"), ("status", status)];
        assert!(gateway.metric("dimse_requests_total", &labels) > 0.0);
    }
    assert_eq!(gateway.get("/api/v1/commitments")["commitments"], json!([]));
}

#[test]
fn a_gateway_that_promises_nothing_does_not_offer_it() {
    if !peers::python_available() {
        return;
    }
    let gateway = Gateway::start(&Options::new().set("commitment.enabled", false));
    let said = request(gateway.dicom_port, &[], 0, json!({}));
    assert_eq!(said, [json!({ "rejected": true })]);
}
