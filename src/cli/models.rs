//! `models`: which versions run in the gateway, and how to change it.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::FAILED;
use super::ask::{get, request, show};
use super::server::Gateway;

/// Loading and proving models takes as long as they are large.
const DEADLINE: Duration = Duration::from_secs(600);

/// Arguments of `models`.
#[derive(Args)]
pub(super) struct ModelsArgs {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// The versions that run, and what was refused.
    Ls,
    /// Look at the models folder now.
    Reload,
    /// Serve this version from now on; also the way back to an older one.
    Serve {
        /// Name of the model.
        name: String,
        /// The version.
        version: String,
    },
}

pub(super) fn run(args: &ModelsArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        ModelsCommand::Ls => ls(&args.gateway),
        ModelsCommand::Reload => {
            let body = json!({});
            let report = request(&args.gateway, "models/reload", &body, DEADLINE)?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            let refused = report.get("refused").and_then(Value::as_array);
            Ok(match refused.is_none_or(Vec::is_empty) {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(FAILED),
            })
        }
        ModelsCommand::Serve { name, version } => {
            let path = format!("models/{name}/serve");
            let body = json!({ "version": version });
            request(&args.gateway, &path, &body, DEADLINE)?;
            println!("{name}@{version} is served");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn ls(gateway: &Gateway) -> anyhow::Result<ExitCode> {
    let running = [
        ("model", "name"),
        ("version", "version"),
        ("role", "role"),
        ("percent", "percent"),
        ("signature", "signature"),
        ("in the folder", "versions"),
    ];
    let body = get(gateway, "models")?;
    show(&body, "models", &running)?;
    let refused = body.get("refused").and_then(Value::as_array);
    if refused.is_some_and(|refused| !refused.is_empty()) {
        let columns = [
            ("refused", "model"),
            ("version", "version"),
            ("reason", "reason"),
        ];
        println!();
        show(&body, "refused", &columns)?;
    }
    Ok(ExitCode::SUCCESS)
}
