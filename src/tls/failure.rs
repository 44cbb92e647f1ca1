//! Why a handshake did not come to its end, for people and for metrics.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// What went wrong in a handshake, as a server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A certificate was asked for.
    #[error("the client shows no certificate")]
    NoCertificate,
    /// Its chain ends in no authority of ours.
    #[error("the client's certificate comes from no authority that is trusted here")]
    UnknownAuthority,
    /// Not yet, or no more.
    #[error("the client's certificate is not valid at this time")]
    Expired,
    /// Anything else about it.
    #[error("the client's certificate cannot be accepted")]
    BadCertificate,
    /// The client wants something older than TLS 1.2.
    #[error("the client speaks neither TLS 1.3 nor all of TLS 1.2")]
    ProtocolVersion,
    /// No suite, group or kind of signature that both sides know.
    #[error("the client knows none of the ciphers that are allowed here")]
    NoCommonCipher,
    /// The bytes are something else, for example plain DICOM.
    #[error("the client does not speak TLS")]
    NotTls,
    /// The client does not want our certificate.
    #[error("the client does not accept our certificate")]
    Distrusted,
    /// The connection went away.
    #[error("the connection was closed")]
    Closed,
    /// The deadline passed.
    #[error("the client was too slow")]
    Timeout,
    /// Anything else.
    #[error("the handshake failed")]
    Other,
}

impl Failure {
    /// Every label.
    pub const LABELS: [&'static str; 11] = [
        Self::NoCertificate.label(),
        Self::UnknownAuthority.label(),
        Self::Expired.label(),
        Self::BadCertificate.label(),
        Self::ProtocolVersion.label(),
        Self::NoCommonCipher.label(),
        Self::NotTls.label(),
        Self::Distrusted.label(),
        Self::Closed.label(),
        Self::Timeout.label(),
        Self::Other.label(),
    ];

    /// What [`super::Acceptor::accept`] means.
    pub fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match (inner, error.kind()) {
            (Some(error), _) => Self::of_tls(error),
            (
                None,
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected,
            ) => Self::Closed,
            _ => Self::Other,
        }
    }

    fn of_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Self::UnknownAuthority,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                _ => Self::BadCertificate,
            },
            Error::PeerIncompatible(error) => match error {
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // How TLS 1.1 is noticed, which has no such extension.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired => Self::ProtocolVersion,
                PeerIncompatible::NoCipherSuitesInCommon
                | PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::NoSignatureSchemesInCommon
                | PeerIncompatible::NoEcPointFormatsInCommon
                | PeerIncompatible::NamedGroupsExtensionRequired => Self::NoCommonCipher,
                _ => Self::Other,
            },
            Error::InvalidMessage(_) => Self::NotTls,
            Error::AlertReceived(alert) => match alert {
                AlertDescription::ProtocolVersion => Self::ProtocolVersion,
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::UnsupportedCertificate => Self::Distrusted,
                AlertDescription::CloseNotify | AlertDescription::UserCanceled => Self::Closed,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The same as the label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::UnknownAuthority => "unknown-authority",
            Self::Expired => "expired",
            Self::BadCertificate => "bad-certificate",
            Self::ProtocolVersion => "protocol-version",
            Self::NoCommonCipher => "no-common-cipher",
            Self::NotTls => "not-tls",
            Self::Distrusted => "distrusted",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }

    /// Whether it is the daily business of load balancers and port scanners.
    pub const fn is_probe(self) -> bool {
        matches!(self, Self::Closed | Self::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_network_and_one_of_tls_are_told_apart() {
        for (error, label) in [
            (io::Error::from(io::ErrorKind::UnexpectedEof), "closed"),
            (io::Error::other("?"), "other"),
            (
                io::Error::other(Error::NoCertificatesPresented),
                "no-certificate",
            ),
            (
                io::Error::other(Error::AlertReceived(AlertDescription::UnknownCA)),
                "distrusted",
            ),
        ] {
            assert_eq!(Failure::of(&error).label(), label, "{error}");
        }
    }
}
