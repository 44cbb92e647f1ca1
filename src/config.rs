//! Configuration: built-in defaults < files in order < environment, read strictly.
//!
//! Every key has a default, so the defaults are the list of known keys; one that is not among them is
//! an error that names it and the nearest known one. Numbers and durations that do not parse are
//! errors that name file and key. Values are never guessed: the AE title "0012" stays a string.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pipeline::MessageConfig;
use crate::units::HumanDuration;
use crate::{
    artefact, broker, commitment, decoder, http, inference, maintenance, registry, scp, spool,
    study, telemetry,
};

/// Environment variables with this prefix override files: `PACS_GATEWAY__DICOM__BIND`.
pub const ENVIRONMENT_PREFIX: &str = "PACS_GATEWAY__";
/// Read when no `--config` is given and it exists.
pub const DEFAULT_FILE: &str = "config/gateway.toml";

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The DICOM listener.
    pub dicom: scp::Config,
    /// Where accepted instances are kept.
    pub spool: spool::Config,
    /// What we answer for towards senders.
    pub commitment: commitment::Config,
    /// When studies are complete.
    pub study: study::Config,
    /// Where models are.
    pub models: registry::Config,
    /// How images are decoded.
    pub decode: decoder::Config,
    /// How models are run.
    pub inference: inference::Config,
    /// What messages may say.
    pub message: MessageConfig,
    /// Where pictures and masks are kept.
    pub artefacts: artefact::Config,
    /// Where messages go.
    pub broker: broker::Config,
    /// How long the ledger remembers.
    pub ledger: maintenance::Config,
    /// Probes, metrics, ledger.
    pub http: http::Config,
    /// Logs.
    pub log: telemetry::logging::Config,
    /// Traces.
    pub traces: telemetry::traces::Config,
    /// How the process ends.
    pub shutdown: Shutdown,
}

/// The `[shutdown]` section: graces of the drain, in the order of the flow.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Everything goes on as before while `/readyz` already says no.
    pub delay: HumanDuration,
    /// Associations finish the message in hand.
    pub associations: HumanDuration,
    /// Studies in hand are finished.
    pub studies: HumanDuration,
    /// The outbox is flushed.
    pub outbox: HumanDuration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            delay: HumanDuration::from_secs(0),
            associations: HumanDuration::from_secs(10),
            studies: HumanDuration::from_secs(10),
            outbox: HumanDuration::from_secs(5),
        }
    }
}

/// Refused configuration.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct ConfigError {
    /// File or environment variable.
    pub origin: String,
    /// Key and reason.
    pub reason: String,
}

impl ConfigError {
    fn new(origin: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            reason: reason.into(),
        }
    }
}

impl Config {
    /// Loads files, or [`DEFAULT_FILE`] when none is named and it exists, then the environment.
    ///
    /// # Errors
    /// The file or variable, the key and the reason.
    pub fn load(files: &[PathBuf]) -> Result<Self, ConfigError> {
        let default = PathBuf::from(DEFAULT_FILE);
        let files = if files.is_empty() && default.is_file() {
            std::slice::from_ref(&default)
        } else {
            files
        };
        Self::from_sources(files, std::env::vars_os())
    }

    fn from_sources(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let defaults = serde_json::to_value(Self::default())
            .map_err(|err| ConfigError::new("built-in defaults", err.to_string()))?;
        let mut builder = config::Config::builder();
        for file in files {
            let text = read(file, &defaults)?;
            // Each file is tried by itself first, so that an error names the file it is in.
            let source = config::File::from_str(&text, config::FileFormat::Toml);
            deserialize(config::Config::builder().add_source(source.clone()))
                .map_err(|reason| ConfigError::new(file.display().to_string(), reason))?;
            builder = builder.add_source(source);
        }
        for (name, value) in environment {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
                continue;
            };
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
                continue;
            };
            let key = key.to_ascii_lowercase().replace("__", ".");
            known(&key, &defaults).map_err(|reason| ConfigError::new(name, reason))?;
            let refuse = |reason: String| ConfigError::new(name, reason);
            let value = environment_value(&key, value, &defaults);
            let alone = config::Config::builder().set_override(key.as_str(), value.clone());
            deserialize(alone.map_err(|err| refuse(err.to_string()))?).map_err(refuse)?;
            builder = builder
                .set_override(key.as_str(), value)
                .map_err(|err| refuse(err.to_string()))?;
        }
        let config =
            deserialize(builder).map_err(|reason| ConfigError::new("configuration", reason))?;
        config.validate()?;
        Ok(config)
    }

    /// What reading each key alone does not find.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |reason: String| Err(ConfigError::new("configuration", reason));
        if let Err(err) = self.dicom.validate() {
            return refuse(format!("dicom.{err}"));
        }
        if let Err(reason) = self.models.sites.validate() {
            return refuse(format!("models.sites.{reason}"));
        }
        if let Err(err) = self.inference.validate() {
            return refuse(format!("inference.{err}"));
        }
        if let Err(err) = self.artefacts.validate() {
            return refuse(format!("artefacts.{err}"));
        }
        if let Err(reason) = self.broker.validate() {
            return refuse(format!("broker.{reason}"));
        }
        if let Err(reason) = self.study.validate() {
            return refuse(format!("study.{reason}"));
        }
        for (key, value) in [
            ("commitment.keep", self.commitment.keep),
            ("commitment.give_up_after", self.commitment.give_up_after),
        ] {
            if value.get().is_zero() {
                return refuse(format!("{key}: must be longer than zero"));
            }
        }
        if let Err(reason) = self.traces.validate() {
            return refuse(format!("traces.{reason}"));
        }
        if let Err(reason) = self.models.trust() {
            return refuse(reason);
        }
        if self.message.source.is_empty() {
            return refuse("message.source: must not be empty".to_owned());
        }
        if self.spool.limits.resume_bytes > self.spool.limits.max_bytes {
            return refuse(
                "spool.limits.resume_bytes: must not be above spool.limits.max_bytes".to_owned(),
            );
        }
        Ok(())
    }
}

