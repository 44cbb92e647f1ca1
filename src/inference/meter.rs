//! What one engine tells the metrics of its model. Several engines may serve a model, the parts of an
//! ensemble or a version and the next, so each adds its share to a gauge and takes it away again.

use std::sync::Arc;

use prometheus::IntGauge;

use crate::telemetry::Metrics;

/// The gauges of a model, looked up once.
#[derive(Debug)]
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    model: String,
    pub depth: IntGauge,
    pub fenced: IntGauge,
    sessions: IntGauge,
    busy: IntGauge,
}

/// A session that runs a batch.
#[derive(Debug)]
pub(super) struct Busy(IntGauge);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Meter {
    pub fn new(metrics: Arc<Metrics>, model: &str) -> Self {
        let of = [model];
        for result in ["answered", "failed", "died"] {
            metrics
                .inference_runs_total
                .with_label_values(&[model, result]);
        }
        for reason in ["crash", "memory", "timeout", "start"] {
            metrics
                .inference_worker_deaths_total
                .with_label_values(&[model, reason]);
        }
        Self {
            depth: metrics.inference_queue_depth.with_label_values(&of),
            fenced: metrics.model_fenced.with_label_values(&of),
            sessions: metrics.inference_sessions.with_label_values(&of),
            busy: metrics.inference_sessions_busy.with_label_values(&of),
            model: model.to_owned(),
            metrics,
        }
    }

    /// The engine has come.
    pub fn begin(&self, sessions: usize) {
        self.sessions.add(share(sessions));
    }

    /// The engine goes, with what it had put into the gauge of the queue's depth.
    pub fn end(&self, sessions: usize, depth: i64) {
        self.sessions.sub(share(sessions));
        self.depth.sub(depth);
    }

    pub fn busy(&self) -> Busy {
        self.busy.inc();
        Busy(self.busy.clone())
    }

    pub fn ran(&self, result: &'static str) {
        let labels = [self.model.as_str(), result];
        let runs = &self.metrics.inference_runs_total;
        runs.with_label_values(&labels).inc();
    }

    pub fn died(&self, reason: &str) {
        let labels = [self.model.as_str(), reason];
        let deaths = &self.metrics.inference_worker_deaths_total;
        deaths.with_label_values(&labels).inc();
    }
}

fn share(sessions: usize) -> i64 {
    i64::try_from(sessions).unwrap_or(i64::MAX)
}
