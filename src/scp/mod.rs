//! The DICOM listener: service class provider for Storage, Verification, Storage Commitment and
//! Modality Performed Procedure Step.
//!
//! One task per connection, messages one after the other, data sets streamed into the spool. What a
//! peer may do to us is bounded before it does it: connections and associations ([`admission`]),
//! bytes per PDU, command set and data set, and time for everything. Whatever a peer sends, it
//! costs its own association at most.
//!
//! The listener knows nothing of studies, models or brokers: it fills the spool and says which
//! study grew. A slow model can therefore never hold an association open.

mod acceptor;
mod access;
mod admission;
mod association;
mod chatter;
mod commitment;
pub mod config;
mod connection;
mod deliveries;
mod interruption;
mod items;
mod linger;
mod negotiation;
mod pdu_stream;
mod procedure;
mod quick_ack;
mod rejection;
mod secure;
mod senders;
mod sockets;
mod storage;
#[cfg(test)]
mod tests;
mod timed_stream;
mod user_information;
mod writer;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::config::{
    ClientCertificate, Config, ConfigError, PrivateSopClasses, Tls, UserIdentity,
};
pub use self::deliveries::{Delivered, Deliveries};
pub use self::senders::introduce;
pub use self::sockets::{BindError, Ports};

use self::admission::Admission;
use self::chatter::Chatter;
use self::connection::Connection;
use self::quick_ack::QuickAckStream;
use self::sockets::{Accepted, Sockets};
use crate::certificates::Certificates;
use crate::commitment::desk::Desk;
use crate::dicom::StudyInstanceUid;
use crate::live::Live;
use crate::pause::Switch;
use crate::spool::Spool;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::study_key::StudyKey;
use crate::{commitment as commitments, procedure as procedures};

/// Pause after the system refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long peers may take to close their connections once we are drained.
const CLOSING: Duration = Duration::from_millis(500);

/// A bound listener that does not serve yet. Connections already queue.
pub struct Listener {
    sockets: Sockets,
    config: Live<Config>,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    wake: mpsc::Sender<StudyInstanceUid>,
    services: Services,
}

/// Where what comes by other services than storage is written down.
#[derive(Clone)]
pub struct Services {
    /// Storage Commitment; `None`: not offered.
    pub commitments: Option<commitments::Store>,
    /// Performed procedure steps.
    pub procedures: procedures::Store,
    /// Where open associations wait for reports.
    pub desk: Arc<Desk>,
    /// Who delivers what.
    pub deliveries: Arc<Deliveries>,
    /// What stands for studies in logs.
    pub study_key: StudyKey,
    /// While it pauses, new associations are rejected as transient.
    pub pause: Switch,
}

/// What all associations share.
struct Shared {
    config: Live<Config>,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    wake: mpsc::Sender<StudyInstanceUid>,
    services: Services,
    admission: Arc<Admission>,
    draining: CancellationToken,
    /// For log lines that any peer can cause as often as it likes.
    chatter: Chatter,
}

/// Serves connections, wherever they come from.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// After each stored instance its study goes into `wake`; a full channel loses the hint, not the
    /// study. Once `draining`, new associations are rejected as transient (2/3/1) so that their
    /// senders try again; the ones that are open finish the message in hand, get "try later" (A700) for
    /// more, and end.
    pub fn new(
        config: Live<Config>,
        spool: Arc<Spool>,
        metrics: Arc<Metrics>,
        wake: mpsc::Sender<StudyInstanceUid>,
        services: Services,
        draining: CancellationToken,
    ) -> Self {
        introduce(&metrics, &config.get());
        let admission = Admission::new(config.clone());
        Self {
            shared: Arc::new(Shared {
                config,
                spool,
                metrics,
                wake,
                services,
                admission,
                draining,
                chatter: Chatter::default(),
            }),
        }
    }

    /// Serves one connection from its first byte to its last. One too many is dropped.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, peer: IpAddr, stream: S) {
        if let Some(connection) = Connection::admit(peer, &self.shared) {
            connection.serve(stream, &self.shared).await;
        }
    }
}

