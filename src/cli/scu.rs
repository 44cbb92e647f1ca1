//! `echo`, `send` and `find`: is the other side there, does it take these files, and how many
//! instances of a study does it have?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{FAILED, runtime};
use crate::dicom::StudyInstanceUid;
use crate::dicom::ae_title::AeTitle;
use crate::scu::{self, Found, Target};
use crate::tls::{Client, Identity};
use crate::units::HumanDuration;

/// Arguments of `echo`.
#[derive(Args)]
pub(super) struct EchoArgs {
    /// AE@host:port of the peer; with TLS also AE@tls://host:port.
    #[arg(long)]
    to: String,
    /// Our AE title.
    #[arg(long, default_value = "PACSGATEWAY")]
    calling: String,
    #[command(flatten)]
    tls: TlsArgs,
}

/// How TLS is spoken; any of these says that it is.
#[derive(Args)]
pub(super) struct TlsArgs {
    /// Speak TLS and trust the authorities of the system, unless --tls-ca names others.
    #[arg(long)]
    tls: bool,
    /// PEM file with authorities whose certificates are trusted.
    #[arg(long, value_name = "FILE", num_args = 1)]
    tls_ca: Vec<PathBuf>,
    /// PEM file with our certificate and its chain.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// PEM file with our private key.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

/// Arguments of `send`.
#[derive(Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    peer: EchoArgs,
    /// Files and folders.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Arguments of `find`.
#[derive(Args)]
pub(super) struct FindArgs {
    #[command(flatten)]
    peer: EchoArgs,
    /// Study Instance UID.
    study: String,
    /// Longest wait for all of it.
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    patience: HumanDuration,
}

impl EchoArgs {
    fn parse(&self) -> anyhow::Result<(Target, AeTitle)> {
        let mut target: Target = self.to.parse()?;
        let TlsArgs {
            tls,
            tls_ca,
            tls_certificate,
            tls_key,
        } = &self.tls;
        let identity = tls_certificate.clone().zip(tls_key.clone());
        if target.tls.is_some() || *tls || !tls_ca.is_empty() || identity.is_some() {
            target.tls = Some(Client {
                ca: tls_ca.clone(),
                identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            });
        }
        Ok((target, AeTitle::parse(&self.calling)?))
    }
}

pub(super) fn echo(args: &EchoArgs) -> anyhow::Result<ExitCode> {
    let (target, calling) = args.parse()?;
    let took = runtime()?.block_on(scu::echo(&target, &calling))?;
    println!("{target} answered in {:.1} ms", took.as_secs_f64() * 1e3);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn send(args: &SendArgs) -> anyhow::Result<ExitCode> {
    let (target, calling) = args.peer.parse()?;
    let summary = runtime()?.block_on(scu::send(&target, &calling, &args.paths, |sent| {
        let path = sent.path.display();
        match &sent.result {
            Ok(status) => println!("{path}\t{status}"),
            Err(err) => println!("{path}\terror\t{err}"),
        }
    }))?;
    eprintln!(
        "{} stored, {} failed, {:.1} MB",
        summary.stored,
        summary.failed,
        summary.bytes as f64 / 1e6
    );
    Ok(if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

pub(super) fn find(args: &FindArgs) -> anyhow::Result<ExitCode> {
    let (target, calling) = args.peer.parse()?;
    let study = StudyInstanceUid::parse(&args.study)?;
    let question = scu::find_study(&target, &calling, &study, args.patience.get());
    let answer = match runtime()?.block_on(question)? {
        Found::Instances(count) => {
            println!("{count}");
            return Ok(ExitCode::SUCCESS);
        }
        Found::Nothing => "does not know the study",
        Found::Uncounted => {
            "knows the study, but does not say Number of Study Related Instances (0020,1208)"
        }
    };
    eprintln!("{target} {answer}");
    Ok(ExitCode::from(FAILED))
}
