//! The `[models]` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Sites;
use crate::model::Trust;
use crate::units::HumanDuration;

/// The `[models]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of model packages.
    pub dir: PathBuf,
    /// Names of the models to serve; empty: all of them.
    pub only: Vec<String>,
    /// What is different for certain senders.
    pub sites: Sites,
    /// How often the folder is looked at; 0: never.
    pub poll: HumanDuration,
    /// A version without golden cases is refused.
    pub require_golden: bool,
    /// Minisign public keys whose signatures of manifests count.
    pub trusted_keys: Vec<String>,
    /// A manifest without a signature is refused.
    pub require_signature: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("models"),
            only: Vec::new(),
            sites: Sites::default(),
            poll: HumanDuration::from_secs(10),
            require_golden: false,
            trusted_keys: Vec::new(),
            require_signature: false,
        }
    }
}

impl Config {
    /// Who may sign manifests.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn trust(&self) -> Result<Trust, String> {
        Trust::new(&self.trusted_keys, self.require_signature)
    }
}
