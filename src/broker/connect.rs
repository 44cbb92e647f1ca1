//! From a name to a connection: address, TCP, TLS, AMQP. What fails is told by the stage it failed in.
//!
//! Certificates and secrets are read for each connection, so that a file that was corrected or renewed
//! counts at the next attempt.

use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use rustls::CertificateError;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::{Config, credentials};
use crate::tls::{Identity, TlsError, client_config};

/// Where it failed: label of `broker_connect_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A file of ours cannot be used.
    Files,
    /// The name has no address.
    Dns,
    /// Nobody takes the connection.
    Refused,
    /// Nothing came in time.
    Timeout,
    /// No agreement on encryption, or on who is who.
    Tls,
    /// Wrong user or password, or no permission.
    Auth,
    /// The virtual host is not there, or not for us.
    Vhost,
    /// Anything else.
    Other,
}

impl Reason {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Vhost => "vhost",
            Self::Other => "other",
        }
    }
}

/// Why there is no connection. The text says nothing that changes from one attempt to the next.
#[derive(Debug, Clone)]
pub(super) struct Away {
    pub reason: Reason,
    pub text: String,
}

impl Away {
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { reason, text }
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Away {}

/// What a connection needs, as the files have it now.
pub(super) struct Access {
    uri: AMQPUri,
    tls: Option<RustlsConnector>,
}

impl Access {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// The key, the file and the reason.
    pub fn read(config: &Config) -> Result<Self, String> {
        let mut uri = config.uri().map_err(|reason| format!("broker.{reason}"))?;
        let user = &mut uri.authority.userinfo;
        for (key, file, value) in [
            ("username_file", &config.username_file, &mut user.username),
            ("password_file", &config.password_file, &mut user.password),
        ] {
            if !file.as_os_str().is_empty() {
                *value =
                    credentials::read(file).map_err(|reason| format!("broker.{key}: {reason}"))?;
            }
        }
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(encryption(config)?),
        };
        Ok(Self { uri, tls })
    }
}

fn encryption(config: &Config) -> Result<RustlsConnector, String> {
    let tls = &config.tls;
    let given = |file: &PathBuf| !file.as_os_str().is_empty();
    let ours = given(&tls.certificate).then(|| Identity {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    });
    let authorities: Vec<PathBuf> = [&tls.ca]
        .into_iter()
        .filter(|f| given(f))
        .cloned()
        .collect();
    let made = client_config(&authorities, ours.as_ref()).map_err(|err| {
        let key = match &err {
            TlsError::File { file, .. } if *file == tls.ca => "ca",
            TlsError::File { file, .. } if *file == tls.certificate => "certificate",
            // What does not go together is the key and the certificate.
            _ => "key",
        };
        format!("broker.tls.{key}: {err}")
    })?;
    Ok(made.into())
}

/// The socket of a connection in the making. Unless it is [kept](Made::keep), it is shut down:
/// lapin has a thread for it, which would wait as long as the broker says nothing.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<Option<TcpStream>>>);

impl Line {
    fn take(&self) -> Option<TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let socket = TcpStream::from(socket.try_clone_to_owned()?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
        Ok(())
    }
}

/// The end that decides.
struct Made(Line);

