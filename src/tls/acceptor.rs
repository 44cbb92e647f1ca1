//! The server's side of TLS, whose certificates may change while it is used.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Certificate;
use super::{ClientCertificate, Pem, Server, TlsError, authorities, provider, unusable, wrong};

/// How often the files are looked at. Kubernetes replaces them without a signal.
const LOOK: Duration = Duration::from_secs(10);

/// How long a client that was refused may take to read why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What it may go on sending meanwhile, in bytes.
const MOST_AFTER: u64 = 256 * 1024;

/// The server's side of TLS. Its files can be read again while it is used: connections that are there
/// stay as they are.
pub struct Acceptor {
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    server: Server,
    config: Arc<ServerConfig>,
    /// End of life of our certificate, in seconds since 1970.
    expires: i64,
    /// Digest of the files when they were last looked at, whatever they were good for.
    seen: [u8; 32],
}

/// What the files hold at one time.
struct Files {
    certificate: Pem,
    key: Pem,
    ca: Vec<Pem>,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, or what does not go together.
    pub fn new(server: &Server) -> Result<Self, TlsError> {
        let current = RwLock::new(Files::read(server)?.current(server)?);
        Ok(Self { current })
    }

    /// Reads the files again, or others; connections from now on get what they hold. After an error
    /// everything stays as it was.
    ///
    /// # Errors
    /// The file, or what does not go together.
    pub fn reload(&self, server: &Server) -> Result<(), TlsError> {
        self.set(Files::read(server)?.current(server)?);
        Ok(())
    }

    /// Reloads when a file has changed, and says whether. What cannot be used is told once.
    ///
    /// # Errors
    /// The file, or what does not go together; everything stays as it was.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let Current { server, seen, .. } = self.get();
        let files = Files::read(&server)?;
        let digest = files.digest();
        if digest == seen {
            return Ok(false);
        }
        let made = files.current(&server);
        if made.is_err() {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            current.seen = digest;
        }
        self.set(made?);
        Ok(true)
    }

    /// Looks at the files every ten seconds for ever, and tells of each reload and of each that failed.
    pub async fn watch(self: Arc<Self>, mut tell: impl FnMut(Result<(), TlsError>)) -> Infallible {
        let mut absent = None;
        loop {
            sleep(LOOK).await;
            let acceptor = Arc::clone(&self);
            let Ok(looked) = spawn_blocking(move || acceptor.refresh()).await else {
                continue;
            };
            match looked {
                Ok(changed) => {
                    absent = None;
                    if changed {
                        tell(Ok(()));
                    }
                }
                Err(error) => {
                    // A file that is not there is looked for again and again.
                    let text = error.to_string();
                    if absent.replace(text.clone()) != Some(text) {
                        tell(Err(error));
                    }
                }
            }
        }
    }

    /// The files in use.
    pub fn server(&self) -> Server {
        self.get().server
    }

    /// When our certificate expires, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.get().expires
    }

    /// The handshake. The caller sets the deadline. A client that is refused gets the alert that says
    /// why, and a second to read it.
    ///
    /// # Errors
    /// What is wrong with the client; [`super::Failure`] says it in words.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.get().config);
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                // Closed with unread bytes, the connection is reset and may take the alert with it.
                let _ = timeout(LAST_WORD, part(stream)).await;
                Err(error)
            }
        }
    }

    fn get(&self) -> Current {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, new: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(MOST_AFTER), &mut tokio::io::sink()).await?;
    Ok(())
}

impl Files {
    fn read(server: &Server) -> Result<Self, TlsError> {
        let ca = match server.clients {
            ClientCertificate::None => Vec::new(),
            _ => Pem::all(&server.ca)?,
        };
        Ok(Self {
            certificate: Pem::read(&server.identity.certificate)?,
            key: Pem::read(&server.identity.key)?,
            ca,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for pem in [&self.certificate, &self.key].into_iter().chain(&self.ca) {
            digest.update(Sha256::digest(&pem.bytes));
        }
        digest.finalize().into()
    }

    fn current(&self, server: &Server) -> Result<Current, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match server.clients {
            ClientCertificate::None => builder.with_no_client_auth(),
            asked => {
                let roots = Arc::new(authorities(&self.ca)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = match asked {
                    ClientCertificate::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier = verifier.build().map_err(unusable)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = self.certificate.certificates()?;
        let own = chain.first().map(|own| Certificate::read(own));
        let own = own.and_then(Result::ok);
        let own = own.ok_or_else(|| wrong(&self.certificate.file, "is no X.509 certificate"))?;
        let mut config = builder
            .with_single_cert(chain, self.key.key()?)
            .map_err(|err| {
                wrong(
                    &server.identity.certificate,
                    format!("{err} ({})", self.key.file.display()),
                )
            })?;
        if server.clients != ClientCertificate::None {
            // A session that is resumed brings its certificate along unseen: an authority that is
            // gone, or an end of life that has come, would not be noticed.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Current {
            server: server.clone(),
            config: Arc::new(config),
            expires: own.expires,
            seen: self.digest(),
        })
    }
}