impl Config {
    /// Reads the certificates, keys and tokens that are named, so that one that cannot be used is told at
    /// once. Blocking. Nobody is connected to: a broker that is away keeps nobody from starting.
    ///
    /// # Errors
    /// The key, the file and the reason.
    pub fn check_files(&self) -> Result<(), String> {
        self.dicom.tls.check_files()?;
        self.http.check_files()?;
        self.broker.check_files()?;
        self.traces.check_files()
    }
}

/// Every key with its default, in order: what `docs/configuration.md` must list.
pub fn keys() -> Vec<(String, Value)> {
    let mut keys = Vec::new();
    if let Ok(defaults) = serde_json::to_value(Config::default()) {
        flatten("", &defaults, &mut keys);
    }
    keys
}

fn read(file: &Path, defaults: &Value) -> Result<String, ConfigError> {
    let origin = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|err| ConfigError::new(&origin, format!("cannot be read: {err}")))?;
    // Not the error's own words, which show the line: there may be a secret in it.
    let table: toml::Table = toml::from_str(&text).map_err(|err| {
        let before = err.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
        ConfigError::new(&origin, format!("line {line}: {}", err.message()))
    })?;
    let table =
        serde_json::to_value(table).map_err(|err| ConfigError::new(&origin, err.to_string()))?;
    let mut keys = Vec::new();
    flatten("", &table, &mut keys);
    for (key, _) in keys {
        known(&key, defaults).map_err(|reason| ConfigError::new(&origin, reason))?;
    }
    Ok(text)
}

fn deserialize(
    builder: config::ConfigBuilder<config::builder::DefaultState>,
) -> Result<Config, String> {
    let built = builder.build().map_err(|err| err.to_string())?;
    built
        .try_deserialize::<Config>()
        .map_err(|err| err.to_string())
}

/// Lists come as `a,b` from the environment; everything else is a string that the type reads.
fn environment_value(key: &str, value: &str, defaults: &Value) -> config::Value {
    let pointer = format!("/{}", key.replace('.', "/"));
    if defaults.pointer(&pointer).is_some_and(Value::is_array) {
        let items: Vec<String> = value
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect();
        return config::Value::from(items);
    }
    config::Value::from(value)
}

fn known(key: &str, defaults: &Value) -> Result<(), String> {
    let mut keys = Vec::new();
    flatten("", defaults, &mut keys);
    let is_known = keys.iter().any(|(known, default)| {
        // A table that is empty by default takes keys of the operator's own.
        let open = default.as_object().is_some_and(serde_json::Map::is_empty);
        known == key || (open && key.starts_with(&format!("{known}.")))
    });
    if is_known {
        return Ok(());
    }
    let names: BTreeSet<&str> = keys.iter().map(|(known, _)| known.as_str()).collect();
    let nearest = names
        .iter()
        .min_by_key(|known| distance(known, key))
        .copied()
        .unwrap_or_default();
    Err(format!("{key}: unknown key; did you mean `{nearest}`?"))
}

fn flatten(prefix: &str, value: &Value, keys: &mut Vec<(String, Value)>) {
    match value.as_object() {
        Some(table) if !table.is_empty() || prefix.is_empty() => {
            for (key, value) in table {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&path, value, keys);
            }
        }
        _ => keys.push((prefix.to_owned(), value.clone())),
    }
}

