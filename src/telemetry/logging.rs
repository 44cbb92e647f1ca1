//! Logs: `tracing` on stderr, for people on a terminal and as JSON elsewhere.

use std::io::IsTerminal;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

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

/// Installs the subscriber; a second call changes nothing.
///
/// # Errors
/// `log.level` that is no filter.
pub fn init(config: &Config) -> Result<(), String> {
    // OpenJPEG tells of every header it has read.
    let filter = EnvFilter::try_new(format!("jpeg2k=warn,{}", config.level))
        .map_err(|err| format!("log.level: `{}` is no filter: {err}", config.level))?;
    let json = match config.format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Tests and `demo` build several gateways in one process; the first subscriber stays.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).compact().try_init()
    };
    Ok(())
}
