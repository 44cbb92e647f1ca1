//! Storage Commitment after its sender has left: the report goes to the configured address on an
//! association of the gateway's own, as the provider, again and again until somebody takes it.

use serde_json::json;

use crate::support::commitment::{Node, ask_and_leave, asks, events, new_uid, reference, request};
use crate::support::ports::free_port;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, peers, wait_until};

/// A gateway that finds CT2 at this port.
fn options(port: u16) -> Options {
    let address = format!("127.0.0.1:{port}");
    Options::new().set("dicom.peers.CT2", address.as_str())
}

#[test]
fn it_is_called_on_as_the_provider() {
    if !peers::python_available() {
        return;
    }
    let port = free_port();
    let node = Node::listen(port, "CT2");
    let gateway = Gateway::start(&options(port));
    let study = Study::ct();
    let image = study.image(1);
    RawPeer::send(gateway.dicom_port, "CT2", &[&image]);
    // Longer than a PDU, so that the report needs several fragments too.
    let transaction = new_uid();
    let many = vec![reference(&image); 500];
    ask_and_leave(gateway.dicom_port, &transaction, &many);
    let event = node.report(&transaction);
    assert_eq!(
        (&event["type"], &event["committed"]),
        (&json!(1), &json!(many))
    );
    assert_eq!(event["roles"], json!([false, true]));
    assert_eq!(event["calling"], "PACSGATEWAY");
    assert_eq!(event["called"], "CT2");
    wait_until("the end of the request", SOON, || {
        gateway.get("/api/v1/commitments")["commitments"][0]["state"] == "reported"
    });

    // Who takes a request but not its report on the association gets it there as well.
    let refused = new_uid();
    let requests = [asks(&refused, &[reference(&image)])];
    let answer = json!({ "answer": 0x0110 });
    let said = request(gateway.dicom_port, &requests, 1, answer);
    assert_eq!(events(&said)[0]["transaction"], refused);
    assert_eq!(node.report(&refused)["type"], 1);
    let labels = [("via", "same-association"), ("result", "refused")];
    assert_eq!(gateway.metric("commitment_reports_total", &labels), 1.0);
}

#[test]
fn it_is_tried_until_somebody_is_there() {
    if !peers::python_available() {
        return;
    }
    let port = free_port();
    let gateway = Gateway::start(&options(port));
    let study = Study::ct();
    let image = study.image(1);
    RawPeer::send(gateway.dicom_port, "CT2", &[&image]);
    let transaction = new_uid();
    ask_and_leave(gateway.dicom_port, &transaction, &[reference(&image)]);
    let labels = [("via", "new-association"), ("result", "unreachable")];
    wait_until("two attempts", SOON, || {
        gateway.metric("commitment_reports_total", &labels) >= 2.0
    });
    let row = gateway.get("/api/v1/commitments")["commitments"][0].clone();
    assert_eq!(row["state"], "judged");
    assert!(row["last_error"].is_string(), "{row}");
    let node = Node::listen(port, "CT2");
    assert_eq!(
        node.report(&transaction)["committed"],
        json!([reference(&image)])
    );
    wait_until("the end of the request", SOON, || {
        gateway.metric("commitments_open", &[]) == 0.0
    });
    assert_eq!(node.events().len(), 1);
}

#[test]
fn it_is_given_up_in_the_end() {
    if !peers::python_available() {
        return;
    }
    // Nobody has said where CT2 is.
    let gateway = Gateway::start(&Options::new().set("commitment.give_up_after", "2s"));
    let transaction = new_uid();
    let study = Study::ct();
    let image = study.image(1);
    RawPeer::send(gateway.dicom_port, "CT2", &[&image]);
    ask_and_leave(gateway.dicom_port, &transaction, &[reference(&image)]);
    wait_until("the end of the attempts", SOON, || {
        gateway.get("/api/v1/commitments")["commitments"][0]["state"] == "given-up"
    });
    gateway.wait_until_logged("dicom.peers has no address");
    let given_up = [("result", "given-up")];
    assert_eq!(gateway.metric("commitments_total", &given_up), 1.0);
}
