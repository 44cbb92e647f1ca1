//! The ledger check: what senders were promised against what is in the queue, the ledger and the spool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::plan::{Round, StudyPlan};
use super::senders::Log;
use super::world::World;
use crate::support::Instance;
use crate::support::gateway::by_study;
use crate::support::topology::Bus;

/// Longest time until everything is finished after the last fault.
const SETTLED: Duration = Duration::from_secs(90);
/// Longest time until confirmed messages can be read.
const DELIVERED: Duration = Duration::from_secs(30);
/// What may become of a study whose decoding or inference process was killed.
const KILLED: [&str; 4] = [
    "decoder-crash",
    "inference-crashed",
    "model-fenced",
    "upstream-missing",
];

/// Waits until everything is finished and compares. Whatever is wrong is a complaint of the world.
pub fn audit(world: &World, bus: &Bus, round: &Round, log: &Log) {
    let began = Instant::now();
    while let Err(what) = settled(world, round, log) {
        if began.elapsed() > SETTLED {
            world.complain(format!("not finished in {SETTLED:?}: {what}"));
            break;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    world.note("settled");
    let reports = reports(world, round);
    let messages = messages(world, bus, &reports);
    check_order(world, &messages);
    let mut by_study = by_study(messages);
    for (at, study) in round.studies.iter().enumerate() {
        let messages = by_study.remove(&study.uid).unwrap_or_default();
        let mut complaints = Vec::new();
        check_receipts(&mut complaints, study, log, at, reports.get(&study.uid));
        check_messages(
            &mut complaints,
            world,
            study,
            &messages,
            reports.get(&study.uid),
        );
        for complaint in complaints {
            world.complain(format!("study {at} ({}): {complaint}", study.uid));
        }
    }
    for uid in by_study.keys() {
        world.complain(format!(
            "messages about study {uid}, which nobody sent in this round"
        ));
    }
    check_spool(world, round);
    check_the_rest(world);
}

/// Whether nothing is going on any more.
fn settled(world: &World, round: &Round, log: &Log) -> Result<(), String> {
    let gateway = world.gateway.lock().unwrap();
    for gauge in ["associations_active", "studies_in_work", "studies_open"] {
        let value = gateway.metric(gauge, &[]);
        if value != 0.0 {
            return Err(format!("{gauge} is {value}"));
        }
    }
    let outbox = gateway.get("/api/v1/outbox");
    if outbox["owed"] != 0 {
        return Err(format!("{} messages are owed", outbox["owed"]));
    }
    let mut known = BTreeSet::new();
    for (at, study) in round.studies.iter().enumerate() {
        let acknowledged = log.acknowledged(at);
        let silent = study.silent.is_some();
        let report = gateway.ask(&format!("/api/v1/studies/{}", study.uid));
        let report: Value = match report {
            Some((200, body)) => serde_json::from_str(&body).unwrap(),
            Some((404, _)) if acknowledged.is_empty() => continue,
            other => return Err(format!("study {at}: {:?}", other.map(|(status, _)| status))),
        };
        if report["state"] != "done" {
            return Err(format!("study {at} is {}", report["state"]));
        }
        let rows = uids(&report);
        let all = acknowledged.iter().map(|place| &study.required[*place]);
        let missing = all.filter(|one| !rows.contains(&one.sop_instance)).count();
        if missing > 0 {
            return Err(format!(
                "{missing} acknowledged instances of study {at} are not in the ledger (silent: {silent})"
            ));
        }
        known.extend(rows);
    }
    drop(gateway);
    // What was kept without an acknowledgement reaches the ledger a little later.
    for (name, uid, _) in entries(&world.spool.join("data")) {
        let mine = |study: &&StudyPlan| of(study).any(|one| one.sop_instance == uid);
        if round.studies.iter().any(|study| mine(&study)) && !known.contains(&uid) {
            return Err(format!("{name} is in the spool and not in the ledger"));
        }
    }
    Ok(())
}

fn reports(world: &World, round: &Round) -> BTreeMap<String, Value> {
    let gateway = world.gateway.lock().unwrap();
    let mut reports = BTreeMap::new();
    for study in &round.studies {
        if let Some((200, body)) = gateway.ask(&format!("/api/v1/studies/{}", study.uid)) {
            reports.insert(study.uid.clone(), serde_json::from_str(&body).unwrap());
        }
    }
    reports
}

/// Takes from the queue until every message is there that the ledger calls confirmed.
fn messages(world: &World, bus: &Bus, reports: &BTreeMap<String, Value>) -> Vec<Value> {
    let confirmed: BTreeSet<String> = reports
        .values()
        .flat_map(|report| report["messages"].as_array().cloned().unwrap_or_default())
        .filter(|message| message["confirmed"].is_string())
        .map(|message| text(&message["id"]))
        .collect();
    let began = Instant::now();
    let mut taken = Vec::new();
    loop {
        taken.extend(bus.take_all().into_iter().map(|message| message.event));
        let ids: BTreeSet<String> = taken.iter().map(|event| text(&event["id"])).collect();
        let missing: Vec<&String> = confirmed.difference(&ids).collect();
        if missing.is_empty() {
            return taken;
        }
        if began.elapsed() > DELIVERED {
            world.complain(format!("confirmed and not in the queue: {missing:?}"));
            return taken;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A message names one that came before, and an id always means the same.
fn check_order(world: &World, messages: &[Value]) {
    let mut seen = BTreeMap::<String, &Value>::new();
    for message in messages {
        let id = text(&message["id"]);
        world.tally.add("messages", 1);
        if let Some(first) = seen.get(&id) {
            world.tally.add("repeats", 1);
            for part in [
                "/data/outcome",
                "/data/findings",
                "/data/inputs",
                "/subject",
            ] {
                // A picture may be missing from one of them; its reference is part of the findings.
                if part != "/data/findings" && first.pointer(part) != message.pointer(part) {
                    world.complain(format!("message {id} came twice, and {part} differs"));
                }
            }
            continue;
        }
        if let Some(superseded) = message["data"]["supersedes"].as_str() {
            world.tally.add("superseding", 1);
            if !seen.contains_key(superseded) {
                world.complain(format!(
                    "message {id} supersedes {superseded}, which had not come before"
                ));
            }
        }
        seen.insert(id, message);
    }
    world.tally.add("ids", seen.len() as u64);
}

/// Every acknowledged instance is in the ledger with the bytes that were sent, and nothing that was
/// cut off is.
fn check_receipts(
    complaints: &mut Vec<String>,
    study: &StudyPlan,
    log: &Log,
    at: usize,
    report: Option<&Value>,
) {
    let acknowledged = log.acknowledged(at);
    if acknowledged.len() < study.required.len() {
        complaints.push(format!(
            "{} of {} instances were acknowledged",
            acknowledged.len(),
            study.required.len()
        ));
    }
    let rows: Vec<Value> = report
        .and_then(|report| report["instances"].as_array().cloned())
        .unwrap_or_default();
    for place in acknowledged {
        let instance = &study.required[place];
        let mine: Vec<&Value> = rows
            .iter()
            .filter(|row| row["sop_instance_uid"] == instance.sop_instance.as_str())
            .collect();
        let wanted = hex(&digest(instance));
        if mine.is_empty() {
            complaints.push(format!(
                "LOST: acknowledged instance {place} is not in the ledger"
            ));
        } else if mine.iter().any(|row| row["sha256"] != wanted.as_str()) {
            complaints.push(format!("instance {place} has other bytes than were sent"));
        }
    }
    for row in rows {
        let uid = text(&row["sop_instance_uid"]);
        let sent = study.required.iter().chain(&study.silent);
        if !sent.into_iter().any(|one| one.sop_instance == uid) {
            complaints.push(format!("{uid} is in the ledger and was never sent whole"));
        }
    }
}

/// Reduced by id and by what they supersede, the messages leave one outcome per model, and it is about
/// everything that was received.
fn check_messages(
    complaints: &mut Vec<String>,
    world: &World,
    study: &StudyPlan,
    messages: &[Value],
    report: Option<&Value>,
) {
    let mut first = BTreeMap::<String, &Value>::new();
    for message in messages {
        first.entry(text(&message["id"])).or_insert(message);
    }
    let mut ids = BTreeMap::<(String, String), BTreeSet<&String>>::new();
    let mut superseded = BTreeSet::new();
    for (id, message) in &first {
        let set = text(&message["data"]["inputs"]["instance_set_digest"]);
        // A message that ends another one has its id from the same parts, and may name no model.
        let what = match message["data"]["outcome"] == "superseded" {
            true => format!("end of {}", message["data"]["supersedes"]),
            false => model_of(message),
        };
        ids.entry((what, set)).or_default().insert(id);
        superseded.extend(message["data"]["supersedes"].as_str());
    }
    for ((model, set), ids) in ids {
        if ids.len() > 1 {
            complaints.push(format!("DOUBLED: {model} about {set} has the ids {ids:?}"));
        }
    }
    let current: Vec<&&Value> = first
        .values()
        .filter(|message| message["data"]["outcome"] != "superseded")
        .filter(|message| !superseded.contains(message["id"].as_str().unwrap_or_default()))
        .collect();
    let mut models: Vec<String> = current.iter().map(|message| model_of(message)).collect();
    models.sort();
    let given_up = models.iter().any(|model| model == "_") && study.models != ["_"];
    if models != study.models {
        complaints.push(format!(
            "LOST or DOUBLED: current outcomes of {models:?} instead of {:?} (given up: {given_up})",
            study.models
        ));
    }
    let received = received(study, report);
    let kept = received.len() - study.required.len();
    world.tally.add("silent-kept", kept as u64);
    for message in current {
        check_current(complaints, world, message, &received);
    }
}

fn check_current(
    complaints: &mut Vec<String>,
    world: &World,
    message: &Value,
    received: &[&Instance],
) {
    let (data, model) = (&message["data"], model_of(message));
    let remarks = data["quality"].as_array().cloned().unwrap_or_default();
    let in_parts = remarks
        .iter()
        .any(|remark| remark["code"] == "earlier-instances-released");
    let set = text(&data["inputs"]["instance_set_digest"]);
    if in_parts {
        // The spool was full, and made room: the message says that it speaks of late instances only.
        world.tally.add("in-parts", 1);
    } else if set != set_digest(received) {
        complaints.push(format!(
            "LOST or invented: the current outcome of {model} is about {} instances, and {} were \
             received; the sets differ",
            data["study"]["instances_received"],
            received.len()
        ));
    }
    let listed = data["inputs"]["sop_instance_uids"].as_array().cloned();
    for uid in listed.unwrap_or_default() {
        if !received.iter().any(|one| uid == one.sop_instance.as_str()) {
            complaints.push(format!(
                "{model} looked at {uid}, which was never sent whole"
            ));
        }
    }
    if data["outcome"] == "failed" {
        let code = text(&data["reason"]["code"]);
        let killed = world.children_killed.load(Ordering::SeqCst);
        if killed && KILLED.contains(&code.as_str()) {
            world.tally.add("failed", 1);
        } else {
            complaints.push(format!("the current outcome of {model} is failed: {code}"));
        }
    }
}

/// What the gateway has of a study: everything required, and the silent instance when it was kept.
fn received<'a>(study: &'a StudyPlan, report: Option<&Value>) -> Vec<&'a Instance> {
    let rows = report.map(uids).unwrap_or_default();
    let silent = study.silent.iter();
    let silent = silent.filter(|one| rows.contains(&one.sop_instance));
    study.required.iter().chain(silent).collect()
}

/// Files of the spool hold what was sent.
fn check_spool(world: &World, round: &Round) {
    let sent: BTreeMap<&str, &Instance> = round
        .studies
        .iter()
        .flat_map(of)
        .map(|one| (one.sop_instance.as_str(), one))
        .collect();
    let halves: BTreeSet<&str> = round
        .studies
        .iter()
        .filter_map(|study| study.half.as_ref())
        .map(|one| one.sop_instance.as_str())
        .collect();
    for (name, uid, found) in entries(&world.spool.join("data")) {
        if halves.contains(uid.as_str()) {
            world.complain(format!("{name} is of an instance that was cut off"));
        } else if let Some(instance) = sent.get(uid.as_str())
            && digest(instance) != found
        {
            world.complain(format!("{name} has other bytes than were sent"));
        }
    }
}

/// Quarantine, log and processes.
fn check_the_rest(world: &World) {
    let gateway = world.gateway.lock().unwrap();
    let quarantine = gateway.get("/api/v1/quarantine")["quarantine"].clone();
    let log = gateway.take_log();
    drop(gateway);
    for item in quarantine.as_array().cloned().unwrap_or_default() {
        let reason = text(&item["reason"]);
        if KILLED.iter().any(|code| reason.starts_with(code)) {
            world.set_aside(&text(&item["entry"]));
        } else {
            world.complain(format!("in quarantine: {reason}"));
        }
    }
    for line in log.lines().filter(|line| line.contains("panicked")) {
        world.complain(format!("the log has a panic: {line}"));
    }
    let began = Instant::now();
    loop {
        let orphans = world.orphans();
        if orphans.is_empty() {
            break;
        }
        if began.elapsed() > Duration::from_secs(10) {
            world.complain(format!("processes of earlier gateways live: {orphans:?}"));
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Everything that was sent whole.
fn of(study: &StudyPlan) -> impl Iterator<Item = &Instance> {
    study.required.iter().chain(&study.silent)
}

fn uids(report: &Value) -> BTreeSet<String> {
    let rows = report["instances"].as_array();
    let rows = rows.into_iter().flatten();
    rows.map(|row| text(&row["sop_instance_uid"])).collect()
}

/// The entries of a spool: file name, SOP Instance UID and SHA-256 of the data set.
fn entries(dir: &Path) -> Vec<(String, String, [u8; 32])> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let bytes = std::fs::read(file.path()).ok()?;
            // Preamble, DICM, and the length of group 0002 (PS3.10 §7.1).
            let length = bytes.get(140..144)?.try_into().ok()?;
            let (meta, data_set) = bytes
                .get(144..)?
                .split_at_checked(u32::from_le_bytes(length) as usize)?;
            let at = meta.windows(6).position(|some| some == b"\x02\0\x03\0UI")?;
            let length = meta.get(at + 6..at + 8)?.try_into().ok()?;
            let uid = meta.get(at + 8..at + 8 + usize::from(u16::from_le_bytes(length)))?;
            let uid = String::from_utf8_lossy(uid)
                .trim_end_matches('\0')
                .to_owned();
            let name = file.file_name().to_string_lossy().into_owned();
            Some((name, uid, Sha256::digest(data_set).into()))
        })
        .collect()
}

fn digest(instance: &Instance) -> [u8; 32] {
    Sha256::digest(&instance.data_set).into()
}

/// docs/messages.md: SHA-256 over the sorted pairs of SOP Instance UID, NUL and data set digest.
fn set_digest(instances: &[&Instance]) -> String {
    let mut pairs: Vec<(&str, [u8; 32])> = instances
        .iter()
        .map(|one| (one.sop_instance.as_str(), digest(one)))
        .collect();
    pairs.sort_unstable();
    let mut hasher = Sha256::new();
    for (uid, digest) in pairs {
        hasher.update(uid);
        hasher.update([0]);
        hasher.update(digest);
    }
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of the model; `_` where there is none.
fn model_of(message: &Value) -> String {
    let name = message["data"]["model"]["name"].as_str();
    name.unwrap_or("_").to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
