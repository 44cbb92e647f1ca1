//! What an operator can set about the DICOM listener (`[dicom]` in the configuration).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::dicom::AeTitle;
use crate::scu::Peers;
pub use crate::tls::ClientCertificate;
use crate::tls::{Client, Identity, Server};
use crate::units::{ByteSize, HumanDuration};

/// Smallest maximum PDU length that leaves room for one sensible fragment; also the smallest that
/// common senders obey.
const MIN_PDU_LENGTH: u32 = 4096;

/// Largest maximum PDU length worth offering: beyond it nothing gets faster.
const MAX_PDU_LENGTH: u32 = 16 << 20;

/// Settings of the DICOM listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Whether the listener without TLS is open.
    pub plain: bool,
    /// Our Application Entity title.
    pub ae_title: AeTitle,
    /// Further titles that we answer to.
    pub called_ae_titles: Vec<AeTitle>,
    /// Address blocks that may connect. Empty: any.
    pub addresses: Vec<IpNet>,
    /// From which blocks a calling AE title may come.
    pub addresses_by_ae: BTreeMap<AeTitle, Vec<IpNet>>,
    /// Calling AE titles that may connect. Empty: any.
    pub calling_ae_titles: Vec<AeTitle>,
    /// Accept associations that call another title than ours.
    pub accept_any_called_ae_title: bool,
    /// Associations at the same time; one more is rejected as transient (local limit exceeded).
    pub max_associations: usize,
    /// Associations at the same time from one address.
    pub max_associations_per_peer: usize,
    /// Associations at the same time with one calling AE title.
    pub max_associations_per_ae: usize,
    /// Maximum PDU length we offer, in bytes. 131072 is the most that DCMTK senders use.
    pub max_pdu_length: u32,
    /// Time from the TCP connection to a complete association request, and from our last word to
    /// the peer's closing of the connection (the ARTIM timer, PS3.8 9.1.5).
    pub artim_timeout: HumanDuration,
    /// Longest pause between two messages of an association.
    pub idle_timeout: HumanDuration,
    /// Within a message: the time in which the next kilobyte must arrive, and in which the peer
    /// must take our response.
    pub pdu_timeout: HumanDuration,
    /// Largest data set we store. A larger one is refused, the association goes on.
    pub max_instance_bytes: ByteSize,
    /// Where other application entities are reached: AE title to `host:port`.
    pub peers: Peers,
    /// The listener with TLS.
    pub tls: Tls,
    /// What to do with SOP classes that DICOM did not register.
    pub private_sop_classes: PrivateSopClasses,
    /// What to do with a user identity. It is never checked.
    pub user_identity: UserIdentity,
}

/// The `[dicom.tls]` section: the listener with TLS, and our side of connections to `tls://` peers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Address and port; empty: there is no such listener.
    pub bind: String,
    /// PEM file of our certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file of our private key.
    pub key: PathBuf,
    /// PEM files of the authorities whose certificates we trust.
    pub ca: Vec<PathBuf>,
    /// Whether clients must show a certificate.
    pub client_certificate: ClientCertificate,
    /// Which calling AE titles a certificate may use, by a name in it.
    pub ae_titles: BTreeMap<String, Vec<AeTitle>>,
}

impl Tls {
    /// Where its listener is; `None`: there is none. Checked by [`Config::validate`].
    pub fn address(&self) -> Option<SocketAddr> {
        self.bind.parse().ok()
    }

    /// Reads every file that is named, so that one that cannot be used is told at start. Blocking.
    ///
    /// # Errors
    /// The key, the file and the reason.
    pub fn check_files(&self) -> Result<(), String> {
        let files = self.server();
        if self.address().is_some() {
            files.acceptor("dicom")?;
        } else if !self.ca.is_empty() || !self.certificate.as_os_str().is_empty() {
            let read = self.client().config();
            read.map_err(|err| files.told("dicom", &err))?;
        }
        Ok(())
    }

    /// What the listener needs.
    pub fn server(&self) -> Server {
        Server {
            identity: self.identity(),
            ca: self.ca.clone(),
            clients: self.client_certificate,
        }
    }

    /// What connections to `tls://` peers need: the same authorities and the same certificate.
    pub fn client(&self) -> Client {
        Client {
            ca: self.ca.clone(),
            identity: (!self.certificate.as_os_str().is_empty()).then(|| self.identity()),
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

/// Policy for user identities (PS3.7 D.3.3.7), which some requestors send with every association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserIdentity {
    /// Say nothing, as an acceptor does that does not support them.
    Ignore,
    /// Acknowledge a username for requestors that insist on it.
    Accept,
}

/// Policy for SOP classes outside DICOM's own root, whose purpose their UID does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrivateSopClasses {
    /// Accept and keep such instances. They are never decoded.
    Store,
    /// Do not accept their presentation contexts.
    Reject,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 11112)),
            plain: true,
            ae_title: AeTitle::gateway(),
            called_ae_titles: Vec::new(),
            addresses: Vec::new(),
            addresses_by_ae: BTreeMap::new(),
            calling_ae_titles: Vec::new(),
            accept_any_called_ae_title: true,
            max_associations: 64,
            max_associations_per_peer: 32,
            max_associations_per_ae: 32,
            max_pdu_length: 131_072,
            artim_timeout: HumanDuration::from_secs(30),
            idle_timeout: HumanDuration::from_secs(120),
            pdu_timeout: HumanDuration::from_secs(60),
            max_instance_bytes: ByteSize(4 << 30),
            peers: Peers::default(),
            tls: Tls::default(),
            private_sop_classes: PrivateSopClasses::Store,
            user_identity: UserIdentity::Ignore,
        }
    }
}

