//! The DICOM listener: service class provider for Storage and Verification.
//!
//! One task per connection, messages one after the other, data sets streamed into the spool. What a
//! peer may do to us is bounded before it does it: connections and associations ([`admission`]),
//! bytes per PDU, command set and data set, and time for everything. Whatever a peer sends, it costs
//! its own association at most.
//!
//! The listener knows nothing of studies, models or brokers: it fills the spool and says which study
//! grew. A slow model can therefore never hold an association open.

mod acceptor;
mod admission;
mod association;
pub mod config;
mod interruption;
mod negotiation;
mod pdu_stream;
mod quick_ack;
mod storage;
mod writer;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::config::{Config, ConfigError, PrivateSopClasses};

use self::acceptor::{Established, Refused};
use self::admission::{Admission, Slot};
use self::association::{Association, Tally};
use self::interruption::Interruption;
use self::pdu_stream::PduStream;
use self::quick_ack::QuickAckStream;
use crate::dicom::StudyInstanceUid;
use crate::spool::Spool;
use crate::telemetry::metrics::Metrics;

/// Pause after the system refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener that does not serve yet. Connections already queue.
pub struct Listener {
    socket: TcpListener,
    local_addr: SocketAddr,
    config: Config,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    wake: mpsc::Sender<StudyInstanceUid>,
}

/// What all associations share.
struct Shared {
    config: Config,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    wake: mpsc::Sender<StudyInstanceUid>,
    admission: Arc<Admission>,
    draining: CancellationToken,
}

/// One TCP connection.
struct Connection {
    peer: IpAddr,
    opened: Instant,
    /// Counts the connection until it is dropped.
    _slot: Slot,
}

impl Listener {
    /// Binds the configured address at once, so that a port in use is an error of start-up. After
    /// each stored instance its study goes into `wake`; a full channel loses the hint, not the study.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(
        config: Config,
        spool: Arc<Spool>,
        metrics: Arc<Metrics>,
        wake: mpsc::Sender<StudyInstanceUid>,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(config.bind).await?;
        let local_addr = socket.local_addr()?;
        Ok(Self {
            socket,
            local_addr,
            config,
            spool,
            metrics,
            wake,
        })
    }

    /// The address in use, with the real port when 0 was configured.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until told to end.
    ///
    /// `draining`: new associations are rejected as transient (2/3/1) so that their senders try again
    /// later; the ones that are open finish the message in hand and end; then `run` returns. `stop`:
    /// returns at once and drops every connection. Neither loses an instance whose response was
    /// sent.
    ///
    /// # Errors
    /// None at present: a failing accept is waited out, as the cause (no file descriptors) passes.
    pub async fn run(self, draining: CancellationToken, stop: CancellationToken) -> io::Result<()> {
        let Self {
            socket,
            local_addr,
            config,
            spool,
            metrics,
            wake,
        } = self;
        let admission = Admission::new(&config);
        let shared = Arc::new(Shared {
            config,
            spool,
            metrics,
            wake,
            admission: Arc::clone(&admission),
            draining: draining.clone(),
        });
        info!(address = %local_addr, ae_title = %shared.config.ae_title, "DICOM listener is ready");
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
                Some(ended) = connections.join_next() => if let Err(error) = ended
                    && error.is_panic()
                {
                    warn!("an association ended in a panic");
                },
                accepted = socket.accept() => match accepted {
                    Ok((stream, address)) => {
                        let peer = address.ip().to_canonical();
                        let Some(slot) = admission.connect(peer) else {
                            shared.metrics.connections_dropped_total.with_label_values(&["over-limit"]).inc();
                            debug!(%peer, "connection dropped: too many connections");
                            continue;
                        };
                        let connection = Connection { peer, opened: Instant::now(), _slot: slot };
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move {
                            match QuickAckStream::new(stream) {
                                Ok(stream) => serve(stream, connection, &shared).await,
                                Err(error) => debug!(%peer, %error, "connection was gone at once"),
                            }
                        });
                    }
                    Err(error) => {
                        warn!(%error, "failed to accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // What is left now only waits for its peer to close, or is to stop at once.
        connections.shutdown().await;
        Ok(())
    }
}

/// One connection from its first byte to its last.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    connection: Connection,
    shared: &Shared,
) {
    let config = &shared.config;
    let artim = config.artim_timeout.get();
    let deadline = connection.opened + artim;
    let mut stream = PduStream::new(
        stream,
        config.max_pdu_length,
        config.pdu_timeout.get(),
        deadline,
    );
    match acceptor::accept(&mut stream, &connection, shared).await {
        Ok(established) => serve_association(&mut stream, &connection, established, shared).await,
        Err(Refused::Interrupted(interruption)) => {
            report_no_association(&connection, &interruption, shared);
            if let Some((source, reason)) = interruption.abort() {
                let _ = stream.send_abort(source, reason).await;
                stream.linger(artim).await;
            }
        }
        Err(Refused::Rejected(rejection, titles)) => {
            let reason = rejection.label();
            shared
                .metrics
                .associations_rejected_total
                .with_label_values(&[reason])
                .inc();
            match titles {
                Some(titles) => {
                    info!(calling = %titles.calling, called = %titles.called, peer = %connection.peer, reason, "association rejected");
                }
                None => info!(peer = %connection.peer, reason, "association rejected"),
            }
            stream.linger(artim).await;
        }
    }
}

