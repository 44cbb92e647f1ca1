//! `complete`: tells the running gateway that a study is complete.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::ask::{Gateway, TokenArgs, request};

/// The gateway answers before it works on the study.
const DEADLINE: Duration = Duration::from_secs(30);

/// Arguments of `complete`.
#[derive(Args)]
pub(super) struct CompleteArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// Study Instance UID.
    uid: String,
    #[command(flatten)]
    token: TokenArgs,
}

pub(super) fn run(args: &CompleteArgs) -> anyhow::Result<ExitCode> {
    let path = format!("studies/{}/complete", args.uid);
    let token = args.token.read()?;
    request(&args.gateway, &path, &token, &json!({}), DEADLINE)?;
    println!("{} counts as complete", args.uid);
    Ok(ExitCode::SUCCESS)
}
