//! PACS to be asked: DCMTK's `dcmqrscp`, Orthanc, and one of pynetdicom whose habits a scenario
//! chooses.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::certificates::Pair;
use super::options::repository;
use super::ports::free_port;
use super::{Instance, SOON, peers, reaper, wait_until};
use crate::support::gateway::binary;

/// Its AE title.
pub const AE_TITLE: &str = "TESTPACS";

/// A running PACS, which ends when it is dropped.
pub struct Pacs {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Pacs {
    /// DCMTK's.
    pub fn dcmtk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let folder = dir.path().join("images");
        std::fs::create_dir(&folder).unwrap();
        let config = dir.path().join("dcmqrscp.cfg");
        let text = format!(
            "NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
             HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n\
             AETable BEGIN\n{AE_TITLE} {} RW (16, 64mb) ANY\nAETable END\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("dcmqrscp");
        command.arg("--config").arg(&config);
        Self::listening(command, dir, port)
    }

    /// Orthanc; `None` when it is not installed.
    pub fn orthanc() -> Option<Self> {
        let Some(program) = peers::find("Orthanc") else {
            eprintln!("SKIPPED: Orthanc is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let folder = dir.path().join("images");
        let config = dir.path().join("orthanc.json");
        let settings = serde_json::json!({
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "HttpServerEnabled": false,
            "DicomPort": port,
            "DicomAet": AE_TITLE,
            "DicomAlwaysAllowFind": true,
            "DicomAlwaysAllowStore": true,
            "Plugins": [],
        });
        std::fs::write(&config, settings.to_string()).unwrap();
        let mut command = Command::new(program);
        command.arg(&config);
        Some(Self::listening(command, dir, port))
    }

    /// Starts it and waits for its port.
    fn listening(mut command: Command, dir: tempfile::TempDir, port: u16) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        reaper::adopt(child.id());
        wait_until("PACS", SOON, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { child, dir, port }
    }

    /// pynetdicom's, with a habit of `tests/it/python/pacs.py`.
    pub fn pynetdicom(habit: &str) -> Self {
        Self::printing(&mut script(habit))
    }

    /// The same with TLS: who it is, and whose clients it takes.
    pub fn pynetdicom_with_tls(habit: &str, who: &Pair, ca: &Path) -> Self {
        Self::printing(script(habit).env("PEER_TLS", who.pynetdicom(ca)))
    }

    /// Starts it and reads its port.
    fn printing(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        reaper::adopt(child.id());
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Self {
            child,
            dir: tempfile::tempdir().unwrap(),
            port: line.trim().parse().unwrap(),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `AE@host:port`.
    pub fn target(&self) -> String {
        format!("{AE_TITLE}@127.0.0.1:{}", self.port)
    }

    /// Sends it instances.
    #[track_caller]
    pub fn fill(&self, instances: &[Instance]) {
        let files = self.dir.path().join("files");
        std::fs::create_dir_all(&files).unwrap();
        for instance in instances {
            let file = files.join(format!("{}.dcm", instance.sop_instance));
            std::fs::write(file, instance.part_10()).unwrap();
        }
        let mut send = binary();
        let send = send.args(["send", "--to", &self.target()]).arg(&files);
        peers::succeeded(&peers::run(send));
    }
}

fn script(habit: &str) -> Command {
    let mut command = Command::new(peers::python());
    command.arg(repository().join("tests/it/python/pacs.py"));
    command.arg(habit).stdin(Stdio::null());
    command
}

impl Drop for Pacs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::spare(self.child.id());
    }
}
