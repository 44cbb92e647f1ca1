//! `evaluate`: labelled studies through the pipeline, and how good the model is on them.

mod output;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dicom::dictionary_std::tags;
use serde_json::Value;

use super::infer::{Sender, ingest, numbers_only, process, walk};
use super::{ConfigArgs, FAILED, Misused, Refused};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::evaluation::answer::{self, Task};
use crate::evaluation::bootstrap::Draws;
use crate::evaluation::html;
use crate::evaluation::labels::{self, Key, Row, Table};
use crate::evaluation::{Account, Evaluation, Model, Report, Settings, Subject, figures};
use crate::model::{Manifest, repository};

/// The automatic grouping: Manufacturer (0008,0070).
const MANUFACTURER: &str = "manufacturer";

/// Arguments of `evaluate`.
#[derive(Args)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The model.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// What is true: a CSV file with a column `study_instance_uid` or `file` and one per label.
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// Writes the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the report for people: one HTML file without script.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Figures by the values of this column too; `site` and the manufacturer are always shown.
    #[arg(long, value_name = "COLUMN")]
    group_by: Vec<String>,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draws of the bootstrap.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    draws: u32,
    /// Folder of the studies.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// A study below the folder.
#[derive(Default)]
struct Found {
    manufacturer: String,
    files: Vec<String>,
}

pub(super) fn run(args: &EvaluateArgs) -> Result<ExitCode> {
    let config = args.config.load()?;
    let (manifest, needed) = model_and_needed(&config, &args.model).map_err(Refused)?;
    let labels = answer::labels(&manifest.output);
    let table = truth(args, &manifest, &labels)?;
    let mut files = Vec::new();
    walk(&args.dir, &mut files);
    let mut account = Account::default();
    let studies = look(&args.dir, &files, &mut account);
    let rows = assign(&table, &studies, &mut account)?;

    let spool = tempfile::tempdir().context("a folder for the spool")?;
    let config = numbers_only(config, spool.path(), &needed);
    for path in ingest(&config, &files, &Sender::ourselves(&config)?)? {
        note_unreadable(&mut account, relative(&args.dir, &path));
    }
    let messages = messages(&process(config)?, &manifest)?;

    let wanted: Vec<(String, Option<f64>)> = labels
        .iter()
        .filter(|(label, _)| table.labels.contains(label))
        .cloned()
        .collect();
    let mut groupings = table.groupings.clone();
    let automatic = !groupings.iter().any(|name| name == MANUFACTURER);
    if automatic {
        groupings.push(MANUFACTURER.to_owned());
    }
    let task = Task::of(&manifest.output);
    let mut subjects = Vec::new();
    for (uid, row) in rows {
        let given = messages.get(&uid).map_or_else(
            || Err("no-message".to_owned()),
            |message| answer::read(message, task, &table.labels),
        );
        match given {
            Err(code) => account.left_out.entry(code).or_default().push(uid),
            Ok(given) => {
                let mut groups = row.groups.clone();
                let found = studies.get(&uid).filter(|_| automatic);
                groups.extend(found.map(|study| study.manufacturer.clone()));
                subjects.push(Subject {
                    given,
                    truth: row.truth.clone(),
                    groups,
                });
            }
        }
    }
    account.evaluated = subjects.len();
    let draws = Draws {
        count: args.draws as usize,
        seed: args.seed,
    };
    let evaluation = Evaluation {
        task,
        labels: &wanted,
        all_labels: labels.len(),
        groupings: &groupings,
        subjects: &subjects,
        draws,
    };
    let report = Report {
        made_at: Timestamp::now().rfc3339(),
        model: model(&manifest),
        settings: settings(&messages, draws),
        account,
        all: evaluation.all(),
        classes: evaluation.classes(),
        subgroups: evaluation.subgroups(),
    };
    write(args, &report)?;
    output::print(&report);
    let whole = report.account.unreadable.is_empty() && report.account.evaluated > 0;
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

/// The manifest of a model, and the names of the models that it needs to run.
fn model_and_needed(config: &Config, name: &str) -> Result<(Manifest, Vec<String>)> {
    let trust = config.models.trust().map_err(anyhow::Error::msg)?;
    let models = repository::scan_trusted(&config.models.dir, &trust)?;
    let needed = repository::with_needed(&models, name);
    let mut models = repository::select(models, &needed)?.into_iter();
    let model = models.find(|model| model.name() == name);
    let model = model.context("there is no such model")?;
    Ok((model.served.manifest, needed))
}

fn truth(
    args: &EvaluateArgs,
    manifest: &Manifest,
    labels: &[(String, Option<f64>)],
) -> Result<Table> {
    let names: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
    let file = File::open(&args.labels).with_context(|| args.labels.display().to_string())?;
    let binary = Task::of(&manifest.output) != Task::Regression;
    let table = labels::read(file, &names, binary, &args.group_by);
    Ok(table.map_err(|reason| Misused(format!("{}: {reason}", args.labels.display())))?)
}

/// The studies below the folder, and the files that are none.
fn look(dir: &Path, files: &[PathBuf], account: &mut Account) -> BTreeMap<String, Found> {
    let mut studies: BTreeMap<String, Found> = BTreeMap::new();
    for path in files {
        let name = relative(dir, path);
        let read = DicomFile::read(path, &ReadLimits::default());
        let uid =
            |file: &DicomFile| Some(file.data_set().uid(tags::STUDY_INSTANCE_UID)?.into_owned());
        let Some((file, uid)) = read.ok().and_then(|file| uid(&file).map(|uid| (file, uid))) else {
            note_unreadable(account, name);
            continue;
        };
        let study = studies.entry(uid).or_default();
        if study.files.is_empty() {
            let manufacturer = file.data_set().str(tags::MANUFACTURER);
            study.manufacturer = manufacturer.unwrap_or_default().trim().to_owned();
        }
        study.files.push(name);
    }
    account.studies = studies.len();
    studies
}

fn note_unreadable(account: &mut Account, name: String) {
    if !account.unreadable.contains(&name) {
        account.unreadable.push(name);
    }
}

fn relative(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).display().to_string()
}

