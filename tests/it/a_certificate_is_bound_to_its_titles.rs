//! An AE title is a name that anybody can say; a certificate that belongs to it proves it.

use std::path::Path;
use std::process::Command;

use crate::support::certificates::{Certificates, Pair, Subject, secured};
use crate::support::{Answer, Gateway, RawPeer, SOON, peers, wait_until};

#[test]
fn who_calls_must_show_whose_title_it_is() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::available("echoscu") {
        return;
    }
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let (ct1, mr) = (
        certificates.client("ca", "ct1"),
        certificates.client("ca", "mr"),
    );
    let subject = Subject {
        common_name: "Workstation 7",
        usage: "clientAuth",
        ..Subject::default()
    };
    let nameless = certificates.issue("ca", "nameless", &subject);
    let by_name = certificates.issue("ca", "by-name", &subject);
    let stranger = certificates.client("ca", "stranger");
    let fingerprint = format!("sha256:{}", nameless.fingerprint());
    let table = "dicom.tls.ae_titles";
    let options = secured(&server, [ca.clone()])
        .set("dicom.tls.client_certificate", "optional")
        .set_in(table, "CT1.Hospital", ["CT1", "CT2"])
        .set_in(table, "mr.hospital", ["MR1"])
        .set_in(table, &fingerprint, ["WS7"])
        .set_in(table, "workstation 7", ["WS8"]);
    let gateway = Gateway::start(&options);
    let rejected = || gateway.metric("associations_rejected_total", &[("reason", "certificate")]);
    let mut refusals = 0.0;
    for (client, calling, taken) in [
        (Some(&ct1), "CT1", true),
        (Some(&ct1), "CT2", true),
        (Some(&ct1), "MR1", false),
        (Some(&ct1), "ct1", false),
        (Some(&ct1), "OTHER", false),
        (Some(&mr), "MR1", true),
        (Some(&mr), "CT1", false),
        // Two certificates of one name, of which one is meant by its fingerprint too.
        (Some(&nameless), "WS7", true),
        (Some(&nameless), "WS8", true),
        (Some(&by_name), "WS7", false),
        (Some(&by_name), "WS8", true),
        (Some(&stranger), "CT1", false),
        (Some(&stranger), "OTHER", false),
        (None, "CT1", false),
        (None, "OTHER", true),
    ] {
        let output = echo(gateway.tls_port, calling, client, &ca);
        let who = client.map(|pair| pair.certificate.display());
        assert_eq!(
            output.status.success(),
            taken,
            "{who:?} as {calling}: {output:?}"
        );
        if !taken {
            refusals += 1.0;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("Calling AE Title Not Recognized"), "{said}");
        }
    }
    wait_until("the rejections in the metrics", SOON, || {
        rejected() == refusals
    });
    // Without TLS nobody proves anything: a title that belongs to a certificate stays closed.
    let plain = |calling: &str| {
        RawPeer::request(gateway.dicom_port, calling, &[])
            .unwrap()
            .1
    };
    assert_eq!(plain("CT1"), Answer::Rejected(1, 1, 3));
    assert_eq!(plain("OTHER"), Answer::Accepted);
    wait_until("one more", SOON, || rejected() == refusals + 1.0);
    gateway.wait_until_logged("\"certificate\":\"stranger.hospital\"");
}

fn echo(port: u16, calling: &str, client: Option<&Pair>, ca: &Path) -> std::process::Output {
    let mut command = Command::new("echoscu");
    command.args(["-aet", calling, "-aec", "PACSGATEWAY"]);
    match client {
        Some(client) => command.args(client.dcmtk(ca)),
        None => command.arg("+tla").arg("+cf").arg(ca),
    };
    peers::run(command.args(["127.0.0.1", &port.to_string()]))
}
