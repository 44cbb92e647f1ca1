//! Certificates for tests, by openssl: an authority and what it issues.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::peers::{run, succeeded};

/// An authority whose certificate is `<dir>/<name>.pem`.
pub struct Authority {
    dir: PathBuf,
    name: String,
}

impl Authority {
    /// The authority of this name in `dir`, which is made if it is not there.
    pub fn new(dir: &Path, name: &str) -> Self {
        let authority = Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
        };
        if !authority.certificate().is_file() {
            let mut command = openssl(&["req", "-x509", "-days", "2"]);
            command
                .args(NEW_KEY)
                .args(["-subj", &format!("/CN={name}")]);
            command.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
            command.arg("-keyout").arg(authority.path("key"));
            command.arg("-out").arg(authority.certificate());
            succeeded(&run(&mut command));
        }
        authority
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.path("pem")
    }

    /// A certificate with its key, for a subject of this common name and these alternative names (as
    /// openssl has them: `DNS:a,IP:127.0.0.1`).
    pub fn issue(&self, name: &str, alternatives: &str) -> (PathBuf, PathBuf) {
        self.sign(name, alternatives, &["-days", "1"])
    }

    /// One that was valid once.
    pub fn issue_expired(&self, name: &str, alternatives: &str) -> (PathBuf, PathBuf) {
        let past = [
            "-startdate",
            "20200101000000Z",
            "-enddate",
            "20200102000000Z",
        ];
        self.sign(name, alternatives, &past)
    }

    fn sign(&self, name: &str, alternatives: &str, validity: &[&str]) -> (PathBuf, PathBuf) {
        let file = |extension: &str| self.dir.join(format!("{}-{name}.{extension}", self.name));
        let (certificate, key, request) = (file("pem"), file("key"), file("csr"));
        let mut command = openssl(&["req", "-new"]);
        command
            .args(NEW_KEY)
            .args(["-subj", &format!("/CN={name}")]);
        command.arg("-keyout").arg(&key).arg("-out").arg(&request);
        succeeded(&run(&mut command));
        // Of openssl's commands only `ca` takes dates that are over.
        let (settings, index) = (file("cnf"), file("index"));
        std::fs::write(&index, "").unwrap();
        let text = format!(
            "[ca]\ndefault_ca = us\n[us]\nnew_certs_dir = {}\ndatabase = {}\nrand_serial = yes\n\
             default_md = sha256\npolicy = any\nx509_extensions = extensions\n\
             [any]\ncommonName = supplied\n[extensions]\nsubjectAltName = {alternatives}\n",
            self.dir.display(),
            index.display(),
        );
        std::fs::write(&settings, text).unwrap();
        let mut command = openssl(&["ca", "-batch", "-notext"]);
        command.args(validity).arg("-config").arg(&settings);
        command.arg("-cert").arg(self.certificate());
        command.arg("-keyfile").arg(self.path("key"));
        command.arg("-in").arg(&request);
        succeeded(&run(command.arg("-out").arg(&certificate)));
        (certificate, key)
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.name))
    }
}

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}