impl Listener {
    /// Binds the configured addresses at once, so that a port in use is an error of start-up. After
    /// each stored instance its study goes into `wake`; a full channel loses the hint, not the
    /// study.
    ///
    /// # Errors
    /// An address cannot be bound, or the certificate, its key or the authorities cannot be used.
    pub fn bind(
        config: Live<Config>,
        spool: Arc<Spool>,
        metrics: Arc<Metrics>,
        wake: mpsc::Sender<StudyInstanceUid>,
        services: Services,
    ) -> Result<Self, BindError> {
        let sockets = Sockets::bind(&config.get())?;
        Ok(Self {
            sockets,
            config,
            spool,
            metrics,
            wake,
            services,
        })
    }

    /// The ports in use, also where 0 was configured.
    pub fn ports(&self) -> Ports {
        self.sockets.ports
    }

    /// What TLS is spoken with, for who reloads it; `None`: there is no listener with TLS.
    pub fn certificates(&self) -> Option<Certificates> {
        let acceptor = self.sockets.acceptor()?;
        let metrics = Arc::clone(&self.metrics);
        Some(Certificates::new(acceptor, "dicom", metrics))
    }

    /// Serves until told to end.
    ///
    /// `draining`: new associations are rejected as transient (2/3/1) so that their senders try
    /// again later; the ones that are open finish the message in hand, get "try later" (A700) for more,
    /// and end; then `run` returns.
    /// `stop`: returns at once and drops every connection. Neither loses an instance whose response
    /// was sent.
    ///
    /// # Errors
    /// None at present: a failing accept is waited out, as the cause (no file descriptors) passes.
    pub async fn run(self, draining: CancellationToken, stop: CancellationToken) -> io::Result<()> {
        let certificates = self.certificates();
        let Self {
            sockets,
            config,
            spool,
            metrics,
            wake,
            services,
        } = self;
        let Server { shared } =
            Server::new(config, spool, metrics, wake, services, draining.clone());
        let admission = Arc::clone(&shared.admission);
        let Ports { plain, tls } = sockets.ports;
        info!(plain, tls, ae_title = %shared.config.get().ae_title, "DICOM listener is ready");
        let watching = secure::watch(certificates, Arc::clone(&shared));
        tokio::pin!(watching);
        let drained = async {
            draining.cancelled().await;
            admission.idle().await;
        };
        tokio::pin!(drained);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = &mut drained => break,
                Some(ended) = connections.join_next() => {
                    // Cancelled tasks exist only after this loop, so this one panicked. Its peer
                    // sees the connection close, all others go on.
                    if ended.is_err() {
                        warn!("an association ended in a panic");
                    }
                }
                () = &mut watching => {}
                accepted = sockets.accept() => match accepted {
                    Ok(accepted) => {
                        let peer = accepted.address.ip().to_canonical();
                        if let Some(connection) = Connection::admit(peer, &shared) {
                            connections.spawn(serve(accepted, connection, Arc::clone(&shared)));
                        }
                    }
                    Err(error) => {
                        if let Some(unsaid) = shared.chatter.accepting.may_speak() {
                            warn!(%error, unsaid, "failed to accept a connection");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // What is left now waits for its peer to close the connection after our last word.
        if !stop.is_cancelled() {
            let closing = async { while connections.join_next().await.is_some() {} };
            let _ = timeout(CLOSING, closing).await;
        }
        connections.shutdown().await;
        Ok(())
    }
}

async fn serve(accepted: Accepted, mut connection: Connection, shared: Arc<Shared>) {
    let stream = match QuickAckStream::new(accepted.stream) {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "connection was gone at once");
            return;
        }
    };
    let stream = match accepted.acceptor {
        None => Either::Left(stream),
        Some(acceptor) => {
            let (peer, deadline) = (connection.peer, connection.deadline());
            match secure::handshake(stream, &acceptor, peer, deadline, &shared).await {
                Some((stream, certificate)) => {
                    connection.certificate = certificate;
                    Either::Right(stream)
                }
                None => return,
            }
        }
    };
    connection.serve(stream, &shared).await;
}
