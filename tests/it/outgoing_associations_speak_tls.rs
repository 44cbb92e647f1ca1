//! The gateway as the client of others: DCMTK and pynetdicom check its certificate, and it checks
//! theirs.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::certificates::{Certificates, Pair, Subject, secured};
use crate::support::commitment::{Node, ask_and_leave, new_uid, reference};
use crate::support::gateway::binary;
use crate::support::pacs::Pacs;
use crate::support::ports::free_port;
use crate::support::{Gateway, RawPeer, SOON, Study, peers, reaper, wait_until};

/// A server of DCMTK's, which ends when it is dropped.
struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    fn storescp(who: &Pair, ca: &Path) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = Command::new("storescp");
        command.args(who.dcmtk(ca)).arg("-od").arg(dir.path());
        Self::start(command.arg(port.to_string()), dir, port)
    }

    fn start(command: &mut Command, dir: tempfile::TempDir, port: u16) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        reaper::adopt(child.id());
        wait_until("a server of DCMTK's", SOON, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            child,
            port,
            _dir: dir,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::spare(self.child.id());
    }
}

fn ours(verb: &str, to: &str, client: Option<&Pair>, ca: &Path, more: &[&str]) -> Output {
    let mut command = binary();
    command.args([verb, "--to", to]).arg("--tls-ca").arg(ca);
    if let Some(client) = client {
        command.arg("--tls-certificate").arg(&client.certificate);
        command.arg("--tls-key").arg(&client.key);
    }
    peers::run(command.args(more))
}

#[test]
fn on_the_command_line() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::available("storescp") || !peers::python_available() {
        return;
    }
    let ca = certificates.authority("ca");
    let stranger = certificates.authority("stranger");
    let pacs = certificates.server("ca", "pacs");
    let ct1 = certificates.client("ca", "ct1");
    let scp = Server::storescp(&pacs, &ca);
    let to = |host: &str| format!("ANY@{host}:{}", scp.port);
    for host in ["localhost", "127.0.0.1", "tls://localhost"] {
        peers::succeeded(&ours("echo", &to(host), Some(&ct1), &ca, &[]));
    }
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("1.dcm");
    std::fs::write(&file, Study::ct().image(1).part_10()).unwrap();
    let file = file.display().to_string();
    peers::succeeded(&ours("send", &to("localhost"), Some(&ct1), &ca, &[&file]));
    let subject = Subject {
        common_name: "pacs",
        names: "DNS:pacs.hospital",
        ..Subject::default()
    };
    let elsewhere = Server::storescp(&certificates.issue("ca", "elsewhere", &subject), &ca);
    let wrong_name = format!("ANY@127.0.0.1:{}", elsewhere.port);
    for (output, reason) in [
        (
            ours("echo", &to("localhost"), Some(&ct1), &stranger, &[]),
            "no TLS handshake: invalid peer certificate: UnknownIssuer",
        ),
        (
            ours("echo", &wrong_name, Some(&ct1), &ca, &[]),
            "not valid for name",
        ),
        (ours("echo", &to("localhost"), None, &ca, &[]), ""),
        (
            ours(
                "echo",
                &to("localhost"),
                Some(&ct1),
                Path::new("/none"),
                &[],
            ),
            "/none: ",
        ),
    ] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(reason),
            "{reason}: {said}"
        );
    }
    let archive = Pacs::pynetdicom_with_tls("counts", &pacs, &ca);
    let to = format!("TESTPACS@localhost:{}", archive.port());
    let output = ours("find", &to, Some(&ct1), &ca, &[&new_uid()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("does not know the study"), "{said}");
}

#[test]
fn reports_on_commitments() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::python_available() {
        return;
    }
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let node = certificates.server("ca", "ct2");
    let port = free_port();
    let node = Node::listen_with_tls(port, "CT2", &node, &ca);
    let address = format!("tls://localhost:{port}");
    let options = secured(&server, [ca]).set("dicom.peers.CT2", address.as_str());
    let gateway = Gateway::start(&options);
    let image = Study::ct().image(1);
    RawPeer::send(gateway.dicom_port, "CT2", &[&image]);
    let transaction = new_uid();
    ask_and_leave(gateway.dicom_port, &transaction, &[reference(&image)]);
    assert_eq!(node.report(&transaction)["type"], 1);
}

#[test]
fn counts_of_a_pacs() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::python_available() {
        return;
    }
    let ca = certificates.authority("ca");
    let server = certificates.server("ca", "gateway");
    let pacs = Pacs::pynetdicom_with_tls("counts", &certificates.server("ca", "pacs"), &ca);
    let study = Study::ct();
    let files = tempfile::tempdir().unwrap();
    for number in 1..=2 {
        let file = files.path().join(format!("{number}.dcm"));
        std::fs::write(file, study.image(number).part_10()).unwrap();
    }
    let to = format!("TESTPACS@localhost:{}", pacs.port());
    let all = files.path().display().to_string();
    peers::succeeded(&ours("send", &to, Some(&server), &ca, &[&all]));
    let address = format!("tls://localhost:{}", pacs.port());
    let options = secured(&server, [ca])
        .set("study.pacs.ae_title", "TESTPACS")
        .set("study.pacs.address", address.as_str());
    let gateway = Gateway::start(&options);
    let images = [study.image(1), study.image(2)];
    RawPeer::send(gateway.dicom_port, "CT1", &[&images[0], &images[1]]);
    gateway.wait_until_done(&[&study.uid]);
    let method = [("method", "pacs-count")];
    assert_eq!(gateway.metric("studies_completed_total", &method), 1.0);
}
