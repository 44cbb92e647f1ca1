//! C-ECHO from two implementations that are not ours, and from our own.

use crate::support::gateway::binary;
use crate::support::{Gateway, Options, SOON, peers, wait_until};

#[test]
fn three_implementations_echo() {
    let gateway = Gateway::start(&Options::new());
    let port = gateway.dicom_port;
    let mut echoes = 0.0;
    if peers::available("echoscu") {
        peers::succeeded(&peers::echoscu(port));
        echoes += 1.0;
    }
    if peers::python_available() {
        peers::succeeded(&peers::pynetdicom(port, "echo", &[]));
        echoes += 1.0;
    }
    let to = format!("PACSGATEWAY@127.0.0.1:{port}");
    peers::succeeded(&peers::run(binary().args(["echo", "--to", &to])));
    echoes += 1.0;
    let success = [("command", "c-echo"), ("status", "0000")];
    wait_until("echoes in the metrics", SOON, || {
        gateway.metric("dimse_requests_total", &success) == echoes
    });
}
