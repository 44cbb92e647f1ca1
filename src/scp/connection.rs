//! One TCP connection from its first byte to its last.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::acceptor::{self, Established, Refused};
use super::admission::Slot;
use super::association::{Association, Tally};
use super::commitment::Reports;
use super::config::Config;
use super::deliveries::Delivery;
use super::interruption::Interruption;
use super::linger::linger;
use super::negotiation::Titles;
use super::pdu_stream::PduStream;
use super::rejection::Rejection;
use super::{Shared, access};
use crate::tls::Certificate;

/// A connection that was let in.
pub(super) struct Connection {
    pub(super) peer: IpAddr,
    opened: Instant,
    /// As it was when the connection came: a reload counts for the next one.
    pub(super) config: Arc<Config>,
    /// What the peer has proved to be; `None`: nothing.
    pub(super) certificate: Option<Certificate>,
    /// Counts the connection until it is dropped.
    _slot: Slot,
}

impl Connection {
    /// Lets a connection in; `None` when it comes from an address that may not connect, or when there
    /// are so many that not even a rejection is affordable.
    pub(super) fn admit(peer: IpAddr, shared: &Shared) -> Option<Self> {
        let config = shared.config.get();
        if !access::takes_address(&config, peer) {
            count_dropped(shared, "address");
            if let Some(unsaid) = shared.chatter.addresses.may_speak() {
                info!(%peer, unsaid, "connection from an address that is not in dicom.addresses");
            }
            return None;
        }
        let Some(slot) = shared.admission.connect(peer) else {
            count_dropped(shared, "over-limit");
            debug!(%peer, "connection dropped, too many are open");
            return None;
        };
        Some(Self {
            peer,
            opened: Instant::now(),
            config,
            certificate: None,
            _slot: slot,
        })
    }

    /// Negotiates, serves the association, and takes leave of the peer.
    pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, shared: &Shared) {
        let config = &*self.config;
        let artim = config.artim_timeout.get();
        let deadline = self.deadline();
        let pdu_timeout = config.pdu_timeout.get();
        let mut stream = PduStream::new(stream, config.max_pdu_length, pdu_timeout, deadline);
        let worth_lingering = match acceptor::accept(&mut stream, &self, shared).await {
            Ok(established) => {
                self.serve_association(&mut stream, established, shared)
                    .await
            }
            Err(Refused::Interrupted(interruption)) => {
                self.report_no_association(&interruption, shared);
                let listening = abort(&mut stream, interruption.abort_without_association()).await;
                let unknown = matches!(interruption, Interruption::UnrecognizedPdu(_));
                if listening && unknown && stream.is_beyond_reason() {
                    // No PDU: text or TLS, whose length is always beyond reason. A browser or a
                    // scanner does not know that an A-ABORT asks it to close, and must not hold a
                    // connection until ARTIM expires.
                    stream.close_our_side().await;
                }
                listening
            }
            Err(Refused::Rejected(rejection, titles)) => {
                self.report_rejection(rejection, titles.as_ref(), shared);
                true
            }
        };
        if worth_lingering {
            linger(&mut stream, artim).await;
            stream.close_our_side().await;
        }
    }

    /// Until when there must be an association.
    pub(super) fn deadline(&self) -> Instant {
        self.opened + self.config.artim_timeout.get()
    }

    /// Serves an established association and says whether its peer may still be listening.
    async fn serve_association<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut PduStream<S>,
        established: Established,
        shared: &Shared,
    ) -> bool {
        let Established {
            titles,
            agreement,
            slot,
        } = established;
        let contexts = agreement.contexts.len();
        debug!(calling = %titles.calling, peer = %self.peer, contexts, "association established");
        let active = Active::count(&shared.metrics.associations_active);
        let mut association = Association {
            stream: &mut *stream,
            shared,
            config: &self.config,
            peer: self.peer,
            titles: &titles,
            contexts: &agreement.contexts,
            peer_max_pdu_length: agreement.peer_max_pdu_length,
            block: None,
            reports: Reports::default(),
            tally: Tally::default(),
            delivery: Delivery::begin(&shared.services.deliveries),
        };
        let interruption = association.serve().await;
        let Association {
            tally, delivery, ..
        } = association;
        if let Interruption::Released = interruption {
            delivery.released();
        }
        let listening = say_goodbye(stream, &interruption).await;
        // The place is free now: waiting for the peer to close costs a connection only.
        drop((active, slot));
        self.report_end(&titles, &tally, &interruption, shared);
        listening
    }

    fn report_end(
        &self,
        titles: &Titles,
        tally: &Tally,
        interruption: &Interruption,
        shared: &Shared,
    ) {
        let (calling, called, peer) = (&titles.calling, &titles.called, &self.peer);
        let result = interruption.result();
        let ended = &shared.metrics.associations_total;
        ended.with_label_values(&[result]).inc();
        if let Some(kind) = interruption.violation() {
            let errors = &shared.metrics.pdu_errors_total;
            errors.with_label_values(&[kind]).inc();
            if let Some(unsaid) = shared.chatter.violations.may_speak() {
                warn!(%calling, %peer, reason = %interruption, unsaid, "association broke the protocol");
            }
        }
        let Tally {
            stored,
            refused,
            echoes,
            bytes,
        } = *tally;
        let seconds = self.opened.elapsed().as_secs_f64();
        // Echoes come from monitoring, every few seconds for years.
        if stored + refused > 0 {
            info!(
                %calling, %called, %peer, stored, refused, bytes, seconds, result,
                "association ended"
            );
        } else {
            debug!(%calling, %called, %peer, echoes, seconds, result, "association ended");
        }
    }

    fn report_rejection(&self, rejection: Rejection, titles: Option<&Titles>, shared: &Shared) {
        let reason = rejection.label();
        let rejected = &shared.metrics.associations_rejected_total;
        rejected.with_label_values(&[reason]).inc();
        let calling = titles.map(|titles| titles.calling.as_str());
        if let Some(unsaid) = shared.chatter.rejections.may_speak() {
            let certificate = self.certificate.as_ref().map(Certificate::name);
            info!(calling, peer = %self.peer, certificate, reason, unsaid, "association rejected");
        }
    }

    /// A probe that connects and leaves, or a silent connection, is the business of load balancers
    /// and port scanners: no error and no log line above debug. Bytes that are no DICOM are counted
    /// as what they are.
    fn report_no_association(&self, interruption: &Interruption, shared: &Shared) {
        let peer = &self.peer;
        if let Some(kind) = interruption.violation() {
            let errors = &shared.metrics.pdu_errors_total;
            errors.with_label_values(&[kind]).inc();
            if let Some(unsaid) = shared.chatter.strangers.may_speak() {
                let hint = interruption.hint();
                info!(%peer, reason = %interruption, hint, unsaid, "connection does not speak DICOM");
            }
            return;
        }
        let silent = matches!(interruption, Interruption::TimedOut(_));
        count_dropped(shared, if silent { "artim" } else { "probe" });
        debug!(%peer, reason = %interruption, "connection without an association");
    }
}

