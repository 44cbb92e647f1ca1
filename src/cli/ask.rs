//! `study`, `outbox`, `commitment`, `quarantine`: questions to the running gateway, over its HTTP API.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::table;

/// Where the gateway is.
#[derive(Args)]
pub(super) struct Gateway {
    /// URL of the gateway's HTTP server.
    #[arg(
        long,
        global = true,
        default_value = "http://127.0.0.1:8080",
        env = "PACS_GATEWAY_URL"
    )]
    url: String,
}

/// Who may change something.
#[derive(Args)]
pub(super) struct TokenArgs {
    /// File with the token of `http.admin_token_file`.
    #[arg(long, value_name = "FILE", env = "PACS_GATEWAY_TOKEN_FILE")]
    token_file: PathBuf,
}

impl TokenArgs {
    /// The token.
    pub(super) fn read(&self) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(&self.token_file)
            .with_context(|| format!("reading {}", self.token_file.display()))?;
        Ok(text.trim().to_owned())
    }
}

/// Arguments of `study`.
#[derive(Args)]
pub(super) struct StudyArgs {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    question: StudyQuestion,
}

#[derive(Subcommand)]
enum StudyQuestion {
    /// The studies that were touched last.
    Ls,
    /// Everything about one study, as JSON.
    Show {
        /// Study Instance UID.
        uid: String,
    },
}

/// Arguments of `outbox`, `commitment` and `quarantine`.
#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    question: ListQuestion,
}

#[derive(Subcommand)]
enum ListQuestion {
    /// List.
    Ls,
}

pub(super) fn study(args: &StudyArgs) -> anyhow::Result<ExitCode> {
    match &args.question {
        StudyQuestion::Ls => list(
            &args.gateway,
            "studies",
            "studies",
            &[
                ("study", "study_instance_uid"),
                ("state", "state"),
                ("received", "instances_received"),
                ("processed", "instances_processed"),
                ("published", "published"),
                ("confirmed", "confirmed"),
                ("from", "calling_ae"),
                ("last", "received_last"),
            ],
        ),
        StudyQuestion::Show { uid } => {
            let body = get(&args.gateway, &format!("studies/{uid}"))?;
            println!("{}", serde_json::to_string_pretty(&body)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(super) fn outbox(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let ListQuestion::Ls = args.question;
    list(
        &args.gateway,
        "outbox",
        "messages",
        &[
            ("message", "id"),
            ("model", "model"),
            ("outcome", "outcome"),
            ("for", "exchange"),
            ("attempts", "attempts"),
            ("since", "published"),
            ("last error", "last_error"),
        ],
    )
}

pub(super) fn commitment(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let ListQuestion::Ls = args.question;
    list(
        &args.gateway,
        "commitments",
        "commitments",
        &[
            ("transaction", "transaction_uid"),
            ("from", "calling_ae"),
            ("state", "state"),
            ("instances", "instances"),
            ("failed", "failed"),
            ("received", "received"),
            ("attempts", "attempts"),
            ("last error", "last_error"),
        ],
    )
}

pub(super) fn quarantine(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let ListQuestion::Ls = args.question;
    list(
        &args.gateway,
        "quarantine",
        "quarantine",
        &[("entry", "entry"), ("reason", "reason")],
    )
}

fn list(
    gateway: &Gateway,
    path: &str,
    field: &str,
    columns: &[(&str, &str)],
) -> anyhow::Result<ExitCode> {
    show(&get(gateway, path)?, field, columns)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the objects in `field` of an answer as a table: for each column its title and its key.
pub(super) fn show(body: &Value, field: &str, columns: &[(&str, &str)]) -> anyhow::Result<()> {
    let items = body
        .get(field)
        .and_then(Value::as_array)
        .context("unexpected answer")?;
    let cell = |item: &Value, key: &str| match item.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| columns.iter().map(|(_, key)| cell(item, key)).collect())
        .collect();
    let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    println!("{}", table::render(&header, &rows));
    Ok(())
}

pub(super) fn get(gateway: &Gateway, path: &str) -> anyhow::Result<Value> {
    let url = url(gateway, path);
    let asked = agent(Duration::from_secs(10)).get(&url).call();
    answer(&url, asked)
}

/// A POST with the administrator's token.
pub(super) fn request(
    gateway: &Gateway,
    path: &str,
    token: &str,
    body: &Value,
    deadline: Duration,
) -> anyhow::Result<Value> {
    let url = url(gateway, path);
    let post = agent(deadline).post(&url);
    let post = post.header("Authorization", format!("Bearer {token}"));
    answer(&url, post.send_json(body))
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("{}/api/v1/{path}", gateway.url.trim_end_matches('/'))
}

fn agent(deadline: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(deadline))
        .http_status_as_error(false)
        .build()
        .into()
}

fn answer(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> anyhow::Result<Value> {
    let mut answer =
        answer.with_context(|| format!("asking {url}; is the gateway running there?"))?;
    let status = answer.status();
    let body: Value = answer
        .body_mut()
        .read_json()
        .context("the answer is no JSON")?;
    if !status.is_success() {
        bail!(
            "{}",
            body.get("error")
                .and_then(Value::as_str)
                .unwrap_or(status.as_str())
        );
    }
    Ok(body)
}
