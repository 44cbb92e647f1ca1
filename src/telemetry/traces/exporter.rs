//! The way of spans to the collector: in groups, with a deadline, never in anybody's way.
//!
//! The SDK's batch processor is not used: it takes spans from its own tracer, whose ids it draws, and
//! neither counts what it drops in a metric nor keeps a group for a collector that comes back.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Config;
use super::otlp;
use super::span::Span;
use super::transport::{Failure, Transport};
use crate::retry::Backoff;
use crate::telemetry::Metrics;

/// Spans in one request.
const GROUP: usize = 512;
/// How long the first span of a group waits for others.
const GATHER: Duration = Duration::from_millis(500);
/// How long the collector may take for a request, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between attempts at one.
const ATTEMPTS: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// How long the rest may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// Sends spans for as long as the gateway runs.
pub struct Exporter {
    transport: Transport,
    instance: String,
    queue: mpsc::Receiver<Span>,
    metrics: Arc<Metrics>,
    away: bool,
}

impl Exporter {
    pub(super) fn new(
        config: &Config,
        instance: &str,
        queue: mpsc::Receiver<Span>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        Ok(Self {
            transport: Transport::new(config)?,
            instance: instance.to_owned(),
            queue,
            metrics,
            away: false,
        })
    }

    /// Sends until `stop`, then what is left, for a moment.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(group) = self.gather(&stop).await {
            let (spans, request) = self.encode(group);
            let mut attempt = 0;
            let over = async {
                stop.cancelled().await;
                sleep(LAST).await;
            };
            tokio::pin!(over);
            loop {
                let sent = tokio::select! {
                    sent = self.attempt(&request, spans, DEADLINE) => sent,
                    () = &mut over => false,
                };
                if sent {
                    break;
                }
                // The queue goes on filling meanwhile, and drops what it has no room for.
                tokio::select! {
                    () = sleep(ATTEMPTS.jittered(attempt)) => {}
                    () = stop.cancelled() => {}
                }
                if stop.is_cancelled() {
                    self.away = true;
                    self.drop_spans("shutdown", spans);
                    break;
                }
                attempt = attempt.saturating_add(1);
            }
        }
        self.finish().await;
    }

    /// The next group; `None` at the end.
    async fn gather(&mut self, stop: &CancellationToken) -> Option<Vec<Span>> {
        let mut group = Vec::new();
        // Cancelling this takes nothing out of the queue.
        tokio::select! {
            _ = self.queue.recv_many(&mut group, GROUP) => {}
            () = stop.cancelled() => {}
        }
        if group.is_empty() {
            return None;
        }
        tokio::select! {
            () = sleep(GATHER) => {}
            () = stop.cancelled() => {}
        }
        self.fill(&mut group);
        Some(group)
    }

    /// Takes what is there, as much as has room in a group.
    fn fill(&mut self, group: &mut Vec<Span>) {
        while group.len() < GROUP
            && let Ok(span) = self.queue.try_recv()
        {
            group.push(span);
        }
    }

    /// Sends what is left, each group once; after the first that fails the rest is dropped.
    async fn finish(mut self) {
        self.queue.close();
        let end = Instant::now() + LAST;
        let mut reachable = !self.away;
        loop {
            let mut group = Vec::new();
            self.fill(&mut group);
            if group.is_empty() {
                return;
            }
            let (spans, request) = self.encode(group);
            let left = end.saturating_duration_since(Instant::now());
            reachable = reachable && self.attempt(&request, spans, left).await;
            if !reachable {
                self.drop_spans("shutdown", spans);
            }
        }
    }

    fn encode(&self, group: Vec<Span>) -> (u64, Bytes) {
        let spans = group.len() as u64;
        (spans, Bytes::from(otlp::request(&self.instance, group)))
    }

    /// False: it is worth another attempt.
    async fn attempt(&mut self, request: &Bytes, spans: u64, deadline: Duration) -> bool {
        let sent = timeout(deadline, self.transport.send(request)).await;
        let sent = sent.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned())));
        match sent {
            Ok(rejected) => {
                let rejected = rejected.min(spans);
                self.metrics.spans_exported_total.inc_by(spans - rejected);
                self.drop_spans("refused", rejected);
                self.tell(None);
                true
            }
            Err(Failure::Refused(reason)) => {
                self.drop_spans("refused", spans);
                self.tell(Some(&reason));
                true
            }
            Err(Failure::Away(reason)) => {
                self.tell(Some(&reason));
                false
            }
        }
    }

    fn drop_spans(&self, reason: &str, spans: u64) {
        let dropped = &self.metrics.spans_dropped_total;
        dropped.with_label_values(&[reason]).inc_by(spans);
    }

    /// One line per change; the counter tells how much is lost.
    fn tell(&mut self, error: Option<&str>) {
        match error {
            Some(error) if !self.away => {
                tracing::warn!(
                    error,
                    "the collector takes no traces; studies go on without"
                );
            }
            None if self.away => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        self.away = error.is_some();
    }
}
