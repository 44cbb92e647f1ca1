//! A new version of a model takes over while studies arrive all the time: none is lost, none is
//! refused, each message names the version that made it. A version that is wrong never answers, and
//! the gateway says why. One command goes back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::files::copy_dir;
use crate::support::gateway::{beside, binary};
use crate::support::golden;
use crate::support::models::{Models, edit};
use crate::support::options::repository;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, peers, wait_until};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// A gateway that looks at its models five times a second, and where its token is.
fn gateway(models: &Models) -> (Gateway, tempfile::NamedTempFile) {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), format!("{TOKEN}\n")).unwrap();
    let options = Options::new()
        .models(models.dir())
        .set("models.poll", "200ms")
        .set("http.operate_token_files", [token.path().to_owned()]);
    (Gateway::start(&options), token)
}

/// `pacs-gateway models …`
fn models_command(gateway: &Gateway, token: &tempfile::NamedTempFile, words: &[&str]) -> Output {
    let mut command = binary();
    command.arg("models");
    command.args(["--url", &format!("http://127.0.0.1:{}", gateway.http_port)]);
    command.args(words).arg("--token-file").arg(token.path());
    peers::run(&mut command)
}

/// The version that answers.
fn served(gateway: &Gateway) -> String {
    let answer = gateway.get("/api/v1/models");
    let models = answer["models"].as_array().unwrap();
    let served = models.iter().find(|model| model["role"] == "served");
    served.unwrap()["version"].as_str().unwrap().to_owned()
}

