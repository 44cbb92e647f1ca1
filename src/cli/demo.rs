//! `demo`: a gateway in this process, sample studies sent to it over DICOM, its findings in a table.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{ConfigArgs, FAILED, Refused, infer, runtime, table};
use crate::app::{App, Signals};
use crate::dicom::ae_title::AeTitle;
use crate::model::repository;
use crate::scu::{self, Target};
use crate::units::HumanDuration;

/// Longest wait for the last message.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn run(args: &ConfigArgs) -> Result<ExitCode> {
    let mut config =
        crate::config::Config::load(&args.config).map_err(|err| Refused(err.into()))?;
    // The table is what the reader came for; the log only speaks up when something is wrong.
    config.log.level = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
    crate::telemetry::logging::init(&config.log).map_err(anyhow::Error::msg)?;
    let dir = tempfile::tempdir().context("a folder for the demo")?;
    infer::embed(&mut config, dir.path());
    if config.artefacts.dir.as_os_str().is_empty() {
        // Pictures are there to be looked at afterwards, so this folder stays.
        let kept = tempfile::Builder::new()
            .prefix("pacs-gateway-demo-")
            .tempdir();
        config.artefacts.dir = kept.context("a folder for pictures")?.keep();
    }
    let pictures = config.artefacts.dir.clone();
    config.study.quiet_period = HumanDuration::from_secs(1);
    let samples = samples(&config.models.dir).map_err(Refused)?;
    let findings = config.broker.file.clone();
    runtime()?.block_on(async {
        println!("Loading models from {}", config.models.dir.display());
        let called = config.dicom.ae_title.clone();
        let app = App::build(config).await.map_err(Refused)?;
        let ports = app.ports();
        let port = ports.dicom.context("dicom.plain")?;
        println!(
            "Gateway {called} listens on port {} (HTTP on port {}), findings go to a file",
            port, ports.http
        );
        let signals = Signals::default();
        let running = tokio::spawn(app.run(signals.clone()));
        let target: Target = format!("{called}@127.0.0.1:{port}").parse()?;
        let calling = AeTitle::parse("DEMOSCANNER")?;
        scu::echo(&target, &calling).await.context("C-ECHO")?;
        println!("Sending {} synthetic studies over DICOM", samples.len());
        for sample in &samples {
            let sent = scu::send(&target, &calling, &sample.files, |_| {});
            let summary = sent.await.context("C-STORE")?;
            println!("  {}: {} instance(s) stored", sample.name, summary.stored);
            if summary.failed > 0 {
                bail!(
                    "{}: {} instance(s) were refused",
                    sample.name,
                    summary.failed
                );
            }
        }
        println!("Waiting for the studies to be complete (quiet period 1 s)\n");
        let messages = wait_for(&findings, samples.len()).await?;
        signals.drain.cancel();
        running.await??;
        let code = summary(&samples, &messages);
        println!("Pictures of what moved the model: {}", pictures.display());
        Ok(code)
    })
}

struct SampleStudy {
    name: String,
    files: Vec<PathBuf>,
}

/// The golden cases of every model: real DICOM files that the project's own scripts made.
fn samples(models: &std::path::Path) -> Result<Vec<SampleStudy>> {
    let mut samples = Vec::new();
    for package in repository::scan(models)? {
        for folder in package.golden_cases()? {
            let case = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let mut files = Vec::new();
            infer::walk(&folder, &mut files);
            samples.push(SampleStudy {
                name: format!("{}/{case}", package.manifest.name),
                files,
            });
        }
    }
    if samples.is_empty() {
        bail!("models.dir: no model has golden cases to send");
    }
    Ok(samples)
}

