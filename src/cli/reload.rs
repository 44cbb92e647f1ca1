//! `reload`: the running gateway reads its configuration again.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::FAILED;
use super::ask::request;
use super::server::Gateway;

/// Models may have to be loaded and proved.
const DEADLINE: Duration = Duration::from_secs(600);

/// Arguments of `reload`.
#[derive(Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) fn run(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let report = request(&args.gateway, "reload", &json!({}), DEADLINE)?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    let refused = report.pointer("/models/refused").and_then(Value::as_array);
    Ok(match refused.is_none_or(Vec::is_empty) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}
