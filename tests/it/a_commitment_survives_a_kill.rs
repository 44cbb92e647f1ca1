//! Storage Commitment across SIGKILL: a request that was answered with Success is reported, whether
//! it was being judged, waiting for instances or on its way.

use serde_json::json;

use crate::support::commitment::{Node, ask_and_leave, new_uid, reference};
use crate::support::ports::free_port;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, peers, wait_until};

#[test]
fn it_is_reported_after_the_next_start() {
    if !peers::python_available() {
        return;
    }
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let options = Options::new().set("dicom.peers.CT2", address.as_str());
    let mut gateway = Gateway::start(&options);
    let study = Study::ct();
    let (image, late) = (study.image(1), study.image(2));
    RawPeer::send(gateway.dicom_port, "CT2", &[&image]);
    let [judged, waiting] = [new_uid(), new_uid()];
    ask_and_leave(gateway.dicom_port, &judged, &[reference(&image)]);
    let both = [reference(&image), reference(&late)];
    ask_and_leave(gateway.dicom_port, &waiting, &both);
    wait_until("one that is judged", SOON, || {
        gateway.metric("commitments_total", &[("result", "committed")]) == 1.0
    });
    gateway.kill();

    let node = Node::listen(port, "CT2");
    gateway.restart();
    let event = node.report(&judged);
    assert_eq!(
        (&event["type"], &event["committed"]),
        (&json!(1), &json!([reference(&image)]))
    );
    // Its other instance comes only now.
    RawPeer::send(gateway.dicom_port, "CT2", &[&late]);
    let event = node.report(&waiting);
    assert_eq!(
        (&event["type"], &event["committed"]),
        (&json!(1), &json!(both))
    );
    wait_until("nothing owed", SOON, || {
        gateway.metric("commitments_open", &[]) == 0.0
    });
    gateway.kill();
    gateway.restart();
    wait_until("a look at the requests", SOON, || {
        gateway.get("/api/v1/commitments")["open"] == 0
    });
    assert_eq!(
        node.events().len(),
        2,
        "what was reported is not reported again"
    );
}
