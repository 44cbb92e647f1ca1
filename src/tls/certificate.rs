//! What a certificate says of its owner.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How a fingerprint is written where a name is expected.
const FINGERPRINT: &str = "sha256:";

/// Who a certificate is for, as far as we ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DNS names among its subject alternative names; without any, the common name of its subject
    /// (RFC 6125 6.4.4).
    pub names: Vec<String>,
    /// SHA-256 of the whole of it, in lower case hexadecimal digits.
    pub fingerprint: String,
    /// End of its life, in seconds since 1970.
    pub expires: i64,
}

/// The bytes are no X.509 certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no X.509 certificate")]
pub struct Unreadable;

impl Certificate {
    /// Reads a certificate. Nothing about it is verified.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let (_, read) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
        let names = read.subject_alternative_name().map_err(|_| Unreadable)?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let mut names: Vec<String> = names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            let common = read.subject().iter_common_name();
            names.extend(common.filter_map(|name| Some(name.as_str().ok()?.to_owned())));
        }
        let fingerprint = Sha256::digest(der);
        let digits = fingerprint.iter().map(|byte| format!("{byte:02x}"));
        Ok(Self {
            names,
            fingerprint: digits.collect(),
            expires: read.validity().not_after.timestamp(),
        })
    }

    /// Whether it goes by this name: one of its names in any case, or `sha256:` and its fingerprint.
    pub fn is(&self, name: &str) -> bool {
        match name.strip_prefix(FINGERPRINT) {
            Some(digits) => digits.eq_ignore_ascii_case(&self.fingerprint),
            None => self.names.iter().any(|own| own.eq_ignore_ascii_case(name)),
        }
    }

    /// A name for people.
    pub fn name(&self) -> String {
        match self.names.first() {
            Some(name) => name.clone(),
            None => format!("{FINGERPRINT}{}", self.fingerprint),
        }
    }
}

/// The certificate that the client of a connection has shown and that was verified; `None`: it has
/// shown none.
///
/// # Errors
/// It was verified and cannot be read by us.
pub fn shown<S>(stream: &TlsStream<S>) -> Result<Option<Certificate>, Unreadable> {
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    chain.first().map(Certificate::read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_in_any_case_and_a_fingerprint_only_as_one() {
        let certificate = Certificate {
            names: vec!["CT1.hospital".to_owned()],
            fingerprint: "00ff".to_owned(),
            expires: 0,
        };
        for (name, is) in [
            ("ct1.HOSPITAL", true),
            ("ct1.hospital.", false),
            ("ct1", false),
            ("sha256:00FF", true),
            ("sha256:00f", false),
            ("00ff", false),
        ] {
            assert_eq!(certificate.is(name), is, "{name}");
        }
        assert_eq!(
            Certificate::read(&CertificateDer::from(&b"x"[..])),
            Err(Unreadable)
        );
    }
}