/// Levenshtein distance, for the hint in an error.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row.first().copied().unwrap_or(0);
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, b) in right.bytes().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(0);
            let before = row.get(j).copied().unwrap_or(0);
            let cost = diagonal + usize::from(a != b);
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = cost.min(above + 1).min(before + 1);
            }
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, text).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Config::from_sources(&[file], environment)
    }

    #[test]
    fn the_environment_overrides_the_file_overrides_the_default() {
        let text = "[study]\nquiet_period = \"2s\"\n[dicom]\nae_title = \"0012\"\n";
        let config = load(text, &[("PACS_GATEWAY__BROKER__KIND", "file")]).unwrap();
        assert_eq!(config.study.quiet_period, HumanDuration::from_secs(2));
        assert_eq!(config.dicom.ae_title.as_str(), "0012");
        assert_eq!(config.broker.kind, broker::Kind::File);
        assert_eq!(config.http.bind, "0.0.0.0:8080");
        let config = load(text, &[("PACS_GATEWAY__STUDY__QUIET_PERIOD", "300ms")]).unwrap();
        assert_eq!(config.study.quiet_period, HumanDuration::from_millis(300));
    }

    #[test]
    fn lists_come_from_the_environment_too() {
        let config = load(
            "",
            &[("PACS_GATEWAY__DICOM__CALLING_AE_TITLES", "CT1, MR2")],
        )
        .unwrap();
        let titles: Vec<&str> = config
            .dicom
            .calling_ae_titles
            .iter()
            .map(|t| t.as_str())
            .collect();
        assert_eq!(titles, ["CT1", "MR2"]);
    }

    #[test]
    fn numbers_come_from_the_environment_too() {
        let config = load("", &[("PACS_GATEWAY__BROKER__WINDOW", "7")]).unwrap();
        assert_eq!(config.broker.window, 7);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_nearest_neighbour() {
        let err = load("[dicom]\nae_titel = \"X\"\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("gateway.toml") && err.contains("dicom.ae_titel"),
            "{err}"
        );
        assert!(err.contains("`dicom.ae_title`"), "{err}");
        let err = load("", &[("PACS_GATEWAY__DICOM__PORT", "1")])
            .unwrap_err()
            .to_string();
        assert!(err.contains("PACS_GATEWAY__DICOM__PORT"), "{err}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named() {
        let err = load("[study]\nquiet_period = \"5\"\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("gateway.toml") && err.contains("quiet_period"),
            "{err}"
        );
        let err = load("", &[("PACS_GATEWAY__BROKER__WINDOW", "many")])
            .unwrap_err()
            .to_string();
        assert!(err.contains("BROKER__WINDOW"), "{err}");
    }

    #[test]
    fn a_site_comes_from_files_and_environment() {
        let text = "[models.sites.North]\ncalling_ae_titles = [\"DX1\"]\n\
                    [models.sites.North.thresholds]\n\"cxr-phantom.opacity\" = 0.4\n";
        let config = load(
            text,
            &[
                ("PACS_GATEWAY__MODELS__SITES__SOUTH__ONLY", "a, b"),
                (
                    "PACS_GATEWAY__MODELS__SITES__SOUTH__CALLING_AE_TITLES",
                    "DX2",
                ),
            ],
        )
        .unwrap();
        let (name, north) = config.models.sites.of("DX1").unwrap();
        assert_eq!(
            (name, north.thresholds["cxr-phantom.opacity"]),
            ("North", 0.4)
        );
        assert!(north.runs("c"));
        let (name, south) = config.models.sites.of("DX2").unwrap();
        assert_eq!(
            (name, south.only.as_slice()),
            ("south", &["a".to_owned(), "b".to_owned()][..])
        );
        assert!(south.runs("b") && !south.runs("c"));
        assert!(config.models.sites.of("DX3").is_none());
        for (text, words) in [
            (
                "[models.sites.a]\nonly = [\"x\"]\n",
                "models.sites.a.calling_ae_titles",
            ),
            (
                "[models.sites.a]\ncalling_ae_titles = [\"X\"]\nonly = [\"x\"]\nexcept = [\"y\"]\n",
                "models.sites.a.except",
            ),
            (
                "[models.sites.a]\ncalling_ae_titles = [\"A NAME THAT IS TOO LONG\"]\n",
                "AE title",
            ),
        ] {
            let err = load(text, &[]).unwrap_err().to_string();
            assert!(err.contains(words), "{err}");
        }
    }

    #[test]
    fn a_table_of_the_operators_own_takes_any_key() {
        let config = load("[study.quiet_period_by_ae]\nCT1 = \"30s\"\n", &[]).unwrap();
        assert_eq!(
            config.study.quiet_period_by_ae["CT1"],
            HumanDuration::from_secs(30)
        );
    }
}
