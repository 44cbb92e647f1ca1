//! `ledger`: the receipt ledger of the running gateway, by sender and in bulk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::ask::{SpanArgs, download, get_with, show};
use super::server::Gateway;

/// Arguments of `ledger`.
#[derive(Args)]
pub(super) struct LedgerArgs {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// What every sender has sent, and what has become of it.
    Sources {
        #[command(flatten)]
        span: SpanArgs,
    },
    /// A row for every instance, with all its times.
    Export {
        /// How to write it.
        #[arg(long, default_value = "csv")]
        format: Format,
        #[command(flatten)]
        span: SpanArgs,
        /// Into this file; without, to standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// RFC 4180, with a header line.
    Csv,
    /// One JSON object per line.
    Ndjson,
}

pub(super) fn run(args: &LedgerArgs) -> anyhow::Result<ExitCode> {
    match &args.question {
        Question::Sources { span } => {
            let body = get_with(&args.gateway, "sources", &span.query())?;
            let columns = [
                ("from", "calling_ae"),
                ("studies", "studies"),
                ("received", "instances_received"),
                ("open", "instances_open"),
                ("processed", "instances_processed"),
                ("refused", "instances_refused"),
                ("confirmed", "instances_confirmed"),
                ("last", "received_last"),
            ];
            show(&body, "sources", &columns)?;
        }
        Question::Export {
            format,
            span,
            output,
        } => {
            let path = match format {
                Format::Csv => "ledger.csv",
                Format::Ndjson => "ledger.ndjson",
            };
            let mut out: Box<dyn Write> = match output {
                Some(file) => {
                    let created = File::create(file)
                        .with_context(|| format!("writing {}", file.display()))?;
                    Box::new(BufWriter::new(created))
                }
                None => Box::new(std::io::stdout().lock()),
            };
            download(&args.gateway, path, &span.query(), &mut out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
