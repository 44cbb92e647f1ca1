//! `serve`: the gateway until a signal ends it.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArgs, FAILED, Refused, runtime};
use crate::app::{App, Signals};

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = args.load()?;
    tracing::info!(config = %effective(&config), "configuration");
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let signals = Signals::default();
        listen(signals.clone())?;
        // A pod can be told to stop while it is still starting.
        let app = tokio::select! {
            app = App::build(config) => app.map_err(Refused)?.configured_by(args.config.clone()),
            () = signals.drain.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        Ok(match app.run(signals).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => {
                tracing::error!(error = %err, "the gateway failed");
                ExitCode::from(FAILED)
            }
        })
    });
    // A decoder or a sync that is still at work must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// The first SIGTERM or SIGINT drains, the second stops at once. SIGHUP reloads the configuration, as
/// soon as the gateway runs.
fn listen(signals: Signals) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let reload = std::sync::Arc::clone(&signals.reload);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.notify_one();
        }
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for token in [signals.drain, signals.stop] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(())
}

/// The configuration in force, without the secrets that it may hold.
fn effective(config: &crate::config::Config) -> String {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    if let Some(url) = value.pointer_mut("/broker/url") {
        *url = serde_json::Value::from("(hidden)");
    }
    value.to_string()
}