/// A setting that cannot be used. `key` is relative to the section of the listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct ConfigError {
    /// The key, for example `max_pdu_length`.
    pub key: &'static str,
    /// What is wrong with its value, for people.
    pub reason: String,
}

impl Config {
    /// Checks what the types cannot: ranges and zeros.
    ///
    /// # Errors
    /// The first [`ConfigError`] found; its message names the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let error = |key, reason: String| Err(ConfigError { key, reason });
        if !(MIN_PDU_LENGTH..=MAX_PDU_LENGTH).contains(&self.max_pdu_length) {
            return error(
                "max_pdu_length",
                format!(
                    "must be between {MIN_PDU_LENGTH} and {MAX_PDU_LENGTH} bytes, is {}",
                    self.max_pdu_length
                ),
            );
        }
        for (key, value) in [
            ("max_associations", self.max_associations),
            ("max_associations_per_peer", self.max_associations_per_peer),
            ("max_associations_per_ae", self.max_associations_per_ae),
        ] {
            if value == 0 {
                return error(key, "must be at least 1".into());
            }
        }
        for (key, value) in [
            ("artim_timeout", self.artim_timeout),
            ("idle_timeout", self.idle_timeout),
            ("pdu_timeout", self.pdu_timeout),
        ] {
            if value.get().is_zero() {
                return error(key, "must be longer than zero".into());
            }
        }
        if let Err(reason) = self.peers.validate() {
            return error("peers", reason);
        }
        self.validate_tls()?;
        if self.max_instance_bytes.bytes() == 0 {
            return error("max_instance_bytes", "must be at least 1".into());
        }
        Ok(())
    }

    fn validate_tls(&self) -> Result<(), ConfigError> {
        let error = |key, reason: &str| {
            let reason = reason.to_owned();
            Err(ConfigError { key, reason })
        };
        let tls = &self.tls;
        let set = |file: &PathBuf| !file.as_os_str().is_empty();
        if set(&tls.certificate) != set(&tls.key) {
            let key = if set(&tls.key) {
                "tls.certificate"
            } else {
                "tls.key"
            };
            return error(key, "certificate and key are needed together");
        }
        if tls.bind.is_empty() {
            if !self.plain {
                return error("plain", "without dicom.tls.bind there would be no listener");
            }
            if !tls.ae_titles.is_empty() {
                return error("tls.ae_titles", "needs dicom.tls.bind");
            }
            return Ok(());
        }
        if tls.address().is_none() {
            return error(
                "tls.bind",
                "expected address and port, for example 0.0.0.0:2762",
            );
        }
        if self.plain && tls.address() == Some(self.bind) && self.bind.port() != 0 {
            return error("tls.bind", "must differ from dicom.bind");
        }
        if !set(&tls.certificate) {
            return error("tls.certificate", "is needed with dicom.tls.bind");
        }
        match tls.client_certificate {
            ClientCertificate::None if !tls.ae_titles.is_empty() => error(
                "tls.ae_titles",
                "needs certificates of clients, see dicom.tls.client_certificate",
            ),
            ClientCertificate::Required | ClientCertificate::Optional if tls.ca.is_empty() => {
                error("tls.ca", "is needed to check the certificates of clients")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_travel_through_toml() {
        let config = Config::default();
        config.validate().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("bind = \"0.0.0.0:11112\""), "{text}");
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
        assert_eq!(toml::from_str::<Config>("").unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = toml::from_str::<Config>("max_pdu = 1").unwrap_err();
        assert!(error.to_string().contains("max_pdu"), "{error}");
    }

    #[test]
    fn a_numeric_looking_ae_title_stays_text() {
        let config: Config = toml::from_str("ae_title = \"0012\"").unwrap();
        assert_eq!(config.ae_title.as_str(), "0012");
    }

    #[test]
    fn an_ae_title_that_breaks_the_rules_is_refused_with_its_key() {
        let error = toml::from_str::<Config>("calling_ae_titles = [\"A\\\\B\"]").unwrap_err();
        assert!(error.to_string().contains("calling_ae_titles"), "{error}");
    }

    #[test]
    fn values_that_cannot_work_are_refused_with_their_key() {
        let check = |change: fn(&mut Config), key: &str| {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().key, key);
        };
        check(|config| config.max_pdu_length = 0, "max_pdu_length");
        check(|config| config.max_associations = 0, "max_associations");
        check(
            |config| config.idle_timeout = HumanDuration::from_secs(0),
            "idle_timeout",
        );
        check(
            |config| config.max_instance_bytes = ByteSize(0),
            "max_instance_bytes",
        );
    }
}
