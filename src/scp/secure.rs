//! DICOM over TLS: the handshake before the first PDU, and certificates that change.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::Shared;
use super::config::Tls;
use crate::clock::Timestamp;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Acceptor, Certificate, Failure, TlsStream, shown};

/// The label of this listener in the metrics of TLS.
const LISTENER: &str = "dicom";

/// The handshake, which must be over at `deadline`. `None`: there is no connection, which has been
/// counted and told.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    acceptor: &Acceptor,
    peer: IpAddr,
    deadline: Instant,
    shared: &Shared,
) -> Option<(TlsStream<S>, Option<Certificate>)> {
    let handshakes = &shared.metrics.tls_handshakes_total;
    let (failure, error) = match timeout_at(deadline, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => match shown(&stream) {
            Ok(certificate) => {
                handshakes.with_label_values(&["ok"]).inc();
                let name = certificate.as_ref().map(Certificate::name);
                debug!(%peer, certificate = name, "TLS handshake done");
                return Some((stream, certificate));
            }
            Err(error) => (Failure::BadCertificate, error.to_string()),
        },
        Ok(Err(error)) => (Failure::of(&error), error.to_string()),
        Err(_) => (Failure::Timeout, "deadline".to_owned()),
    };
    handshakes.with_label_values(&[failure.label()]).inc();
    if failure.is_probe() {
        debug!(%peer, reason = %failure, error, "no TLS handshake");
    } else if let Some(unsaid) = shared.chatter.handshakes.may_speak() {
        info!(%peer, reason = %failure, error, unsaid, "no TLS handshake");
    }
    None
}

/// Looks after the files of the certificates for ever; without an acceptor there are none.
pub(super) async fn watch(acceptor: Option<Arc<Acceptor>>, shared: Arc<Shared>) {
    let Some(acceptor) = acceptor else {
        return std::future::pending().await;
    };
    report_expiry(&acceptor, &shared.metrics);
    // What has not happened yet is zero, which an alert can see grow.
    let handshakes = &shared.metrics.tls_handshakes_total;
    for label in Failure::LABELS.into_iter().chain(["ok"]) {
        handshakes.with_label_values(&[label]);
    }
    let reloads = &shared.metrics.tls_reloads_total;
    for label in ["ok", "failed"] {
        reloads.with_label_values(&[LISTENER, label]);
    }
    let watched = Arc::clone(&acceptor);
    let never = watched.watch(|result| match result {
        Ok(()) => {
            reloads.with_label_values(&[LISTENER, "ok"]).inc();
            info!("certificates of the DICOM listener reloaded");
            report_expiry(&acceptor, &shared.metrics);
        }
        Err(error) => {
            reloads.with_label_values(&[LISTENER, "failed"]).inc();
            let key = shared.config.get().tls.key_of(&error);
            warn!(key = format!("dicom.tls.{key}"), %error, "certificates of the DICOM listener stay as they are");
        }
    });
    match never.await {}
}

/// The certificates of the listener, for who has to reload them.
#[derive(Clone)]
pub struct Certificates {
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) metrics: Arc<Metrics>,
}

impl Certificates {
    /// Reads the files again, or those of another configuration. Connections that are there stay.
    ///
    /// # Errors
    /// The key and what is wrong with its file; everything stays as it was.
    pub fn reload(&self, tls: &Tls) -> Result<(), String> {
        let result = self.acceptor.reload(&tls.server());
        let label = if result.is_ok() { "ok" } else { "failed" };
        let reloads = &self.metrics.tls_reloads_total;
        reloads.with_label_values(&[LISTENER, label]).inc();
        report_expiry(&self.acceptor, &self.metrics);
        result.map_err(|error| format!("dicom.tls.{}: {error}", tls.key_of(&error)))
    }
}

fn report_expiry(acceptor: &Acceptor, metrics: &Metrics) {
    let expires = acceptor.expires();
    let gauge = &metrics.tls_certificate_expiry_timestamp_seconds;
    gauge.with_label_values(&[LISTENER]).set(expires);
    if expires <= Timestamp::now().0 / 1_000_000 {
        warn!("the certificate of the DICOM listener has expired");
    }
}
