//! Traces, one per revision of a study, to an OpenTelemetry collector.
//!
//! The work on a study is asynchronous and outlives the process, so nothing about its trace is kept
//! in memory: the ids of trace and spans are keyed hashes of what they speak of. A span that is made
//! after a crash, or twice, belongs where it belonged before. Spans are made of facts, when the work
//! is over: with traces off there is nothing to do.
//!
//! Where spans go is bounded and never waits: [`Tracer`] hands them to a queue, [`Exporter`] sends
//! them (OTLP 1.x over gRPC or HTTP), and what has no room is dropped and counted.

mod exporter;
mod otlp;
mod span;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Metrics;
use super::study_key::{LogId, StudyKey};
use crate::clock::Timestamp;

pub use exporter::Exporter;
pub use span::{Kind, Span, SpanId, TraceId};

/// Spans that may wait for the collector: some MiB, and minutes of a busy gateway.
const WAITING: usize = 8192;
/// Facts that may wait to be told.
const NEWS: usize = 4096;

/// The `[traces]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// URL of the collector; empty: no traces.
    pub endpoint: String,
    /// OTLP over gRPC or HTTP.
    pub protocol: Protocol,
    /// PEM file of the authority of its certificate; empty: those of the system.
    pub ca: PathBuf,
    /// Share of studies that are traced, from 0 to 1.
    pub sample: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: Protocol::Grpc,
            ca: PathBuf::new(),
            sample: 1.0,
        }
    }
}

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, protobuf bodies.
    Http,
}

impl Config {
    /// Checks what can be checked without a collector.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err("sample: must be from 0 to 1".to_owned());
        }
        if self.endpoint.is_empty() {
            return Ok(());
        }
        let target = transport::Target::parse(self);
        target.map(drop).map_err(|err| format!("endpoint: {err}"))
    }

    /// Reads the authority of a collector behind TLS. Blocking.
    ///
    /// # Errors
    /// The key, the file and the reason.
    pub fn check_files(&self) -> Result<(), String> {
        match self.endpoint.is_empty() {
            true => Ok(()),
            false => transport::Transport::new(self).map(drop),
        }
    }
}

/// What happened to a study, for who closes its trace.
#[derive(Debug, Clone)]
pub enum News {
    /// A revision was finished, or an earlier one has got further instances.
    Finished {
        /// Study Instance UID.
        study: String,
    },
    /// A message about a revision was confirmed or given up.
    Settled {
        /// Study Instance UID.
        study: String,
        /// The revision.
        revision: u32,
    },
}

/// Makes traces. Clones share everything; with traces off it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    key: StudyKey,
    /// A trace is taken when the randomness of its id is not below this.
    threshold: u64,
    spans: mpsc::Sender<Span>,
    news: mpsc::Sender<News>,
    metrics: Arc<Metrics>,
}

/// What goes on where traces are made.
pub struct Running {
    /// For everybody who knows something.
    pub tracer: Tracer,
    /// Sends spans.
    pub exporter: Exporter,
    /// What is told, for who puts it together.
    pub news: mpsc::Receiver<News>,
}

/// Starts tracing; `None` while it is off. `instance` names this process among others.
///
/// # Errors
/// What is wrong with endpoint or authority.
pub fn start(
    config: &Config,
    key: &StudyKey,
    instance: &str,
    metrics: &Arc<Metrics>,
) -> Result<Option<Running>, String> {
    if config.endpoint.is_empty() {
        return Ok(None);
    }
    let (spans, queue) = mpsc::channel(WAITING);
    let (news, told) = mpsc::channel(NEWS);
    let exporter = Exporter::new(config, instance, queue, Arc::clone(metrics))?;
    let inner = Inner {
        key: key.clone(),
        threshold: threshold(config.sample),
        spans,
        news,
        metrics: Arc::clone(metrics),
    };
    Ok(Some(Running {
        tracer: Tracer(Some(Arc::new(inner))),
        exporter,
        news: told,
    }))
}

/// Consistent probability sampling: the least significant 56 bits of a trace id are compared with
/// this, so that every process that knows the id decides alike.
fn threshold(sample: f64) -> u64 {
    let all = (1_u64 << 56) as f64;
    ((1.0 - sample) * all) as u64
}

impl Tracer {
    /// The trace of a revision of a study; `None`: it is not traced.
    pub fn study(&self, study: &str, revision: u32) -> Option<StudyTrace> {
        let inner = self.0.as_ref()?;
        let hash = inner.key.hash(&[study, "trace", &revision.to_string()]);
        let id = TraceId::of(&hash);
        (id.randomness() >= inner.threshold).then(|| StudyTrace {
            inner: Arc::clone(inner),
            log_id: inner.key.log_id(study),
            id,
        })
    }

