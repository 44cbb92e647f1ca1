//! `commitment`: what the running gateway was asked to commit to.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::ask::{get, show};
use super::server::Gateway;

/// Arguments of `commitment`.
#[derive(Args)]
pub(super) struct CommitmentArgs {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Storage Commitment requests, newest first.
    Ls,
}

pub(super) fn run(args: &CommitmentArgs) -> anyhow::Result<ExitCode> {
    let Command::Ls = args.command;
    let columns = [
        ("transaction", "transaction_uid"),
        ("from", "calling_ae"),
        ("state", "state"),
        ("instances", "instances"),
        ("failed", "failed"),
        ("received", "received"),
        ("attempts", "attempts"),
        ("last error", "last_error"),
    ];
    show(&get(&args.gateway, "commitments")?, "commitments", &columns)?;
    Ok(ExitCode::SUCCESS)
}
