//! `complete`: tells the running gateway that a study is complete.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::ask::request;
use super::server::Gateway;

/// The gateway answers before it works on the study.
const DEADLINE: Duration = Duration::from_secs(30);

/// Arguments of `complete`.
#[derive(Args)]
pub(super) struct CompleteArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// Study Instance UID.
    uid: String,
}

pub(super) fn run(args: &CompleteArgs) -> anyhow::Result<ExitCode> {
    let path = format!("studies/{}/complete", args.uid);
    request(&args.gateway, &path, &json!({}), DEADLINE)?;
    println!("{} counts as complete", args.uid);
    Ok(ExitCode::SUCCESS)
}
