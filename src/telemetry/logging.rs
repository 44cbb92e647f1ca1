//! Logs: `tracing` on stderr, for people on a terminal and as JSON elsewhere.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

/// The `[log]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Filter in the syntax of `tracing_subscriber`, for example `info` or `pacs_gateway=debug`.
    pub level: String,
    /// `auto`: JSON unless stderr is a terminal.
    pub format: Format,
    /// File with the key of the hash that stands for a study in logs.
    pub study_key_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Auto,
            study_key_file: PathBuf::new(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON unless stderr is a terminal.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Changes the filter of the subscriber.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Of the subscriber that was installed.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Reads `log.level`.
///
/// # Errors
/// One that is no filter.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    // OpenJPEG tells of every header it has read.
    EnvFilter::try_new(format!("jpeg2k=warn,{level}"))
        .map_err(|err| format!("log.level: `{level}` is no filter: {err}"))
}

/// Another filter from now on. Does nothing where no subscriber was installed.
///
/// # Errors
/// The subscriber is gone.
pub fn set_filter(filter: EnvFilter) -> Result<(), String> {
    SET_FILTER.get().map_or(Ok(()), |set| set(filter))
}

/// Installs the subscriber; a second call changes nothing.
///
/// # Errors
/// `log.level` that is no filter.
pub fn init(config: &Config) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let json = match config.format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<_> + Send + Sync> = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_target(false).compact().boxed()
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // Tests and `demo` build several gateways in one process; the first subscriber stays.
    if subscriber.try_init().is_ok() {
        let set = move |filter| handle.reload(filter).map_err(|err| err.to_string());
        let _ = SET_FILTER.set(Box::new(set));
    }
    Ok(())
}
