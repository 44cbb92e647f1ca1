//! The `[broker]` section, and what is wrong with it before anybody is connected to.

use std::path::PathBuf;

use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use serde::{Deserialize, Serialize};

use super::{Declare, connect};
use crate::units::HumanDuration;

/// The `[broker]` section.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// RabbitMQ, or a file for trying out.
    pub kind: Kind,
    /// AMQP 0-9-1 URL. It may hold a password: it is never logged.
    pub url: String,
    /// File with the user name, instead of the one in `url`; read at each connection.
    pub username_file: PathBuf,
    /// Likewise with the password.
    pub password_file: PathBuf,
    /// How we say who we are.
    pub sasl: Sasl,
    /// For `amqps://`.
    pub tls: Tls,
    /// Where `kind = "file"` appends, one message per line.
    pub file: PathBuf,
    /// Topic exchange; `<exchange>.unrouted` and `<exchange>.dlx` go with it.
    pub exchange: String,
    /// Default queue, bound with `#`.
    pub queue: String,
    /// Topic exchange of the messages of shadows, and its queue.
    pub shadow: String,
    /// Declare exchanges and queues, verify them, or neither.
    pub declare: Declare,
    /// Longest wait for the connection and for a confirm.
    pub confirm_timeout: HumanDuration,
    /// Messages in flight at most.
    pub window: usize,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("broker::Config")
            .field("kind", &self.kind)
            .field("exchange", &self.exchange)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Amqp,
            url: "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
            username_file: PathBuf::new(),
            password_file: PathBuf::new(),
            sasl: Sasl::Plain,
            tls: Tls::default(),
            file: PathBuf::from("findings.ndjson"),
            exchange: "pacs.findings".to_owned(),
            queue: "pacs.findings".to_owned(),
            shadow: "pacs.shadow".to_owned(),
            declare: Declare::default(),
            confirm_timeout: HumanDuration::from_secs(15),
            window: 256,
        }
    }
}

/// How we say who we are (RFC 4422).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sasl {
    /// User name and password.
    Plain,
    /// By our certificate.
    External,
}

/// The `[broker.tls]` section. All files are PEM.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Authorities that the broker's certificate may come from, and no others; empty: those of the
    /// system.
    pub ca: PathBuf,
    /// Our certificate and its chain; empty: none.
    pub certificate: PathBuf,
    /// Our private key.
    pub key: PathBuf,
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// RabbitMQ.
    Amqp,
    /// A file, one JSON line per message, synced.
    File,
}

impl Config {
    /// Refuses what does not go together. Reads no file.
    ///
    /// # Errors
    /// The key without `broker.`, and the reason.
    pub fn validate(&self) -> Result<(), String> {
        if self.window == 0 {
            return Err("window: must be at least 1".to_owned());
        }
        if self.confirm_timeout.get().is_zero() {
            return Err("confirm_timeout: must be longer than zero".to_owned());
        }
        if self.shadow == self.exchange || self.shadow == self.queue {
            return Err("shadow: must not be where findings go".to_owned());
        }
        let uri = self.uri()?;
        let Tls {
            ca,
            certificate,
            key,
        } = &self.tls;
        let given = |file: &PathBuf| !file.as_os_str().is_empty();
        for (name, file) in [("ca", ca), ("certificate", certificate), ("key", key)] {
            if given(file) && uri.scheme != AMQPScheme::AMQPS {
                return Err(format!(
                    "tls.{name}: needs an amqps:// address in broker.url"
                ));
            }
        }
        match (given(certificate), given(key)) {
            (true, false) => return Err("tls.key: is missing, there is a certificate".to_owned()),
            (false, true) => return Err("tls.certificate: is missing, there is a key".to_owned()),
            _ => {}
        }
        if self.sasl == Sasl::External {
            if !given(certificate) {
                return Err("sasl: external needs broker.tls.certificate".to_owned());
            }
            for (name, file) in [
                ("username_file", &self.username_file),
                ("password_file", &self.password_file),
            ] {
                if given(file) {
                    return Err(format!(
                        "{name}: has no use with broker.sasl = \"external\""
                    ));
                }
            }
        }
        Ok(())
    }

    /// Reads every file that a connection needs, so that one that cannot be used is told at start.
    /// Blocking. Nobody is connected to.
    ///
    /// # Errors
    /// The key with `broker.`, the file and the reason.
    pub fn check_files(&self) -> Result<(), String> {
        match self.kind {
            Kind::Amqp => connect::Access::read(self).map(|_| ()),
            Kind::File => Ok(()),
        }
    }

    /// The address, with user and password as the URL has them.
    pub(super) fn uri(&self) -> Result<AMQPUri, String> {
        // The parser's own words can hold the URL, and so a password.
        let refuse = |reason: &str| format!("url: is no AMQP URL: {reason}");
        let (_, rest) = self
            .url
            .split_once("://")
            .ok_or_else(|| refuse("it must begin with amqp:// or amqps://"))?;
        let mut uri: AMQPUri = self.url.parse().map_err(|reason: String| {
            if reason.contains(rest) {
                refuse("it cannot be understood")
            } else {
                refuse(&reason)
            }
        })?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.starts_with('[') {
            // The parser would take localhost instead.
            return Err(refuse("an IPv6 address needs a name"));
        }
        if uri.query.auth_mechanism.is_some() {
            return Err(refuse("auth_mechanism has a key of its own, broker.sasl"));
        }
        if self.sasl == Sasl::External {
            uri.query.auth_mechanism = Some(SASLMechanism::External);
        }
        Ok(uri)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reason(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().err().unwrap_or_default()
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let ours = || PathBuf::from("/etc/ours.pem");
        let secure = "amqps://mq.example".to_owned();
        assert_eq!(reason(|_| {}), "");
        assert!(reason(|c| c.tls.ca = ours()).starts_with("tls.ca: needs an amqps://"));
        let alone = reason(|c| (c.url, c.tls.certificate) = (secure.clone(), ours()));
        assert!(alone.starts_with("tls.key:"), "{alone}");
        let alone = reason(|c| (c.url, c.tls.key) = (secure.clone(), ours()));
        assert!(alone.starts_with("tls.certificate:"), "{alone}");
        let nameless = reason(|c| (c.url, c.sasl) = (secure.clone(), Sasl::External));
        assert!(nameless.starts_with("sasl: external needs"), "{nameless}");
        let both = reason(|c| {
            (c.url, c.sasl) = (secure.clone(), Sasl::External);
            (c.tls.certificate, c.tls.key) = (ours(), ours());
            c.password_file = ours();
        });
        assert!(both.starts_with("password_file:"), "{both}");
    }

    #[test]
    fn a_url_that_is_none_is_not_repeated() {
        for wrong in [
            "amqp:guest:secret@mq",
            "http://guest:secret@mq",
            "amqp://guest:secret@[::1]:5672/",
            "amqp://guest:secret@mq:port/",
            "amqp://guest:secret@mq/?auth_mechanism=external",
        ] {
            let said = reason(|c| c.url = wrong.to_owned());
            assert!(said.starts_with("url: is no AMQP URL"), "{wrong}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