async fn serve_association<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
    connection: &Connection,
    established: Established,
    shared: &Shared,
) {
    let Established {
        titles,
        agreement,
        slot,
    } = established;
    let (metrics, peer) = (&shared.metrics, connection.peer);
    debug!(calling = %titles.calling, called = %titles.called, %peer, contexts = agreement.contexts.len(), "association established");
    let _active = Active::count(&metrics.associations_active);
    let mut association = Association {
        stream: &mut *stream,
        shared,
        peer,
        titles: &titles,
        contexts: &agreement.contexts,
        peer_max_pdu_length: agreement.peer_max_pdu_length,
        block: None,
        tally: Tally::default(),
    };
    let interruption = association.serve().await;
    let tally = association.tally;
    match &interruption {
        Interruption::Released => {
            let _ = stream.send_release_response().await;
        }
        other => {
            if let Some((source, reason)) = other.abort() {
                let _ = stream.send_abort(source, reason).await;
            }
        }
    }
    let result = interruption.result();
    metrics
        .associations_total
        .with_label_values(&[result])
        .inc();
    if let Some(kind) = interruption.violation() {
        metrics.pdu_errors_total.with_label_values(&[kind]).inc();
        warn!(calling = %titles.calling, %peer, reason = %interruption, "association aborted for a protocol error");
    }
    if tally.stored + tally.refused > 0 || interruption.violation().is_some() {
        info!(
            calling = %titles.calling,
            called = %titles.called,
            %peer,
            stored = tally.stored,
            refused = tally.refused,
            bytes = tally.bytes,
            seconds = connection.opened.elapsed().as_secs_f64(),
            result,
            "association ended"
        );
    } else {
        debug!(calling = %titles.calling, %peer, echoes = tally.echoes, result, "association ended");
    }
    if !matches!(
        interruption,
        Interruption::Closed | Interruption::Truncated | Interruption::Io(_)
    ) {
        stream.linger(shared.config.artim_timeout.get()).await;
    }
    drop(slot);
}

/// Keeps the gauge right however the association's task ends.
struct Active<'a>(&'a IntGauge);

impl<'a> Active<'a> {
    fn count(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A probe that connects and leaves, or a silent connection, is the business of load balancers and port scanners: no
/// error and no log line above debug. Bytes that are no DICOM are counted as what they are.
fn report_no_association(connection: &Connection, interruption: &Interruption, shared: &Shared) {
    let metrics = &shared.metrics;
    if let Some(kind) = interruption.violation() {
        metrics.pdu_errors_total.with_label_values(&[kind]).inc();
        info!(peer = %connection.peer, reason = %interruption, "connection does not speak DICOM");
        return;
    }
    let kind = if matches!(interruption, Interruption::TimedOut(_)) {
        "artim"
    } else {
        "probe"
    };
    metrics
        .connections_dropped_total
        .with_label_values(&[kind])
        .inc();
    debug!(peer = %connection.peer, reason = %interruption, "connection without an association");
}
