//! Every metric of the gateway: name, labels and help in one place.
//!
//! Names follow the Prometheus conventions (base units, `_total`, `_seconds`). Label values come from
//! fixed lists in the code, are names of installed models, or, in one metric, AE titles that the
//! configuration lists: nothing that a peer or a file says becomes one. `docs/metrics.md` is held to
//! this file by a test.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// From a quick answer to a slow one, in seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0,
];

/// What takes minutes: from a fraction of a second to hours, in seconds.
const MINUTES: [f64; 12] = [
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0,
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
    /// Associations that may be established at the same time.
    pub associations_limit: IntGauge,
    /// Seconds from the connection to the end of its association.
    pub association_duration_seconds: Histogram,
    /// Association requests answered with A-ASSOCIATE-RJ, by reason.
    pub associations_rejected_total: IntCounterVec,
    /// DIMSE requests answered, by command and status.
    pub dimse_requests_total: IntCounterVec,
    /// Bytes of data sets received, stored or not.
    pub received_bytes_total: IntCounter,
    /// Seconds from a C-STORE command to its response.
    pub store_duration_seconds: Histogram,
    /// C-STORE requests by sender, configured titles only, and result.
    pub sender_instances_total: IntCounterVec,
    /// Violations of the upper layer protocol, by kind.
    pub pdu_errors_total: IntCounterVec,
    /// Connections closed before an association was requested, by kind.
    pub connections_dropped_total: IntCounterVec,
    /// TLS handshakes on the DICOM listener, by result.
    pub tls_handshakes_total: IntCounterVec,
    /// When the certificate of a listener expires, in seconds since 1970.
    pub tls_certificate_expiry_timestamp_seconds: IntGaugeVec,
    /// Certificates of a listener that were read again, by result.
    pub tls_reloads_total: IntCounterVec,
    /// Storage Commitment requests, by result.
    pub commitments_total: IntCounterVec,
    /// Attempts to report on one, by way and result.
    pub commitment_reports_total: IntCounterVec,
    /// Storage Commitment requests that are not reported yet.
    pub commitments_open: IntGauge,
    /// Age of the oldest request that is not reported yet.
    pub commitments_oldest_age_seconds: IntGauge,
    /// Instances in the spool.
    pub spool_instances: IntGauge,
    /// Bytes of data sets in the spool.
    pub spool_bytes: IntGauge,
    /// Free bytes of the spool's file system.
    pub spool_free_bytes: IntGauge,
    /// Bytes of data sets at which the spool takes no more.
    pub spool_limit_bytes: IntGauge,
    /// Size of the spool's file system.
    pub spool_capacity_bytes: IntGauge,
    /// Free inodes of the spool's file system.
    pub spool_free_inodes: IntGauge,
    /// Seconds from the last fragment of an instance to its being durable.
    pub spool_commit_duration_seconds: Histogram,
    /// Instances that could not be written, by kind.
    pub spool_write_errors_total: IntCounterVec,
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
    /// Age of the oldest study being received.
    pub studies_oldest_open_age_seconds: IntGauge,
    /// Studies being worked on.
    pub studies_in_work: IntGauge,
    /// Of these: studies being worked on.
    pub studies_running: IntGauge,
    /// Studies that may be worked on at the same time.
    pub studies_running_limit: IntGauge,
    /// Seconds since the oldest unfinished study was complete.
    pub studies_oldest_in_work_age_seconds: IntGauge,
    /// Seconds from the first instance to complete.
    pub study_assembly_duration_seconds: Histogram,
    /// Seconds from complete to finished.
    pub study_processing_duration_seconds: Histogram,
    /// Attempts at a study that did not end, by reason.
    pub study_deferrals_total: IntCounterVec,
    /// Studies found complete, by method.
    pub studies_completed_total: IntCounterVec,
    /// Revisions of studies that had been finished before.
    pub study_revisions_total: IntCounter,
    /// Questions to the PACS, by result.
    pub pacs_questions_total: IntCounterVec,
    /// Seconds that the PACS took to answer or fail.
    pub pacs_question_duration_seconds: Histogram,
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
    /// Decoding processes.
    pub decoder_workers: IntGauge,
    /// Of these: at work.
    pub decoder_workers_busy: IntGauge,
    /// Decoding processes there may be.
    pub decoder_workers_limit: IntGauge,
    /// Frames asked for, by result.
    pub decode_requests_total: IntCounterVec,
    /// Pieces of work that wait for a decoder.
    pub decode_queue_depth: IntGauge,
    /// Seconds such a piece waited.
    pub decode_queue_seconds: Histogram,
    /// Seconds from file to tensor, per image.
    pub prepare_duration_seconds: Histogram,
    /// Seconds a sample waited for its batch, by model.
    pub inference_queue_seconds: HistogramVec,
    /// Seconds of a run, by model.
    pub inference_duration_seconds: HistogramVec,
    /// Samples per run, by model.
    pub inference_batch_size: HistogramVec,
    /// Runs of a model, by result.
    pub inference_runs_total: IntCounterVec,
    /// Samples that wait for a run, by model.
    pub inference_queue_depth: IntGaugeVec,
    /// Samples that wait to be prepared, by model.
    pub inference_slots_waiting: IntGaugeVec,
    /// Sessions of a model.
    pub inference_sessions: IntGaugeVec,
    /// Of these: at work.
    pub inference_sessions_busy: IntGaugeVec,
    /// Processes of a model that ended in the middle of a run or did not start, by reason.
    pub inference_worker_deaths_total: IntCounterVec,
    /// 1 while a model is fenced; of an ensemble, how many of its graphs are.
    pub model_fenced: IntGaugeVec,
    /// Seconds in explaining the findings of a study, by model.
    pub explanation_duration_seconds: HistogramVec,
    /// Findings to be explained, by model and result.
    pub explanations_total: IntCounterVec,
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
    /// Spans that the collector has taken.
    pub spans_exported_total: IntCounter,
    /// Spans that nobody will see, by reason.
    pub spans_dropped_total: IntCounterVec,
    /// Seconds from making a message to its confirm.
    pub publish_latency_seconds: Histogram,
    /// Seconds from sending a group of messages to its last answer.
    pub publish_confirm_duration_seconds: Histogram,
    /// 1 while the broker can be reached.
    pub broker_connected: IntGauge,
    /// 1 while the broker takes nothing because it is short of memory or disk.
    pub broker_blocked: IntGauge,
    /// Connections to the broker that were made.
    pub broker_connections_total: IntCounter,
    /// Attempts to connect to the broker that failed, by stage.
    pub broker_connect_failures_total: IntCounterVec,
    /// Bytes of state.db and its log.
    pub database_bytes: IntGauge,
    /// Writes that wait for the database.
    pub database_queue_depth: IntGauge,
    /// Seconds of a commit.
    pub database_commit_duration_seconds: Histogram,
    /// Commits, by result.
    pub database_commits_total: IntCounterVec,
    /// Seconds from the last instance to the message, by model, modality and priority.
    pub time_to_finding_seconds: HistogramVec,
    /// HTTP requests, by route and status.
    pub http_requests_total: IntCounterVec,
    /// Seconds until the head of the answer to an HTTP request, by route.
    pub http_request_duration_seconds: HistogramVec,
    /// HTTP requests and connections turned away, by reason.
    pub http_refusals_total: IntCounterVec,
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

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.histogram(name, help, &SECONDS)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
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
            associations_limit: make.gauge(
                "associations_limit",
                "Associations that may be established at the same time",
            )?,
            association_duration_seconds: make.histogram(
                "association_duration_seconds",
                "Seconds from the connection to the end of its association",
                &MINUTES,
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
            sender_instances_total: make.counters(
                "sender_instances_total",
                "C-STORE requests, by configured calling AE title and result",
                &["calling_ae", "result"],
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
            tls_handshakes_total: make.counters(
                "tls_handshakes_total",
                "TLS handshakes on the DICOM listener, by result",
                &["result"],
            )?,
            tls_certificate_expiry_timestamp_seconds: make.keep(IntGaugeVec::new(
                Opts::new(
                    "tls_certificate_expiry_timestamp_seconds",
                    "When the certificate of a listener expires, in seconds since 1970",
                ),
                &["listener"],
            )?)?,
            tls_reloads_total: make.counters(
                "tls_reloads_total",
                "Certificates of a listener read again, by result",
                &["listener", "result"],
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
            commitments_oldest_age_seconds: make.gauge(
                "commitments_oldest_age_seconds",
                "Age of the oldest Storage Commitment request that is not reported yet",
            )?,
            spool_instances: make.gauge("spool_instances", "Instances in the spool")?,
            spool_bytes: make.gauge("spool_bytes", "Bytes of data sets in the spool")?,
            spool_free_bytes: make
                .gauge("spool_free_bytes", "Free bytes of the spool's file system")?,
            spool_limit_bytes: make.gauge(
                "spool_limit_bytes",
                "Bytes of data sets at which the spool takes no more",
            )?,
            spool_capacity_bytes: make.gauge(
                "spool_capacity_bytes",
                "Size of the spool's file system",
            )?,
            spool_free_inodes: make.gauge(
                "spool_free_inodes",
                "Free inodes of the spool's file system",
            )?,
            spool_commit_duration_seconds: make.seconds(
                "spool_commit_duration_seconds",
                "Seconds from the last fragment of an instance to its being durable",
            )?,
            spool_write_errors_total: make.counters(
                "spool_write_errors_total",
                "Instances that could not be written to the spool, by kind",
                &["kind"],
            )?,
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
            studies_oldest_open_age_seconds: make.gauge(
                "studies_oldest_open_age_seconds",
                "Seconds since the first instance of the oldest study being received",
            )?,
            studies_in_work: make.gauge("studies_in_work", "Studies being worked on")?,
            studies_running: make.gauge("studies_running", "Studies being worked on")?,
            studies_running_limit: make.gauge(
                "studies_running_limit",
                "Studies that may be worked on at the same time",
            )?,
            studies_oldest_in_work_age_seconds: make.gauge(
                "studies_oldest_in_work_age_seconds",
                "Seconds since the oldest study that is not finished was found complete",
            )?,
            study_assembly_duration_seconds: make.histogram(
                "study_assembly_duration_seconds",
                "Seconds from the first instance of a revision to its being complete",
                &MINUTES,
            )?,
            study_processing_duration_seconds: make.histogram(
                "study_processing_duration_seconds",
                "Seconds from complete to finished, waiting included",
                &MINUTES,
            )?,
            study_deferrals_total: make.counters(
                "study_deferrals_total",
                "Attempts at a study that did not end and are made again, by reason",
                &["reason"],
            )?,
            studies_completed_total: make.counters(
                "studies_completed_total",
                "Studies found complete, by method",
                &["method"],
            )?,
            study_revisions_total: make.counter(
                "study_revisions_total",
                "Revisions of studies that had been finished before",
            )?,
            pacs_questions_total: make.counters(
                "pacs_questions_total",
                "Questions to the PACS how many instances a study has, by result",
                &["result"],
            )?,
            pacs_question_duration_seconds: make.seconds(
                "pacs_question_duration_seconds",
                "Seconds that the PACS took to answer or to fail",
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
            decoder_workers: make.gauge("decoder_workers", "Decoding processes")?,
            decoder_workers_busy: make.gauge("decoder_workers_busy", "Decoding processes at work")?,
            decoder_workers_limit: make.gauge(
                "decoder_workers_limit",
                "Decoding processes there may be",
            )?,
            decode_requests_total: make.counters(
                "decode_requests_total",
                "Frames asked for, by result",
                &["result"],
            )?,
            decode_queue_depth: make.gauge(
                "decode_queue_depth",
                "Pieces of work that wait for a decoder",
            )?,
            decode_queue_seconds: make.seconds(
                "decode_queue_seconds",
                "Seconds a piece of work waited for a decoder",
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
            inference_runs_total: make.counters(
                "inference_runs_total",
                "Runs of a model, by result",
                &["model", "result"],
            )?,
            inference_queue_depth: make.gauges(
                "inference_queue_depth",
                "Samples that wait for a run, by model",
                &["model"],
            )?,
            inference_slots_waiting: make.gauges(
                "inference_slots_waiting",
                "Samples that wait for room in the queue to be prepared, by model",
                &["model"],
            )?,
            inference_sessions: make.gauges(
                "inference_sessions",
                "Sessions, by model",
                &["model"],
            )?,
            inference_sessions_busy: make.gauges(
                "inference_sessions_busy",
                "Sessions that run a batch, by model",
                &["model"],
            )?,
            inference_worker_deaths_total: make.counters(
                "inference_worker_deaths_total",
                "Processes of a model that ended in the middle of a run or did not start, by reason",
                &["model", "reason"],
            )?,
            model_fenced: make.gauges("model_fenced", "1 while a model is fenced", &["model"])?,
            explanation_duration_seconds: make.histograms(
                "explanation_duration_seconds",
                "Seconds in explaining the findings of a study, by model",
                &SECONDS,
            )?,
            explanations_total: make.counters(
                "explanations_total",
                "Findings to be explained, by model and result",
                &["model", "result"],
            )?,
            artefacts_kept_total: make.counters(
                "artefacts_kept_total",
                "Pictures and masks kept, by kind",
                &["kind"],
            )?,
            artefact_bytes: make.gauge("artefact_bytes", "Bytes of pictures and masks on disk")?,
            model_info: make.gauges(
                "model_info",
                "1 for every model being served",
                &["model", "version", "sha256"],
            )?,
            models_serving: make.gauges(
                "models_serving",
                "1 for every version that runs, by role",
                &["model", "version", "role"],
            )?,
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
            publish_confirm_duration_seconds: make.seconds(
                "publish_confirm_duration_seconds",
                "Seconds from sending a group of messages to the last answer",
            )?,
            spans_exported_total: make.counter(
                "spans_exported_total",
                "Spans that the collector has taken",
            )?,
            spans_dropped_total: make.counters(
                "spans_dropped_total",
                "Spans that the collector has not got, by reason",
                &["reason"],
            )?,
            broker_connected: make
                .gauge("broker_connected", "1 while the broker can be reached")?,
            broker_blocked: make.gauge(
                "broker_blocked",
                "1 while the broker takes nothing because it is short of memory or disk",
            )?,
            broker_connect_failures_total: make.counters(
                "broker_connect_failures_total",
                "Attempts to connect to the broker that failed, by reason",
                &["reason"],
            )?,
            broker_connections_total: make.counter(
                "broker_connections_total",
                "Connections to the broker that were made",
            )?,
            database_bytes: make.gauge(
                "database_bytes",
                "Bytes of the database of ledger and outbox, its log included",
            )?,
            database_queue_depth: make.gauge(
                "database_queue_depth",
                "Writes that wait for the database or are being committed",
            )?,
            database_commit_duration_seconds: make.seconds(
                "database_commit_duration_seconds",
                "Seconds of a commit, which several writes share",
            )?,
            database_commits_total: make.counters(
                "database_commits_total",
                "Commits, by result",
                &["result"],
            )?,
            time_to_finding_seconds: make.histograms_by(
                "time_to_finding_seconds",
                "Seconds from the last instance of a study to its message",
                &["model", "modality", "priority"],
                &MINUTES,
            )?,
            http_requests_total: make.counters(
                "http_requests_total",
                "HTTP requests, by route and status",
                &["route", "status"],
            )?,
            http_request_duration_seconds: make.histograms_by(
                "http_request_duration_seconds",
                "Seconds until the head of the answer to an HTTP request, by route",
                &["route"],
                &SECONDS,
            )?,
            http_refusals_total: make.counters(
                "http_refusals_total",
                "HTTP requests and connections turned away, by reason",
                &["reason"],
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
                Opts::new("build_info", "Version and revision of the gateway"),
                &["version", "revision"],
            )?)?,
            registry: make.registry,
        };
        metrics.preset();
        Ok(metrics)
    }

    /// A labelled metric without children is absent from the output, and `increase` does not see the
    /// step from absent to 1. So every counter whose label is a fixed list starts at 0;
    /// `docs/metrics.md` has the lists, and a test compares.
    fn preset(&self) {
        for (counter, values) in self.fixed_lists() {
            for value in values {
                counter.with_label_values(&[*value]);
            }
        }
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("PACS_GATEWAY_REVISION").unwrap_or("unknown");
        let build = self.build_info.with_label_values(&[version, revision]);
        build.set(1.0);
    }

    fn fixed_lists(&self) -> [(&IntCounterVec, &'static [&'static str]); 17] {
        [
            (
                &self.associations_total,
                &[
                    "released",
                    "aborted-by-peer",
                    "aborted-by-us",
                    "connection-lost",
                    "timed-out",
                    "drained",
                ],
            ),
            (
                &self.associations_rejected_total,
                &[
                    "protocol-version",
                    "application-context",
                    "called-ae-title",
                    "calling-ae-title",
                    "address",
                    "certificate",
                    "local-limit",
                    "local-limit-address",
                    "local-limit-ae-title",
                    "congestion",
                ],
            ),
            (
                &self.pdu_errors_total,
                &[
                    "unrecognized-pdu",
                    "unexpected-pdu",
                    "pdu-length",
                    "pdv-length",
                    "association-request",
                    "presentation-context",
                    "fragment-kind",
                    "command-length",
                    "command-set",
                    "unanswerable-command",
                    "endless-data-set",
                ],
            ),
            (
                &self.connections_dropped_total,
                &["probe", "artim", "over-limit", "address"],
            ),
            (
                &self.commitments_total,
                &["committed", "failures", "duplicate", "given-up"],
            ),
            (
                &self.spool_write_errors_total,
                &["no-space", "io", "internal"],
            ),
            (
                &self.quarantined_instances_total,
                &[
                    "corrupt-entry",
                    "study-failed-repeatedly",
                    "decoder-crash",
                    "decoder-memory",
                    "decoder-timeout",
                    "decoder-unavailable",
                    "duplicate-sop-instance",
                ],
            ),
            (
                &self.studies_completed_total,
                &[
                    "quiet-period",
                    "max-age",
                    "mpps",
                    "storage-commitment",
                    "pacs-count",
                    "expected-series",
                    "association-release",
                    "forced",
                    "patience",
                ],
            ),
            (&self.study_deferrals_total, &["database", "internal"]),
            (
                &self.pacs_questions_total,
                &["counted", "uncounted", "failed", "not-asked"],
            ),
            (&self.decoder_deaths_total, &["crash", "memory", "timeout"]),
            (
                &self.decode_requests_total,
                &["decoded", "refused", "failed"],
            ),
            (
                &self.published_total,
                &["ack", "nack", "returned", "connection"],
            ),
            (
                &self.broker_connect_failures_total,
                &[
                    "files", "dns", "refused", "timeout", "tls", "auth", "vhost", "other",
                ],
            ),
            (&self.database_commits_total, &["committed", "failed"]),
            (&self.config_reloads_total, &["applied", "refused"]),
            (
                &self.spans_dropped_total,
                &["queue-full", "refused", "shutdown"],
            ),
        ]
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
