//! `outbox`: what the running gateway owes the broker, sending it at once, giving it up.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Misused;
use super::ask::{delete, get, print, request, show};
use super::server::Gateway;

/// Arguments of `outbox`.
#[derive(Args)]
pub(super) struct OutboxArgs {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Messages that are owed, oldest first.
    Ls,
    /// One message without its body, as JSON.
    Show {
        /// Its id.
        id: String,
    },
    /// Send now what waits for its next attempt.
    Retry {
        /// Id of the message.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// Everything that is owed.
        #[arg(long)]
        all: bool,
    },
    /// Give a message up: nobody will get it.
    Rm {
        /// Its id.
        id: String,
        /// Why; the ledger keeps it. No patient data.
        #[arg(long)]
        reason: String,
        /// Yes, nobody shall get it.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(args: &OutboxArgs) -> anyhow::Result<ExitCode> {
    let gateway = &args.gateway;
    match &args.command {
        Command::Ls => {
            let columns = [
                ("message", "id"),
                ("model", "model"),
                ("outcome", "outcome"),
                ("for", "exchange"),
                ("attempts", "attempts"),
                ("since", "published"),
                ("last error", "last_error"),
            ];
            show(&get(gateway, "outbox")?, "messages", &columns)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id } => print(&get(gateway, &format!("outbox/{id}"))?),
        Command::Retry { id, .. } => {
            let path = match id {
                Some(id) => format!("outbox/{id}/retry"),
                None => "outbox/retry".to_owned(),
            };
            let deadline = Duration::from_secs(60);
            print(&request(gateway, &path, &json!({}), deadline)?)
        }
        Command::Rm { yes: false, .. } => {
            Err(Misused("nobody will get this message: say --yes".to_owned()).into())
        }
        Command::Rm { id, reason, .. } => {
            let path = format!("outbox/{id}");
            print(&delete(gateway, &path, &[("reason", reason)])?)
        }
    }
}
