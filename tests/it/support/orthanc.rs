//! Orthanc as a peer: a PACS with a REST interface, as a process of its own with everything it writes
//! inside one folder.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::ports::free_port;
use super::{Gateway, Instance, SOON, peers, reaper, wait_for, wait_until};

/// Its AE title.
pub const TITLE: &str = "ORTHANC";

/// Longest answer: a transfer of a study.
const DEADLINE: Duration = Duration::from_secs(120);

/// An Orthanc that is configured and may not run yet.
pub struct Orthanc {
    dir: tempfile::TempDir,
    child: Option<Child>,
    http_port: u16,
    /// Port of its DICOM server.
    pub dicom_port: u16,
}

impl Orthanc {
    /// Chooses ports; `None` when Orthanc is not installed.
    pub fn new() -> Option<Self> {
        peers::available("Orthanc").then(|| Self {
            dir: tempfile::tempdir().unwrap(),
            child: None,
            http_port: free_port(),
            dicom_port: free_port(),
        })
    }

    /// Where its DICOM server is, as `dicom.peers` says it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.dicom_port)
    }

    /// Starts it with this gateway as a modality that it knows.
    pub fn start(&mut self, gateway: &Gateway, transcoding: bool) {
        let storage = self.dir.path().join("storage");
        let config = json!({
            "Name": "test",
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": TITLE,
            "AuthenticationEnabled": false,
            "SyncStorageArea": false,
            "TranscodeDicomProtocol": transcoding,
            "DicomModalities": { "gateway": ["PACSGATEWAY", "127.0.0.1", gateway.dicom_port] },
        });
        let path = self.dir.path().join("orthanc.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let program = peers::find("Orthanc").unwrap();
        let mut command = Command::new(program);
        command.arg(path).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        reaper::adopt(child.id());
        self.child = Some(child);
        wait_until("Orthanc", SOON, || self.ask("/system").is_some());
    }

    /// Tells it that the gateway has moved.
    pub fn find(&self, gateway: &Gateway) {
        let modality =
            json!({ "AET": "PACSGATEWAY", "Host": "127.0.0.1", "Port": gateway.dicom_port });
        let request = agent().put(self.url("/modalities/gateway"));
        let (status, body) = answer(request.send(modality.to_string())).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }

    /// Uploads an instance over HTTP; gives Orthanc's name of its study.
    #[track_caller]
    pub fn upload(&self, instance: &Instance) -> String {
        let request = agent().post(self.url("/instances"));
        let (status, body) = answer(request.send(instance.part_10())).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["ParentStudy"].as_str().unwrap().to_owned()
    }

    /// Status and body of a POST with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = agent().post(self.url(path));
        let (status, body) = answer(request.send(body.to_string())).unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The JSON body of a GET; `None` unless it succeeded.
    pub fn ask(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&self.fetch(path)?).ok()
    }

    /// The body of a GET; `None` unless it succeeded.
    pub fn fetch(&self, path: &str) -> Option<Vec<u8>> {
        let (status, body) = answer(agent().get(self.url(path)).call())?;
        (status == 200).then_some(body)
    }

    /// Asks it for a Storage Commitment and waits for the gateway's report.
    #[track_caller]
    pub fn commitment(&self, instances: &[(&str, &str)]) -> Value {
        let body = json!({ "DicomInstances": instances });
        let (status, asked) = self.post("/modalities/gateway/storage-commitment", &body);
        assert_eq!(status, 200, "{asked}");
        let path = asked["Path"].as_str().unwrap();
        wait_for("the report at Orthanc", SOON, || {
            self.ask(path)
                .filter(|report| report["Status"] != "Pending")
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            reaper::spare(child.id());
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(DEADLINE))
        .http_status_as_error(false)
        .build()
        .into()
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<(u16, Vec<u8>)> {
    let mut answer = result.ok()?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(1 << 30);
    Some((status, body.read_to_vec().ok()?))
}
