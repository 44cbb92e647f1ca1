//! The real binary as a child process: started, asked, killed, started again on the same spool.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::options::{Options, repository};
use super::{SOON, reaper, wait_for, wait_until};

/// Models are loaded and warmed up before a gateway is ready.
const START: Duration = Duration::from_secs(60);

/// A gateway and its folder, which both go when it is dropped.
pub struct Gateway {
    dir: tempfile::TempDir,
    child: Child,
    running: bool,
    log: Arc<Mutex<String>>,
    /// Port of the DICOM listener.
    pub dicom_port: u16,
    /// Port of the DICOM listener with TLS.
    pub tls_port: u16,
    /// Port of the HTTP server.
    pub http_port: u16,
    /// Token of the local operator.
    token: String,
}

/// How a gateway ended that was not meant to run.
pub struct Refusal {
    /// Exit code.
    pub code: Option<i32>,
    /// Everything it said.
    pub stderr: String,
}

impl Gateway {
    /// Starts a gateway in a new folder and waits until it is ready.
    pub fn start(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        configure(dir.path(), options);
        let mut gateway = Self {
            child: serve(dir.path()).spawn().unwrap(),
            dir,
            running: true,
            log: Arc::default(),
            dicom_port: 0,
            tls_port: 0,
            http_port: 0,
            token: String::new(),
        };
        gateway.get_ready().unwrap();
        gateway
    }

    /// Runs a gateway that is expected to refuse its configuration.
    pub fn refusal(options: &Options) -> Refusal {
        Self::refusal_of("serve", options)
    }

    /// The same for any subcommand that reads the configuration.
    pub fn refusal_of(subcommand: &str, options: &Options) -> Refusal {
        let dir = tempfile::tempdir().unwrap();
        configure(dir.path(), options);
        let mut child = configured(subcommand, dir.path()).spawn().unwrap();
        reaper::adopt(child.id());
        let mut stderr = String::new();
        let mut pipe = child.stderr.take().unwrap();
        // A gateway that starts instead would never close the pipe.
        let reader = std::thread::spawn(move || {
            let _ = pipe.read_to_string(&mut stderr);
            stderr
        });
        let ended = exit_status(&mut child, START);
        if ended.is_none() {
            let _ = child.kill();
        }
        let status = ended.unwrap_or_else(|| child.wait().unwrap());
        reaper::spare(child.id());
        Refusal {
            code: status.code(),
            stderr: reader.join().unwrap(),
        }
    }

    /// Starts again on the same spool. The earlier process must have ended.
    #[track_caller]
    pub fn restart(&mut self) {
        self.try_restart().unwrap();
    }

    /// The same where it may refuse, as on a full disk: says how it ended instead of getting ready.
    pub fn try_restart(&mut self) -> Result<(), String> {
        assert!(!self.running, "the gateway still runs");
        self.child = serve(self.dir.path()).spawn().unwrap();
        self.running = true;
        self.get_ready()
    }

    /// The same with another configuration.
    pub fn restart_with(&mut self, options: &Options) {
        configure(self.dir.path(), options);
        self.restart();
    }

    /// Writes another configuration, which nobody has read yet.
    pub fn rewrite(&self, options: &Options) {
        configure(self.dir.path(), options);
    }

    /// Power cut: SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait(SOON);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, when it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = exit_status(&mut self.child, Duration::ZERO)?;
        reaper::spare(self.child.id());
        self.running = false;
        Some(status)
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let status = wait_for("end of the gateway", deadline, || {
            exit_status(&mut self.child, Duration::ZERO)
        });
        reaper::spare(self.child.id());
        self.running = false;
        status
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder that holds configuration, spool and findings.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The folder that `spool.dir` names.
    fn spool_dir(&self) -> PathBuf {
        let text = std::fs::read_to_string(self.dir().join("gateway.toml")).unwrap();
        let options: toml::Table = toml::from_str(&text).unwrap();
        PathBuf::from(options["spool"]["dir"].as_str().unwrap())
    }