/// Why the folder was refused the last time.
fn reasons(gateway: &Gateway) -> Vec<String> {
    let answer = gateway.get("/api/v1/models");
    let refused = answer["refused"].as_array().unwrap().iter();
    refused
        .map(|refused| refused["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn refuses(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in words {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
}

/// One study after the other, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    sender: std::thread::JoinHandle<()>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (told, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let file = repository().join("models/cxr-phantom/1.0.0/golden/opacity/1.dcm");
        let sender = std::thread::spawn(move || {
            let files: [PathBuf; 1] = [file];
            while !told.load(Ordering::Relaxed) {
                // Another study each time; a status other than Success fails storescu.
                let sent = peers::storescu(port, &["+IS", "1", "+IR", "1"], &files);
                peers::succeeded(&sent);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, sent, sender }
    }

    /// Waits for some more studies.
    fn go_on(&self, gateway: &Gateway) {
        let (sent, made) = (self.sent.load(Ordering::Relaxed), gateway.messages().len());
        wait_until("some more studies", SOON, || {
            self.sent.load(Ordering::Relaxed) >= sent + 3 && gateway.messages().len() >= made + 3
        });
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

#[test]
fn no_study_is_lost_and_each_message_names_its_version() {
    if !peers::available("storescu") {
        return;
    }
    let models = Models::new();
    let (gateway, token) = gateway(&models);
    assert_eq!(served(&gateway), "1.0.0");
    let threads = model_threads(&gateway);
    let load = Load::start(gateway.dicom_port);
    load.go_on(&gateway);

    models.add("1.1.0", |_| {});
    models.roles("serve = \"1.1.0\"\n");
    wait_until("version 1.1.0", SOON, || served(&gateway) == "1.1.0");
    load.go_on(&gateway);

    let table = peers::run(beside(&gateway).args(["models", "ls"]));
    peers::succeeded(&table);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("cxr-phantom  1.1.0    served"), "{table}");

    // Each of these is loaded beside the one that answers, and thrown away.
    models.add("1.2.0", |folder| {
        edit(
            &folder.join("golden/jpeg-ls/expected.json"),
            "0.0083845",
            "0.0093845",
        );
    });
    let told = models_command(&gateway, &token, &["serve", "cxr-phantom", "1.2.0"]);
    refuses(&told, &["golden case jpeg-ls", "differs by 1.0"]);
    models.add("1.3.0", |folder| {
        let graph = folder.join("model.onnx");
        let mut bytes = std::fs::read(&graph).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(graph, bytes).unwrap();
    });
    models.roles("serve = \"1.3.0\"\n");
    wait_until("refusal of 1.3.0", SOON, || {
        reasons(&gateway)
            .iter()
            .any(|reason| reason.contains("1.3.0") && reason.contains("sha256: manifest says"))
    });
    models.add("1.4.0", |folder| {
        edit(&folder.join("model.toml"), "rows = 128", "rows = 64")
    });
    let told = models_command(&gateway, &token, &["serve", "cxr-phantom", "1.4.0"]);
    refuses(
        &told,
        &["1.4.0/model.toml", "[N, 1, 64, 128]", "[N, 1, 128, 128]"],
    );
    let told = models_command(&gateway, &token, &["serve", "cxr-phantom", "9.9.9"]);
    refuses(&told, &["9.9.9: there is no manifest of this version"]);
    assert_eq!(served(&gateway), "1.1.0");
    assert!(
        gateway.metric(
            "model_reloads_total",
            &[("model", "cxr-phantom"), ("result", "refused")]
        ) >= 4.0
    );
    load.go_on(&gateway);

    // Back, by one command.
    let told = models_command(&gateway, &token, &["serve", "cxr-phantom", "1.0.0"]);
    peers::succeeded(&told);
    assert_eq!(served(&gateway), "1.0.0");
    assert_eq!(reasons(&gateway), Vec::<String>::new());
    let written = std::fs::read_to_string(models.folder().join("serving.toml")).unwrap();
    assert_eq!(written, "serve = \"1.0.0\"\n");
    let infos = [("version", "1.0.0"), ("version", "1.1.0")]
        .map(|label| gateway.metric("models_serving", &[label]));
    assert_eq!(infos, [1.0, 0.0], "models_serving");
    let before = gateway.messages().len();
    load.go_on(&gateway);

    let sent = load.end();
    // The engines of every version that was tried have ended with their last study.
    wait_until("the end of the other engines", SOON, || {
        model_threads(&gateway) == threads
    });
    wait_until("a message about each study", SOON, || {
        gateway.messages().len() >= sent
    });
    let messages = gateway.messages();
    let studies = gateway.messages_by_study();
    assert_eq!(
        (messages.len(), studies.len()),
        (sent, sent),
        "one message per study"
    );
    let mut versions = BTreeSet::new();
    // What Python computed for version 1.0.0.
    let cases = golden::cases();
    let case = cases.iter().find(|case| case.name == "opacity").unwrap();
    let golden = case.expected["probabilities"]["pneumothorax"]
        .as_f64()
        .unwrap();
    for message in &messages {
        let data = &message["data"];
        assert_eq!(data["outcome"], "finding", "{message}");
        let version = data["model"]["version"].as_str().unwrap();
        // And its numbers are that version's: the graph of 1.1.0 adds a quarter to each logit.
        let shift = if version == "1.1.0" { 0.25 } else { 0.0 };
        let wanted = 1.0 / (1.0 + (-(golden / (1.0 - golden)).ln() - shift).exp());
        assert!((pneumothorax(data) - wanted).abs() < 1e-4, "{message}");
        versions.insert(version.to_owned());
    }
    assert_eq!(
        versions,
        BTreeSet::from(["1.0.0".to_owned(), "1.1.0".to_owned()])
    );
    // A study in work at the switch keeps its version; soon after, only the new one speaks.
    let last = messages.last().unwrap();
    assert!(messages.len() > before);
    assert_eq!(last["data"]["model"]["version"], "1.0.0");
    assert_eq!(
        gateway.metric("dimse_requests_total", &[("status", "0000")]),
        sent as f64
    );
}

/// Threads that run models.
fn model_threads(gateway: &Gateway) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("model-")).count()
}

fn pneumothorax(data: &Value) -> f64 {
    let findings = data["findings"].as_array().unwrap().iter();
    let mut found = findings.filter(|finding| finding["label"] == "pneumothorax");
    found.next().unwrap()["probability"].as_f64().unwrap()
}

#[test]
fn a_volume_that_is_swapped_and_emptied() {
    // Kubernetes: the files are links through one link, which is replaced.
    let volume = tempfile::tempdir().unwrap();
    let models = Models::new();
    models.add("1.1.0", |_| {});
    let folder = volume.path().join("cxr-phantom");
    std::fs::create_dir(&folder).unwrap();
    for (generation, version) in [("..old", "1.0.0"), ("..new", "1.1.0")] {
        let content = folder.join(generation);
        copy_dir(&models.folder(), &content);
        std::fs::write(
            content.join("serving.toml"),
            format!("serve = \"{version}\"\n"),
        )
        .unwrap();
    }
    std::os::unix::fs::symlink("..old", folder.join("..data")).unwrap();
    for name in ["model.toml", "serving.toml", "1.0.0", "1.1.0"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
    let options = Options::new()
        .models(volume.path().to_owned())
        .set("models.poll", "100ms");
    let gateway = Gateway::start(&options);
    assert_eq!(served(&gateway), "1.0.0");
    std::os::unix::fs::symlink("..new", folder.join("..tmp")).unwrap();
    std::fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
    wait_until("version 1.1.0", SOON, || served(&gateway) == "1.1.0");
    // A volume that is gone for a moment is no wish to serve nothing.
    std::fs::rename(&folder, volume.path().join(".away")).unwrap();
    wait_until("a reason", SOON, || {
        reasons(&gateway)
            .iter()
            .any(|reason| reason.contains("holds no model"))
    });
    assert_eq!(served(&gateway), "1.1.0");
}

#[test]
fn a_model_that_comes_and_goes() {
    let models = Models::new();
    let options = Options::new()
        .models(models.dir())
        .set("models.poll", "100ms");
    let gateway = Gateway::start(&options);
    let running = || gateway.metric("model_info", &[]);
    assert_eq!(running(), 1.0);
    let (forest, hidden) = (
        models.dir().join("wdbc-forest"),
        models.dir().join(".forest"),
    );
    copy_dir(&repository().join("models/wdbc-forest"), &hidden);
    std::fs::rename(&hidden, &forest).unwrap();
    wait_until("a second model", SOON, || running() == 2.0);
    // Half of it is no model, and what runs goes on.
    std::fs::remove_file(forest.join("1.0.0/model.onnx")).unwrap();
    wait_until("a reason", SOON, || {
        reasons(&gateway)
            .iter()
            .any(|reason| reason.contains("wdbc-forest/model.toml: version: cannot read"))
    });
    assert_eq!(running(), 2.0);
    std::fs::remove_dir_all(&forest).unwrap();
    wait_until("one model", SOON, || running() == 1.0);
    let removed = [("model", "wdbc-forest"), ("result", "removed")];
    assert_eq!(gateway.metric("model_reloads_total", &removed), 1.0);
    assert_eq!(reasons(&gateway), Vec::<String>::new());
}

#[test]
fn a_model_that_was_refused_from_the_beginning_is_served_by_command() {
    let models = Models::new();
    let (gateway, token) = gateway(&models);
    let new = models.dir().join("wdbc-forest");
    let hidden = models.dir().join(".new");
    copy_dir(&repository().join("models/wdbc-forest"), &hidden);
    std::fs::write(hidden.join("serving.toml"), "serve = \"9.0.0\"\n").unwrap();
    std::fs::rename(&hidden, &new).unwrap();
    wait_until("a reason", SOON, || {
        reasons(&gateway)
            .iter()
            .any(|reason| reason.contains("9.0.0: there is no manifest"))
    });
    let told = models_command(&gateway, &token, &["serve", "wdbc-forest", "1.0.0"]);
    peers::succeeded(&told);
    assert_eq!(
        gateway.metric("models_serving", &[("model", "wdbc-forest")]),
        1.0
    );
    let told = models_command(&gateway, &token, &["serve", "nothing", "1.0.0"]);
    refuses(&told, &["there is no model `nothing`"]);
}

#[test]
fn changing_needs_the_token() {
    let models = Models::new();
    let (with, _token) = gateway(&models);
    let without = Gateway::start(&Options::new().models(models.dir()));
    let post = |gateway: &Gateway, token: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(SOON))
            .http_status_as_error(false)
            .build()
            .into();
        let url = format!(
            "http://127.0.0.1:{}/api/v1/models/reload",
            gateway.http_port
        );
        let request = agent.post(&url).header("Authorization", token);
        let mut answer = request.send_empty().unwrap();
        (
            answer.status().as_u16(),
            answer.body_mut().read_to_string().unwrap(),
        )
    };
    assert_eq!(post(&without, &format!("Bearer {TOKEN}")).0, 401);
    for wrong in [
        "",
        "Bearer",
        "Bearer wrong",
        &format!("Basic {TOKEN}"),
        &format!("Bearer {TOKEN}x"),
    ] {
        assert_eq!(post(&with, wrong).0, 401, "{wrong}");
    }
    let (status, body) = post(&with, &format!("Bearer {TOKEN}"));
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"switched":[],"removed":[],"refused":[]}"#)
    );
    assert!(!with.log().contains(TOKEN));
    // The default is that of the folder's own manifest, and a study goes on as ever.
    assert_eq!(
        RawPeer::send(with.dicom_port, "CT1", &[&Study::chest().image(1)]),
        [0]
    );
}
