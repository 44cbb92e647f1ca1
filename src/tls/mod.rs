//! Transport Layer Security: our side of every connection that is encrypted.
//!
//! TLS 1.2 and 1.3 with authenticated ciphers and forward secrecy only, as RFC 9325 (BCP 195) and with
//! it the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile ask for (PS3.15 B.12): in TLS
//! 1.2 ECDHE with AES-GCM or ChaCha20-Poly1305. Nothing older is compiled in. The cryptography is
//! ring's.

mod acceptor;
mod certificate;
mod failure;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
pub use tokio_rustls::server::TlsStream;

pub use self::acceptor::Acceptor;
pub use self::certificate::{Certificate, shown};
pub use self::failure::Failure;

/// Largest PEM file: several times the bundle of all public authorities.
const MAX_PEM: u64 = 1 << 20;

/// Why a certificate, a key or an authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the wanted kind.
    #[error("{}: {reason}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The parts do not go together.
    #[error("{0}")]
    Unusable(String),
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// No connection without.
    #[default]
    Required,
    /// One that is shown must be good.
    Optional,
    /// None is asked for.
    None,
}

/// PEM files of a certificate with its chain and of its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Our certificate first.
    pub certificate: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
}

/// What a server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Who we are.
    pub identity: Identity,
    /// PEM files of the authorities that clients' certificates must come from.
    pub ca: Vec<PathBuf>,
    /// Whether clients must show one.
    pub clients: ClientCertificate,
}

impl Server {
    /// Reads the files, for a server whose configuration is the section `<section>.tls`.
    ///
    /// # Errors
    /// The key and what is wrong with its file.
    pub fn acceptor(&self, section: &str) -> Result<Acceptor, String> {
        Acceptor::new(self).map_err(|err| self.told(section, &err))
    }

    /// An error of these files with the key that it belongs to.
    pub fn told(&self, section: &str, error: &TlsError) -> String {
        format!("{section}.tls.{}: {error}", self.key_of(error))
    }

    /// The key that an error of these files belongs to, relative to their section.
    pub fn key_of(&self, error: &TlsError) -> &'static str {
        match error {
            TlsError::File { file, .. } if self.ca.contains(file) => "ca",
            TlsError::File { file, .. } if *file == self.identity.key => "key",
            _ => "certificate",
        }
    }
}

/// What a client needs. Its files are read for each connection, so that rotated ones count at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// PEM files of the authorities that servers' certificates must come from; none: those of the
    /// system.
    pub ca: Vec<PathBuf>,
    /// Who we are, for servers that ask.
    pub identity: Option<Identity>,
}

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, or what does not go together.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        client_config(&self.ca, self.identity.as_ref())
    }
}

/// The client's side of TLS. `ca`: PEM files of authorities; none: those of the system.
///
/// # Errors
/// The file, or what does not go together.
pub fn client_config(
    ca: &[PathBuf],
    identity_of_ours: Option<&Identity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = if ca.is_empty() {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    } else {
        authorities(&Pem::all(ca)?)?
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots);
    let config = match identity_of_ours {
        Some(ours) => {
            let chain = Pem::read(&ours.certificate)?.certificates()?;
            let key = Pem::read(&ours.key)?.key()?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// A PEM file and what it holds.
struct Pem {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Pem {
    fn read(file: &Path) -> Result<Self, TlsError> {
        let read = || {
            let mut bytes = Vec::new();
            let mut rest = File::open(file)?.take(MAX_PEM + 1);
            rest.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = read().map_err(|err| wrong(file, err))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_PEM {
            return Err(wrong(file, "is larger than 1 MiB"));
        }
        Ok(Self {
            file: file.to_owned(),
            bytes,
        })
    }

    fn all(files: &[PathBuf]) -> Result<Vec<Self>, TlsError> {
        files.iter().map(|file| Self::read(file)).collect()
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let found = found.map_err(|err| wrong(&self.file, err))?;
        if found.is_empty() {
            return Err(wrong(&self.file, "holds no certificate"));
        }
        Ok(found)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes)
            .map_err(|_| wrong(&self.file, "holds no private key that is not encrypted"))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn authorities(files: &[Pem]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in files {
        for certificate in pem.certificates()? {
            roots
                .add(certificate)
                .map_err(|err| wrong(&pem.file, err))?;
        }
    }
    Ok(roots)
}

fn wrong(file: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

fn unusable(reason: impl std::fmt::Display) -> TlsError {
    TlsError::Unusable(reason.to_string())
}