/// The row of each study; what has no partner is noted.
fn assign<'a>(
    table: &'a Table,
    studies: &BTreeMap<String, Found>,
    account: &mut Account,
) -> Result<BTreeMap<String, &'a Row>> {
    let by_file: HashMap<&str, &String> = studies
        .iter()
        .flat_map(|(uid, study)| study.files.iter().map(move |file| (file.as_str(), uid)))
        .collect();
    let mut rows: BTreeMap<String, &Row> = BTreeMap::new();
    for row in &table.rows {
        let uid = match table.key {
            Key::Study => Some(&row.key).filter(|uid| studies.contains_key(*uid)),
            Key::File => by_file.get(row.key.trim_start_matches("./")).copied(),
        };
        let Some(uid) = uid else {
            account.without_study.push(row.key.clone());
            continue;
        };
        // Several files of a study may be listed, as long as they say the same.
        if let Some(other) = rows.insert(uid.clone(), row)
            && (&other.truth, &other.groups) != (&row.truth, &row.groups)
        {
            let (first, second) = (other.line, row.line);
            let reason = format!("lines {first} and {second} say different things of one study");
            return Err(Misused(reason).into());
        }
    }
    let labelled: BTreeSet<&String> = rows.keys().collect();
    let others = studies.keys().filter(|uid| !labelled.contains(uid));
    account.without_label = others.cloned().collect();
    Ok(rows)
}

/// The message about each study.
fn messages(lines: &str, manifest: &Manifest) -> Result<HashMap<String, Value>> {
    let mut messages = HashMap::new();
    for line in lines.lines() {
        let message: Value = serde_json::from_str(line).context("a message is no JSON")?;
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        let sha256 = text("/data/model/sha256");
        // Models that this one builds on say something too.
        if text("/data/model/name").is_some_and(|name| name != manifest.name) {
            continue;
        }
        // A study that no model applies to has a message without a model.
        anyhow::ensure!(
            sha256.is_none_or(|sha256| sha256 == manifest.sha256),
            "a message is of another model than the manifest that was read"
        );
        let study = text("/data/study/study_instance_uid").unwrap_or_default();
        messages.insert(study.to_owned(), message);
    }
    Ok(messages)
}

fn model(manifest: &Manifest) -> Model {
    Model {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        sha256: manifest.sha256.clone(),
        title: manifest.title.clone(),
        intended_use: manifest.intended_use.clone(),
        kind: manifest.output.kind(),
    }
}

fn settings(messages: &HashMap<String, Value>, draws: Draws) -> Settings {
    let text = |pointer: &str| {
        let mut found = messages
            .values()
            .filter_map(|m| m.pointer(pointer)?.as_str());
        found.next().unwrap_or_default().to_owned()
    };
    Settings {
        gateway: env!("CARGO_PKG_VERSION"),
        onnxruntime: text("/data/runtime/onnxruntime"),
        preprocessing_version: text("/data/inputs/preprocessing_version"),
        draws: draws.count,
        seed: draws.seed,
        bins: figures::BINS,
    }
}

fn write(args: &EvaluateArgs, report: &Report) -> Result<()> {
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(report)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.html {
        let text = html::render(report)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
