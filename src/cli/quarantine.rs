//! `quarantine`: what the running gateway has set aside, putting it back, deleting it.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Misused;
use super::ask::{delete, get, get_with, print, request, show};
use super::server::Gateway;

/// Arguments of `quarantine`.
#[derive(Args)]
pub(super) struct QuarantineArgs {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    command: Command,
}

/// Which entries.
#[derive(Args)]
#[group(multiple = true)]
struct Which {
    /// Everything of this Study Instance UID.
    #[arg(long, value_name = "UID")]
    study: Option<String>,
    /// Everything with this reason code.
    #[arg(long)]
    code: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// List.
    Ls {
        #[command(flatten)]
        which: Which,
    },
    /// What is known of an entry, as JSON.
    Show {
        /// The entry.
        entry: String,
    },
    /// Work on it again: back into the spool, as an arrival of its study.
    Retry {
        /// The entry.
        #[arg(required_unless_present = "Which", conflicts_with = "Which")]
        entry: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// Delete it for ever. The ledger keeps what it was.
    Rm {
        /// The entry.
        entry: String,
        /// Yes, nobody needs it any more.
        #[arg(long)]
        yes: bool,
    },
}

/// A large study is read whole before it goes back.
const DEADLINE: Duration = Duration::from_secs(600);

pub(super) fn run(args: &QuarantineArgs) -> anyhow::Result<ExitCode> {
    let gateway = &args.gateway;
    match &args.command {
        Command::Ls { which } => {
            let columns = [
                ("entry", "entry"),
                ("code", "code"),
                ("since", "since"),
                ("bytes", "bytes"),
                ("from", "calling_ae"),
                ("study", "study_instance_uid"),
                ("reason", "reason"),
            ];
            let query = [("study", &which.study), ("code", &which.code)];
            let query = query
                .iter()
                .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
            let query: Vec<_> = query.collect();
            let body = get_with(gateway, "quarantine", &query)?;
            show(&body, "quarantine", &columns)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { entry } => print(&get(gateway, &format!("quarantine/{entry}"))?),
        Command::Retry { entry, which } => {
            let (path, body) = match entry {
                Some(entry) => (format!("quarantine/{entry}/retry"), json!({})),
                None => ("quarantine/retry".to_owned(), selection(which)),
            };
            print(&request(gateway, &path, &body, DEADLINE)?)
        }
        Command::Rm { yes: false, .. } => {
            Err(Misused("it will be gone for ever: say --yes".to_owned()).into())
        }
        Command::Rm { entry, .. } => {
            let path = format!("quarantine/{entry}");
            print(&delete(gateway, &path, &[])?)
        }
    }
}

fn selection(which: &Which) -> Value {
    let given = [("study", &which.study), ("code", &which.code)];
    let given = given.iter().filter_map(|(name, value)| {
        let value = value.as_ref()?;
        Some(((*name).to_owned(), Value::String(value.clone())))
    });
    Value::Object(given.collect())
}
