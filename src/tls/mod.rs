//! Transport Layer Security: our side of every connection that is encrypted.
//!
//! TLS 1.2 and 1.3 with the cipher suites of RFC 9325 (BCP 195), which is what the BCP 195 RFC 8996,
//! 9325 TLS Secure Transport Connection Profile asks for (PS3.15 B.12). Nothing older is compiled in.
//! The cryptography is ring's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
pub use tokio_rustls::server::TlsStream;

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

/// The server's side of TLS. Its files can be read again while it is used.
pub struct Acceptor {
    current: RwLock<Arc<ServerConfig>>,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, or what does not go together.
    pub fn new(server: &Server) -> Result<Self, TlsError> {
        Ok(Self {
            current: RwLock::new(server_config(server)?),
        })
    }

    /// Reads the files again; connections from now on get what they hold. After an error everything
    /// stays as it was.
    ///
    /// # Errors
    /// The file, or what does not go together.
    pub fn reload(&self, server: &Server) -> Result<(), TlsError> {
        let config = server_config(server)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The handshake. The caller sets the deadline.
    ///
    /// # Errors
    /// What rustls says of the client.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            TlsAcceptor::from(Arc::clone(&current))
        };
        acceptor.accept(stream).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(server: &Server) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match server.clients {
        ClientCertificate::None => builder.with_no_client_auth(),
        asked => {
            let roots = Arc::new(authorities(&server.ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match asked {
                ClientCertificate::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(unusable)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = identity(&server.identity)?;
    let config = builder.with_single_cert(chain, key).map_err(unusable)?;
    Ok(Arc::new(config))
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
        authorities(ca)?
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots);
    let config = match identity_of_ours {
        Some(ours) => {
            let (chain, key) = identity(ours)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn identity(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&identity.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&identity.key);
    Ok((chain, key.map_err(|err| wrong(&identity.key, err))?))
}

fn authorities(files: &[PathBuf]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for file in files {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|err| wrong(file, err))?;
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|err| wrong(file, err))?;
    if found.is_empty() {
        return Err(wrong(file, "holds no certificate"));
    }
    Ok(found)
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
