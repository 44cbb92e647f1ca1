//! Manifests signed with the real minisign: a good signature is accepted, everything else is refused
//! with file and reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::models::{Models, edit};
use crate::support::{Gateway, Options, SOON, peers, wait_until};

/// A key pair of minisign, without a password.
struct Key {
    dir: tempfile::TempDir,
}

impl Key {
    fn new() -> Self {
        let key = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let mut command = Command::new("minisign");
        command
            .arg("-GW")
            .arg("-p")
            .arg(key.path("pub"))
            .arg("-s")
            .arg(key.path("sec"));
        peers::succeeded(&peers::run(&mut command));
        key
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The line that begins with `RW`.
    fn line(&self) -> String {
        let text = std::fs::read_to_string(self.path("pub")).unwrap();
        text.lines().nth(1).unwrap().to_owned()
    }

    fn sign(&self, file: &Path) {
        let mut command = Command::new("minisign");
        command
            .arg("-S")
            .arg("-s")
            .arg(self.path("sec"))
            .arg("-m")
            .arg(file);
        peers::succeeded(&peers::run(&mut command));
    }
}

fn options(models: &Models, key: &Key, required: bool) -> Options {
    Options::new()
        .models(models.dir())
        .set("models.poll", "100ms")
        .set("models.trusted_keys", [key.line().as_str()])
        .set("models.require_signature", required)
}

#[test]
fn a_good_signature_is_accepted_and_each_other_one_refused() {
    if !peers::available("minisign") {
        return;
    }
    let (models, key) = (Models::new(), Key::new());
    let manifest = models.folder().join("model.toml");
    let signature = models.folder().join("model.toml.minisig");
    let refused = |required: bool, words: &[&str]| {
        let refusal = Gateway::refusal(&options(&models, &key, required));
        assert_eq!(refusal.code, Some(64), "{}", refusal.stderr);
        for word in words {
            assert!(
                refusal.stderr.contains(word),
                "no `{word}` in {}",
                refusal.stderr
            );
        }
    };
    refused(
        true,
        &[
            "cxr-phantom/model.toml",
            "model.toml.minisig is missing",
            "models.require_signature",
        ],
    );

    key.sign(&manifest);
    let gateway = Gateway::start(&options(&models, &key, true));
    let shown = gateway.get("/api/v1/models");
    assert_eq!(shown["models"][0]["signature"], "verified", "{shown}");

    // A version that somebody else has signed does not get in while the gateway runs either.
    let other = Key::new();
    models.add("1.1.0", |folder| other.sign(&folder.join("model.toml")));
    models.roles("serve = \"1.1.0\"\n");
    wait_until("a reason", SOON, || {
        let shown = gateway.get("/api/v1/models").to_string();
        shown.contains("1.1.0/model.toml.minisig: none of models.trusted_keys has made it")
    });
    assert_eq!(
        gateway.get("/api/v1/models")["models"][0]["version"],
        "1.0.0"
    );
    drop(gateway);
    std::fs::remove_file(models.folder().join("serving.toml")).unwrap();

    edit(&manifest, "threshold = 0.5", "threshold = 0.4");
    refused(
        false,
        &["cxr-phantom/model.toml", "it does not fit the manifest"],
    );
    std::fs::write(&signature, "no signature").unwrap();
    refused(false, &["model.toml.minisig is no signature"]);
    // Not required and not there: as if there were no keys.
    std::fs::remove_file(&signature).unwrap();
    let gateway = Gateway::start(&options(&models, &key, false));
    assert_eq!(
        gateway.get("/api/v1/models")["models"][0]["signature"],
        "none"
    );
}

#[test]
fn what_is_no_key_is_refused() {
    let options = Options::new().set(
        "models.trusted_keys",
        ["untrusted comment: minisign public key"],
    );
    let refusal = Gateway::refusal(&options);
    assert_eq!(refusal.code, Some(64));
    assert!(
        refusal.stderr.contains("models.trusted_keys"),
        "{}",
        refusal.stderr
    );
    let options = Options::new().set("models.require_signature", true);
    let refusal = Gateway::refusal(&options);
    assert!(
        refusal
            .stderr
            .contains("models.require_signature: needs a key"),
        "{}",
        refusal.stderr
    );
}
