//! `status`: the running gateway on one page.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::ask::{get, print};
use super::server::Gateway;

/// Arguments of `status`.
#[derive(Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let body = get(&args.gateway, "status")?;
    if args.json {
        return print(&body);
    }
    println!("{}", page(&body));
    Ok(ExitCode::SUCCESS)
}

/// One line per thing.
fn page(body: &Value) -> String {
    let at = |pointer: &str| body.pointer(pointer).unwrap_or(&Value::Null);
    let text = |pointer: &str| match at(pointer) {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let size = |pointer: &str| format!("{} MiB", at(pointer).as_u64().unwrap_or(0) >> 20);
    let age = |pointer: &str| match at(pointer).as_u64() {
        Some(seconds) => format!(", the oldest for {seconds} s"),
        None => String::new(),
    };
    let paused = |what: &str| {
        let pause = at(&format!("/paused/{what}"));
        let word = |key: &str| pause.get(key).and_then(Value::as_str);
        let since = word("since")?;
        let until = word("until").map_or(String::new(), |at| format!(" until {at}"));
        let reason = word("reason").filter(|reason| !reason.is_empty());
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        Some(format!("PAUSED since {since}{until}{reason}"))
    };
    let listener = paused("listener").unwrap_or_else(|| "open".to_owned());
    let broker = paused("broker").unwrap_or_else(|| {
        let error = at("/broker/error").as_str();
        match (at("/broker/connected"), at("/broker/blocked")) {
            (Value::Bool(true), Value::Bool(true)) => "connected, takes nothing".to_owned(),
            (Value::Bool(true), _) => "connected".to_owned(),
            _ => format!("AWAY: {}", error.unwrap_or("not reached yet")),
        }
    });
    let spool = match at("/spool/reason").as_str() {
        None => "accepting".to_owned(),
        Some(reason) => format!("FULL ({reason})"),
    };
    let models = at("/models").as_array();
    let models: Vec<String> = models
        .into_iter()
        .flatten()
        .map(|model| {
            let word = |key: &str| model.get(key).and_then(Value::as_str).unwrap_or("-");
            let (name, version) = (word("name"), word("version"));
            format!("{name}@{version} ({}, {})", word("role"), word("state"))
        })
        .collect();
    let reload = match (at("/last_reload/at").as_str(), at("/last_reload/refused")) {
        (None, _) => "none since the start".to_owned(),
        (Some(at), Value::String(reason)) => format!("{at} REFUSED: {reason}"),
        (Some(at), _) => {
            let waiting = body.pointer("/last_reload/report/needs_restart");
            let waiting = waiting.and_then(Value::as_array).map_or(0, Vec::len);
            format!("{at}, {waiting} keys need a restart")
        }
    };
    let phase = match at("/draining") {
        Value::Bool(true) => "DRAINING",
        _ => "running",
    };
    let ports = at("/ports").as_object();
    let ports: Vec<String> = ports
        .into_iter()
        .flatten()
        .filter(|(_, port)| !port.is_null())
        .map(|(name, port)| format!("{name} {port}"))
        .collect();
    [
        format!("gateway     {phase}, version {}", text("/version")),
        format!("ports       {}", ports.join(", ")),
        format!(
            "listener    {listener}, {} associations",
            text("/listener/associations")
        ),
        format!("broker      {broker}"),
        format!(
            "spool       {spool}, {} instances, {}, {} free{}",
            text("/spool/instances"),
            size("/spool/bytes"),
            size("/spool/free_bytes"),
            age("/spool/oldest_seconds")
        ),
        format!(
            "studies     {} open, {} in work",
            text("/studies/open"),
            text("/studies/in_work")
        ),
        format!(
            "outbox      {} messages, {} of shadows{}",
            text("/outbox/messages"),
            text("/outbox/shadow"),
            age("/outbox/oldest_seconds")
        ),
        format!("commitments {} open", text("/commitments_open")),
        format!(
            "quarantine  {} instances, {}",
            text("/quarantine/instances"),
            size("/quarantine/bytes")
        ),
        format!("models      {}", models.join(", ")),
        format!("refused     {} versions", text("/refused_models")),
        format!("reload      {reload}"),
    ]
    .join("\n")
}
