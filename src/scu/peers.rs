//! Addresses of other application entities (`[dicom.peers]` in the configuration).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Target;
use crate::dicom::AeTitle;

/// Where AE titles are reached: AE title to `host:port` or `tls://host:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Peers(BTreeMap<String, String>);

impl Peers {
    /// Where to call an AE; `None` when the configuration does not say.
    pub fn target(&self, ae_title: &AeTitle) -> Option<Target> {
        // Configuration keys from the environment arrive in lower case.
        let mut rows = self.0.iter();
        let (_, address) = rows.find(|(ae, _)| ae.eq_ignore_ascii_case(ae_title.as_str()))?;
        format!("{ae_title}@{address}").parse().ok()
    }

    /// Checks every row.
    ///
    /// # Errors
    /// The AE title and what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        for (ae, address) in &self.0 {
            AeTitle::parse(ae).map_err(|err| format!("{ae}: {err}"))?;
            let target = format!("{ae}@{address}").parse::<Target>();
            target.map_err(|_| {
                format!("{ae}: expected host:port or tls://host:port, for example ct2:104")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_whatever_the_case_of_its_key() {
        let peers: Peers = toml::from_str("ct2 = \"10.0.0.9:104\"\n").unwrap();
        peers.validate().unwrap();
        let target = peers.target(&AeTitle::parse("CT2").unwrap()).unwrap();
        assert_eq!(target.to_string(), "CT2@10.0.0.9:104");
        assert_eq!(peers.target(&AeTitle::parse("CT3").unwrap()), None);
        let wrong: Peers = toml::from_str("CT2 = \"10.0.0.9\"\n").unwrap();
        assert!(wrong.validate().unwrap_err().starts_with("CT2:"));
    }
}
