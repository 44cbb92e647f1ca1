//! `infer`: files through the real spool and the real pipeline, messages to stdout.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::{ConfigArgs, FAILED, Refused, runtime};
use crate::app::{App, Signals};
use crate::broker;
use crate::config::Config;
use crate::dicom::ae_title::AeTitle;
use crate::dicom::file_meta::FileMeta;
use crate::spool::{Arrival, Spool};
use crate::units::{ByteSize, HumanDuration};

/// Arguments of `infer`.
#[derive(Args)]
pub(super) struct InferArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this model.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Files and folders.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &InferArgs) -> Result<ExitCode> {
    let config = args.config.load()?;
    let dir = tempfile::tempdir().context("a folder for the spool")?;
    let config = offline(config, dir.path(), &args.model);
    let mut files = Vec::new();
    for path in &args.paths {
        walk(path, &mut files);
    }
    let failed = ingest(&config, &files, &Sender::ourselves(&config)?)?;
    print!("{}", process(config)?);
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

/// A configuration that works inside `dir`, with the models `only` or with all of them.
pub(super) fn offline(mut config: Config, dir: &Path, only: &[String]) -> Config {
    embed(&mut config, dir);
    // What is on disk already is complete.
    config.study.quiet_period = HumanDuration::from_millis(0);
    config.study.quiet_period_by_ae.clear();
    config.models.only = only.to_vec();
    config
}

/// [`offline`] for those who want numbers: pictures that say why take most of the time.
pub(super) fn numbers_only(config: Config, dir: &Path, only: &[String]) -> Config {
    let mut config = offline(config, dir, only);
    config.artefacts.max_bytes = ByteSize(0);
    config
}

/// Runs the pipeline until the spool is covered. Gives its messages, one per line.
pub(super) fn process(config: Config) -> Result<String> {
    let findings = config.broker.file.clone();
    runtime()?.block_on(async {
        let app = App::build(config).await.map_err(Refused)?;
        let signals = Signals::default();
        let idle = app.idle();
        let drain = signals.drain.clone();
        tokio::spawn(async move {
            idle.await;
            drain.cancel();
        });
        app.run(signals).await?;
        // No study, no message, no file.
        match std::fs::read_to_string(&findings) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            messages => messages.context("reading the messages"),
        }
    })
}

/// Everything inside `dir`, on free ports of the loop-back interface.
pub(super) fn embed(config: &mut Config, dir: &Path) {
    config.spool.dir = dir.join("spool");
    config.broker.kind = broker::Kind::File;
    config.broker.file = dir.join("findings.ndjson");
    config.dicom.bind = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // Nobody from outside comes here, and we come as we are.
    config.dicom.plain = true;
    config.dicom.addresses.clear();
    config.dicom.addresses_by_ae.clear();
    config.dicom.tls.bind.clear();
    config.dicom.tls.ae_titles.clear();
    config.http.bind = "127.0.0.1:0".to_owned();
}

/// Whom files are received from.
pub(super) struct Sender {
    /// Calling AE title.
    pub calling: AeTitle,
    /// Called AE title.
    pub called: AeTitle,
}

impl Sender {
    /// The command line.
    pub fn ourselves(config: &Config) -> Result<Self> {
        Ok(Self {
            calling: AeTitle::parse("INFER")?,
            called: config.dicom.ae_title.clone(),
        })
    }
}

/// Puts files into the spool as if they had been received. Gives those that could not be.
pub(super) fn ingest(config: &Config, files: &[PathBuf], from: &Sender) -> Result<Vec<PathBuf>> {
    let (spool, _) = Spool::open(config.spool.clone())?;
    let mut failed = Vec::new();
    for file in files {
        if let Err(err) = store(&spool, from, file) {
            eprintln!("pacs-gateway: {}: {err:#}", file.display());
            failed.push(file.clone());
        }
    }
    Ok(failed)
}

fn store(spool: &Spool, from: &Sender, path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let meta = FileMeta::read(&mut file)?;
    let mut incoming = spool.begin(Arrival {
        calling_ae: from.calling.clone(),
        called_ae: from.called.clone(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        sop_class: meta.media_storage_sop_class.clone(),
        sop_instance: meta.media_storage_sop_instance.clone(),
        transfer_syntax: meta.transfer_syntax.clone(),
    })?;
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(meta.data_set_offset))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        incoming.append(&buffer[..count])?;
    }
    incoming.commit()?;
    Ok(())
}

/// `path` itself, or the DICOM files below it in order of name.
pub(super) fn walk(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        files.push(path.to_owned());
        return;
    }
    let mut below: Vec<PathBuf> = std::fs::read_dir(path)
        .map(|items| {
            items
                .filter_map(|item| item.ok().map(|item| item.path()))
                .collect()
        })
        .unwrap_or_default();
    below.sort();
    for path in below {
        if path.is_dir() || is_part_10(&path) {
            walk(&path, files);
        }
    }
}

/// Whether a file has the prefix of PS3.10 §7.1.
fn is_part_10(path: &Path) -> bool {
    let mut head = [0; 132];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head.ends_with(b"DICM")
}