async fn wait_for(findings: &std::path::Path, count: usize) -> Result<Vec<Value>> {
    let started = Instant::now();
    loop {
        let text = tokio::fs::read_to_string(findings)
            .await
            .unwrap_or_default();
        let messages: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if messages.len() >= count {
            return Ok(messages);
        }
        if started.elapsed() > DEADLINE {
            bail!("{} of {count} messages after {DEADLINE:?}", messages.len());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn summary(samples: &[SampleStudy], messages: &[Value]) -> ExitCode {
    let names: HashMap<String, &str> = samples
        .iter()
        .filter_map(|sample| Some((study_uid(sample)?, sample.name.as_str())))
        .collect();
    let text = |message: &Value, pointer: &str| {
        message
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut rows: Vec<Vec<String>> = messages
        .iter()
        .map(|message| {
            let uid = text(message, "/data/study/study_instance_uid");
            let name = names.get(&uid).copied().unwrap_or("?").to_owned();
            vec![
                name,
                text(message, "/data/model/name"),
                text(message, "/data/outcome"),
                probabilities(message),
                text(message, "/data/priority"),
                seconds(message),
                pictures(message),
            ]
        })
        .collect();
    rows.sort();
    let header = [
        "study",
        "model",
        "outcome",
        "findings (probability, * = present)",
        "priority",
        "last slice to finding",
        "picture",
    ];
    println!("{}", table::render(&header, &rows));
    println!(
        "\nThe studies are synthetic phantoms and public tabular data. Not a medical device.\n\
         Next: README.md has a tour with RabbitMQ and a real sender."
    );
    let failed = messages
        .iter()
        .any(|message| text(message, "/data/outcome") == "failed");
    if failed {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

fn probabilities(message: &Value) -> String {
    let findings = message.pointer("/data/findings").and_then(Value::as_array);
    let shown: Vec<String> = findings
        .into_iter()
        .flatten()
        .map(|finding| {
            let label = finding
                .get("label")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let probability = finding
                .get("probability")
                .and_then(Value::as_f64)
                .unwrap_or(0.0);
            let present = finding
                .get("present")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            let mark = if present { "*" } else { "" };
            // Of a region its volume or area; the first is what was measured.
            let measured = finding.pointer("/measurements/0").filter(|_| present);
            let size = measured.and_then(|one| one.get("value")?.as_f64().zip(one.get("unit")));
            let size = size.map(|(value, unit)| {
                let unit = unit.as_str().unwrap_or_default();
                format!(" {value:.2} {unit}")
            });
            let size = size.unwrap_or_default();
            format!("{label} {probability:.3}{mark}{size}")
        })
        .collect();
    if shown.is_empty() {
        let reason = message.pointer("/data/reason/code").and_then(Value::as_str);
        return reason.unwrap_or_default().to_owned();
    }
    shown.join(", ")
}

/// The references of the explanations, shortened to what tells files apart.
fn pictures(message: &Value) -> String {
    let findings = message.pointer("/data/findings").and_then(Value::as_array);
    let references = findings.into_iter().flatten().filter_map(|finding| {
        let reference = finding.pointer("/explanation/reference")?.as_str()?;
        let (_, name) = reference.rsplit_once('/')?;
        let (kind, digest) = name.rsplit_once('-')?;
        Some(format!("{kind}-{}…", digest.get(..8)?))
    });
    references.collect::<Vec<_>>().join(", ")
}

fn seconds(message: &Value) -> String {
    let time = |pointer: &str| {
        let text = message.pointer(pointer)?.as_str()?;
        OffsetDateTime::parse(text, &Rfc3339).ok()
    };
    match (time("/time"), time("/data/timing/received_last")) {
        (Some(made), Some(last)) => format!("{:.2} s", (made - last).as_seconds_f64()),
        _ => String::new(),
    }
}

fn study_uid(sample: &SampleStudy) -> Option<String> {
    use crate::dicom::dataset::{DicomFile, ReadLimits};
    let file = DicomFile::read(sample.files.first()?, &ReadLimits::default()).ok()?;
    let uid = file
        .data_set()
        .uid(dicom::dictionary_std::tags::STUDY_INSTANCE_UID)?;
    Some(uid.into_owned())
}
