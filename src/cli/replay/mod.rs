//! `replay`: a study through the same model once more, and whether the message would be the same.
//!
//! The running gateway is left alone: its files and its database are only read, and the work happens
//! in a spool of its own.

mod compare;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use dicom::dictionary_std::tags;
use serde_json::Value;

use super::infer::{Sender, ingest, offline, process, walk};
use super::{ConfigArgs, FAILED, Misused, Refused, runtime, table};
use crate::config::Config;
use crate::dicom::ae_title::AeTitle;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::dicom::uid::StudyInstanceUid;
use crate::durable::database::Database;
use crate::findings::identity::instance_set_digest;
use crate::ledger::Ledger;
use crate::model::repository::{self, Installed};
use crate::outbox::Outbox;
use crate::spool::{Spool, StudyEntries};
use crate::state;

/// Largest message that is read; the gateway's own have 64 KiB at most.
const MAX_MESSAGE_BYTES: u64 = 4 << 20;

/// Arguments of `replay`.
#[derive(Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the study's files are, whatever their names; without it the spool is looked at.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// A file with the body of a message, `-` for standard input, or a Study Instance UID, whose
    /// last messages are then taken from the gateway's database.
    #[arg(value_name = "EVENT|STUDY")]
    what: String,
}

/// A message that is replayed.
struct Event {
    body: Value,
    model: String,
    study: StudyInstanceUid,
}

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    // "Differs" is one answer, "cannot be replayed" another.
    replay(args).map_err(|err| match err.is::<Misused>() {
        true => err,
        false => Refused(err).into(),
    })
}

