//! A rolling restart under load, as Kubernetes does it: two gateways with a spool each behind a balancer,
//! one after the other is told to end and started again, twice, while senders go on. Whatever got a
//! Success is in the ledger of one of them and in a message, once; and no sender sees anything but
//! Success, a transient rejection or a status that says to try again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::balancer::Balancer;
use crate::support::topology::{Bus, Received};
use crate::support::{
    Answer, Gateway, Instance, Options, RawPeer, SOON, Study, peers, rabbit, wait_until,
};

/// How late the balancer notices.
const LAG: Duration = Duration::from_secs(1);
/// `shutdown.delay`: longer than that.
const DELAY: &str = "2s";
/// Delay, the graces of the drain, and a loaded machine.
const GRACE: Duration = Duration::from_secs(2 + 10 + 10 + 5 + 10);
/// A sender that never gets through is broken.
const PATIENCE: Duration = Duration::from_secs(120);
const OUT_OF_RESOURCES: u16 = 0xA700;

/// What a sender saw.
#[derive(Default)]
struct Seen {
    /// SOP Instance UIDs with a Success, by study.
    kept: BTreeMap<String, BTreeSet<String>>,
    transient_rejections: usize,
    try_again: usize,
    /// Anything else.
    wrong: Vec<String>,
}

#[test]
fn two_gateways_behind_a_balancer() {
    if !peers::available("dcmsend") {
        return;
    }
    let Some(route) = rabbit::shared() else {
        return;
    };
    let mut gateways = ["urn:it:a", "urn:it:b"].map(|source| {
        let options = Options::amqp(&route)
            .set("message.source", source)
            .set("shutdown.delay", DELAY);
        Gateway::start(&options)
    });
    let balancer = Balancer::start(2, LAG);
    for (number, gateway) in gateways.iter().enumerate() {
        balancer.set(number, gateway);
    }
    let in_use = |number| wait_until("use", PATIENCE, || balancer.uses(number));
    in_use(0);
    in_use(1);
    let enough = AtomicBool::new(false);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let mut load = vec![scope.spawn(|| send_slowly(balancer.port, &enough))];
        load.extend([0; 3].map(|_| scope.spawn(|| send_with_dcmsend(balancer.port, &enough))));
        let restarts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in [0, 1, 0, 1] {
                let gateway = &mut gateways[number];
                gateway.terminate();
                assert_eq!(gateway.wait(GRACE).code(), Some(0));
                gateway.restart();
                balancer.set(number, gateway);
                in_use(number);
            }
        }));
        enough.store(true, Ordering::Relaxed);
        let seen = load.into_iter().map(|sender| sender.join().unwrap());
        let seen = seen.collect();
        restarts.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        seen
    });

    let wrong: Vec<&String> = seen.iter().flat_map(|seen| &seen.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(balancer.dropped(), 0, "connections that nobody took");
    let sum = |of: fn(&Seen) -> usize| seen.iter().map(of).sum::<usize>();
    let instances = sum(|seen| seen.kept.values().map(BTreeSet::len).sum());
    eprintln!(
        "{} studies, {instances} instances, {} transient rejections, {} to try again",
        sum(|seen| seen.kept.len()),
        sum(|seen| seen.transient_rejections),
        sum(|seen| seen.try_again),
    );
    for gateway in &gateways {
        for line in gateway
            .log()
            .lines()
            .filter(|line| line.contains("association rejected"))
        {
            assert!(line.contains("\"congestion\""), "{line}");
        }
    }
    let studies = seen.iter().flat_map(|seen| &seen.kept);
    let ledgers: Vec<_> = gateways
        .iter()
        .map(|gateway| ledger(gateway, studies.clone().map(|(uid, _)| uid)))
        .collect();
    for (uid, kept) in studies {
        let known: BTreeSet<&String> = ledgers
            .iter()
            .filter_map(|l| l.get(uid))
            .flatten()
            .collect();
        let lost: Vec<&String> = kept.iter().filter(|sop| !known.contains(sop)).collect();
        assert!(lost.is_empty(), "study {uid} without {lost:?}");
    }
    published(&Bus::new(&route).take_all(), &ledgers);
}

/// Every study of each ledger is in messages with all its instances, and no message came twice.
fn published(messages: &[Received], ledgers: &[BTreeMap<String, BTreeSet<String>>]) {
    let mut ids = BTreeSet::new();
    let mut most = BTreeMap::<(String, String), u64>::new();
    for message in messages {
        let event = &message.event;
        assert!(
            ids.insert(event["id"].to_string()),
            "twice: {}",
            event["id"]
        );
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let study = &event["data"]["study"];
        let key = (text(&event["source"]), text(&study["study_instance_uid"]));
        let count = study["instances_received"].as_u64().unwrap_or_default();
        let known = most.entry(key).or_default();
        *known = count.max(*known);
    }
    for (source, ledger) in ["urn:it:a", "urn:it:b"].into_iter().zip(ledgers) {
        assert!(!ledger.is_empty(), "nothing came to {source}");
        for (uid, instances) in ledger {
            let told = most.get(&(source.to_owned(), uid.clone()));
            let received = u64::try_from(instances.len()).unwrap();
            assert_eq!(told, Some(&received), "{source} about {uid}");
        }
    }
}

