//! `pause` and `resume`: the listener or the broker's side waits.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::ask::{print, request};
use super::server::Gateway;
use crate::units::HumanDuration;

const DEADLINE: Duration = Duration::from_secs(30);

/// What can wait.
#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// New associations are rejected as transient.
    Listener,
    /// Nothing is published; messages wait in the outbox.
    Broker,
}

impl What {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Broker => "broker",
        }
    }
}

/// Arguments of `pause`.
#[derive(Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// What is to wait.
    what: What,
    /// Why; shown in the status.
    #[arg(long, default_value = "")]
    reason: String,
    /// When it ends by itself, as 30m; at most 7d. A restart ends it too.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<HumanDuration>,
}

/// Arguments of `resume`.
#[derive(Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// What has waited long enough.
    what: What,
}

pub(super) fn pause(args: &PauseArgs) -> anyhow::Result<ExitCode> {
    let mut body = json!({ "reason": args.reason });
    if let Some(duration) = args.duration {
        body["for"] = json!(duration);
    }
    let path = format!("{}/pause", args.what.as_str());
    print(&request(&args.gateway, &path, &body, DEADLINE)?)
}

pub(super) fn resume(args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    let path = format!("{}/resume", args.what.as_str());
    let body = json!({});
    print(&request(&args.gateway, &path, &body, DEADLINE)?)
}
