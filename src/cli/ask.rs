//! How commands ask the running gateway, over its HTTP API; `status` and `study`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::server::Gateway;
use super::{Misused, table};

/// For an export, however long the ledger is.
const DOWNLOAD: Duration = Duration::from_secs(3600);

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
    /// Studies, the one that was first heard of last first.
    Ls {
        /// The one that log lines and traces call so.
        #[arg(long, value_name = "ID")]
        log_id: Option<String>,
        /// From this calling AE title.
        #[arg(long, value_name = "AE")]
        from: Option<String>,
        /// With an instance of this modality.
        #[arg(long)]
        modality: Option<String>,
        /// Still receiving, publishing, or done.
        #[arg(long, value_parser = ["receiving", "publishing", "done"])]
        state: Option<String>,
        #[command(flatten)]
        span: SpanArgs,
        /// Studies at most.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Everything about one study, as JSON.
    Show {
        /// Study Instance UID.
        uid: String,
    },
    /// Work on a study that has ended once more, as when a model was repaired.
    Retry {
        /// Study Instance UID.
        uid: String,
    },
    /// Remove a study's instances from the spool now. The ledger keeps what they were.
    Rm {
        /// Study Instance UID.
        uid: String,
        /// Why; the ledger keeps it.
        #[arg(long)]
        reason: String,
        /// Also when messages about it are owed, or it was committed to its sender.
        #[arg(long)]
        force: bool,
        /// Yes, nobody needs them any more.
        #[arg(long)]
        yes: bool,
    },
}

/// A span of time.
#[derive(Args)]
pub(super) struct SpanArgs {
    /// From then on: RFC 3339, or how long ago, as 2h30m.
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Before then.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
}

impl SpanArgs {
    pub(super) fn query(&self) -> Vec<(&'static str, &str)> {
        let since = self.since.as_deref().map(|when| ("since", when));
        let until = self.until.as_deref().map(|when| ("until", when));
        since.into_iter().chain(until).collect()
    }
}

pub(super) fn study(args: &StudyArgs) -> anyhow::Result<ExitCode> {
    match &args.question {
        StudyQuestion::Ls {
            log_id,
            from,
            modality,
            state,
            span,
            limit,
        } => {
            let limit = limit.to_string();
            let mut query = span.query();
            query.push(("limit", &limit));
            for (name, value) in [
                ("log_id", log_id),
                ("calling_ae", from),
                ("modality", modality),
                ("state", state),
            ] {
                query.extend(value.as_deref().map(|value| (name, value)));
            }
            let body = get_with(&args.gateway, "studies", &query)?;
            let columns = [
                ("study", "study_instance_uid"),
                ("log id", "log_id"),
                ("state", "state"),
                ("received", "instances_received"),
                ("processed", "instances_processed"),
                ("refused", "instances_refused"),
                ("published", "published"),
                ("confirmed", "confirmed"),
                ("from", "calling_ae"),
                ("last", "received_last"),
            ];
            show(&body, "studies", &columns)?;
            if body.get("next").is_some() {
                println!("there are more: see --limit");
            }
            Ok(ExitCode::SUCCESS)
        }
        StudyQuestion::Show { uid } => print(&get(&args.gateway, &format!("studies/{uid}"))?),
        StudyQuestion::Retry { uid } => {
            let path = format!("studies/{uid}/retry");
            let deadline = Duration::from_secs(60);
            let body = serde_json::json!({});
            print(&request(&args.gateway, &path, &body, deadline)?)
        }
        StudyQuestion::Rm { yes: false, .. } => {
            Err(Misused("its instances will be gone for ever: say --yes".to_owned()).into())
        }
        StudyQuestion::Rm {
            uid, reason, force, ..
        } => {
            let path = format!("studies/{uid}");
            let force = force.to_string();
            let query = [("reason", reason.as_str()), ("force", &force)];
            print(&delete(&args.gateway, &path, &query)?)
        }
    }
}

/// Prints an answer as it is.
pub(super) fn print(body: &Value) -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(body)?);
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
    get_with(gateway, path, &[])
}

pub(super) fn get_with(
    gateway: &Gateway,
    path: &str,
    query: &[(&str, &str)],
) -> anyhow::Result<Value> {
    let server = gateway.find(Duration::from_secs(10))?;
    let url = server.url(path);
    let asked = server.agent.get(&url);
    let asked = asked.header("Authorization", &server.authorization);
    answer(&url, asked.query_pairs(query.iter().copied()).call())
}

/// Writes the body of an answer to `out`, all of it or an error.
pub(super) fn download(
    gateway: &Gateway,
    path: &str,
    query: &[(&str, &str)],
    out: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let server = gateway.find(DOWNLOAD)?;
    let url = server.url(path);
    let asked = server.agent.get(&url);
    let asked = asked.header("Authorization", &server.authorization);
    let asked = asked.query_pairs(query.iter().copied()).call();
    let mut answered =
        asked.with_context(|| format!("asking {url}; is the gateway running there?"))?;
    if !answered.status().is_success() {
        answer(&url, Ok(answered))?;
        bail!("unexpected answer");
    }
    let mut body = answered.body_mut().as_reader();
    std::io::copy(&mut body, out).context("the export was broken off")?;
    out.flush()?;
    Ok(())
}

/// A POST.
pub(super) fn request(
    gateway: &Gateway,
    path: &str,
    body: &Value,
    deadline: Duration,
) -> anyhow::Result<Value> {
    let server = gateway.find(deadline)?;
    let url = server.url(path);
    let post = server.agent.post(&url);
    let post = post.header("Authorization", &server.authorization);
    answer(&url, post.send_json(body))
}

/// A DELETE.
pub(super) fn delete(
    gateway: &Gateway,
    path: &str,
    query: &[(&str, &str)],
) -> anyhow::Result<Value> {
    let server = gateway.find(Duration::from_secs(60))?;
    let url = server.url(path);
    let delete = server.agent.delete(&url);
    let delete = delete.query_pairs(query.iter().copied());
    let delete = delete.header("Authorization", &server.authorization);
    answer(&url, delete.call())
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
