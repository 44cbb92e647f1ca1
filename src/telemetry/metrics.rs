//! Every metric of the gateway: name, labels and help in one place.
//!
//! Names follow the Prometheus conventions (base units, `_total`, `_seconds`). Label values come from
//! fixed lists in the code, or are names of installed models: no AE title, address or UID ever
//! becomes one. `docs/metrics.md` is held to this file by a test.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// From a quick answer to a slow one, in seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0,
];

/// Differences of probabilities: from rounding to the opposite.
const DIFFERENCES: [f64; 8] = [0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];
/// From 0 to 1 in steps of 0.05.
const SCORES: [f64; 20] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85,
    0.9, 0.95, 1.0,
];
/// Fine around 0, where normalised values lie, and wide enough for bytes and Hounsfield units.
const MEANS: [f64; 25] = [
    -1000.0, -300.0, -100.0, -30.0, -10.0, -3.0, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25,
    0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0,
];
/// Likewise; 0 is an image of one value.
const DEVIATIONS: [f64; 17] = [
    0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0,
];

/// The gateway's metrics, registered in one registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where `/metrics` gathers from.
    pub registry: Registry,
    /// Associations that ended, by result.
    pub associations_total: IntCounterVec,
    /// Associations established at this moment.
    pub associations_active: IntGauge,
    /// Association requests answered with A-ASSOCIATE-RJ, by reason.
    pub associations_rejected_total: IntCounterVec,
    /// DIMSE requests answered, by command and status.
    pub dimse_requests_total: IntCounterVec,
    /// Bytes of data sets received, stored or not.
    pub received_bytes_total: IntCounter,
    /// Seconds from a C-STORE command to its response.
    pub store_duration_seconds: Histogram,
    /// Violations of the upper layer protocol, by kind.
    pub pdu_errors_total: IntCounterVec,
    /// Connections closed before an association was requested, by kind.
    pub connections_dropped_total: IntCounterVec,
    /// Storage Commitment requests, by result.
    pub commitments_total: IntCounterVec,
    /// Attempts to report on one, by way and result.
    pub commitment_reports_total: IntCounterVec,
    /// Storage Commitment requests that are not reported yet.
    pub commitments_open: IntGauge,
    /// Instances in the spool.
    pub spool_instances: IntGauge,
    /// Bytes of data sets in the spool.
    pub spool_bytes: IntGauge,
    /// Free bytes of the spool's file system.
    pub spool_free_bytes: IntGauge,
    /// 1 while the spool takes no more.
    pub spool_shedding: IntGauge,
    /// Age of the oldest instance in the spool.
    pub spool_oldest_age_seconds: IntGauge,
    /// Instances in quarantine.
    pub quarantine_instances: IntGauge,
    /// Bytes of the files in quarantine.
    pub quarantine_bytes: IntGauge,
    /// Instances set aside, by reason.
    pub quarantined_instances_total: IntCounterVec,
    /// Studies being received.
    pub studies_open: IntGauge,
    /// Studies being worked on.
    pub studies_in_work: IntGauge,
    /// Studies found complete, by method.
    pub studies_completed_total: IntCounterVec,
    /// Revisions of studies that had been finished before.
    pub study_revisions_total: IntCounter,
    /// Messages made, by model and outcome.
    pub outcomes_total: IntCounterVec,
    /// Studies that a model looked at, by label and whether it is present.
    pub findings_total: IntCounterVec,
    /// Highest probability of a label in a study.
    pub score: HistogramVec,
    /// Studies that a model did not look at, by code.
    pub skips_total: IntCounterVec,
    /// Mean of a prepared image or volume.
    pub input_mean: HistogramVec,
    /// Standard deviation of a prepared image or volume.
    pub input_deviation: HistogramVec,
    /// Population stability index of the scores.
    pub drift_psi: GaugeVec,
    /// Instances refused, by code.
    pub refusals_total: IntCounterVec,
    /// Decoding processes that ended in the middle of a frame, by reason.
    pub decoder_deaths_total: IntCounterVec,
    /// Seconds from file to tensor, per image.
    pub prepare_duration_seconds: Histogram,
    /// Seconds a sample waited for its batch, by model.
    pub inference_queue_seconds: HistogramVec,
    /// Seconds of a run, by model.
    pub inference_duration_seconds: HistogramVec,
    /// Samples per run, by model.
    pub inference_batch_size: HistogramVec,
    /// Processes of a model that ended in the middle of a run or did not start, by reason.
    pub inference_worker_deaths_total: IntCounterVec,
    /// 1 while a model is fenced; of an ensemble, how many of its graphs are.
    pub model_fenced: IntGaugeVec,
    /// Seconds in explaining the findings of a study, by model.
    pub explanation_duration_seconds: HistogramVec,
    /// Artefacts kept, by kind.
    pub artefacts_kept_total: IntCounterVec,
    /// What artefacts take on disk.
    pub artefact_bytes: IntGauge,
    /// 1 for every model being served.
    pub model_info: IntGaugeVec,
    /// 1 for every version that runs, by role.
    pub models_serving: IntGaugeVec,
    /// Changes of the models folder that were acted on, by model and result.
    pub model_reloads_total: IntCounterVec,
    /// Labels of studies that two versions were asked about, by agreement.
    pub model_agreement_total: IntCounterVec,
    /// Difference of the probabilities that two versions gave a label.
    pub model_difference: HistogramVec,
    /// Studies that were not shown to the versions that are not published.
    pub shadow_skipped_total: IntCounter,
    /// Messages of shadows that are owed to the broker.
    pub outbox_shadow_messages: IntGauge,
    /// Messages owed to the broker.
    pub outbox_messages: IntGauge,
    /// Age of the oldest message owed.
    pub outbox_oldest_age_seconds: IntGauge,
    /// Attempts to publish, by result.
    pub published_total: IntCounterVec,
    /// Seconds from making a message to its confirm.
    pub publish_latency_seconds: Histogram,
    /// 1 while the broker can be reached.
    pub broker_connected: IntGauge,
    /// 1 while the broker takes nothing because it is short of memory or disk.
    pub broker_blocked: IntGauge,
    /// Seconds from the last instance to the message, by model.
    pub time_to_finding_seconds: HistogramVec,
    /// Reloads of the configuration, by result.
    pub config_reloads_total: IntCounterVec,
    /// Whether the last reload, or the start, took the configuration.
    pub config_reload_success: IntGauge,
    /// When it did, in seconds since 1970.
    pub config_reload_timestamp_seconds: IntGauge,
    /// Whether an operator has paused it, by what.
    pub paused: IntGaugeVec,
    /// Version of the gateway.
    pub build_info: GaugeVec,
}

