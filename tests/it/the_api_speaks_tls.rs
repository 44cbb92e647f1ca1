//! HTTPS: a certificate that is renewed while the gateway runs, clients that stall in the handshake or
//! speak something else, and our own commands over it. The peers are curl and OpenSSL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::gateway::{beside, binary};
use crate::support::{Gateway, Options, SOON, peers, wait_until};

struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Self { dir };
        let subject = ["-subj", "/CN=Tests", "-days", "2"];
        let (key, ca) = (authority.file("ca.key"), authority.ca());
        let mut command = openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
        command
            .args(["ec_paramgen_curve:P-256", "-nodes", "-keyout"])
            .arg(key);
        peers::succeeded(&peers::run(command.arg("-out").arg(ca).args(subject)));
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// Writes certificate and key for these names, in place of those before.
    fn issue(&self, names: &str) {
        let (key, new_key) = (self.file("gateway.key"), self.file("new.key"));
        let (certificate, request) = (self.file("gateway.pem"), self.file("request"));
        let extensions = self.file("extensions");
        std::fs::write(&extensions, format!("subjectAltName={names}\n")).unwrap();
        let mut command = openssl(&["req", "-new", "-newkey", "ec", "-pkeyopt"]);
        command.args([
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=gateway",
            "-keyout",
        ]);
        peers::succeeded(&peers::run(command.arg(&new_key).arg("-out").arg(&request)));
        let new = self.file("new.pem");
        let mut command = openssl(&["x509", "-req", "-days", "1", "-CAcreateserial", "-in"]);
        command
            .arg(request)
            .arg("-CA")
            .arg(self.ca())
            .arg("-CAkey")
            .arg(self.file("ca.key"));
        command
            .arg("-extfile")
            .arg(extensions)
            .arg("-out")
            .arg(&new);
        peers::succeeded(&peers::run(&mut command));
        std::fs::rename(new_key, key).unwrap();
        std::fs::rename(new, certificate).unwrap();
    }

    fn options(&self) -> Options {
        Options::new()
            .set("http.tls.certificate", self.file("gateway.pem"))
            .set("http.tls.key", self.file("gateway.key"))
            .set("http.probe_bind", "127.0.0.1:0")
    }
}

fn openssl(words: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(words);
    command
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
    if !peers::available("openssl") || !peers::available("curl") {
        return;
    }
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("DNS:gateway.example,DNS:localhost");
    let gateway = Gateway::start(&authority.options());
    let port = gateway.http_port;
    peers::succeeded(&curl(&gateway, &authority.ca(), "gateway.example"));
    assert!(
        !curl(&gateway, &other.ca(), "gateway.example")
            .status
            .success()
    );
    assert!(
        !curl(&gateway, &authority.ca(), "other.example")
            .status
            .success()
    );

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
    peers::succeeded(&curl(&gateway, &authority.ca(), "gateway.example"));
    for stream in &mut stalled {
        stream.set_read_timeout(Some(SOON)).unwrap();
        // Closed, with or without an alert, by the deadline of the handshake.
        let _ = stream.read_to_end(&mut said);
    }
    for (version, accepted) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let mut command = openssl(&["s_client", version, "-verify_return_error", "-CAfile"]);
        command.arg(authority.ca());
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
    peers::succeeded(&by_name(&authority.ca()));
    let refused = by_name(&other.ca());
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
    authority.issue("DNS:renewed.example");
    wait_until("the renewed certificate", SOON, || {
        curl(&gateway, &authority.ca(), "renewed.example")
            .status
            .success()
    });
    // One that cannot be used changes nothing.
    std::fs::write(authority.file("gateway.pem"), "no certificate").unwrap();
    wait_until("a warning", SOON, || {
        gateway.log().contains("certificates stay as they are")
    });
    peers::succeeded(&curl(&gateway, &authority.ca(), "renewed.example"));
}

#[test]
fn and_says_at_start_what_does_not_go_together() {
    if !peers::available("openssl") {
        return;
    }
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("DNS:gateway.example");
    other.issue("DNS:gateway.example");
    for (certificate, key, words) in [
        (
            authority.file("gateway.pem"),
            other.file("gateway.key"),
            "http.tls",
        ),
        (
            authority.file("gateway.pem"),
            PathBuf::new(),
            "http.tls.key",
        ),
        (
            PathBuf::new(),
            authority.file("gateway.key"),
            "http.tls.certificate",
        ),
        (
            PathBuf::from("/nonexistent"),
            authority.file("gateway.key"),
            "/nonexistent",
        ),
    ] {
        let options = Options::new()
            .set("http.tls.certificate", certificate)
            .set("http.tls.key", key);
        let refusal = Gateway::refusal(&options);
        assert_eq!(refusal.code, Some(64), "{}", refusal.stderr);
        assert!(
            refusal.stderr.contains(words),
            "{words}: {}",
            refusal.stderr
        );
    }
}