fn replay(args: &ReplayArgs) -> Result<ExitCode> {
    let config = args.config.load()?;
    let events = events(args, &config)?;
    let Some(first) = events.first() else {
        bail!("there is no message to replay");
    };
    let installed = installed(&config, &events)?;
    let files = match &args.from {
        Some(dir) => below(dir, &first.study),
        None => spooled(&config, &first.study)?,
    };
    let dir = tempfile::tempdir().context("a folder for the spool")?;
    let mut lines = Vec::new();
    for (number, event) in events.iter().enumerate() {
        let dir = dir.path().join(number.to_string());
        std::fs::create_dir(&dir)?;
        let only = repository::with_needed(&installed, &event.model);
        let now = again(offline(config.clone(), &dir, &only), event, &files)?;
        let compared = compare::compare(&event.body, &now).into_iter();
        lines.extend(compared.map(|line| (event.model.as_str(), line)));
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|(model, line)| {
            let cells = [&line.what, &line.then, &line.now].map(|text| short(text));
            let [what, then, now] = cells;
            vec![
                (*model).to_owned(),
                what,
                then,
                now,
                line.verdict.to_string(),
            ]
        })
        .collect();
    let header = ["model", "what", "message", "replay", ""];
    println!("{}", table::render(&header, &rows));
    let differs = lines.iter().any(|(_, line)| line.verdict.differs());
    Ok(if differs {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// A digest by its first digits.
fn short(text: &str) -> String {
    match text.char_indices().nth(16) {
        Some((end, _)) if text.len() == 64 => format!("{}…", text.get(..end).unwrap_or(text)),
        _ => text.to_owned(),
    }
}

fn events(args: &ReplayArgs, config: &Config) -> Result<Vec<Event>> {
    let reader: Box<dyn Read> = if args.what == "-" {
        Box::new(std::io::stdin())
    } else if Path::new(&args.what).is_file() {
        Box::new(std::fs::File::open(&args.what)?)
    } else if let Ok(study) = StudyInstanceUid::parse(&args.what) {
        return stored(config, &study);
    } else {
        let reason = format!("`{}` is neither a file nor a Study Instance UID", args.what);
        return Err(Misused(reason).into());
    };
    let mut text = String::new();
    reader.take(MAX_MESSAGE_BYTES).read_to_string(&mut text)?;
    let body = serde_json::from_str(&text)
        .map_err(|err| Misused(format!("{}: not one message: {err}", args.what)))?;
    Ok(vec![event(body)?])
}

/// The last message of each model about a study.
fn stored(config: &Config, study: &StudyInstanceUid) -> Result<Vec<Event>> {
    let outbox = Outbox::new(database(config)?);
    let bodies = runtime()?.block_on(outbox.last_bodies(study.as_str().to_owned()))?;
    let mut events = Vec::new();
    for body in bodies {
        let body: Value = serde_json::from_slice(&body).context("a stored message")?;
        let outcome = body.pointer("/data/outcome").and_then(Value::as_str);
        // Nothing ran for these two.
        if body.pointer("/data/model").is_some() && outcome != Some("superseded") {
            events.push(event(body)?);
        }
    }
    if events.is_empty() {
        bail!("the database has no message of a model about this study");
    }
    Ok(events)
}

fn event(body: Value) -> Result<Event> {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    let study = text("/data/study/study_instance_uid").context("the message names no study")?;
    let study = StudyInstanceUid::parse(study).context("the message names no study")?;
    let model = text("/data/model/name").context("the message names no model: none applied")?;
    Ok(Event {
        model: model.to_owned(),
        study,
        body,
    })
}

/// That the models of the messages are there: the same name, version and digest.
fn installed(config: &Config, events: &[Event]) -> Result<Vec<Installed>> {
    let trust = config.models.trust().map_err(anyhow::Error::msg)?;
    let models = repository::scan_trusted(&config.models.dir, &trust)?;
    for event in events {
        let wanted = |key: &str| {
            let value = event.body.pointer(&format!("/data/model/{key}"));
            value.and_then(Value::as_str).unwrap_or_default()
        };
        let (version, sha256) = (wanted("version"), wanted("sha256"));
        let found = models.iter().any(|model| {
            let manifest = &model.served.manifest;
            manifest.name == event.model
                && manifest.version == version
                && manifest.sha256.eq_ignore_ascii_case(sha256)
        });
        if !found {
            bail!(
                "{}: there is no {}@{version} with the SHA-256 {sha256}",
                config.models.dir.display(),
                event.model
            );
        }
    }
    Ok(models)
}

/// The gateway's database, only to read from.
fn database(config: &Config) -> Result<Database> {
    let path = config.spool.dir.join(state::FILE);
    Ok(Database::open_read_only(&path)?)
}

/// The files of a study that the spool still holds.
fn spooled(config: &Config, study: &StudyInstanceUid) -> Result<Vec<PathBuf>> {
    let ledger = Ledger::new(database(config)?);
    let entries = runtime()?.block_on(ledger.held(study.as_str().to_owned()))?;
    let path = |entry| Spool::path_below(&config.spool.dir, entry);
    Ok(entries.into_iter().map(path).collect())
}

/// The files of a study below a folder, by their content.
fn below(dir: &Path, study: &StudyInstanceUid) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(dir, &mut files);
    files.retain(|path| {
        let file = DicomFile::read(path, &ReadLimits::default()).ok();
        file.and_then(|file| {
            let uid = file.data_set().uid(tags::STUDY_INSTANCE_UID)?;
            Some(uid == study.as_str())
        }) == Some(true)
    });
    files
}

/// The message that the study leads to now.
fn again(config: Config, event: &Event, files: &[PathBuf]) -> Result<Value> {
    if files.is_empty() {
        bail!("no file of the study is left; give a folder with --from");
    }
    let failed = ingest(&config, files, &sender(&config, &event.body))?;
    if !failed.is_empty() {
        bail!("{} files of the study cannot be read", failed.len());
    }
    select(&config, event)?;
    for line in process(config)?.lines() {
        let message: Value = serde_json::from_str(line).context("a message is no JSON")?;
        let model = message.pointer("/data/model/name").and_then(Value::as_str);
        // Without a model none applies any more, which is a difference and no failure.
        if model.is_none_or(|model| model == event.model) {
            return Ok(message);
        }
    }
    bail!("the model made no message")
}

/// Who sent the study: rules may depend on it.
fn sender(config: &Config, body: &Value) -> Sender {
    let title = |key: &str| {
        let text = body.pointer(&format!("/data/source/{key}"))?.as_str()?;
        AeTitle::parse(text).ok()
    };
    let own = || config.dicom.ae_title.clone();
    Sender {
        calling: title("calling_ae").unwrap_or_else(own),
        called: title("called_ae").unwrap_or_else(own),
    }
}

/// Leaves the instances in the spool that the message speaks of. It names the ones that the model
/// looked at, and the digest of all; what arrived later is in neither.
fn select(config: &Config, event: &Event) -> Result<()> {
    let (spool, _) = Spool::open(config.spool.clone())?;
    let StudyEntries { current, others } = spool.study(&event.study);
    if !others.is_empty() {
        bail!("two files have the same SOP Instance UID and different content");
    }
    let listed = event.body.pointer("/data/inputs/sop_instance_uids");
    let listed = listed.and_then(Value::as_array);
    let named: Option<HashSet<&str>> =
        listed.map(|uids| uids.iter().filter_map(Value::as_str).collect());
    let Some(named) = named else { return Ok(()) };
    let is_named = |uid: &str| named.contains(uid);
    let found = current
        .iter()
        .filter(|entry| is_named(entry.arrival.sop_instance.as_str()));
    let missing = named.len() - found.count();
    if missing > 0 {
        bail!(
            "{missing} of {} instances that the model looked at are not there",
            named.len()
        );
    }
    let digest = event.body.pointer("/data/inputs/instance_set_digest");
    let is_set = |of: &dyn Fn(&str) -> bool| {
        let entries = current.iter();
        let pairs = entries
            .map(|entry| (entry.arrival.sop_instance.as_str(), &entry.digest))
            .filter(|(uid, _)| of(uid));
        digest.and_then(Value::as_str) == Some(instance_set_digest(pairs).as_str())
    };
    if !is_set(&|_| true) && is_set(&is_named) {
        let rest = current
            .iter()
            .filter(|entry| !is_named(entry.arrival.sop_instance.as_str()));
        spool.release(&rest.map(|entry| entry.id).collect::<Vec<_>>())?;
    }
    Ok(())
}