    /// The folder of the accepted instances.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("spool/data")
    }

    /// Everything it has logged in this folder, all runs.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The same, which is forgotten then.
    pub fn take_log(&self) -> String {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Waits until it has logged these words: a line can come after what it tells of.
    #[track_caller]
    pub fn wait_until_logged(&self, words: &str) {
        wait_until(&format!("`{words}` in the log"), SOON, || {
            self.log().contains(words)
        });
    }

    /// Header of whoever operates it.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Status and body of an HTTP answer.
    pub fn ask(&self, path: &str) -> Option<(u16, String)> {
        let mut answer = self.request(path)?;
        let body = answer.body_mut().read_to_string().ok()?;
        Some((answer.status().as_u16(), body))
    }

    /// Status, media type and body of an HTTP answer that is no text.
    pub fn fetch(&self, path: &str) -> Option<(u16, String, Vec<u8>)> {
        let mut answer = self.request(path)?;
        let kind = answer.headers().get("content-type")?.to_str().ok()?;
        let (status, kind) = (answer.status().as_u16(), kind.to_owned());
        Some((status, kind, answer.body_mut().read_to_vec().ok()?))
    }

    fn request(&self, path: &str) -> Option<ureq::http::Response<ureq::Body>> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build()
            .into();
        let url = format!("http://127.0.0.1:{}{path}", self.http_port);
        let request = agent
            .get(&url)
            .header("Authorization", self.authorization());
        request.call().ok()
    }

    /// The JSON body of a successful answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self
            .ask(path)
            .unwrap_or_else(|| panic!("GET {path} failed"));
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The ledger's report on a study, once it knows it.
    #[track_caller]
    pub fn study(&self, uid: &str) -> Value {
        wait_for("study in the ledger", SOON, || {
            let (status, body) = self.ask(&format!("/api/v1/studies/{uid}"))?;
            (status == 200).then(|| serde_json::from_str(&body).unwrap())
        })
    }

    /// Waits until the ledger calls these studies done: finished, and every message confirmed.
    #[track_caller]
    pub fn wait_until_done(&self, studies: &[&str]) {
        for uid in studies {
            wait_until(&format!("end of study {uid}"), SOON, || {
                self.study(uid)["state"] == "done"
            });
        }
    }

    /// A metric: the sum of all its samples that carry these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (_, text) = self.ask("/metrics").unwrap();
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        text.lines()
            .filter_map(|line| line.strip_prefix("pacs_gateway_")?.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter(|rest| labels.iter().all(|label| rest.contains(label)))
            .map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until the broker cannot be reached for this reason: a label of the metric, and words in
    /// the state and in the log.
    pub fn wait_until_away(&self, reason: &str, words: &str) {
        wait_until(words, SOON, || {
            let broker = &self.get("/api/v1/status")["broker"];
            let error = broker["error"].as_str();
            error.is_some_and(|error| error.contains(words)) && self.connect_failures(reason) >= 1.0
        });
        self.wait_until_logged(words);
    }

    /// Attempts to reach the broker that failed for this reason.
    pub fn connect_failures(&self, reason: &str) -> f64 {
        self.metric("broker_connect_failures_total", &[("reason", reason)])
    }

    /// Memory that the process holds, in bytes.
    pub fn resident_memory(&self) -> f64 {
        let (_, text) = self.ask("/metrics").unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        line.unwrap().parse().unwrap()
    }

    /// What the file broker has written; a line that it is writing is none yet.
    pub fn messages(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir().join("findings")).unwrap_or_default();
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The messages about each study, in order.
    pub fn messages_by_study(&self) -> BTreeMap<String, Vec<Value>> {
        by_study(self.messages())
    }

    /// Waits for the line that says which ports are in use.
    fn get_ready(&mut self) -> Result<(), String> {
        reaper::adopt(self.child.id());
        let (log, already) = (Arc::clone(&self.log), self.log().len());
        let stderr = BufReader::new(self.child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let ready = wait_for("\"gateway is ready\" in the log", START, || {
            if let Some(status) = self.ended() {
                return Some(Err(format!("the gateway ended with {status}")));
            }
            let log = self.log();
            let lines = log.get(already..)?.lines();
            lines
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["message"] == "gateway is ready")
                .map(Ok)
        })?;
        // A listener that is closed has none.
        let port = |key: &str| u16::try_from(ready[key].as_u64().unwrap_or(0)).unwrap();
        (self.dicom_port, self.http_port) = (port("dicom_port"), port("http_port"));
        let token = std::fs::read_to_string(self.spool_dir().join("operator.token"));
        self.token = token.unwrap_or_default().trim().to_owned();
        self.tls_port = port("dicom_tls_port");
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.running {
            let _ = self.child.kill();
            let _ = self.child.wait();
            reaper::spare(self.child.id());
        }
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}---", self.log());
        }
    }
}

/// Messages grouped by the study they speak of.
pub fn by_study(messages: Vec<Value>) -> BTreeMap<String, Vec<Value>> {
    let mut studies = BTreeMap::<String, Vec<Value>>::new();
    for message in messages {
        let uid = message["data"]["study"]["study_instance_uid"].as_str();
        let uid = uid.unwrap().to_owned();
        studies.entry(uid).or_default().push(message);
    }
    studies
}

/// The binary with an environment of its own: no override of the caller's reaches it.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pacs-gateway"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PACS_GATEWAY") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        let library = repository().join(".deps/onnxruntime/lib/libonnxruntime.so");
        command.env("ORT_DYLIB_PATH", library);
    }
    command
}

fn configure(dir: &Path, options: &Options) {
    std::fs::write(dir.join("gateway.toml"), options.render(dir)).unwrap();
}

/// The binary as somebody on the gateway's machine starts it: it finds port and token by itself.
pub fn beside(gateway: &Gateway) -> Command {
    let mut command = binary();
    command.env("PACS_GATEWAY_CONFIG", gateway.dir().join("gateway.toml"));
    command.env(
        "PACS_GATEWAY_URL",
        format!("http://127.0.0.1:{}", gateway.http_port),
    );
    command
}

fn serve(dir: &Path) -> Command {
    configured("serve", dir)
}

fn configured(subcommand: &str, dir: &Path) -> Command {
    let mut command = binary();
    command
        .arg(subcommand)
        .arg("--config")
        .arg(dir.join("gateway.toml"));
    command.current_dir(dir).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn exit_status(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let started = std::time::Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return Some(status),
            None if started.elapsed() >= deadline => return None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
