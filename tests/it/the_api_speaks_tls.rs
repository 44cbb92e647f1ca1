//! HTTPS: a certificate that is renewed while the gateway runs, clients that stall in the handshake or
//! speak something else, and our own commands over it. The peers are curl and OpenSSL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::certificates::{Certificates, Pair, Subject};
use crate::support::gateway::{beside, binary};
use crate::support::{Gateway, Options, SOON, peers, wait_until};

/// A certificate for HTTPS, in `gateway.pem` and `gateway.key`; an earlier one is replaced.
fn issue(certificates: &Certificates, names: &str) -> Pair {
    let subject = Subject {
        common_name: "gateway",
        names,
        usage: "serverAuth",
        ..Subject::default()
    };
    certificates.issue("ca", "gateway", &subject)
}

/// `curl https://<host>:<port>/api/v1/models` with the operator's token.
fn curl(gateway: &Gateway, ca: &Path, host: &str) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "20"]);
    command.arg("--cacert").arg(ca);
    let port = gateway.http_port;
    command.args(["--resolve", &format!("{host}:{port}:127.0.0.1")]);
    let authorization = format!("Authorization: {}", gateway.authorization());
    command.args(["--header", &authorization]);
    command.arg(format!("https://{host}:{port}/api/v1/models"));
    peers::run(&mut command)
}

#[test]
fn and_its_certificate_is_renewed() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::available("curl") {
        return;
    }
    let (ca, other) = (
        certificates.authority("ca"),
        certificates.authority("other"),
    );
    let pair = issue(&certificates, "DNS:gateway.example,DNS:localhost");
    let options = Options::new()
        .set("http.tls.certificate", pair.certificate.clone())
        .set("http.tls.key", pair.key)
        .set("http.probe_bind", "127.0.0.1:0");
    let gateway = Gateway::start(&options);
    let port = gateway.http_port;
    peers::succeeded(&curl(&gateway, &ca, "gateway.example"));
    assert!(!curl(&gateway, &other, "gateway.example").status.success());
    assert!(!curl(&gateway, &ca, "other.example").status.success());

    // Clients that say nothing, or no TLS, hold nobody up.
    let mut stalled: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "plain HTTP on the port of TLS");
    peers::succeeded(&curl(&gateway, &ca, "gateway.example"));
    for stream in &mut stalled {
        stream.set_read_timeout(Some(SOON)).unwrap();
        // Closed, with or without an alert, by the deadline of the handshake.
        let _ = stream.read_to_end(&mut said);
    }
    for (version, accepted) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let mut command = Command::new("openssl");
        command.args(["s_client", version, "-verify_return_error", "-CAfile"]);
        command.arg(&ca);
        // OpenSSL's own default would not offer 1.1 at all.
        command.args([
            "-cipher",
            "DEFAULT:@SECLEVEL=0",
            "-connect",
            &format!("127.0.0.1:{port}"),
        ]);
        assert_eq!(
            peers::run(&mut command).status.success(),
            accepted,
            "{version}"
        );
    }

    // Our own commands.
    let by_name = |ca: &Path| {
        let mut command = binary();
        command.args([
            "models",
            "ls",
            "--url",
            &format!("https://localhost:{port}"),
        ]);
        command
            .arg("--ca")
            .arg(ca)
            .arg("--config")
            .arg(gateway.dir().join("gateway.toml"));
        peers::run(&mut command)
    };
    peers::succeeded(&by_name(&ca));
    let refused = by_name(&other);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("certificate"),
        "{words}"
    );
    // Beside the gateway, with the port of its own configuration.
    let mut command = beside(&gateway);
    command.env_remove("PACS_GATEWAY_URL");
    command.env("PACS_GATEWAY__HTTP__BIND", format!("127.0.0.1:{port}"));
    peers::succeeded(&peers::run(command.args(["models", "ls"])));

    // A renewed certificate, here with another name so that it can be told apart.
    issue(&certificates, "DNS:renewed.example");
    wait_until("the renewed certificate", SOON, || {
        curl(&gateway, &ca, "renewed.example").status.success()
    });
    // One that cannot be used changes nothing.
    std::fs::write(pair.certificate, "no certificate").unwrap();
    gateway.wait_until_logged("certificates stay as they are");
    peers::succeeded(&curl(&gateway, &ca, "renewed.example"));
}
