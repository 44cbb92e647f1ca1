//! The command line: one file per command, exit codes in one place.
//!
//! 0 success · 1 a stage or a file failed, or `replay` found a difference · 2 usage · 64 configuration
//! or model refused, or nothing to replay.

mod ask;
mod check;
mod commitment;
mod complete;
pub mod decode;
mod demo;
mod evaluate;
mod explain;
mod infer;
mod ledger;
mod models;
mod outbox;
mod pause;
mod quarantine;
mod reload;
mod replay;
mod scu;
mod serve;
mod server;
mod status;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;

/// Configuration or model refused at start (`EX_USAGE` of sysexits.h).
const REFUSED: u8 = 64;
/// Wrong usage, as clap has it.
const MISUSED: u8 = 2;
/// A stage or a file failed at run time.
const FAILED: u8 = 1;

#[derive(Parser)]
#[command(name = "pacs-gateway", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(ConfigArgs),
    /// Load configuration and every model, run the golden cases, print a table.
    Check(check::CheckArgs),
    /// Everything embedded: send sample studies over DICOM and show the findings.
    Demo(ConfigArgs),
    /// The same pipeline without a network: one JSON message per line on stdout.
    Infer(infer::InferArgs),
    /// Labelled studies through the same pipeline: how good is a model on them?
    Evaluate(evaluate::EvaluateArgs),
    /// A study through the same model once more: would the message be the same?
    Replay(replay::ReplayArgs),
    /// Decode files: hashes, arrays or pictures of their pixel values.
    Decode(decode::DecodeArgs),
    /// What the gateway starts to decode files in.
    #[command(hide = true)]
    DecodeWorker(crate::decoder::WorkerArgs),
    /// What the gateway starts to run models in.
    #[command(hide = true)]
    InferenceWorker(crate::inference::WorkerArgs),
    /// C-ECHO: check a connection.
    Echo(scu::EchoArgs),
    /// C-STORE: send files.
    Send(scu::SendArgs),
    /// C-FIND: how many instances of a study does a PACS have?
    Find(scu::FindArgs),
    /// What the running gateway knows of studies.
    Study(ask::StudyArgs),
    /// Tell the running gateway that a study is complete.
    Complete(complete::CompleteArgs),
    /// What the running gateway has received, by sender and in bulk.
    Ledger(ledger::LedgerArgs),
    /// What the running gateway owes the broker.
    Outbox(outbox::OutboxArgs),
    /// Storage Commitment requests.
    Commitment(commitment::CommitmentArgs),
    /// What the running gateway has set aside.
    Quarantine(quarantine::QuarantineArgs),
    /// Which versions of models the running gateway serves, and changing that.
    Models(models::ModelsArgs),
    /// How the running gateway is doing, on one page.
    Status(status::StatusArgs),
    /// Have the running gateway read its configuration again.
    Reload(reload::ReloadArgs),
    /// Have the running gateway accept no associations, or publish nothing, for a while.
    Pause(pause::PauseArgs),
    /// End a pause.
    Resume(pause::ResumeArgs),
}

/// Where the configuration comes from.
#[derive(Args, Clone, Default)]
pub(crate) struct ConfigArgs {
    /// Configuration file; may be given more than once, later files win.
    #[arg(long, global = true, value_name = "FILE", env = "PACS_GATEWAY_CONFIG")]
    config: Vec<PathBuf>,
}

impl ConfigArgs {
    /// Loads the configuration and installs the logger.
    fn load(&self) -> Result<Config, Refused> {
        let config = Config::load(&self.config).map_err(|err| Refused(err.into()))?;
        crate::telemetry::logging::init(&config.log)
            .map_err(|reason| Refused(anyhow::anyhow!(reason)))?;
        Ok(config)
    }
}

/// Configuration or a model was refused.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Refused(anyhow::Error);

/// The command was used wrongly, in a way that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(String);

/// Parses the arguments, runs the command, maps its end to an exit code.
pub fn main() -> ExitCode {
    // clap ends the process with 2 on wrong usage, and with 0 after `--help`.
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Infer(args) => infer::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::DecodeWorker(args) => crate::decoder::work(&args).map_err(Into::into),
        Command::InferenceWorker(args) => crate::inference::work(&args).map_err(Into::into),
        Command::Echo(args) => scu::echo(&args),
        Command::Send(args) => scu::send(&args),
        Command::Find(args) => scu::find(&args),
        Command::Study(args) => ask::study(&args),
        Command::Complete(args) => complete::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Outbox(args) => outbox::run(&args),
        Command::Commitment(args) => commitment::run(&args),
        Command::Quarantine(args) => quarantine::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => pause::resume(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(err) => {
            eprintln!("pacs-gateway: {err:#}");
            ExitCode::from(match () {
                () if err.is::<Refused>() => REFUSED,
                () if err.is::<Misused>() => MISUSED,
                () => FAILED,
            })
        }
    }
}

/// A runtime for a command.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}