/// Confirms a release or sends the A-ABORT we owe; false when nobody is there to hear it.
async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
    interruption: &Interruption,
) -> bool {
    if let Interruption::Released = interruption {
        return stream.send_release_response().await.is_ok();
    }
    abort(stream, interruption.abort()).await
}

/// Sends the A-ABORT we owe, if any; false when nobody is there to hear it.
async fn abort<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
    owed: Option<(u8, u8)>,
) -> bool {
    match owed {
        Some((source, reason)) => stream.send_abort(source, reason).await.is_ok(),
        None => false,
    }
}

fn count_dropped(shared: &Shared, kind: &str) {
    let dropped = &shared.metrics.connections_dropped_total;
    dropped.with_label_values(&[kind]).inc();
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_release_is_confirmed_a_violation_aborted_and_a_dead_peer_left_alone() {
        for (interruption, said, listening) in [
            (
                Interruption::Released,
                &[6, 0, 0, 0, 0, 4, 0, 0, 0, 0][..],
                true,
            ),
            (
                Interruption::UnexpectedPdu(1),
                &[7, 0, 0, 0, 0, 4, 0, 0, 2, 2],
                true,
            ),
            (Interruption::AbortedByPeer, &[], false),
            (Interruption::Closed, &[], false),
        ] {
            let (ours, mut peers) = duplex(64);
            let second = Duration::from_secs(1);
            let mut stream = PduStream::new(ours, 16384, second, Instant::now() + second);
            assert_eq!(say_goodbye(&mut stream, &interruption).await, listening);
            drop(stream);
            let mut heard = Vec::new();
            peers.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, said, "{interruption}");
        }
    }

    #[test]
    fn the_gauge_falls_when_an_association_is_dropped() {
        let gauge = IntGauge::new("test", "test").unwrap();
        let active = Active::count(&gauge);
        assert_eq!(gauge.get(), 1);
        drop(active);
        assert_eq!(gauge.get(), 0);
    }
}