    /// Tells what happened. It is lost when there is too much of it.
    pub fn tell(&self, news: impl FnOnce() -> News) {
        if let Some(inner) = &self.0
            && inner.news.try_send(news()).is_err()
        {
            inner.drop_spans("queue-full", 1);
        }
    }
}

impl Inner {
    fn drop_spans(&self, reason: &str, spans: u64) {
        let dropped = &self.metrics.spans_dropped_total;
        dropped.with_label_values(&[reason]).inc_by(spans);
    }
}

/// The trace of one revision of a study.
#[derive(Debug, Clone)]
pub struct StudyTrace {
    inner: Arc<Inner>,
    log_id: LogId,
    id: TraceId,
}

impl StudyTrace {
    /// Its id.
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// The span that holds all others, from the first association to the last confirm.
    pub fn root(&self) -> SpanId {
        self.span_id("study", "")
    }

    /// The span of this name about `of`.
    pub fn span_id(&self, name: &str, of: &str) -> SpanId {
        let trace = self.id.to_string();
        SpanId::of(&self.inner.key.hash(&[&trace, name, of]))
    }

    /// A span about `of`, below `parent`. `start` and `end` may be the wrong way round by a clock
    /// that was set: it then takes no time.
    pub fn span(
        &self,
        name: &'static str,
        of: &str,
        parent: Option<SpanId>,
        start: Timestamp,
        end: Timestamp,
    ) -> Span {
        let id = self.span_id(name, of);
        Span::new(self.id, id, parent, name, start, end.max(start))
            .with("study", self.log_id.to_string())
    }

    /// Hands a span over, if there is room.
    pub fn record(&self, span: Span) {
        if self.inner.spans.try_send(span).is_err() {
            self.inner.drop_spans("queue-full", 1);
        }
    }

    /// W3C Trace Context, version 00, of a span that is recorded.
    pub fn traceparent(&self, span: SpanId) -> String {
        format!("00-{}-{span}-01", self.id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    fn running(sample: f64) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "0123456789abcdef").unwrap();
        let key = StudyKey::open(&file, Path::new("")).unwrap();
        let config = Config {
            endpoint: "http://127.0.0.1:1".to_owned(),
            sample,
            ..Config::default()
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        start(&config, &key, "test", &metrics).unwrap().unwrap()
    }

    #[test]
    fn ids_are_the_same_after_a_restart_and_differ_between_revisions() {
        let (one, two) = (running(1.0), running(1.0));
        let trace = |running: &Running, revision| running.tracer.study("1.2.3", revision).unwrap();
        assert_eq!(trace(&one, 1).id(), trace(&two, 1).id());
        assert_eq!(trace(&one, 1).root(), trace(&two, 1).root());
        assert_ne!(trace(&one, 1).id(), trace(&one, 2).id());
        let of = trace(&one, 1);
        assert_ne!(of.span_id("publish", "a"), of.span_id("publish", "b"));
        // python3: hmac.new(b"0123456789abcdef", b"1.2.3\0trace\x001", "sha256").hexdigest()[:32]
        assert_eq!(of.id().to_string(), TRACE);
        let parent = of.traceparent(of.root());
        assert_eq!(parent, format!("00-{TRACE}-{}-01", of.root()));
    }

    const TRACE: &str = "1009b93352b1b3809bf01265c488b195";

    #[test]
    fn the_share_of_studies_that_is_traced_is_what_was_asked_for() {
        for (sample, least, most) in [(0.0, 0, 0), (0.25, 200, 300), (1.0, 1000, 1000)] {
            let running = running(sample);
            let traced = (0..1000)
                .filter(|n| running.tracer.study(&format!("1.2.{n}"), 1).is_some())
                .count();
            assert!((least..=most).contains(&traced), "{traced} of {sample}");
        }
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let running = running(1.0);
        let trace = running.tracer.study("1.2.3", 1).unwrap();
        let now = Timestamp::now();
        for _ in 0..WAITING + 7 {
            trace.record(trace.span("assemble", "", None, now, now));
        }
        let inner = running.tracer.0.as_ref().unwrap();
        let dropped = inner
            .metrics
            .spans_dropped_total
            .with_label_values(&["queue-full"]);
        assert_eq!(dropped.get(), 7);
    }

    #[test]
    fn without_a_collector_nothing_is_traced() {
        assert!(Tracer::default().study("1.2.3", 1).is_none());
        for (endpoint, words) in [
            ("localhost:4317", "endpoint"),
            ("ftp://host:1", "endpoint"),
            ("http://", "endpoint"),
        ] {
            let config = Config {
                endpoint: endpoint.to_owned(),
                ..Config::default()
            };
            let err = config.validate().unwrap_err();
            assert!(err.contains(words), "{err}");
        }
        let much = Config {
            sample: 1.5,
            ..Config::default()
        };
        assert!(much.validate().unwrap_err().contains("sample"));
    }
}
