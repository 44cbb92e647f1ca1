//! DICOM over TLS: the handshake before the first PDU, and certificates that change.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use super::Shared;
use crate::certificates::Certificates;
use crate::tls::{Acceptor, Certificate, Failure, TlsStream, shown};

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

/// Looks after the certificates for ever; without any there is nothing to do.
pub(super) async fn watch(certificates: Option<Certificates>, shared: Arc<Shared>) {
    let Some(certificates) = certificates else {
        return std::future::pending().await;
    };
    // What has not happened yet is zero, which an alert can see grow.
    let handshakes = &shared.metrics.tls_handshakes_total;
    for label in Failure::LABELS.into_iter().chain(["ok"]) {
        handshakes.with_label_values(&[label]);
    }
    match certificates.watch().await {}
}
