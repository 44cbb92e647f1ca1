//! The server's certificate, which may be renewed while it serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::Tls;
use crate::tls::{Acceptor, ClientCertificate, Identity, Server, TlsError};

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(10);

/// What `[http.tls]` names, and what connections from now on get.
#[derive(Clone)]
pub struct Certificates {
    files: Server,
    acceptor: Arc<Acceptor>,
}

impl Certificates {
    /// Reads the files; none without TLS.
    pub(super) fn new(config: &Tls) -> Result<Option<Self>> {
        let empty = |path: &Path| path.as_os_str().is_empty();
        match (empty(&config.certificate), empty(&config.key)) {
            (true, true) => return Ok(None),
            (false, true) => bail!("http.tls.key: is missing for http.tls.certificate"),
            (true, false) => bail!("http.tls.certificate: is missing for http.tls.key"),
            (false, false) => {}
        }
        let files = Server {
            identity: Identity {
                certificate: config.certificate.clone(),
                key: config.key.clone(),
            },
            ca: Vec::new(),
            clients: ClientCertificate::None,
        };
        let acceptor = Arc::new(Acceptor::new(&files).context("http.tls")?);
        Ok(Some(Self { files, acceptor }))
    }

    pub(super) fn acceptor(&self) -> Arc<Acceptor> {
        Arc::clone(&self.acceptor)
    }

    /// Reads the files again. After an error everything stays as it was.
    ///
    /// # Errors
    /// The file, or what does not go together.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.acceptor.reload(&self.files)
    }

    /// Reloads whenever the files hold something else. Never ends.
    pub(super) async fn watch(&self) {
        let Identity { certificate, key } = &self.files.identity;
        let mut seen = content(&[certificate, key]).await;
        loop {
            tokio::time::sleep(POLL).await;
            let now = content(&[certificate, key]).await;
            if now == seen {
                continue;
            }
            seen = now;
            match self.reload() {
                Ok(()) => tracing::info!("HTTP certificate reloaded"),
                Err(err) => tracing::warn!(
                    error = %err,
                    "HTTP certificate not reloaded: the one before stays in use"
                ),
            }
        }
    }
}

/// A digest of the files; a missing one counts as empty.
async fn content(files: &[&PathBuf]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        let bytes = tokio::fs::read(file).await.unwrap_or_default();
        digest.update(bytes.len().to_le_bytes());
        digest.update(&bytes);
    }
    digest.finalize().into()
}
