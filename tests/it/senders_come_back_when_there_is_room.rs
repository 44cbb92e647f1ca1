//! Several senders, each with more than fits: they are turned away, come back, and in the end all of
//! everything is there once.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Gateway, Options, Study, peers, wait_until};

/// Studies of each sender.
const STUDIES: usize = 3;

/// Images of a study; each has a megabyte.
const IMAGES: u16 = 3;

/// Many rounds of a sender that is turned away.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn storescu_and_dcmsend_with_retries() {
    if !peers::available("storescu") || !peers::available("dcmsend") {
        return;
    }
    let options = Options::new()
        .set("spool.limits.max_bytes", "8MB")
        .set("spool.limits.resume_bytes", "4MB")
        .set("study.quiet_period", "1s");
    let gateway = Gateway::start(&options);
    let dir = tempfile::tempdir().unwrap();
    let studies: Vec<(Study, Vec<PathBuf>)> = (0..2 * STUDIES)
        .map(|number| {
            let mut study = Study::ct();
            study.side = 724;
            let write = |image: u16| {
                let path = dir.path().join(format!("{number}-{image}.dcm"));
                std::fs::write(&path, study.image(image).part_10()).unwrap();
                path
            };
            let files = (1..=IMAGES).map(write).collect();
            (study, files)
        })
        .collect();
    let (first, second) = studies.split_at(STUDIES);
    let port = gateway.dicom_port;
    let received = |study: &Study| {
        let answer = gateway.ask(&format!("/api/v1/studies/{}", study.uid));
        let report = answer.filter(|(status, _)| *status == 200)?.1;
        let report: serde_json::Value = serde_json::from_str(&report).ok()?;
        report["instances_received"].as_u64()
    };
    // As modalities do: the whole study again until all of it was taken. dcmsend's exit code does not
    // tell, so the gateway is asked.
    let send_all = |studies: &[(Study, Vec<PathBuf>)], send: &dyn Fn(&[PathBuf])| {
        for (study, files) in studies {
            wait_until("a study that is taken", PATIENCE, || {
                send(files);
                received(study) == Some(u64::from(IMAGES))
            });
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send_all(first, &|files| {
                peers::storescu(port, &[], files);
            });
        });
        scope.spawn(|| {
            send_all(second, &|files| {
                peers::dcmsend(port, files);
            });
        });
    });
    let turned_away = gateway.metric("dimse_requests_total", &[("status", "A700")])
        + gateway.metric("associations_rejected_total", &[("reason", "congestion")]);
    assert!(turned_away > 0.0, "the spool was never full");
    let uids: Vec<&str> = studies
        .iter()
        .map(|(study, _)| study.uid.as_str())
        .collect();
    gateway.wait_until_done(&uids);
    wait_until("acceptance", PATIENCE, || {
        gateway.get("/readyz")["spool"]["accepting"] == true
    });
}
