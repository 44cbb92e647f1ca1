//! The certificate that a listener shows: looked after while it serves, told of in log and metrics.

use std::convert::Infallible;
use std::sync::Arc;

use tracing::{info, warn};

use crate::clock::Timestamp;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Acceptor, Server, TlsError};

/// What one listener speaks TLS with. Clones share it.
#[derive(Clone)]
pub struct Certificates {
    acceptor: Arc<Acceptor>,
    /// Label of the metrics; its configuration is the section `<listener>.tls`.
    listener: &'static str,
    metrics: Arc<Metrics>,
}

impl Certificates {
    /// Those of `listener`, `dicom` or `http`. The metrics tell of them from now on.
    pub fn new(acceptor: Arc<Acceptor>, listener: &'static str, metrics: Arc<Metrics>) -> Self {
        let certificates = Self {
            acceptor,
            listener,
            metrics,
        };
        // What has not happened yet is zero, which an alert can see grow.
        for result in ["ok", "failed"] {
            let reloads = &certificates.metrics.tls_reloads_total;
            reloads.with_label_values(&[listener, result]);
        }
        certificates.report_expiry();
        certificates
    }

    /// What handshakes are made with.
    pub fn acceptor(&self) -> Arc<Acceptor> {
        Arc::clone(&self.acceptor)
    }

    /// Reads the files again, or those of another configuration. Connections that are there stay.
    ///
    /// # Errors
    /// The key and what is wrong with its file; everything stays as it was.
    pub fn reload(&self, server: &Server) -> Result<(), String> {
        let reloaded = self.acceptor.reload(server);
        self.count(reloaded.is_ok());
        reloaded.map_err(|error| server.told(self.listener, &error))
    }

    /// Reads the files again whenever they change. Kubernetes replaces them without a signal.
    pub async fn watch(&self) -> Infallible {
        let listener = self.listener;
        let tell = |result: Result<(), TlsError>| {
            self.count(result.is_ok());
            match result {
                Ok(()) => info!(listener, "certificates reloaded"),
                Err(error) => {
                    let key = self.acceptor.server().key_of(&error);
                    let key = format!("{listener}.tls.{key}");
                    warn!(listener, key, %error, "certificates stay as they are");
                }
            }
        };
        self.acceptor().watch(tell).await
    }

    fn count(&self, succeeded: bool) {
        let result = if succeeded { "ok" } else { "failed" };
        let reloads = &self.metrics.tls_reloads_total;
        reloads.with_label_values(&[self.listener, result]).inc();
        self.report_expiry();
    }

    fn report_expiry(&self) {
        let expires = self.acceptor.expires();
        let gauge = &self.metrics.tls_certificate_expiry_timestamp_seconds;
        gauge.with_label_values(&[self.listener]).set(expires);
        if expires <= Timestamp::now().0 / 1_000_000 {
            let listener = self.listener;
            warn!(listener, "our certificate has expired");
        }
    }
}