/// Registers metrics as they are made.
struct Maker {
    registry: Registry,
}

impl Maker {
    fn keep<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.keep(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.keep(IntGauge::new(name, help)?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.keep(Histogram::with_opts(options)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.histograms_by(name, help, &["model"], buckets)
    }

    fn histograms_by(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(options, labels)?)
    }
}

impl Metrics {
    /// Creates and registers all metrics.
    ///
    /// # Errors
    /// Two metrics share a name or a name is malformed: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let make = Maker {
            registry: Registry::new_custom(Some("pacs_gateway".into()), None)?,
        };
        let metrics = Self {
            associations_total: make.counters(
                "associations_total",
                "Associations that ended, by result",
                &["result"],
            )?,
            associations_active: make.gauge(
                "associations_active",
                "Associations established at this moment",
            )?,
            associations_rejected_total: make.counters(
                "associations_rejected_total",
                "Association requests rejected, by reason",
                &["reason"],
            )?,
            dimse_requests_total: make.counters(
                "dimse_requests_total",
                "DIMSE requests answered, by command and status",
                &["command", "status"],
            )?,
            received_bytes_total: make
                .counter("received_bytes_total", "Bytes of data sets received")?,
            store_duration_seconds: make.seconds(
                "store_duration_seconds",
                "Seconds from a C-STORE command to its response",
            )?,
            pdu_errors_total: make.counters(
                "pdu_errors_total",
                "Violations of the DICOM upper layer protocol, by kind",
                &["kind"],
            )?,
            connections_dropped_total: make.counters(
                "connections_dropped_total",
                "Connections closed before an association was requested, by kind",
                &["kind"],
            )?,
            commitments_total: make.counters(
                "commitments_total",
                "Storage Commitment requests, by result",
                &["result"],
            )?,
            commitment_reports_total: make.counters(
                "commitment_reports_total",
                "Attempts to report on a Storage Commitment request, by way and result",
                &["via", "result"],
            )?,
            commitments_open: make.gauge(
                "commitments_open",
                "Storage Commitment requests that are not reported yet",
            )?,
            spool_instances: make.gauge("spool_instances", "Instances in the spool")?,
            spool_bytes: make.gauge("spool_bytes", "Bytes of data sets in the spool")?,
            spool_free_bytes: make
                .gauge("spool_free_bytes", "Free bytes of the spool's file system")?,
            spool_shedding: make.gauge("spool_shedding", "1 while the spool takes no more")?,
            spool_oldest_age_seconds: make.gauge(
                "spool_oldest_age_seconds",
                "Age of the oldest instance in the spool",
            )?,
            quarantine_instances: make
                .gauge("quarantine_instances", "Instances in quarantine")?,
            quarantine_bytes: make
                .gauge("quarantine_bytes", "Bytes of the files in quarantine")?,
            quarantined_instances_total: make.counters(
                "quarantined_instances_total",
                "Instances set aside, by reason",
                &["reason"],
            )?,
            studies_open: make.gauge("studies_open", "Studies being received")?,
            studies_in_work: make.gauge("studies_in_work", "Studies being worked on")?,
            studies_completed_total: make.counters(
                "studies_completed_total",
                "Studies found complete, by method",
                &["method"],
            )?,
            study_revisions_total: make.counter(
                "study_revisions_total",
                "Revisions of studies that had been finished before",
            )?,
            outcomes_total: make.counters(
                "outcomes_total",
                "Messages made, by model and outcome",
                &["model", "outcome"],
            )?,
            findings_total: make.counters(
                "findings_total",
                "Studies that a model looked at, by label and whether it is present",
                &["model", "version", "label", "present"],
            )?,
            score: make.histograms_by(
                "score",
                "Highest probability of a label in a study",
                &["model", "version", "label"],
                &SCORES,
            )?,
            skips_total: make.counters(
                "skips_total",
                "Studies that a model did not look at, by code",
                &["model", "code"],
            )?,
            input_mean: make.histograms_by(
                "input_mean",
                "Mean of the values of a prepared image or volume",
                &["model", "version"],
                &MEANS,
            )?,
            input_deviation: make.histograms_by(
                "input_deviation",
                "Standard deviation of the values of a prepared image or volume",
                &["model", "version"],
                &DEVIATIONS,
            )?,
            drift_psi: make.keep(GaugeVec::new(
                Opts::new(
                    "drift_psi",
                    "Population stability index of the scores against the reference",
                ),
                &["model", "version", "label"],
            )?)?,
            refusals_total: make.counters(
                "refusals_total",
                "Instances refused by the pipeline, by code",
                &["code"],
            )?,
            decoder_deaths_total: make.counters(
                "decoder_deaths_total",
                "Decoding processes that ended in the middle of a frame, by reason",
                &["reason"],
            )?,
            prepare_duration_seconds: make.seconds(
                "prepare_duration_seconds",
                "Seconds from file to tensor, per image",
            )?,
            inference_queue_seconds: make.histograms(
                "inference_queue_seconds",
                "Seconds a sample waited for its batch, by model",
                &SECONDS,
            )?,
            inference_duration_seconds: make.histograms(
                "inference_duration_seconds",
                "Seconds of a run, by model",
                &SECONDS,
            )?,
            inference_batch_size: make.histograms(
                "inference_batch_size",
                "Samples per run, by model",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0],
            )?,
            inference_worker_deaths_total: make.counters(
                "inference_worker_deaths_total",
                "Processes of a model that ended in the middle of a run or did not start, by reason",
                &["model", "reason"],
            )?,
            model_fenced: make.keep(IntGaugeVec::new(
                Opts::new("model_fenced", "1 while a model is fenced"),
                &["model"],
            )?)?,
            explanation_duration_seconds: make.histograms(
                "explanation_duration_seconds",
                "Seconds in explaining the findings of a study, by model",
                &SECONDS,
            )?,
            artefacts_kept_total: make.counters(
                "artefacts_kept_total",
                "Pictures and masks kept, by kind",
                &["kind"],
            )?,
            artefact_bytes: make.gauge("artefact_bytes", "Bytes of pictures and masks on disk")?,
            model_info: make.keep(IntGaugeVec::new(
                Opts::new("model_info", "1 for every model being served"),
                &["model", "version", "sha256"],
            )?)?,
            models_serving: make.keep(IntGaugeVec::new(
                Opts::new("models_serving", "1 for every version that runs, by role"),
                &["model", "version", "role"],
            )?)?,
            model_reloads_total: make.counters(
                "model_reloads_total",
                "Changes of the models folder that were acted on, by model and result",
                &["model", "result"],
            )?,
            model_agreement_total: make.counters(
                "model_agreement_total",
                "Labels of studies that two versions were asked about, by agreement",
                &["model", "version", "other", "agree"],
            )?,
            model_difference: make.keep(HistogramVec::new(
                HistogramOpts::new(
                    "model_difference",
                    "Difference of the probabilities that two versions gave a label",
                )
                .buckets(DIFFERENCES.to_vec()),
                &["model", "other"],
            )?)?,
            shadow_skipped_total: make.counter(
                "shadow_skipped_total",
                "Studies that were not shown to the versions that are not published",
            )?,
            outbox_shadow_messages: make.gauge(
                "outbox_shadow_messages",
                "Messages of shadows that are owed to the broker",
            )?,
            outbox_messages: make.gauge("outbox_messages", "Messages owed to the broker")?,
            outbox_oldest_age_seconds: make.gauge(
                "outbox_oldest_age_seconds",
                "Age of the oldest message owed to the broker",
            )?,
            published_total: make.counters(
                "published_total",
                "Attempts to publish, by result",
                &["result"],
            )?,
            publish_latency_seconds: make.seconds(
                "publish_latency_seconds",
                "Seconds from making a message to the broker's confirm",
            )?,
            broker_connected: make
                .gauge("broker_connected", "1 while the broker can be reached")?,
            broker_blocked: make.gauge(
                "broker_blocked",
                "1 while the broker takes nothing because it is short of memory or disk",
            )?,
            time_to_finding_seconds: make.histograms(
                "time_to_finding_seconds",
                "Seconds from the last instance of a study to its message, by model",
                &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0],
            )?,
            config_reloads_total: make.counters(
                "config_reloads_total",
                "Reloads of the configuration, by result",
                &["result"],
            )?,
            config_reload_success: make.gauge(
                "config_reload_success",
                "1 if the last reload was taken, 0 if it was refused",
            )?,
            config_reload_timestamp_seconds: make.gauge(
                "config_reload_timestamp_seconds",
                "When the configuration in force was taken, in seconds since 1970",
            )?,
            paused: make.keep(IntGaugeVec::new(
                Opts::new("paused", "1 while an operator has paused it, by what"),
                &["what"],
            )?)?,
            build_info: make.keep(GaugeVec::new(
                Opts::new("build_info", "Version of the gateway"),
                &["version"],
            )?)?,
            registry: make.registry,
        };
        metrics.preset();
        Ok(metrics)
    }

    /// A labelled metric without children is absent from the output, and an alert on it is blind.
    fn preset(&self) {
        for result in ["ack", "nack", "returned", "connection"] {
            self.published_total.with_label_values(&[result]);
        }
        for method in [
            "quiet-period",
            "max-age",
            "mpps",
            "storage-commitment",
            "pacs-count",
            "expected-series",
            "association-release",
            "forced",
            "patience",
        ] {
            self.studies_completed_total.with_label_values(&[method]);
        }
        for result in ["applied", "refused"] {
            self.config_reloads_total.with_label_values(&[result]);
        }
        let version = env!("CARGO_PKG_VERSION");
        self.build_info.with_label_values(&[version]).set(1.0);
    }

    /// Prometheus text, with the process's own metrics.
    pub fn render(&self) -> String {
        let mut families = self.registry.gather();
        families.extend(prometheus::gather());
        let mut text = String::new();
        // Writing to a string fails only on a metric without samples, which is left out.
        let _ = prometheus::TextEncoder::new().encode_utf8(&families, &mut text);
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_carries_the_prefix_and_a_help_text() {
        let metrics = Metrics::new().unwrap();
        metrics
            .refusals_total
            .with_label_values(&["too-large"])
            .inc();
        for family in metrics.registry.gather() {
            assert!(
                family.name().starts_with("pacs_gateway_"),
                "{}",
                family.name()
            );
            assert!(!family.help().is_empty(), "{}", family.name());
        }
        assert!(
            metrics
                .render()
                .contains("pacs_gateway_refusals_total{code=\"too-large\"} 1")
        );
    }
}
