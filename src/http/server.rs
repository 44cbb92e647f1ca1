//! The sockets: plain or TLS, with a bound on connections and a deadline for whatever a client does.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::heartbeat::Heartbeat;
use super::stall::Unstalled;
use super::{Api, Config, Tls, api_router, probe_router};
use crate::certificates::Certificates;
use crate::telemetry::{Budget, Metrics};
use crate::tls::{Acceptor, ClientCertificate, Identity};

/// Connections of one listener at once. Each costs its buffers, some 100 KiB at most.
const MAX_CONNECTIONS: usize = 256;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for the head of a request, from the moment it could come: idle connections too.
const HEAD: Duration = Duration::from_secs(30);
/// Header fields of a request.
const MAX_HEADERS: usize = 64;
/// Bytes of the head of a request.
const MAX_HEAD: usize = 32 * 1024;
/// Before the next attempt when the system gives us no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Bound sockets that do not serve yet.
pub struct Server {
    api: TcpListener,
    probes: Option<TcpListener>,
    certificates: Option<Certificates>,
}

impl Server {
    /// Binds eagerly and reads the certificate, so that what is wrong is an error at start.
    ///
    /// # Errors
    /// The key and the reason.
    pub async fn bind(config: &Config, metrics: &Arc<Metrics>) -> Result<Self> {
        let acceptor = config.tls.acceptor().map_err(anyhow::Error::msg)?;
        let certificates = acceptor
            .map(|acceptor| Certificates::new(Arc::new(acceptor), "http", Arc::clone(metrics)));
        let api = TcpListener::bind(&config.bind).await;
        let api = api.with_context(|| format!("http.bind: cannot listen on {}", config.bind))?;
        let probes = match config.probe_bind.as_str() {
            "" => None,
            address => {
                let bound = TcpListener::bind(address).await;
                let why = || format!("http.probe_bind: cannot listen on {address}");
                Some(bound.with_context(why)?)
            }
        };
        Ok(Self {
            api,
            probes,
            certificates,
        })
    }

    /// Address of the API.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.api.local_addr()
    }

    /// Address of the probes, when they have a listener of their own.
    pub fn probe_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.probes
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// What a reload reads again; none without TLS.
    pub fn certificates(&self) -> Option<Certificates> {
        self.certificates.clone()
    }

    /// Serves until `stop`, then lets every connection finish the request in hand.
    pub async fn run(self, api: Api, stop: CancellationToken) -> io::Result<()> {
        let heartbeat = Arc::new(Heartbeat::default());
        let metrics = Arc::clone(&api.metrics);
        let serve = |socket, tls, router| {
            let listener = Listener {
                socket,
                tls,
                router,
                metrics: Arc::clone(&metrics),
            };
            listener.run(stop.clone())
        };
        let probes = self.probes.map(|socket| {
            let router = probe_router(api.clone(), Arc::clone(&heartbeat));
            serve(socket, None, router)
        });
        let tls = self.certificates.as_ref().map(Certificates::acceptor);
        let router = api_router(api, Arc::clone(&heartbeat), probes.is_none());
        let main = serve(self.api, tls, router);
        let probes = async {
            if let Some(probes) = probes {
                probes.await;
            }
        };
        let beside = async {
            tokio::join!(heartbeat.run(), async {
                if let Some(certificates) = &self.certificates {
                    match certificates.watch().await {}
                }
            });
        };
        tokio::select! {
            _ = async { tokio::join!(main, probes) } => {}
            () = beside => {}
        }
        Ok(())
    }
}

impl Tls {
    /// What the listener speaks TLS with; `None`: it does not.
    ///
    /// # Errors
    /// The key and the reason.
    pub(super) fn acceptor(&self) -> Result<Option<Acceptor>, String> {
        let files = self.server()?;
        files.map(|files| files.acceptor("http")).transpose()
    }

    /// The files; `None`: no TLS.
    ///
    /// # Errors
    /// The key that is missing.
    pub fn server(&self) -> Result<Option<crate::tls::Server>, String> {
        let missing = |what, other| format!("http.tls.{what}: is missing for http.tls.{other}");
        let empty = |path: &Path| path.as_os_str().is_empty();
        match (empty(&self.certificate), empty(&self.key)) {
            (true, true) => return Ok(None),
            (false, true) => return Err(missing("key", "certificate")),
            (true, false) => return Err(missing("certificate", "key")),
            (false, false) => {}
        }
        Ok(Some(crate::tls::Server {
            identity: Identity {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            },
            ca: Vec::new(),
            clients: ClientCertificate::None,
        }))
    }
}

/// One socket and what it serves.
struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Acceptor>>,
    router: Router,
    metrics: Arc<Metrics>,
}

impl Listener {
    async fn run(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        let told = Budget::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(err) => {
                    if let Some(unsaid) = told.may_speak() {
                        tracing::warn!(error = %err, unsaid, "no HTTP connection accepted");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.refused("too-many-connections");
                continue;
            };
            let (tls, router) = (self.tls.clone(), self.router.clone());
            let (metrics, stop) = (Arc::clone(&self.metrics), stop.clone());
            connections.spawn(async move {
                let _slot = slot;
                let served = connection(stream, tls, router, stop).await;
                if served.is_err() {
                    refused(&metrics, "tls-handshake");
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    fn refused(&self, reason: &str) {
        refused(&self.metrics, reason);
    }
}

fn refused(metrics: &Metrics, reason: &str) {
    let counter = &metrics.http_refusals_total;
    counter.with_label_values(&[reason]).inc();
}

/// Serves one connection. An error: the TLS handshake failed.
async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Acceptor>>,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    match tls {
        None => speak(stream, router, stop).await,
        Some(acceptor) => {
            let handshake = timeout(HANDSHAKE, acceptor.accept(stream));
            let stream = tokio::select! {
                shaken = handshake => shaken.map_err(|_| io::ErrorKind::TimedOut)??,
                () = stop.cancelled() => return Ok(()),
            };
            speak(stream, router, stop).await;
        }
    }
    Ok(())
}

/// HTTP/1.1 until the client goes, is too slow, or `stop`. Its errors are the client's own.
async fn speak<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(
            TokioIo::new(Unstalled::new(stream)),
            TowerToHyperService::new(router),
        );
    let mut served = std::pin::pin!(served);
    tokio::select! {
        _ = served.as_mut() => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}