impl Made {
    fn keep(self) {
        drop(self.0.take());
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A new connection, within `timeout`.
///
/// # Errors
/// The stage, with words that help to find the cause.
pub(super) async fn connect(config: &Config, timeout: Duration) -> Result<Connection, Away> {
    let wanted = config.clone();
    let access = spawn_blocking(move || Access::read(&wanted)).await;
    let Access { uri, tls } = access
        .map_err(|_| Away::new(Reason::Other, "the files could not be read"))?
        .map_err(|reason| Away::new(Reason::Files, reason))?;
    let at = format!("{}:{}", uri.authority.host, uri.authority.port);
    let line = Line::default();
    let made = Made(line.clone());
    // Its receiver goes with this future, before `made`: then the dialling thread of lapin ends as well.
    let (stage, seen) = watch::channel("");
    let runtime = lapin::runtime::default_runtime().map_err(|err| diagnose(&err, config, &at))?;
    let properties = ConnectionProperties::default().with_connection_name("pacs-gateway".into());
    let opening = Connection::connector(
        uri,
        runtime,
        async move |uri: AMQPUri, runtime| {
            let dial = async {
                let host = uri.authority.host.as_str();
                stage.send_replace("its address");
                let found = tokio::net::lookup_host((host, uri.authority.port)).await;
                let found: Vec<_> = found
                    .map_err(|err| Away::new(Reason::Dns, format!("{host}: {err}")))?
                    .collect();
                stage.send_replace("a connection");
                let stream = AsyncTcpStream::connect(&runtime, found).await;
                let stream = stream.map_err(|err| Away::new(refused(&err), err.to_string()))?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    let noted = line.put(plain.get_ref().as_fd());
                    noted.map_err(|err| Away::new(Reason::Other, err.to_string()))?;
                }
                stage.send_replace("the TLS handshake");
                let stream = match &tls {
                    Some(tls) => stream.into_rustls(tls, host).await.map_err(|err| {
                        encrypted(&err).unwrap_or_else(|| Away::new(Reason::Tls, err.to_string()))
                    })?,
                    None => stream,
                };
                stage.send_replace("its answer");
                Ok(stream)
            };
            let dialled = tokio::select! {
                dialled = dial => dialled,
                () = stage.closed() => Err(given_up()),
            };
            let wanted = || !stage.is_closed();
            dialled
                .and_then(|stream| wanted().then_some(stream).ok_or_else(given_up))
                .map_err(|away| io::Error::other(away).into())
        },
        properties,
    );
    match tokio::time::timeout(timeout, opening).await {
        Ok(Ok(connection)) => {
            made.keep();
            Ok(connection)
        }
        Ok(Err(err)) => Err(diagnose(&err, config, &at)),
        Err(_) => {
            let stage = *seen.borrow();
            let text = format!("{at}: waited {timeout:?} for {stage}");
            Err(Away::new(Reason::Timeout, text))
        }
    }
}

/// What lapin's error says of the stage.
pub(super) fn diagnose(err: &lapin::Error, config: &Config, at: &str) -> Away {
    let told = |reason, text: &dyn fmt::Display| Away::new(reason, format!("{at}: {text}"));
    match err.kind() {
        ErrorKind::IOError(io) => {
            if let Some(away) = io.get_ref().and_then(|err| err.downcast_ref::<Away>()) {
                return told(away.reason, &away.text);
            }
            if let Some(away) = encrypted(io) {
                return told(away.reason, &away.text);
            }
            // The broker's word on a missing certificate can be lost with the connection.
            let silent = config.tls.certificate.as_os_str().is_empty();
            if config.url.starts_with("amqps") && silent && ended(io) {
                let text = "it ends the connection after the TLS handshake; if it wants a certificate, \
                            see broker.tls.certificate";
                return told(Reason::Tls, &text);
            }
            told(Reason::Other, io)
        }
        ErrorKind::ProtocolError(amqp) => {
            let reason = match amqp.kind() {
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => Reason::Vhost,
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Reason::Auth,
                _ => Reason::Other,
            };
            told(reason, amqp)
        }
        _ => told(Reason::Other, err),
    }
}

fn given_up() -> Away {
    Away::new(Reason::Timeout, "given up")
}

fn refused(err: &io::Error) -> Reason {
    match err.kind() {
        io::ErrorKind::TimedOut => Reason::Timeout,
        _ => Reason::Refused,
    }
}

fn ended(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// An error of TLS in words for who has to mend it; rustls has the time of day in some of its own.
fn encrypted(err: &io::Error) -> Option<Away> {
    let err = err.get_ref()?.downcast_ref::<rustls::Error>()?;
    let text = match err {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet".to_owned()
            }
            CertificateError::UnknownIssuer => {
                "its certificate is from no authority that we trust: see broker.tls.ca".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name than the one in broker.url".to_owned()
            }
            other => format!("its certificate: {other}"),
        },
        rustls::Error::AlertReceived(alert) => {
            format!("it refuses our side of TLS ({alert:?}): see broker.tls.certificate")
        }
        other => other.to_string(),
    };
    Some(Away::new(Reason::Tls, format!("TLS: {text}")))
}
