//! Requesting associations: C-ECHO and C-STORE for the command line, C-FIND to ask a PACS how many
//! instances of a study it has, N-EVENT-REPORT to report commitments.
//!
//! C-ECHO checks a connection, C-STORE sends files as they are. Nothing is converted: a file goes
//! out in the transfer syntax it is stored in, or not at all with a reason. The PDU types are
//! dicom-ul's; data sets are streamed from the file in our own P-DATA-TF PDUs, because the
//! library's writer buffers as much as the peer's maximum length, which a peer may set to "no
//! limit".

mod connection;
mod event;
mod find;
mod link;
mod peers;
mod send;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

pub use self::event::{EventReport, report_event};
pub use self::find::{Found, find_instances, find_study};
pub use self::link::LinkError;
pub use self::peers::Peers;
pub use self::send::{SendError, Sent, Summary, send};

use self::connection::Connection;
use crate::dicom::ae_title::AeTitleError;
use crate::dicom::transfer_syntax::{EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN};
use crate::dicom::{AeTitle, Status, VERIFICATION};
use crate::tls::Client;

/// What stands before an address where TLS is spoken.
const TLS: &str = "tls://";

/// Longest wait for a connection, for room to write, and for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where to send: the called AE title and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Called AE title.
    pub ae_title: AeTitle,
    /// Host name or address with port, for example `localhost:11112` or `[::1]:11112`.
    pub address: String,
    /// What TLS is spoken with; `None`: it is not.
    pub tls: Option<Client>,
}

impl Target {
    /// The same, trusting these authorities and showing this certificate where TLS is spoken.
    #[must_use]
    pub fn trusting(self, client: &Client) -> Self {
        Self {
            tls: self.tls.map(|_| client.clone()),
            ..self
        }
    }

    /// The name that the certificate of the peer must have: its host name or address.
    fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map(|(host, _)| host);
        let host = host.unwrap_or(&self.address);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// Why a text is no [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The text does not have the form.
    #[error(
        "expected AE@host:port, for example PACSGATEWAY@localhost:11112, or AE@tls://host:port"
    )]
    Form,
    /// The part before the `@` is no AE title.
    #[error("the part before the @ is no AE title")]
    AeTitle(#[source] AeTitleError),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        // The last @, as a title may contain one and an address cannot.
        let (title, address) = text.rsplit_once('@').ok_or(TargetError::Form)?;
        let (address, tls) = match address.strip_prefix(TLS) {
            Some(address) => (address, Some(Client::default())),
            None => (address, None),
        };
        let (host, port) = address.rsplit_once(':').ok_or(TargetError::Form)?;
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || bare_ipv6 || port.parse::<u16>().is_err() {
            return Err(TargetError::Form);
        }
        let ae_title = AeTitle::parse(title).map_err(TargetError::AeTitle)?;
        Ok(Self {
            ae_title,
            address: address.to_owned(),
            tls,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { TLS } else { "" };
        write!(f, "{}@{scheme}{}", self.ae_title, self.address)
    }
}

/// Why an association could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// No connection, or something that is not DICOM at the other end.
    #[error("failed to establish an association with {target}")]
    Establish {
        /// Whom we called.
        target: String,
        /// What is in the way.
        source: LinkError,
    },
    /// The peer rejected the association.
    #[error("{target} rejected the association ({permanence}): {reason}")]
    Rejected {
        /// Whom we called.
        target: String,
        /// `permanent` or `transient`: whether trying again makes sense.
        permanence: &'static str,
        /// The peer's reason in the standard's words.
        reason: String,
    },
    /// The peer wants to be the provider of a service itself.
    #[error("{0} does not let us be the provider of the service")]
    RoleRefused(String),
    /// The peer accepted the association but none of the presentation contexts.
    #[error("{0} accepts none of the proposed SOP classes and transfer syntaxes")]
    NothingAccepted(String),
    /// The peer did not answer or take data in time.
    #[error("peer did not react in time: {0}")]
    TimedOut(&'static str),
    /// The connection broke or the peer ended the association.
    #[error("association was lost")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The peer answered with something that is no response to our request.
    #[error("peer sent an unexpected answer: {0}")]
    UnexpectedAnswer(&'static str),
    /// The peer answered C-ECHO with a failure.
    #[error("peer answered C-ECHO with status {0} ({meaning})", meaning = .0.meaning())]
    Echo(Status),
    /// The peer answered C-FIND with a failure.
    #[error("peer answered C-FIND with status {0} ({meaning})", meaning = .0.meaning())]
    Find(Status),
}

/// Sends one C-ECHO and says how long the round trip took, without association set-up.
///
/// # Errors
/// [`ScuError`]; every wait ends after a minute.
pub async fn echo(target: &Target, calling: &AeTitle) -> Result<Duration, ScuError> {
    let syntaxes = vec![IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN];
    let mut connection =
        Connection::establish(target, calling, vec![(VERIFICATION, syntaxes)]).await?;
    let id = connection
        .first_context()
        .ok_or(ScuError::UnexpectedAnswer("no presentation context"))?;
    let started = Instant::now();
    let status = connection.echo(id).await?;
    let elapsed = started.elapsed();
    connection.release().await;
    if status == Status::SUCCESS {
        Ok(elapsed)
    } else {
        Err(ScuError::Echo(status))
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_and_printed() {
        for (text, title, address) in [
            (
                "PACSGATEWAY@localhost:11112",
                "PACSGATEWAY",
                "localhost:11112",
            ),
            ("A B@10.0.0.1:104", "A B", "10.0.0.1:104"),
            ("X@Y@[::1]:104", "X@Y", "[::1]:104"),
            ("CT1@tls://ct1.hospital:2762", "CT1", "ct1.hospital:2762"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(
                (target.ae_title.as_str(), target.address.as_str()),
                (title, address)
            );
            assert_eq!(target.to_string(), text);
            assert_eq!(target.tls.is_some(), text.contains("tls://"));
        }
    }

    #[test]
    fn the_peer_must_be_who_its_address_says() {
        for (text, host) in [
            ("A@tls://ct1.hospital:2762", "ct1.hospital"),
            ("A@tls://[::1]:2762", "::1"),
            ("A@tls://10.0.0.9:2762", "10.0.0.9"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().host(), host);
        }
    }

    #[test]
    fn a_target_without_title_host_or_port_is_refused() {
        for text in [
            "",
            "localhost:104",
            "A@localhost",
            "A@:104",
            "A@host:port",
            "A@::1:104",
            "A@h:70000",
            "A@tls://host",
            "A@ssl://host:104",
        ] {
            assert_eq!(text.parse::<Target>(), Err(TargetError::Form), "{text}");
        }
        assert!(matches!(
            "@host:104".parse::<Target>(),
            Err(TargetError::AeTitle(_))
        ));
    }
}