/// The instances that a gateway has of each study it knows, once all of them are done.
fn ledger<'a>(
    gateway: &Gateway,
    studies: impl Iterator<Item = &'a String>,
) -> BTreeMap<String, BTreeSet<String>> {
    let known = studies.filter(|uid| {
        let answer = gateway.ask(&format!("/api/v1/studies/{uid}"));
        answer.is_some_and(|(status, _)| status == 200)
    });
    known
        .map(|uid| {
            wait_until("end of a study", PATIENCE, || {
                gateway.study(uid)["state"] == "done"
            });
            let report = gateway.study(uid);
            let instances = report["instances"].as_array().unwrap().iter();
            let uids = instances.map(|one| one["sop_instance_uid"].as_str().unwrap().to_owned());
            (uid.clone(), uids.collect())
        })
        .collect()
}

/// One study after the other, each whole and again until all of it was taken.
fn send_with_dcmsend(port: u16, enough: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let dir = tempfile::tempdir().unwrap();
    while !enough.load(Ordering::Relaxed) {
        // No model applies to them: the load is on reception, ledger, outbox and broker.
        let mut study = Study::ct();
        study.side = 400;
        let files: Vec<PathBuf> = (1..=3)
            .map(|number| {
                let path = dir.path().join(format!("{number}.dcm"));
                std::fs::write(&path, study.image(number).part_10()).unwrap();
                path
            })
            .collect();
        wait_until("a study that is taken", PATIENCE, || {
            let kept = dcmsend(port, dir.path(), &files, &mut seen);
            let all = kept.len() == files.len();
            seen.kept.entry(study.uid.clone()).or_default().extend(kept);
            all || !seen.wrong.is_empty()
        });
    }
    seen
}

/// The instances that got a Success.
fn dcmsend(port: u16, dir: &Path, files: &[PathBuf], seen: &mut Seen) -> BTreeSet<String> {
    let report = dir.join("report");
    let _ = std::fs::remove_file(&report);
    let mut command = Command::new("dcmsend");
    command.args(["-v", "-aet", "DCMSEND", "-aec", "PACSGATEWAY", "+crf"]);
    command.arg(&report).args(["127.0.0.1", &port.to_string()]);
    let output = peers::run(command.args(files));
    let said = String::from_utf8_lossy(&output.stderr);
    for line in said.lines().filter(|line| !line.starts_with("I:")) {
        if line == "F: cannot negotiate network association: DUL Association Rejected" {
            seen.transient_rejections += 1;
        } else {
            seen.wrong.push(format!("dcmsend: {line}"));
        }
    }
    let (mut kept, mut sop_instance) = (BTreeSet::new(), "");
    let report = std::fs::read_to_string(&report).unwrap_or_default();
    for line in report.lines() {
        match line
            .split_once(" : ")
            .map(|(key, value)| (key.trim(), value))
        {
            Some(("SOP Instance", uid)) => sop_instance = uid,
            Some(("DIMSE Status", "0x0000 (Success)")) => {
                kept.insert(sop_instance.to_owned());
            }
            Some(("DIMSE Status", status)) if status.starts_with("0xa700") => seen.try_again += 1,
            Some(("DIMSE Status", status)) => seen.wrong.push(format!("dcmsend: {status}")),
            _ => {}
        }
    }
    kept
}

/// A modality that stores while it acquires: its associations are open for seconds, and the drain comes
/// into the middle of them.
fn send_slowly(port: u16, enough: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !enough.load(Ordering::Relaxed) && seen.wrong.is_empty() {
        let study = Study::chest();
        let mut open: Vec<Instance> = (1..=20).map(|number| study.image(number)).collect();
        while !open.is_empty() && seen.wrong.is_empty() {
            if let Err(err) = store_slowly(port, &study, &mut open, &mut seen) {
                seen.wrong.push(format!("slow sender: {err}"));
            }
        }
    }
    seen
}

fn store_slowly(
    port: u16,
    study: &Study,
    open: &mut Vec<Instance>,
    seen: &mut Seen,
) -> std::io::Result<()> {
    let (mut peer, answer) = RawPeer::request(port, "SLOW", &[&open[0]])?;
    match answer {
        Answer::Accepted => {}
        Answer::Rejected(2, 3, 1) => {
            seen.transient_rejections += 1;
            return Ok(());
        }
        _ => return Err(std::io::Error::other("rejected for good, or gone")),
    }
    while let Some(instance) = open.last() {
        match peer.try_store(instance)? {
            0 => {
                let kept = seen.kept.entry(study.uid.clone()).or_default();
                kept.insert(instance.sop_instance.clone());
                open.pop();
            }
            OUT_OF_RESOURCES => {
                seen.try_again += 1;
                break;
            }
            status => return Err(std::io::Error::other(format!("status {status:04X}"))),
        }
        let acquired = Instant::now() + Duration::from_millis(200);
        wait_until("the next image", SOON, || Instant::now() >= acquired);
    }
    peer.try_release().map(|_| ())
}
