//! What is committed stays in the spool, whatever `spool.retention` says: while its report is owed,
//! and for `commitment.keep` after it. What is not committed goes as always.

use std::time::{Duration, Instant};

use crate::support::commitment::{Node, ask_and_leave, new_uid, reference};
use crate::support::ports::free_port;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, peers, wait_until};

const KEEP: Duration = Duration::from_secs(4);

#[test]
fn they_outlive_the_retention_and_no_more() {
    if !peers::python_available() {
        return;
    }
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let options = Options::new()
        .set("dicom.peers.CT2", address.as_str())
        .set("commitment.keep", "4s")
        .set("spool.retention", "1ms")
        .set("study.quiet_period", "3s");
    let mut gateway = Gateway::start(&options);
    let (promised, other) = (Study::ct(), Study::ct());
    let (image, free) = (promised.image(1), other.image(1));
    // Asked for before it comes, so that it is judged before its study is finished.
    let transaction = new_uid();
    ask_and_leave(gateway.dicom_port, &transaction, &[reference(&image)]);
    RawPeer::send(gateway.dicom_port, "CT2", &[&image, &free]);
    let instances = |gateway: &Gateway| gateway.data_dir().read_dir().unwrap().count();
    wait_until("release of the one that nobody asked for", SOON, || {
        instances(&gateway) == 1
    });
    gateway.wait_until_done(&[&promised.uid, &other.uid]);
    // The promise is kept across a restart, while it cannot even be told.
    gateway.kill();
    gateway.restart();
    let labels = [("via", "new-association"), ("result", "unreachable")];
    wait_until("an attempt", SOON, || {
        gateway.metric("commitment_reports_total", &labels) >= 1.0
    });
    assert_eq!(instances(&gateway), 1);

    let node = Node::listen(port, "CT2");
    let event = node.report(&transaction);
    // Seen later than it was sent: by how much the look for it took.
    let told = Instant::now();
    assert_eq!(event["type"], 1);
    wait_until("release of the promised one", SOON, || {
        instances(&gateway) == 0
    });
    let slack = Duration::from_millis(200);
    assert!(told.elapsed() + slack >= KEEP, "{:?}", told.elapsed());
}
