//! Certificates made with `openssl`: authorities, and what they sign for servers and clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Options, peers};

/// A folder of certificates, which goes when it is dropped.
pub struct Certificates {
    dir: tempfile::TempDir,
}

/// PEM files of a certificate and of its private key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key, PKCS #8.
    pub key: PathBuf,
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Common name of the subject.
    pub common_name: &'a str,
    /// Subject alternative names as openssl writes them: `DNS:ct1.hospital,IP:127.0.0.1`; empty: none.
    pub names: &'a str,
    /// Extended key usage: `serverAuth`, `clientAuth`, or both with a comma.
    pub usage: &'a str,
    /// First second of its life, as `20200101000000Z`.
    pub from: &'a str,
    /// Last second.
    pub until: &'a str,
    /// `ec` (P-256) or `rsa:2048`.
    pub key: &'a str,
}

impl Default for Subject<'_> {
    fn default() -> Self {
        Self {
            common_name: "nobody",
            names: "",
            usage: "serverAuth,clientAuth",
            from: "20200101000000Z",
            until: "20490101000000Z",
            key: "ec",
        }
    }
}

impl Certificates {
    /// An empty folder; `None`, visibly, where openssl is not installed.
    pub fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        peers::available("openssl").then_some(Self { dir })
    }

    /// A new authority; its certificate is `{name}.pem`.
    pub fn authority(&self, name: &str) -> PathBuf {
        let dir = self.dir.path();
        let config = format!(
            "[req]\ndistinguished_name = dn\nx509_extensions = ext\n[dn]\n\
             [ext]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign,cRLSign\n\
             subjectKeyIdentifier = hash\n\
             [ca]\ndefault_ca = this\n[this]\ndatabase = {0}/{name}.index\nnew_certs_dir = {0}\n\
             rand_serial = yes\nunique_subject = no\ndefault_md = sha256\npolicy = any\n\
             [any]\ncommonName = supplied\n",
            dir.display()
        );
        std::fs::write(self.path(name, "cnf"), config).unwrap();
        std::fs::write(self.path(name, "index"), "").unwrap();
        let mut request = openssl("req");
        request.args(["-x509", "-new", "-nodes", "-days", "3650"]);
        request.arg("-config").arg(self.path(name, "cnf"));
        new_key(&mut request, "ec", &self.path(name, "key"));
        request.args(["-subj", &format!("/CN={name}")]);
        peers::succeeded(&peers::run(request.arg("-out").arg(self.path(name, "pem"))));
        self.path(name, "pem")
    }

    /// A certificate that an authority signs, in `{name}.pem` and `{name}.key`; one of that name is
    /// replaced.
    pub fn issue(&self, authority: &str, name: &str, subject: &Subject) -> Pair {
        let pair = Pair {
            certificate: self.path(name, "pem"),
            key: self.path(name, "key"),
        };
        let config = self.path(authority, "cnf");
        let mut request = openssl("req");
        request.args(["-new", "-nodes"]).arg("-config").arg(&config);
        new_key(&mut request, subject.key, &pair.key);
        request.args(["-subj", &format!("/CN={}", subject.common_name)]);
        let asked = self.path(name, "csr");
        peers::succeeded(&peers::run(request.arg("-out").arg(&asked)));
        let mut extensions = format!(
            "basicConstraints = CA:FALSE\nextendedKeyUsage = {}\n",
            subject.usage
        );
        if !subject.names.is_empty() {
            extensions += &format!("subjectAltName = {}\n", subject.names);
        }
        let file = self.path(name, "ext");
        std::fs::write(&file, extensions).unwrap();
        let mut sign = openssl("ca");
        sign.args(["-batch", "-notext"]).arg("-config").arg(&config);
        sign.arg("-cert").arg(self.path(authority, "pem"));
        sign.arg("-keyfile").arg(self.path(authority, "key"));
        sign.args(["-startdate", subject.from, "-enddate", subject.until]);
        sign.arg("-extfile").arg(&file).arg("-in").arg(&asked);
        peers::succeeded(&peers::run(sign.arg("-out").arg(&pair.certificate)));
        pair
    }

    /// A server on this machine: `localhost`, `127.0.0.1`.
    pub fn server(&self, authority: &str, name: &str) -> Pair {
        let subject = Subject {
            common_name: name,
            names: "DNS:localhost,IP:127.0.0.1",
            usage: "serverAuth,clientAuth",
            ..Subject::default()
        };
        self.issue(authority, name, &subject)
    }

    /// A client that has `{name}.hospital` as its DNS name.
    pub fn client(&self, authority: &str, name: &str) -> Pair {
        let subject = Subject {
            common_name: name,
            names: &format!("DNS:{name}.hospital"),
            usage: "clientAuth",
            ..Subject::default()
        };
        self.issue(authority, name, &subject)
    }

    /// A file of this folder.
    pub fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.{extension}"))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A gateway with a TLS listener on a free port that asks clients for certificates of these authorities.
pub fn secured<const N: usize>(server: &Pair, ca: [PathBuf; N]) -> Options {
    Options::new()
        .set("dicom.tls.bind", "127.0.0.1:0")
        .set("dicom.tls.certificate", server.certificate.clone())
        .set("dicom.tls.key", server.key.clone())
        .set("dicom.tls.ca", ca)
}

impl Pair {
    /// DCMTK's options for it.
    pub fn dcmtk(&self, ca: &Path) -> [PathBuf; 5] {
        let (key, certificate) = (self.key.clone(), self.certificate.clone());
        ["+tls".into(), key, certificate, "+cf".into(), ca.to_owned()]
    }

    /// The value of PEER_TLS for the scripts in tests/it/python.
    pub fn pynetdicom(&self, ca: &Path) -> String {
        let files = [ca, &self.certificate, &self.key];
        files.map(|file| file.display().to_string()).join(":")
    }

    /// SHA-256 of the certificate in lower case hexadecimal digits, as openssl computes it.
    pub fn fingerprint(&self) -> String {
        let mut print = openssl("x509");
        print.args(["-noout", "-fingerprint", "-sha256", "-in"]);
        let output = peers::run(print.arg(&self.certificate));
        peers::succeeded(&output);
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, digits) = text.trim().split_once('=').unwrap();
        digits.replace(':', "").to_lowercase()
    }
}

fn openssl(verb: &str) -> Command {
    let mut command = Command::new("openssl");
    command.arg(verb);
    command
}

fn new_key(request: &mut Command, kind: &str, file: &Path) {
    request.args(["-newkey", kind]);
    if kind == "ec" {
        request.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    }
    request.arg("-keyout").arg(file);
}
