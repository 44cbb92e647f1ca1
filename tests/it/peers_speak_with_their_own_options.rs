//! DCMTK's and pynetdicom's own tools with the options that change what they say: small PDUs, all
//! presentation contexts, repetitions, and an abort instead of a release.

use std::path::PathBuf;
use std::process::Command;

use crate::support::options::repository;
use crate::support::{Gateway, Options, SOON, Study, peers, wait_until};

const TITLES: [&str; 4] = ["-aet", "PEER", "-aec", "PACSGATEWAY"];

struct Scene {
    gateway: Gateway,
    study: Study,
    files: Vec<PathBuf>,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let study = Study::ct();
        let files = (1..=3).map(|number| {
            let path = dir.path().join(format!("{number}.dcm"));
            std::fs::write(&path, study.image(number).part_10()).unwrap();
            path
        });
        Self {
            gateway: Gateway::start(&Options::new()),
            files: files.collect(),
            study,
            _dir: dir,
        }
    }

    /// Runs a tool against the gateway and expects it to be content.
    #[track_caller]
    fn run(&self, command: &mut Command, options: &[&str], files: &[PathBuf]) {
        let port = self.gateway.dicom_port.to_string();
        command
            .args(TITLES)
            .args(options)
            .args(["127.0.0.1", &port]);
        let output = peers::run(command.args(files));
        eprintln!("{command:?}");
        peers::succeeded(&output);
    }

    fn pynetdicom(&self) -> Command {
        let mut command = Command::new(peers::python());
        command.arg(repository().join("tests/it/python/steady.py"));
        command
    }

    /// All of it arrived, nothing was refused, and every association has ended.
    #[track_caller]
    fn expect(self, echoes: u32, stores: u32, aborted: u32) {
        let count = |command| {
            let labels = [("command", command), ("status", "0000")];
            self.gateway.metric("dimse_requests_total", &labels)
        };
        let ended = |result| {
            self.gateway
                .metric("associations_total", &[("result", result)])
        };
        wait_until("end of the associations", SOON, || {
            self.gateway.metric("associations_active", &[]) == 0.0
                && ended("aborted-by-peer") + ended("connection-lost") == f64::from(aborted)
        });
        assert_eq!(count("c-echo"), f64::from(echoes));
        assert_eq!(count("c-store"), f64::from(stores));
        let all = self.gateway.metric("dimse_requests_total", &[]);
        assert_eq!(all, f64::from(echoes + stores), "nothing was refused");
        assert_eq!(self.gateway.metric("pdu_errors_total", &[]), 0.0);
        assert_eq!(ended("aborted-by-us"), 0.0);
        if stores > 0 {
            self.gateway.wait_until_done(&[&self.study.uid]);
            let study = self.gateway.study(&self.study.uid);
            assert_eq!(study["instances_received"], 3, "{study}");
        }
    }
}

#[test]
fn dcmtk() {
    if !["echoscu", "storescu", "dcmsend"]
        .iter()
        .all(|tool| peers::available(tool))
    {
        return;
    }
    let scene = Scene::new();
    for options in [
        &["-pdu", "4096", "-ppc", "128", "-pts", "38"][..],
        &["--repeat", "5"],
        &["--abort"],
    ] {
        scene.run(&mut Command::new("echoscu"), options, &[]);
    }
    for options in [
        &["-pdu", "4096", "--max-send-pdu", "4096"][..],
        &["-pdu", "131072", "-R"],
        &["+C"],
        &["-x=", "--repeat", "2"],
        &["--abort", "-xi"],
    ] {
        scene.run(&mut Command::new("storescu"), options, &scene.files);
    }
    for options in [&["-pdu", "4096"][..], &["-ma", "--max-send-pdu", "4096"]] {
        scene.run(&mut Command::new("dcmsend"), options, &scene.files);
    }
    scene.expect(7, 3 * 8, 2);
}

#[test]
fn pynetdicom() {
    if !peers::python_available() {
        return;
    }
    let scene = Scene::new();
    for options in [&["-pdu", "0"][..], &["--repeat", "3", "-xe"], &["--abort"]] {
        scene.run(scene.pynetdicom().arg("echoscu"), options, &[]);
    }
    // Without -cx it proposes 128 contexts.
    for options in [&["-cx", "-xe"][..], &["-pdu", "4096"]] {
        for file in &scene.files {
            let file = std::slice::from_ref(file);
            scene.run(scene.pynetdicom().arg("storescu"), options, file);
        }
    }
    scene.expect(5, 6, 1);
}

#[test]
fn what_pynetdicom_asks_for_it_understands_the_answer_to() {
    if !peers::python_available() {
        return;
    }
    for policy in ["ignore", "accept"] {
        let gateway = Gateway::start(&Options::new().set("dicom.user_identity", policy));
        let mut command = Command::new(repository().join(".deps/venv/bin/python"));
        command.arg(repository().join("tests/it/python/pynetdicom_negotiation.py"));
        command.args([&gateway.dicom_port.to_string(), policy]);
        peers::succeeded(&peers::run(&mut command));
        assert!(
            !gateway.log().contains("SECRET"),
            "identities are not logged"
        );
    }
}
